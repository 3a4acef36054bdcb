"""The tests of the rule "contrast" against plain statements of their formulas, with scipy where it has them."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from otoscope.analysis.contrast import rank_tests
from otoscope.analysis.contrast.rank_tests import contrast_tests, members
from otoscope.analysis.null.resampling import Arrangement, arrange_clips, shuffle_labels
from otoscope.analysis.selection.selection import Selection

from ...support.amounts import quick_sample

CATEGORIES = ["a", "b", "c", "d"]


def labels_of(codes: np.ndarray) -> xr.DataArray:
    return xr.DataArray(codes, dims="clip", attrs={"categories": CATEGORIES[: int(codes.max()) + 1]})


def column(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values.astype(str), dims="clip")


def made(dtype: type = np.float32, n_clips: int = 90, seed: int = 0) -> tuple[xr.DataArray, np.ndarray]:
    """Means with ties (layer, neuron, clip), neurons 0-2 high in category 1, one constant; unlabelled clips."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 4, n_clips)
    codes[:4] = range(4)
    means = rng.normal(size=(2, 37, n_clips)).round(1)
    means[1, :3, codes == 1] += 1.5
    means[0, 5] = 0.25
    means[0, 6] = np.where(means[0, 6] > 1, 1, np.where(means[0, 6] > 0, 0.0, -0.0))  # zeros are equal
    return xr.DataArray(means.astype(dtype), dims=("layer", "neuron", "clip")), codes


def plain_z(values: np.ndarray, inside: np.ndarray) -> float:
    """Mann-Whitney's z with ties, from scipy's p, and NaN where all are alike."""
    if len(np.unique(values)) == 1:
        return np.nan
    one, rest = values[inside], values[~inside]
    found = stats.mannwhitneyu(one, rest, use_continuity=False, method="asymptotic", alternative="less")
    return float(stats.norm.ppf(found.pvalue))


def plain_delong(values: np.ndarray, inside: np.ndarray, units: np.ndarray) -> float:
    """Obuchowski's variance of the AUC, written out."""
    one, rest = values[inside], values[~inside]
    higher = (one[:, None] > rest) + 0.5 * (one[:, None] == rest)
    auc, v10, v01 = higher.mean(), higher.mean(axis=1), higher.mean(axis=0)
    every = np.unique(units)
    a = np.array([(v10[units[inside] == u] - auc).sum() for u in every])
    b = np.array([(v01[units[~inside] == u] - auc).sum() for u in every])
    k10, k01, k = len(np.unique(units[inside])), len(np.unique(units[~inside])), len(every)
    s10, s01 = k10 / (k10 - 1) / len(one) * (a @ a), k01 / (k01 - 1) / len(rest) * (b @ b)
    return s10 / len(one) + s01 / len(rest) + 2 * k / (k - 1) * (a @ b) / len(one) / len(rest)


@pytest.mark.parametrize("dtype", quick_sample([np.float16, np.float32, np.float64], 1))
@pytest.mark.parametrize("grouped", [False, True])
def test_z_auc_and_interval_are_those_of_the_formulas(dtype: type, grouped: bool) -> None:
    mean, codes = made(dtype)
    group = np.arange(len(codes)) % 13
    arrangement = arrange_clips(labels_of(codes), groups=column(codes * 100 + group) if grouped else None)
    found = contrast_tests(mean, arrangement, Selection(rule="contrast", permutations=19))
    kept = codes >= 0
    own, units = codes[kept], (codes * 100 + group)[kept] if grouped else np.arange(kept.sum())
    for layer, neuron, category in [(0, 0, 0), (1, 1, 1), (1, 2, 3), (0, 5, 2), (0, 6, 1), (1, 36, 2)]:
        cell = found.isel(layer=layer, neuron=neuron, category=category)
        values, inside = mean.values[layer, neuron][kept].astype(np.float64), own == category
        np.testing.assert_allclose(cell["z"], plain_z(values, inside), rtol=1e-9)
        if (layer, neuron) == (0, 5):
            assert all(np.isnan(cell[name]) for name in ("auc", "auc_low", "auc_high", "p", "q"))
            continue
        u = stats.mannwhitneyu(values[inside], values[~inside]).statistic
        auc = u / inside.sum() / (~inside).sum()
        np.testing.assert_allclose(cell["auc"], auc, rtol=1e-12)
        half = stats.norm.isf(0.025) * plain_delong(values, inside, units) ** 0.5
        np.testing.assert_allclose(cell["auc_low"], auc - half, rtol=1e-9)
        np.testing.assert_allclose(cell["auc_high"], min(auc + half, 1), rtol=1e-9)


def plain_pool(mean: xr.DataArray, arrangement: Arrangement, how: Selection) -> np.ndarray:
    """z (draw, layer, neuron, category) of the labelling found and of all shuffled ones, by ranks and sums."""
    ranks = stats.rankdata(mean.values[..., arrangement.clips].astype(np.float64), axis=-1)
    n = ranks.shape[-1]
    drawn = [arrangement.codes, *(shuffle_labels(arrangement, how.seed, i) for i in range(how.permutations))]
    spread = ranks.var(axis=-1, ddof=1)  # holds the ties' correction
    z = []
    for codes in drawn:
        inside = codes[:, None] == np.arange(len(arrangement.categories))
        n_in = inside.sum(axis=0)
        excess = ranks @ inside - n_in * (n + 1) / 2
        with np.errstate(invalid="ignore"):
            z.append(excess / np.sqrt(n_in * (n - n_in) / n * spread[..., None]))
    return np.array(z)


def pooled(mean: xr.DataArray, arrangement: Arrangement, fewest: int) -> np.ndarray:
    """A number (neuron) for each pool, by loops: those who are tied least first, and so on until there are enough."""
    values = mean.values[..., arrangement.clips].reshape(-1, len(arrangement.clips))
    n = values.shape[1]
    tied = np.array([sum(t**3 - t for t in np.unique(row, return_counts=True)[1]) for row in values + 0.0])
    spread = 1 - tied / (n**3 - n)
    found, number = np.full(len(values), -1), 0
    for edge in (*rank_tests.EDGES[::-1], 0):
        waiting = (spread > 0) & (found < 0)  # constant neurons are in none
        now = waiting & (spread > edge)
        found[now] = number
        if (found == number).sum() >= fewest and (waiting & ~now).sum() >= fewest:
            number += 1
    found[found < 0] = number
    return found


SIGNS = {"positive": lambda z: z, "negative": lambda z: -z, "both": np.abs}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("correct", ["bh", "max"])
@pytest.mark.parametrize("fewest", [100, 8])
@pytest.mark.parametrize("grouped", [False, True])
def test_p_and_q_are_shares_of_the_shuffled_labels(
    sign: str, correct: str, grouped: bool, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pooled over neurons of a kind: here one pool, or four, from those that are off in nearly all clips."""
    monkeypatch.setattr(rank_tests, "FEWEST", fewest)
    mean, codes = made()
    for neurons, on in ((slice(12, 22), 2.2), (slice(22, 28), 1.2), (slice(28, 32), 0.5)):
        mean.values[:, neurons] = np.where(mean.values[:, neurons] > on, mean.values[:, neurons], 0)
    groups = column(np.where(codes < 0, -1, codes * 10 + np.arange(len(codes)) % 5)) if grouped else None
    arrangement = arrange_clips(labels_of(codes), groups=groups, within=[] if grouped else [column(codes < 2)])
    how = Selection(rule="contrast", permutations=39, sign=sign, correct=correct, seed=2)
    found = contrast_tests(mean, arrangement, how)
    z = SIGNS[sign](plain_pool(mean, arrangement, how)).reshape(40, -1, 4)
    tested = ~np.isnan(z[0])
    pool = pooled(mean, arrangement, fewest)
    assert len(np.unique(pool)) == (1 if fewest == 100 else 4)
    step = 1 / rank_tests.STEP

    def p_of(values: np.ndarray, at_least: float) -> np.ndarray:
        """Share of all z of the category, those of constant neurons left out, that are as high or higher."""
        share = np.full(values.shape, np.nan)
        for c in range(4):
            for own in np.unique(pool):
                of_kind = z[:, pool == own, c]
                like = np.sort(of_kind[~np.isnan(of_kind)])
                before = np.searchsorted(like, values[..., pool == own, c] - at_least)
                share[..., pool == own, c] = 1 - before / len(like)
        return np.where(np.isnan(values), np.nan, share)

    p, q = (found[name].values.reshape(-1, 4) for name in ("p", "q"))
    low, high = p_of(z[0], 0.0), p_of(z[0], step)
    assert (p[tested] >= low[tested] - 1e-12).all()
    assert (p[tested] <= high[tested] + 1e-12).all()
    assert (np.isnan(p) == ~tested).all()
    if correct == "bh":
        expected = stats.false_discovery_control(p[tested])
        np.testing.assert_allclose(q[tested], np.maximum(expected, arrangement.smallest_p(39)))
    else:
        smallest = [np.nanmin([p_of(z[d], at)], axis=(1, 2))[0] for at in (0.0, step) for d in range(40)]
        for cell in np.flatnonzero(tested.ravel())[::7]:
            shares = [np.mean(np.array(smallest[:40]) <= at.ravel()[cell] + 1e-12) for at in (low, high)]
            strict = np.mean(np.array(smallest[40:]) <= low.ravel()[cell] - 1e-12)
            assert min(shares[0], strict) <= q.ravel()[cell] + 1e-12
            assert q.ravel()[cell] <= max(shares[1], arrangement.smallest_p(39)) + 1e-12


def test_chunks_threads_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, codes = made()
    arrangement, how = arrange_clips(labels_of(codes)), Selection(rule="contrast", permutations=45)
    expected = contrast_tests(mean, arrangement, how, threads=1)
    chunked = mean.transpose("layer", "clip", "neuron").chunk(layer=1, clip=17, neuron=5)
    xr.testing.assert_identical(contrast_tests(chunked, arrangement, how, threads=3), expected)
    monkeypatch.setattr(rank_tests, "ORDER_BYTES", 2 * 90 * 7)  # seven draws at a time
    monkeypatch.setattr(rank_tests, "BATCH", 3)
    xr.testing.assert_identical(contrast_tests(mean, arrangement, how, threads=2), expected)
    assert not contrast_tests(mean, arrangement, Selection(rule="contrast", permutations=45, seed=1)).equals(expected)


def test_ranks_of_many_clips_need_more_bits() -> None:
    """Doubled ranks of 40,000 clips exceed 16 bits, and the sum of a category's 32."""
    rng = np.random.default_rng(3)
    n = 40_000
    codes = (np.arange(n) >= n - 50).astype(np.int64)
    means = np.where(codes == 0, rng.random((1, 2, n)), rng.random((1, 2, n)) * 1.1).astype(np.float32)
    mean = xr.DataArray(means, dims=("layer", "neuron", "clip"))
    found = contrast_tests(mean, arrange_clips(labels_of(codes)), Selection(rule="contrast", permutations=19))
    for neuron in range(2):
        np.testing.assert_allclose(
            found["z"][0, neuron, 0], plain_z(means[0, neuron].astype(float), codes == 0), rtol=1e-9
        )


def test_what_is_planted_is_found_and_padding_is_not_tested() -> None:
    mean, codes = made(n_clips=300)
    valid = xr.DataArray(np.ones((2, 37), bool), dims=("layer", "neuron"))
    valid[1, 2] = False
    how = Selection(rule="contrast", permutations=99)
    found = contrast_tests(mean, arrange_clips(labels_of(codes)), how, valid=valid)
    member = members(found, how)
    assert [tuple(each) for each in np.argwhere(member.values)] == [(1, 0, 1), (1, 1, 1)]
    assert found.isel(layer=1, neuron=2).isnull().to_array().all()
    silent = Selection(rule="contrast", permutations=99, sign="negative")
    negated = contrast_tests(-mean, arrange_clips(labels_of(codes)), silent, valid=valid)
    xr.testing.assert_equal(members(negated, silent), member)
    np.testing.assert_allclose(negated["auc"], 1 - found["auc"])
    either = Selection(rule="contrast", permutations=99, sign="both")
    both = members(contrast_tests(mean, arrange_clips(labels_of(codes)), either, valid=valid), either)
    assert (both | ~member).all()
    assert ((found["auc"] > 0.7) | (found["auc"] < 0.3)).values[both.values].all()


def test_nan_a_single_clip_and_few_permutations() -> None:
    mean, codes = made()
    mean.values[0, 1, codes == 2] = np.nan
    codes[codes == 3] = -1
    codes[-1] = 3  # a category of one clip: an AUC, and no interval
    how = Selection(rule="contrast", permutations=19)
    found = contrast_tests(mean, arrange_clips(labels_of(codes)), how)
    assert found.isel(layer=0, neuron=1).isnull().to_array().all()
    lone = found.isel(category=3).sel(layer=0, neuron=0)
    assert not np.isnan(lone["auc"])
    assert np.isnan([lone[name] for name in ("auc_low", "auc_high", "p", "q")]).all()
    assert found["q"].sel(category=["a", "b", "c"]).isel(layer=1).notnull().all()
    with pytest.raises(ValueError, match=r"found 18 permutations.*expected at least 19 for the level 0.05"):
        contrast_tests(mean, arrange_clips(labels_of(codes)), Selection(rule="contrast", permutations=18))
    alone = arrange_clips(labels_of(codes), groups=column(codes))
    with pytest.raises(ValueError, match=r"each of which is one clip or group; .*leave `group` out"):
        contrast_tests(mean, alone, how)
    every = arrange_clips(labels_of(np.append(np.arange(4), np.full(len(codes) - 4, -1))))
    with pytest.raises(ValueError, match=r"each of which is one clip; .*use a label that several clips share"):
        contrast_tests(mean, every, how)


@pytest.mark.parametrize("grouped", [False, True])
def test_what_tells_a_category_from_one_clip_or_group_is_no_evidence(grouped: bool) -> None:
    """That clip, or group, is the lowest of every neuron: all would be found specific for the other category."""
    units = np.repeat(np.arange(60), 2 if grouped else 1)
    codes = np.minimum(units, 1)
    means = np.random.default_rng(0).normal(size=(1, 20, len(codes)))
    means[..., codes == 0] -= 9
    mean = xr.DataArray(means, dims=("layer", "neuron", "clip"))
    groups = {"groups": column(units)} if grouped else {}
    how = Selection(rule="contrast", permutations=99)
    found = contrast_tests(mean, arrange_clips(labels_of(codes), **groups), how)
    assert (found["auc"].sel(category="b") == 1).all()
    assert found[["auc_low", "p", "q"]].isnull().all().to_array().all()
    codes[units == 1] = 0  # two of either
    found = contrast_tests(mean, arrange_clips(labels_of(codes), **groups), how)
    assert found[["p", "q"]].notnull().all().to_array().all()
