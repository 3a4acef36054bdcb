"""Scores of other selectors against plain statements: scipy's correlation, counted tables, loops over categories."""

import math

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pointbiserialr
from sklearn.metrics import mutual_info_score

from otoscope.analysis import accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis.selection.other_selectors import (
    OF_BITS,
    OF_MEANS,
    agreement,
    d_prime,
    decides,
    highest_scores,
    mean_difference,
    mutual_information,
    point_biserial,
    probability,
    probability_margin,
    rate_difference,
    selector_agreement,
)
from otoscope.analysis.tables import markdown


@pytest.fixture
def parts(task):
    """Bools and float16 means (layer, neuron, clip) in memory, codes, and the same lazily."""
    codes = task.otoscope.codes("animal")
    return task["active"].compute(), task["mean"].compute(), codes, task


def cells(array):
    layers, neurons, categories = array.shape
    return [(i, j, c) for i in range(layers) for j in range(0, neurons, 3) for c in range(categories)]


def test_scores_of_bits_against_their_definitions(parts):
    active, _, codes, task = parts
    rate, information = rate_difference(active, codes), mutual_information(active, codes)
    kept = codes.values >= 0
    for i, j, c in cells(rate):
        x, y = active.values[i, j, kept], codes.values[kept] == c
        difference = x[y].mean() - x[~y].mean()
        assert float(rate[i, j, c]) == pytest.approx(difference, abs=1e-12)
        expected = math.copysign(mutual_info_score(y, x), difference) if difference else 0
        assert float(information[i, j, c]) == pytest.approx(expected, abs=1e-12)
    for function, eager in ((rate_difference, rate), (mutual_information, information)):
        np.testing.assert_allclose(function(task["active_bits"], codes), eager, rtol=1e-12)


def test_scores_of_means_against_their_definitions(parts):
    _, mean, codes, _ = parts
    distance, correlation = d_prime(mean, codes), point_biserial(mean, codes)
    kept = codes.values >= 0
    for i, j, c in cells(distance):
        x, y = mean.values[i, j, kept].astype(np.float64), codes.values[kept] == c
        expected = (x[y].mean() - x[~y].mean()) / math.sqrt((x[y].var(ddof=1) + x[~y].var(ddof=1)) / 2)
        assert float(distance[i, j, c]) == pytest.approx(expected, rel=1e-9)
        assert float(correlation[i, j, c]) == pytest.approx(pointbiserialr(y, x).statistic, rel=1e-9)


def test_scores_by_categories_against_their_definitions(parts):
    """LAP, CAS and MAD: every other category weighs the same, and the highest of them counts."""
    active, mean, codes, task = parts
    p, margin, difference = probability(active, codes), probability_margin(active, codes), mean_difference(mean, codes)
    groups = [np.flatnonzero(codes.values == c) for c in range(p.sizes["category"])]
    for i, j, c in cells(p):
        rates = [active.values[i, j, group].mean() for group in groups]
        means = [mean.values[i, j, group].astype(np.float64).mean() for group in groups]
        assert float(p[i, j, c]) == pytest.approx(rates.pop(c), abs=1e-12)
        assert float(margin[i, j, c]) == pytest.approx(float(p[i, j, c]) - max(rates), abs=1e-12)
        assert float(difference[i, j, c]) == pytest.approx(means.pop(c) - np.mean(means), rel=1e-9, abs=1e-12)
    for function, eager in ((probability, p), (probability_margin, margin)):
        np.testing.assert_allclose(function(task["active_bits"], codes), eager, rtol=1e-12)


def test_scores_by_categories_without_clips():
    """A category without clips has no score and is no other category; a lone one has nothing to be compared with."""
    labels = xr.DataArray([0, 0, 2, 2], dims="clip", attrs={"categories": ["a", "none", "c"]})
    mean = xr.DataArray([[[1.0, 3, -1, 2]]], dims=("layer", "neuron", "clip"))
    np.testing.assert_allclose(probability(mean > 0, labels)[0, 0], [1, np.nan, 0.5])
    np.testing.assert_allclose(probability_margin(mean > 0, labels)[0, 0], [0.5, np.nan, -0.5])
    np.testing.assert_allclose(mean_difference(mean, labels)[0, 0], [1.5, np.nan, -1.5])
    alone = labels.copy(data=[0, 0, -1, 0])
    assert np.isnan(probability_margin(mean > 0, alone)).all()
    assert np.isnan(mean_difference(mean, alone)).all()
    tied = labels.copy(data=[0, 1, 2, 2])
    assert probability_margin(mean > 0, tied)[0, 0].values.tolist() == [0, 0, -0.5]
    assert (mean_difference(xr.full_like(mean, 0.1), tied) == 0).all()


def test_all_are_lazy_and_named(parts, nothing_computes):
    active, mean, codes, task = parts
    with nothing_computes():
        lazy = [score(task["active_bits"], codes) for score in OF_BITS]
        lazy += [score(task["mean"], codes) for score in OF_MEANS]
        members = {str(score.name): highest_scores(score, 4) for score in lazy}
        agreement(members)
    eager = [score(active, codes) for score in OF_BITS] + [score(mean, codes) for score in OF_MEANS]
    for a, b in zip(lazy, eager, strict=True):
        assert a.dims == ("layer", "neuron", "category")
        assert a.attrs["units"] in ("1", "nat")
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_what_does_not_vary_has_no_score():
    labels = xr.DataArray([0, 0, 0, 1, 1, 1, 2], dims="clip", attrs={"categories": ["a", "b", "lone"]})
    mean = xr.DataArray(np.zeros((1, 2, 7)) + 0.1, dims=("layer", "neuron", "clip"))
    mean[0, 1] = [1, 2, 3, 1, 2, 4, 9]
    assert np.isnan(d_prime(mean, labels)[0, 0]).all()
    assert np.isnan(point_biserial(mean, labels)[0, 0]).all()
    assert np.isnan(d_prime(mean, labels)[0, 1].values).tolist() == [False, False, True]
    assert np.isfinite(point_biserial(mean, labels)[0, 1]).all()
    active = mean > 0  # always
    assert (rate_difference(active, labels) == 0).all()
    assert (mutual_information(active, labels) == 0).all()


def test_float16_of_any_size():
    labels = xr.DataArray([0, 0, 1, 1], dims="clip", attrs={"categories": ["a", "b"]})
    mean = xr.DataArray(np.float16([[[60000, 50000, 40000, 45000]]]), dims=("layer", "neuron", "clip"))
    expected = (55000 - 42500) / math.sqrt((mean.values[0, 0, :2].astype(float).var(ddof=1) + 12.5e6) / 2)
    assert float(d_prime(mean, labels)[0, 0, 0]) == pytest.approx(expected, rel=2e-3)


def test_highest_scores_are_as_many_as_requested():
    score = xr.DataArray([[[3.0, 1], [np.nan, 1]], [[5, 1], [5, 0]]], dims=("layer", "neuron", "category"))
    score = score.assign_coords(category=["a", "b"])
    members = highest_scores(score, xr.DataArray([2, 3], dims="category", coords={"category": ["a", "b"]}))
    assert members.sel(category="a").values.tolist() == [[False, False], [True, True]]
    assert members.sel(category="b").values.tolist() == [[True, True], [True, False]]
    first = highest_scores(score, 1)
    assert first.sel(category="b").values.tolist() == [[True, False], [False, False]]  # the first of those that tie
    assert highest_scores(score, 9).sum(["layer", "neuron"]).values.tolist() == [3, 4]


def test_scores_that_do_not_decide():
    """None, all alike, too few, tied at the top with one more than may be picked, and as many as that; none wanted."""
    values = np.array([[np.nan, 2, 1, 3, 3, 1], [np.nan, 2, np.nan, 3, 3, 2], [np.nan, 2, np.nan, 3, 1, 3]])
    score = xr.DataArray(values[None], dims=("layer", "neuron", "category"))
    decided = decides(score, xr.DataArray([2, 2, 2, 2, 2, 0], dims="category"))
    assert decided.values.tolist() == [False, False, False, False, True, False]


def test_selectors_that_cannot_tell_agree_with_nobody(task):
    """Means that never vary have neither d' nor correlation: an empty cell, and 0 nowhere."""
    ds = task.compute()
    ds["mean"] = xr.zeros_like(ds["mean"]) + 0.5
    member = ds.otoscope.class_specific("animal", percentile=20)["member"]
    table = selector_agreement(ds, "animal", member).set_index("selector")
    names = [score.__name__ for score in OF_MEANS]
    assert table.loc[names].isna().all(axis=None)
    assert table[names].isna().all(axis=None)
    assert table.loc["aape", "aape"] == 1
    assert 0 <= table.loc["aape", "rate_difference"] <= 1
    assert "nan" not in markdown(table.reset_index())


def test_agreement_is_jaccard_by_category():
    rng = np.random.default_rng(0)
    sets = {name: rng.random((2, 30, 3)) < share for name, share in (("one", 0.3), ("two", 0.2), ("none", 0))}
    members = {name: xr.DataArray(values, dims=("layer", "neuron", "category")) for name, values in sets.items()}
    found = agreement(members)
    assert found.dims == ("selector", "other_selector", "category")
    for a in sets:
        for b in sets:
            for c in range(3):
                either = (sets[a] | sets[b])[..., c].sum()
                expected = (sets[a] & sets[b])[..., c].sum() / either if either else math.nan
                got = float(found.sel(selector=a, other_selector=b)[c])
                assert got == pytest.approx(expected, nan_ok=True)


def test_a_neuron_that_likes_a_category_is_first_everywhere():
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 3
    values = rng.normal(-0.3, 1, (1, 50, 300))
    for c in range(3):
        values[0, c, codes == c] += 2
    mean = xr.DataArray(values, dims=("layer", "neuron", "clip"))
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": list("abc")})
    scores = [score(mean > 0, labels) for score in OF_BITS] + [score(mean, labels) for score in OF_MEANS]
    members = {str(score.name): highest_scores(score, 1) for score in scores}
    assert all(member[0, c, c] for member in members.values() for c in range(3))
    assert (agreement(members) == 1).all()
