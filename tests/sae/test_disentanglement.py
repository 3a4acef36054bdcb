"""Laws of disentanglement: held-out clips alone decide, few codes count as few, noise as nothing; the published numbers
are the published ones.
"""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import xarray as xr
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler

from otoscope.sae.disentanglement import INNER_FOLDS, disentangle, effective_number, folds_of, published_dci
from otoscope.sae.families import FAMILIES, family_of
from otoscope.sae.lasso import PENALTIES, Side, Standardised, as_codes, chosen_path

from ..support.amounts import quick_sample
from ..support.egemaps import NAMES
from ..support.planted_codes import planted_codes, planted_factors

N, GROUPS = 150, 15
OWN = ("r2", "r2_se", "codes_until", "effective_codes", "r2_fold")


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    """(clip, code), some of which never fire, or always with one value."""
    found = planted_codes(N, 80, density=0.15)
    found[:, 70:] = 0
    found[:, 69] = 0.3
    return found


@pytest.fixture(scope="module")
def factors(codes: np.ndarray) -> np.ndarray:
    """Two that codes make up, one of noise, and one that is constant."""
    one, eight = planted_factors(codes, [1], noise=0.3), planted_factors(codes, [8], noise=0.7)
    return np.column_stack([one, eight, np.random.default_rng(5).normal(size=N), np.full(N, 7.0)])


@pytest.fixture(scope="module")
def groups() -> np.ndarray:
    return np.array([f"singer {i % GROUPS}" for i in range(N)])


@pytest.fixture(scope="module")
def found(codes: np.ndarray, factors: np.ndarray, groups: np.ndarray) -> xr.Dataset:
    return disentangle(codes, factors, groups)


def assert_same(a: xr.Dataset, b: xr.Dataset, names: tuple[str, ...] = OWN, rtol: float = 1e-6) -> None:
    for name in names:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-9, err_msg=name)


def test_folds_are_by_group_and_about_equal() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([f"g{i}" for i in rng.integers(0, 23, 500)])
    for n in (2, 3, 7):
        folds = folds_of(groups, n)
        assert {len(set(folds[groups == name])) for name in set(groups)} == {1}
        sizes = np.bincount(folds)
        assert len(sizes) == n
        assert np.ptp(sizes) <= np.unique(groups, return_counts=True)[1].max()
        order = rng.permutation(500)
        np.testing.assert_array_equal(folds_of(groups[order], n), folds[order])


@pytest.mark.parametrize("dense", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_path_solves_what_it_says(codes: np.ndarray, factors: np.ndarray, dense: bool) -> None:
    """The conditions of optimality, of codes standardised by numpy: weights only where the gradient is the penalty."""
    x = codes + 0.01 * np.random.default_rng(1).normal(size=codes.shape) * dense
    y = (factors[:, 1] - factors[:, 1].mean()) / factors[:, 1].std()
    given = as_codes(x)
    assert sp.issparse(given) != dense
    own = Standardised(given, np.arange(N))
    moving = np.flatnonzero(np.ptp(x, axis=0) > 0)
    np.testing.assert_array_equal(own.columns, moving)
    standard = (x[:, moving] - x[:, moving].mean(axis=0)) / x[:, moving].std(axis=0)
    largest = own.largest_penalty(y)
    assert largest == pytest.approx(np.abs(standard.T @ y).max() / N)
    penalties = [largest * share for share in (1.0, 0.5, 0.1)]
    for penalty, weights in zip(penalties, own.path(y, penalties), strict=True):
        gradient = standard.T @ (y - standard @ weights) / N
        slack = 0.05 * penalty
        assert np.abs(gradient).max() <= penalty + slack
        np.testing.assert_allclose(gradient[weights != 0], np.sign(weights[weights != 0]) * penalty, atol=slack)
        assert (np.count_nonzero(weights) == 0) == (penalty == largest)
        np.testing.assert_allclose(own.predict(weights), standard @ weights, atol=1e-10)
        np.testing.assert_allclose(own.whole(weights)[moving], weights)


@pytest.mark.filterwarnings("ignore:Objective did not converge")
@pytest.mark.parametrize("dense", quick_sample([False, True], 1))
def test_r2_is_that_of_scikit_learn_s_nested_search(
    codes: np.ndarray, factors: np.ndarray, groups: np.ndarray, dense: bool
) -> None:
    """All penalties, each from nothing, on dense codes that a scaler standardised."""
    x = codes + 0.01 * np.random.default_rng(1).normal(size=codes.shape) * dense
    found, folds = disentangle(x, factors[:, :3], groups), folds_of(groups, 5)

    def left(y: np.ndarray, fit: np.ndarray, held_out: np.ndarray, penalty: float) -> float:
        scaler = StandardScaler().fit(x[fit])
        model = Lasso(alpha=penalty).fit(scaler.transform(x[fit]), y[fit])
        return float(np.square(y[held_out] - model.predict(scaler.transform(x[held_out]))).mean())

    for i in (0, 3):
        fit, held_out = np.flatnonzero(folds != i), np.flatnonzero(folds == i)
        parts = folds_of(groups[fit], INNER_FOLDS)
        inner = [(fit[parts != j], fit[parts == j]) for j in range(INNER_FOLDS)]
        for j in range(3):
            y = (factors[:, j] - factors[fit, j].mean()) / factors[fit, j].std()
            largest = np.abs(StandardScaler().fit_transform(x[fit]).T @ y[fit]).max() / len(fit)
            errors = {p: np.mean([left(y, *own, largest * p) for own in inner]) for p in PENALTIES}
            r2 = 1 - left(y, fit, held_out, largest * min(errors, key=errors.__getitem__)) / y[held_out].var()
            assert float(found["r2_fold"][j, i]) == pytest.approx(r2, abs=0.005)


def test_numbers_are_those_of_the_chosen_path(
    codes: np.ndarray, factors: np.ndarray, groups: np.ndarray, found: xr.Dataset
) -> None:
    """By fold, told again with loops over weights."""
    folds, own = folds_of(groups, 5), as_codes(codes)
    for j in (0, 1):
        r2, until, effective = [], [], []
        for i in range(5):
            fit, held_out = np.flatnonzero(folds != i), np.flatnonzero(folds == i)
            parts = folds_of(groups[fit], INNER_FOLDS)
            inner = [Side.of(own, fit[parts != k], fit[parts == k]) for k in range(INNER_FOLDS)]
            y = (factors[:, j] - factors[fit, j].mean()) / factors[fit, j].std()
            path = chosen_path(Side.of(own, fit, held_out), inner, y)
            scores = []
            for weights, _ in path:
                mean, deviation = codes[fit].mean(axis=0), codes[fit].std(axis=0)
                sums = sum(
                    w * (codes[held_out, c] - mean[c]) / deviation[c]
                    for w, c in zip(weights, np.flatnonzero(np.ptp(codes[fit], axis=0)), strict=True)
                )
                scores.append(1 - ((y[held_out] - sums) ** 2).sum() / ((y[held_out] - y[held_out].mean()) ** 2).sum())
            r2.append(scores[-1])
            until.append(next((w != 0).sum() for (w, _), r in zip(path, scores, strict=True) if r >= 0.9 * scores[-1]))
            effective.append(effective_number(path[-1][0]))
        np.testing.assert_allclose(found["r2_fold"][j], r2, atol=1e-9)
        assert float(found["r2"][j]) == pytest.approx(np.mean(r2))
        assert float(found["r2_se"][j]) == pytest.approx(np.std(r2, ddof=1) / 5**0.5)
        assert bool(found["predicted"][j])
        assert float(found["codes_until"][j]) == pytest.approx(np.mean(until))
        assert float(found["effective_codes"][j]) == pytest.approx(np.mean(effective))


def test_what_is_not_told_is_undefined(found: xr.Dataset) -> None:
    assert found["predicted"].values.tolist() == [True, True, False, False]
    for name in ("codes_until", "effective_codes"):
        np.testing.assert_array_equal(np.isnan(found[name]), [False, False, True, True])
    assert np.isnan(found["r2"][3])
    assert np.isnan(found["published_r2"][3])
    assert float(found["published_completeness"][3]) == pytest.approx(1)


def test_neither_order_nor_unit_nor_form_nor_dead_codes_matter(
    codes: np.ndarray, factors: np.ndarray, groups: np.ndarray, found: xr.Dataset
) -> None:
    order = np.random.default_rng(0).permutation(N)
    assert_same(disentangle(codes[order], factors[order], groups[order]), found, rtol=1e-3)
    units = np.random.default_rng(0).uniform(0.1, 10, codes.shape[1])
    assert_same(disentangle(codes * units, factors * 5 - 3, groups), found, rtol=1e-3)
    assert_same(disentangle(sp.csc_matrix(codes), factors, groups), found)
    wider = np.column_stack([codes, np.zeros((N, 50))])
    more = disentangle(wider, factors, groups)
    assert_same(more, found)
    assert float(more["published_completeness"][0]) != float(found["published_completeness"][0])


def test_held_out_clips_are_not_learnt_from(codes: np.ndarray, factors: np.ndarray, groups: np.ndarray) -> None:
    """A code that names the singer tells a factor of singers to clips it learnt from, and to nobody else."""
    singer = np.unique(groups, return_inverse=True)[1]
    named = np.eye(GROUPS)[singer]
    of_singers = np.random.default_rng(0).normal(size=GROUPS)[singer] + 0.1 * factors[:, 2]
    apart = disentangle(named, of_singers[:, None], groups)
    mixed = disentangle(named, of_singers[:, None], np.arange(N))
    assert mixed["r2"].item() > 0.9
    assert not apart["predicted"].item()
    assert apart["published_r2"].item() > 0.5


@pytest.mark.slow
def test_noise_is_undefined() -> None:
    noise = np.random.default_rng(0).normal(size=(N, 40))
    found = disentangle(planted_codes(N, 200), noise, np.arange(N) % GROUPS)
    assert found["predicted"].sum() <= 2
    assert (found["published_r2"] > 0.02).mean() > 0.9
    assert 0.3 < float(found["published_completeness"].mean()) < 0.8


def test_effective_number() -> None:
    for m in (1, 5, 300):
        even = np.zeros(2048)
        even[:m] = [(-1) ** i for i in range(m)]
        assert effective_number(even) == pytest.approx(m, rel=1e-12)
    assert 1 < effective_number([1.0, 0.1, 0.0]) < 2
    assert np.isnan(effective_number(np.zeros(3)))
    assert np.isnan(effective_number([]))


def test_published_numbers_are_the_published_arithmetic(codes: np.ndarray, factors: np.ndarray) -> None:
    """Told again by scikit-learn on dense standardised codes, and loops."""
    found = published_dci(codes, factors[:, :3])
    x = StandardScaler().fit_transform(codes)
    y = StandardScaler().fit_transform(factors[:, :3])
    models = [Lasso(alpha=0.1, max_iter=10000).fit(x, values) for values in y.T]
    weights = np.abs(np.column_stack([model.coef_ for model in models]))
    np.testing.assert_allclose(found["published_r2"], [m.score(x, v) for m, v in zip(models, y.T, strict=True)])

    def complete(own: np.ndarray) -> float:
        p = own / (own.sum() + 1e-6)
        return 1 + sum(q * np.log(q + 1e-6) for q in p) / np.log(len(p))

    np.testing.assert_allclose(found["published_completeness"], [complete(own) for own in weights.T])
    of_codes = np.array([complete(own) for own in weights])
    np.testing.assert_allclose(found["published_disentanglement"], of_codes)
    importance = weights.sum(axis=1) / (weights.sum() + 1e-6)
    np.testing.assert_allclose(found["published_importance"], importance, atol=1e-12)
    assert float(found["published_average"]) == pytest.approx((importance * of_codes).mean())
    assert float(found["weighted_disentanglement"]) == pytest.approx((importance * of_codes).sum())


@pytest.mark.parametrize(("n_codes", "expected"), [(2048, 0.789), (768, 0.758)])
def test_published_completeness_depends_on_the_width(n_codes: int, expected: float) -> None:
    """Five equal weights, of five codes that fire in turn."""
    codes = np.zeros((100, n_codes))
    codes[np.arange(50), np.arange(50) % 5] = 1
    found = published_dci(codes, codes[:, :5].sum(axis=1, keepdims=True))
    assert found["published_completeness"].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": np.arange(N) % 4}, "4 groups for 5 folds; expected as many at least"),
        ({"groups": np.arange(N) % 4, "folds": 3}, "4 groups in 3 folds leave 2 to fit to; expected at least 3"),
        ({"folds": 2}, "2 folds; expected at least 3"),
        ({"groups": np.arange(N - 1)}, r"codes \(150, 80\), factors \(150, 4\) and groups \(149,\); expected as many"),
        ({"factors": np.full((N, 4), np.nan), "names": list("abcd")}, "factor a holds NaN or infinity"),
        ({"codes": np.full((N, 80), np.inf)}, "codes hold NaN or infinity"),
    ],
)
def test_what_cannot_be_measured(
    given: dict[str, Any], message: str, codes: np.ndarray, factors: np.ndarray, groups: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=message):
        disentangle(**{"codes": codes, "factors": factors, "groups": groups, **given})


def test_codes_that_never_fire_tell_nothing(factors: np.ndarray, groups: np.ndarray) -> None:
    found = disentangle(np.zeros((N, 9)), factors, groups)
    assert not found["predicted"].any()
    assert (found["r2"][:3] <= 0).all()
    np.testing.assert_allclose(found["published_completeness"], 1)


def test_families_have_the_published_sizes() -> None:
    assert len(set(NAMES)) == 88
    sizes = {family: sum(family_of(name) == family for name in NAMES) for family in FAMILIES}
    assert sizes == {
        "formants": 18, "pitch": 14, "quality": 6, "loudness": 12, "rhythm": 5, "spectral": 17, "mfcc": 16,
    }  # fmt: skip
    assert family_of("logRelF0-H1-A3_sma3nz_amean") == "pitch"
    assert family_of("F3amplitudeLogRelF0_sma3nz_amean") == "formants"
    assert family_of("loudnessPeaksPerSec") == "loudness"
    assert family_of("F0semitoneFrom27.5Hz_sma3nz_meanRisingSlope") == "pitch"
    assert family_of("tempo") == ""


@pytest.mark.slow
def test_pure_noise_is_undefined_at_full_size() -> None:
    noise = np.random.default_rng(0).normal(size=(400, 200))
    found = disentangle(planted_codes(400, 2048), noise, np.arange(400) % 20)
    assert float(found["predicted"].mean()) <= 0.05
    assert 0.4 < float(found["published_completeness"].mean()) < 0.75  # which says nothing of that


@pytest.mark.slow
@pytest.mark.parametrize("width", [768, 2048])
def test_codes_are_counted_as_they_were_planted(width: int) -> None:
    codes = planted_codes(400, width)
    factors = planted_factors(codes, [1] * 8 + [5] * 8, noise=0.3)
    found = disentangle(codes, factors, np.arange(400) % 20)
    assert found["predicted"].all()
    until = found["codes_until"].values.reshape(2, 8)
    np.testing.assert_allclose(until.mean(axis=1), [1, 5], rtol=0.2)
