"""The selection rules against independent statements of them, on random, tied, zero-rich and saturated input.

`published` states the LAPE arithmetic in torch as it was published; `plain` states it in python for ties,
where torch leaves the order open and ours is fixed.
"""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from otoscope.analysis import class_specific, coverage_ratio, depth_histogram, mean_class_specific, thresholds

KINDS = ["random", "tied", "zero-rich", "saturated", "peaked"]


def make_p(kind, seed, shape):
    rng = np.random.default_rng(seed)
    p = rng.random(shape)
    if kind == "tied":
        p = np.round(p * 4) / 4
    elif kind == "zero-rich":
        p = np.where(rng.random(shape) < 0.9, 0, p)
    elif kind == "saturated":
        p = np.where(rng.random(shape) < 0.1, 1, p)
    elif kind == "peaked":
        p = p**8
        p[:, ::7] = 0
    return xr.DataArray(p, dims=("layer", "neuron", "category"))


def published(p, percentile):
    """LAPE's identification in torch: member (layer, neuron, category), and entropy - cut (layer, neuron)."""
    p = torch.tensor(p)
    q = p / p.sum(dim=-1, keepdim=True)
    q[torch.isnan(q)] = 0
    log_q = torch.where(q > 0, q.log(), 0.0)
    entropy = -torch.sum(q * log_q, dim=-1)
    flat = p.flatten()
    top = flat.kthvalue(round(len(flat) * 0.95)).values
    entropy[(p > top).sum(dim=-1) == 0] = torch.inf
    m = round(entropy.numel() * (percentile / 100))
    lowest, index = torch.topk(entropy.flatten(), m, largest=False)
    bar = flat.kthvalue(round(len(flat) * 0.95)).values
    member = torch.zeros(p.shape, dtype=torch.bool).flatten(0, 1)
    member[index] = (p > bar).flatten(0, 1)[index]
    above_cut = entropy - lowest[-1] if m else entropy
    return member.reshape(p.shape).numpy(), above_cut.numpy()


def cells(mask):
    return {tuple(map(int, cell)) for cell in np.argwhere(np.asarray(mask))}


def plain(rows, percentile):
    """LAPE in python over neurons as lists: set of (position, category), lowest position first at ties."""
    every = sorted(cell for row in rows for cell in row)
    top = every[round(len(every) * 0.95) - 1]

    def entropy(row):
        # Rounded, so that neurons whose probabilities are permutations of each other tie here as well.
        return round(-sum(x / sum(row) * math.log(x / sum(row)) for x in row if x > 0), 10)

    kept = [i for i, row in enumerate(rows) if max(row) > top]
    chosen = sorted(kept, key=lambda i: (entropy(rows[i]), i))[: round(len(rows) * (percentile / 100))]
    return {(i, c) for i in chosen for c, x in enumerate(rows[i]) if x > top}


def members(selection):
    return cells(selection["member"])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_lape_is_the_published_arithmetic(kind, seed):
    shape = (1 + seed % 4, 30 + 7 * seed, 2 + seed % 6)
    p = make_p(kind, seed, shape)
    for percentile in (1, 2, 5, 20):
        expected, above_cut = published(p.values, percentile)
        found = class_specific(p, percentile=percentile)["member"].values
        # Of the neurons that tie at the cut equally many are chosen; which ones, torch leaves open.
        clear = ~(np.abs(above_cut) < 1e-12)
        np.testing.assert_array_equal(found[clear], expected[clear])
        assert found.any(axis=-1).sum() == expected.any(axis=-1).sum()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_lape_gives_ties_to_the_lowest_layer_and_neuron(kind, seed):
    shape = (3, 40 + seed, 2 + seed % 4)
    p = make_p(kind, seed, shape)
    for percentile in (2, 10, 50, 100):
        expected = plain(p.values.reshape(-1, shape[2]).tolist(), percentile)
        found = {
            (layer * shape[1] + neuron, c) for layer, neuron, c in members(class_specific(p, percentile=percentile))
        }
        assert found == expected


@pytest.mark.parametrize("as_nan", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_layers_of_unequal_width_are_as_if_the_missing_neurons_were_not_there(seed, as_nan):
    p = make_p(KINDS[seed % 5], seed, (3, 50, 4))
    valid = xr.DataArray(np.random.default_rng(seed).random((3, 50)) < 0.7, dims=("layer", "neuron"))
    where = [tuple(cell) for cell in np.argwhere(valid.values)]
    expected = {(*where[i], c) for i, c in plain(p.values[valid.values].tolist(), 10)}
    found = class_specific(p.where(valid), percentile=10) if as_nan else class_specific(p, percentile=10, valid=valid)
    assert members(found) == expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_paper_is_three_percentiles(kind, seed):
    p = make_p(kind, seed, (3, 60, 5))
    rows = p.values.reshape(-1, 5)
    loud = [i for i in range(len(rows)) if rows[i].max() > np.percentile(rows.max(axis=1), 5)]
    entropy = {i: -sum(x / rows[i].sum() * math.log(x / rows[i].sum()) for x in rows[i] if x > 0) for i in loud}
    cut = np.percentile(list(entropy.values()), 10) if loud else math.nan
    kept = [i for i in loud if entropy[i] <= cut + 1e-12]
    bar = np.percentile(rows[kept], 95) if kept else math.nan
    found = class_specific(p, percentile=10, rule="paper")
    assert members(found) == {(i // 60, i % 60, c) for i in kept for c in range(5) if rows[i, c] > bar}
    assert float(found["activity_threshold"]) == np.percentile(rows.max(axis=1), 5)
    assert found["selected"].sum() == len(kept)
    if kept:
        assert float(found["aape_threshold"]) == pytest.approx(cut)
        assert float(found["probability_threshold"]) == pytest.approx(bar)


def test_saturation_selects_nothing_and_is_reported():
    p = make_p("saturated", 0, (2, 100, 5))
    found = class_specific(p)
    assert bool(found["saturated"])
    assert not found["member"].any()
    assert not found["selected"].any()
    assert float(found["activity_threshold"]) == 1
    ones = class_specific(xr.ones_like(p), rule="paper")
    assert bool(ones["saturated"])
    assert not ones["member"].any()


@pytest.mark.parametrize("rule", ["lape", "paper"])
def test_silence_and_scarcity_are_not_saturation(rule):
    silent = xr.zeros_like(make_p("random", 0, (2, 100, 5)))
    for p in (silent, silent.where(False), silent.isel(neuron=[], category=[])):
        found = class_specific(p, rule=rule)
        assert not found["saturated"]
        assert not found["member"].any()
    few = class_specific(make_p("random", 0, (1, 40, 5)), percentile=1)
    assert not few["saturated"]
    assert not few["selected"].any()
    assert np.isnan(few["aape_threshold"])


@pytest.mark.parametrize("rule", ["lape", "paper"])
def test_lazy_whole_and_with_its_thresholds(rule, nothing_computes):
    p = make_p("peaked", 3, (2, 80, 4)).assign_coords(
        category=list("abcd"), layer=[4, 5], n_clips=("category", [1] * 4)
    )
    eager = class_specific(p, percentile=10, rule=rule)
    with nothing_computes():
        lazy = class_specific(p.chunk(neuron=11, category=3), percentile=10, rule=rule)
        summary = [coverage_ratio(lazy["member"]), mean_class_specific(lazy["member"])]
        depth = depth_histogram(lazy["member"])
    xr.testing.assert_identical(lazy.compute(), eager)
    for name, line in thresholds(p, percentile=10, rule=rule).items():
        assert float(line) == float(eager[name])
    assert all(np.isfinite([*summary, *depth]))
    assert eager["member"].dtype == bool
    assert eager.attrs == {"rule": rule, "percentile": 10}
    # The thresholds explain the selection: what was assigned lies on the right side of each.
    chosen = eager["member"].any("category")
    assert (p.max("category").where(chosen) > eager["activity_threshold"]).sum() == chosen.sum()
    assert (p.where(eager["member"]) > eager["probability_threshold"]).sum() == eager["member"].sum()


def test_what_is_counted_about_a_selection():
    member = xr.DataArray(np.zeros((2, 5, 4), bool), dims=("layer", "neuron", "category"))
    member[0, 1, 0] = member[0, 1, 2] = member[1, 0, 2] = member[1, 4, 2] = True
    assert float(coverage_ratio(member)) == 0.5
    assert float(mean_class_specific(member)) == 1.0
    assert depth_histogram(member).values.tolist() == [1, 2]
    assert depth_histogram(member, by_category=True).values.tolist() == [[1, 0, 1, 0], [0, 0, 2, 0]]


def test_rules_and_percentiles_that_do_not_exist():
    p = make_p("random", 0, (1, 10, 2))
    with pytest.raises(ValueError, match=r"rule 'LAPE' is not known; expected one of lape, paper"):
        class_specific(p, rule="LAPE")
    for percentile in (0, -1, 101, math.nan):
        with pytest.raises(ValueError, match=r"expected a number above 0 and up to 100"):
            class_specific(p, percentile=percentile)


@pytest.mark.parametrize("rule", ["lape", "paper"])
def test_a_neuron_known_for_one_category_is_not_selected_and_hides_no_other(rule):
    values = np.full((1, 40, 3), 0.2)
    values[0, 0] = [0.9, np.nan, np.nan]  # nothing to be selective among
    values[0, 1] = [0.9, 0.0, 0.1]
    p = xr.DataArray(values, dims=("layer", "neuron", "category"))
    found = class_specific(p, percentile=100, rule=rule)
    assert not found["selected"][0, 0]
    assert found["selected"][0, 1]
    assert float(found["aape_threshold"]) > 0
