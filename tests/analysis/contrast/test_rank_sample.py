"""One draw of the rule "contrast", with labels shuffled or clips drawn anew, against plain statements."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from otoscope.analysis.contrast.rank_sample import RankSample, take_ranks
from otoscope.analysis.contrast.rank_tests import contrast_specific, contrast_tests
from otoscope.analysis.null.permutation import bootstrap, permutation_null
from otoscope.analysis.null.resampling import Sample, arrange_clips, redraw_clips, take_sample
from otoscope.analysis.rates import above, activation_probability
from otoscope.analysis.selection.selection import Selection

SIGNS = {"positive": lambda z: z, "negative": lambda z: -z, "both": np.abs}


def planted(sign: str = "positive") -> tuple[xr.DataArray, xr.DataArray, Selection]:
    """Means with ties (layer, neuron, clip): neurons 0-9 high in a and b, 10-19 in a, 20-29 in c; codes; selection."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 4, 260)
    means = rng.normal(size=(2, 50, 260)).round(1).astype(np.float32)
    for neurons, categories in ((slice(10), (0, 1)), (slice(10, 20), (0,)), (slice(20, 30), (2,))):
        means[:, neurons, np.isin(codes, categories)] += {"positive": 1.5, "negative": -1.5, "both": 1.5}[sign]
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": ["a", "b", "c", "d"]})
    how = Selection(rule="contrast", permutations=99, sign=sign, threshold=0.3)
    return xr.DataArray(means, dims=("layer", "neuron", "clip")), labels, how


def ranked(mean: xr.DataArray, labels: xr.DataArray, how: Selection) -> tuple[RankSample, xr.Dataset, np.ndarray]:
    """The last neuron of the first layer does not exist."""
    arrangement = arrange_clips(labels)
    exists = np.ones((2, 50), bool)
    exists[0, 49] = False
    valid = xr.DataArray(exists, dims=("layer", "neuron"))
    tests = contrast_tests(mean, arrangement, how, valid=valid)
    p = activation_probability(above(mean, 0.3), labels)
    found = contrast_specific(p, tests, how)
    return take_ranks(mean, arrangement.clips, arrangement.codes, exists, found), found, exists


def plain(values: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z and AUC (category, neuron) of means (neuron, clip)."""
    ranks = stats.rankdata(values.astype(np.float64), axis=1)
    n, inside = values.shape[1], codes == np.arange(4)[:, None]
    n_in = inside.sum(axis=1)[:, None]
    sums = inside @ ranks.T
    z = (sums - n_in * (n + 1) / 2) / np.sqrt(n_in * (n - n_in) / n * ranks.var(axis=1, ddof=1))
    return z, (sums - n_in * (n_in + 1) / 2) / (n_in * (n - n_in))


@pytest.mark.parametrize("sign", SIGNS)
def test_shuffled_labels_give_as_many_neurons_of_the_highest_z(sign: str) -> None:
    mean, labels, how = planted(sign)
    sample, found, exists = ranked(mean, labels, how)
    many = sample.member.sum(axis=1)
    assert (many[:3] >= 10).all()
    np.testing.assert_array_equal(sample.member, found["member"].values.transpose(2, 0, 1)[:, exists])
    values = mean.values[..., labels.values >= 0][exists]
    codes = np.random.default_rng(5).permutation(sample.codes)
    z, _ = plain(values, codes)
    drawn = sample.shuffled(codes)
    assert (drawn.sum(axis=1) == many).all()
    for row, chosen in zip(SIGNS[sign](z), drawn, strict=True):
        assert not chosen.any() or row[chosen].min() >= row[~chosen].max() - 1e-9


@pytest.mark.parametrize("sign", SIGNS)
def test_clips_drawn_anew_are_ranked_anew(sign: str) -> None:
    mean, labels, how = planted(sign)
    sample, found, exists = ranked(mean, labels, how)
    everything = np.arange(len(sample.codes))
    np.testing.assert_array_equal(sample.redrawn(everything[::-1]), sample.member)
    clips = redraw_clips(arrange_clips(labels), 0, 3)
    values = mean.values[..., labels.values >= 0][exists]
    z, auc = plain(values[:, clips], sample.codes[clips])
    away = {"positive": auc, "negative": 1 - auc, "both": np.maximum(auc, 1 - auc)}[sign]
    cells = {name: found[name].values.transpose(2, 0, 1)[:, exists] for name in ("q", "z")}
    for c in range(4):
        significant = SIGNS[sign](cells["z"][c])[cells["q"][c] <= how.level]
        critical = significant.min(initial=np.inf)
        expected = (SIGNS[sign](z[c]) >= critical - 1e-9) & (away[c] >= how.min_effect - 1e-12)
        np.testing.assert_array_equal(sample.redrawn(clips)[c], expected)


def sample_of(mean: xr.DataArray, labels: xr.DataArray, how: Selection) -> Sample:
    from dataclasses import replace

    sample = take_sample(above(mean, how.threshold), labels)
    tests = contrast_tests(mean, arrange_clips(labels), how)
    found = contrast_specific(activation_probability(above(mean, how.threshold), labels), tests, how)
    return replace(sample, ranked=take_ranks(mean, sample.clips, sample.codes, sample.neurons.values, found))


def test_overlaps_are_tested_at_the_sizes_found_and_single_clips_decide_little() -> None:
    mean, labels, how = planted()
    sample = sample_of(mean, labels, how)
    result = permutation_null(sample, how)
    assert bool(result["common_neuron_ratio_significant"].sel(category="a", other_category="b"))
    assert result["neurons_p"].isnull().all()
    assert result["coverage_ratio_p"].isnull()
    assert (result["neurons_null_sd"] == 0).all()
    drawn = bootstrap(sample, how, draws=40)
    assert float(drawn["stability"].where(drawn["member"]).mean()) > 0.9
    assert float(drawn["stability"].where(~drawn["member"]).mean()) < 0.05
    xr.testing.assert_identical(drawn, bootstrap(sample, how, draws=40, threads=1))
