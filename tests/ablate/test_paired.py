"""Paired tests and intervals, against scipy and against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, permutation_test

from otoscope.ablate.paired import bootstrap_interval, difference_interval, mcnemar, sign_flip

counts = st.integers(0, 60)


@given(counts, counts)
def test_mcnemar_is_the_exact_sign_test(lost, gained):
    wanted = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_of_the_published_effects():
    """Four clips of ANG lost and none gained, as the published lists report: no evidence."""
    assert mcnemar(4, 0) == 0.125
    assert mcnemar(1, 0) == 1.0


@pytest.mark.parametrize("n", [2, 3, 9, 13])
def test_few_clips_are_counted_exactly(n):
    change = np.random.default_rng(n).normal(0.7, 1, n)
    theirs = permutation_test(
        (change, np.zeros(n)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(change) == pytest.approx(theirs.pvalue)


def test_many_clips_are_drawn():
    """Within the error of drawing, the normal approximation of 400 clips; the same seed gives the same number."""
    change = np.random.default_rng(0).normal(0.12, 1, 400)
    z = abs(change.sum()) / math.sqrt((change**2).sum())  # the variance of a sum of flipped signs
    assert sign_flip(change, flips=20000) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.004)
    assert sign_flip(change, seed=1) == sign_flip(change, seed=1)
    assert sign_flip(np.full(50, 0.1)) == 1 / 10000  # no flip of 50 equal numbers reaches their sum
    assert sign_flip(np.zeros(50)) == 1.0
    assert math.isnan(sign_flip(np.zeros(0)))
    assert math.isnan(sign_flip(np.full(3, np.nan)))
    assert math.isnan(sign_flip(np.append(np.zeros(40), np.inf)))
    assert sign_flip(np.array([3.0])) == 1.0


def log_likelihood(lost_share, d, lost, gained, n):
    shares = [lost_share, lost_share + d, 1 - 2 * lost_share - d]
    return sum(
        k * math.log(max(p, 1e-300)) for k, p in zip((lost, gained, n - lost - gained), shares, strict=True) if k
    )


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(12, 43, 94), (1, 9, 32), (0, 5, 40), (0, 0, 30), (7, 7, 50), (29, 1, 31), (1, 0, 5)]
)
def test_the_ends_of_the_score_interval_are_just_rejected(lost, gained, n):
    """At either end the score, with shares found by a numerical search, is 1.96."""
    for d, sign in zip(difference_interval(lost, gained, n), (1, -1), strict=True):
        low, high = max(0.0, -d), (1 - d) / 2
        found = minimize_scalar(
            lambda p, d=d: -log_likelihood(p, d, lost, gained, n), bounds=(low, high), method="bounded",
            options={"xatol": 1e-13},
        )  # fmt: skip
        sd = math.sqrt(n * (2 * found.x + d - d * d))
        assert (gained - lost - n * d) / sd == pytest.approx(sign * 1.959964, abs=2e-3)


@given(counts, counts, st.integers(0, 60))
def test_the_score_interval_holds_what_was_found_and_mirrors(lost, gained, same):
    n = lost + gained + same
    low, high = difference_interval(lost, gained, n)
    if n == 0:
        assert math.isnan(low)
        assert math.isnan(high)
        return
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert high - low > 0
    mirrored = difference_interval(gained, lost, n)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_bootstrap_of_many_clips_is_the_normal_interval():
    values = np.random.default_rng(0).normal([[0.0], [5.0]], [[1.0], [3.0]], (2, 500))
    low, high = bootstrap_interval(values, draws=4000)
    error = 1.96 * values.std(axis=1) / math.sqrt(500)
    np.testing.assert_allclose(low, values.mean(axis=1) - error, atol=0.06 * error.max())
    np.testing.assert_allclose(high, values.mean(axis=1) + error, atol=0.06 * error.max())
    np.testing.assert_array_equal(bootstrap_interval(values, draws=50), bootstrap_interval(values, draws=50))
    assert np.isnan(bootstrap_interval(values[:, :1])).all()


@pytest.mark.parametrize("truth", [-0.1, 0.0, 0.2])
def test_the_score_interval_covers(truth):
    """Of 2,000 data sets of 30 clips, about 95 % have the true difference inside."""
    rng = np.random.default_rng(3)
    lost, gained = 0.2, 0.2 + truth
    drawn = rng.multinomial(30, [lost, gained, 1 - lost - gained], 2000)
    inside = [low <= truth <= high for low, high in (difference_interval(x, y, 30) for x, y, _ in drawn.tolist())]
    assert 0.93 <= np.mean(inside) <= 0.985
