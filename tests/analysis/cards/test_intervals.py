"""How sure a bar is, against scipy, and by what happens to neurons that respond to nothing."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom, binomtest, norm
from scipy.stats import t as student

from otoscope.analysis.cards import intervals
from otoscope.analysis.cards.intervals import bars_of, wilson_interval
from otoscope.analysis.null.resampling import arrange_clips

NEURONS = 200


def arrangement_of(codes, groups=None, within=()):
    names = [f"c{i}" for i in range(max(codes) + 1)]

    def column(values):
        return xr.DataArray(np.array([str(each) for each in values], object), dims="clip")

    labels = xr.DataArray(np.asarray(codes, np.int32), dims="clip", attrs={"categories": names})
    return arrange_clips(
        labels, groups=None if groups is None else column(groups), within=[column(each) for each in within]
    )


def ones(n):
    return np.ones(n, np.int64)


def test_the_interval_of_clips_is_wilsons():
    for n in (1, 2, 7, 400):
        for k in {0, 1, n // 3, n}:
            expected = binomtest(k, n).proportion_ci(0.95, "wilson")
            low, high = wilson_interval(np.array([k / n]), np.array([n]))
            np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=1e-12)
    codes = np.array([0] * 30 + [1] * 12)
    active = np.array([1] * 7 + [0] * 23 + [1] * 12)
    bars = bars_of(active, ones(42), arrangement_of(codes))
    assert bars.p.tolist() == [7 / 30, 1]
    expected = binomtest(7, 30).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose([bars.low[0], bars.high[0]], [expected.low, expected.high], atol=1e-12)
    assert bars.high[1] == 1
    assert bars.unit == "clip"


def covered(seed, alike, grouped):
    """Share of 95 % intervals that hold the true P, of 8 to 20 groups of 12 clips that are alike, or of frames."""
    rng, hits = np.random.default_rng(seed), []
    for _ in range(100):
        n = int(rng.integers(8, 21))
        groups = np.repeat(np.arange(2 * n), 12)
        codes = (np.arange(2 * n) % 2)[groups]
        of_group = rng.beta(0.3 * alike, 0.7 * alike, 2 * n)
        if grouped:
            active, of = (rng.random(len(groups)) < of_group[groups]).astype(int), ones(len(groups))
            bars = bars_of(active, of, arrangement_of(codes, groups), unit="speaker")
        else:
            of = rng.integers(20, 60, 2 * n)
            bars = bars_of(rng.binomial(of, of_group), of, arrangement_of(codes[::12]))
        hits += ((bars.low <= 0.3) & (bars.high >= 0.3)).tolist()
    return np.mean(hits)


@pytest.mark.parametrize("grouped", [True, False], ids=["groups", "frames"])
def test_intervals_hold_where_clips_or_frames_are_alike(grouped, monkeypatch):
    """Wilson's of the single clips hold P in some 60 %: they take alike ones for independent."""
    monkeypatch.setattr(intervals, "UNITS_DRAWN", 0)
    monkeypatch.setattr(intervals, "MIN_DRAWS", 19)
    share = covered(0, 1.0, grouped)
    assert 0.9 < share < 0.99, share
    monkeypatch.setattr(intervals, "effective_n", lambda _, of, arrangement: np.bincount(arrangement.codes, of))
    assert covered(0, 1.0, grouped) < 0.8


def test_an_interval_depends_on_groups_and_not_on_how_often_their_clips_are_repeated():
    rng = np.random.default_rng(1)
    codes, groups = np.repeat([0, 1], [20, 16]), np.arange(36)
    active = rng.integers(0, 2, 36)
    once = bars_of(active, ones(36), arrangement_of(codes, groups))
    many = (np.repeat(each, 5) for each in (active, ones(36), codes, groups))
    a, of, c, g = many
    repeated = bars_of(a, of, arrangement_of(c, g))
    assert once.low[0] == pytest.approx(
        binomtest(int(active[:20].sum()), 20).proportion_ci(0.95, "wilson").low
    )  # each clip alone
    grouped = bars_of(np.repeat(active, 2), ones(72), arrangement_of(np.repeat(codes, 2), np.repeat(groups, 2)))
    np.testing.assert_allclose([repeated.low, repeated.high], [grouped.low, grouped.high], rtol=1e-12)
    for k, n_groups in enumerate((20, 16)):  # of groups of equal size, each all or nothing: n - 1, and Student's t
        few = (n_groups - 1) * norm.ppf(0.975) ** 2 / student.ppf(0.975, n_groups - 1) ** 2
        ends = np.ravel(wilson_interval(repeated.p[[k]], np.array([few])))
        np.testing.assert_allclose([repeated.low[k], repeated.high[k]], ends, rtol=1e-9)
    never = bars_of(0 * ones(100), ones(100), arrangement_of(np.arange(100) // 50, np.arange(100) // 10))
    assert never.high.tolist() == pytest.approx([binomtest(0, 5).proportion_ci(0.95, "wilson").high] * 2)  # 5 groups
    assert np.isnan(bars_of(ones(9), ones(9), arrangement_of([0] * 5 + [1] * 4, [0] * 5 + [1, 2, 3, 4])).low[0])


def corpus(kind):
    """Codes (clip), their arrangement, and of a neuron that responds to nothing what each clip adds, of how many."""
    if kind == "groups":
        groups = np.repeat(np.arange(60), np.arange(60) % 10 + 2)
        codes = (np.arange(60) % 5)[groups]
        arrangement = arrangement_of(codes, groups)
        return codes, arrangement, lambda rng: (
            (rng.random(len(groups)) < rng.beta(0.5, 0.5, 60)[groups]).astype(int), ones(len(groups))
        )  # fmt: skip
    codes = np.repeat(np.arange(9), 40) if kind == "even" else np.repeat(np.arange(7), [400, 90, 40, 12, 7, 4, 2])
    arrangement, n = arrangement_of(codes), len(codes)
    if kind == "frames":
        of = np.arange(n) % 45 + 5
        return codes, arrangement, lambda rng: (rng.binomial(of, rng.beta(0.5, 2, n)), of)
    return codes, arrangement, lambda rng: ((rng.random(n) < rng.choice([0.02, 0.2, 0.5, 0.95])).astype(int), ones(n))


@pytest.mark.parametrize("kind", ["even", "uneven", "groups", "frames"])
def test_of_neurons_that_respond_to_nothing_few_have_a_bar_outside_the_band(kind, monkeypatch):
    monkeypatch.setattr(intervals, "UNITS_DRAWN", 0)  # as few draws as are ever made
    monkeypatch.setattr(intervals, "DRAWS", 500)
    rng = np.random.default_rng(7)
    codes, arrangement, neuron = corpus(kind)
    n = 0
    for seed in range(NEURONS):
        active, of = neuron(rng)
        n += int(bars_of(active, of, arrangement, seed=seed).outside.any())
    assert n <= binom.ppf(0.975, NEURONS, 0.05), n
    assert n >= 1  # nor is the band so wide that nothing ever leaves it
    _, of = neuron(rng)
    assert bars_of(np.where(codes == 0, of, 0), of, arrangement).outside[0]


def test_the_band_is_that_of_clips_shuffled_one_by_one_within_their_fold():
    """Counts are drawn, and their deviations known, without shuffling; here clips are shuffled, 2000 times."""
    rng = np.random.default_rng(3)
    codes, fold = rng.choice(4, 600, p=[0.6, 0.2, 0.15, 0.05]), rng.integers(0, 2, 600)
    active = (rng.random(600) < np.where(fold, 0.7, 0.1)).astype(int)
    null = np.empty((2000, 4))
    for p in null:
        shuffled = codes.copy()
        for clips in (fold == 0, fold == 1):
            shuffled[clips] = rng.permutation(codes[clips])
        p[:] = [active[shuffled == c].mean() for c in range(4)]
    center, sd = null.mean(axis=0), null.std(axis=0)
    q = np.quantile(np.max(np.abs(null - center) / sd, axis=1), 0.95)
    bars = bars_of(active, ones(600), arrangement_of(codes, within=[fold]))
    np.testing.assert_allclose(bars.band_low, center - q * sd, atol=0.02)
    np.testing.assert_allclose(bars.band_high, center + q * sd, atol=0.02)
    twice = bars_of(2 * active, 2 * ones(600), arrangement_of(codes, within=[fold]))  # the same, by shuffling
    np.testing.assert_allclose(twice.band_low, bars.band_low, atol=0.015)
    assert bars_of(active, ones(600), arrangement_of(codes)).band_low[0] < bars.band_low[0] - 0.01


def test_a_dead_neuron_has_a_band_of_no_width_and_what_cannot_be_shuffled_none():
    codes = [0] * 5 + [1] * 4
    for value in (0, 1):
        bars = bars_of(np.full(9, value), ones(9), arrangement_of(codes))
        assert bars.p.tolist() == bars.band_low.tolist() == bars.band_high.tolist() == [value, value]
        assert not bars.outside.any()
    mixed = bars_of(ones(9), ones(9), arrangement_of(codes, ["x"] * 9), unit="speaker")
    assert "some groups have clips of several categories" in mixed.no_band
    assert np.isnan(mixed.band_low).all()
    assert not mixed.outside.any()
