"""Comparisons against counting by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr

from otoscope.analysis import class_specific, compare, tables


def make_p(seed, categories=("dog", "cat", "hen"), power=4.0, layers=3, neurons=40):
    values = np.random.default_rng(seed).random((layers, neurons, len(categories))) ** power
    coords = {"layer": np.arange(layers), "neuron": np.arange(neurons), "category": list(categories)}
    return xr.DataArray(values, dims=("layer", "neuron", "category"), coords=coords)


def make_member(seed, categories=("dog", "cat", "hen")):
    return class_specific(make_p(seed, categories), percentile=20)["member"]


def test_labellings_of_two_stores_and_their_difference():
    selections = {
        ("ssl", "a:x"): class_specific(make_p(0), percentile=10),
        ("ssl", "b:x"): class_specific(make_p(1), percentile=10),
        ("ssl", "only:ssl"): class_specific(make_p(2), percentile=10),
        ("random", "b:x"): class_specific(make_p(3), percentile=20),
        ("random", "a:x"): class_specific(make_p(4), percentile=20),
    }
    table = compare.labellings_side_by_side(tables.stats_table(selections)).set_index("task")
    assert table.index.tolist() == ["a:x", "b:x", "average"]

    def mean_count(store, task):
        return selections[store, task]["member"].values.sum() / 3

    for task in ("a:x", "b:x"):
        first, second = mean_count("ssl", task), mean_count("random", task)
        row = table.loc[task]
        assert second > first
        assert row["neurons_per_category ssl"] == first
        assert row["neurons_per_category random"] == second
        assert row["neurons_per_category difference"] == second - first
    average = np.mean([mean_count("random", task) - mean_count("ssl", task) for task in ("a:x", "b:x")])
    assert table.loc["average", "neurons_per_category difference"] == pytest.approx(average)


def test_stores_that_cannot_be_compared():
    stats = tables.stats_table(
        {("a", "t:x"): class_specific(make_p(0), percentile=10), ("b", "u:x"): class_specific(make_p(1), percentile=10)}
    )
    with pytest.raises(ValueError, match="a and b have no labelling in common"):
        compare.labellings_side_by_side(stats)
    with pytest.raises(ValueError, match=r"found 1 stores \(a\); expected two"):
        compare.labellings_side_by_side(stats[:1])


def test_layers_by_depth_silence_and_entropy():
    p = make_p(5)
    p[1, :7] = 0  # silent
    p[2] = 0
    found = class_specific(p, percentile=20)
    member = found["member"]
    table = compare.layers_side_by_side({"ssl": found, "sl": found.transpose()})
    assert table["store"].tolist() == ["ssl"] * 3 + ["sl"] * 3
    assert table["layer"].tolist() == [0, 1, 2] * 2
    assert table["silent"].tolist() == [0, 7, 40] * 2
    assert table["class_specific"].tolist() == [int(member.values[i].any(-1).sum()) for i in range(3)] * 2
    share = p.values[1, 7:] / p.values[1, 7:].sum(-1, keepdims=True)
    by_hand = np.sort(-(share * np.log(share)).sum(-1))
    assert table["aape_q50"][1] == pytest.approx(by_hand[16])  # the middle one of 33
    assert np.isnan(table["aape_q50"][2])


def test_categories_beside_each_other():
    a, b = make_member(0), make_member(1, ("hen", "emu", "dog"))
    table = compare.categories_side_by_side({"ssl": a, "sl": b})
    assert table["category"].tolist() == ["dog", "cat", "hen", "emu"]
    assert table["ssl"].tolist() == [*a.values.sum((0, 1)), pd.NA]
    assert table["sl"][[2, 3, 0]].tolist() == b.values.sum((0, 1)).tolist()
    assert table["sl"].isna().tolist() == [False, True, False, False]


def test_agreement_is_spearmans_correlation_over_shared_categories():
    names = [f"c{i}" for i in range(9)]
    a, b = make_member(0, names), make_member(1, [*names[::-1], "other"])
    counts_b = dict(zip(b["category"].values, b.values.sum((0, 1)), strict=True))
    want = spearmanr(a.values.sum((0, 1)), [counts_b[name] for name in names]).statistic
    assert compare.count_agreement(a, b) == pytest.approx(want)
    assert compare.count_agreement(a, a) == pytest.approx(1)
    assert np.isnan(compare.count_agreement(a, xr.zeros_like(b)))
    assert np.isnan(compare.count_agreement(a, b.sel(category=["other"])))
    two = a.values.sum((0, 1)).argsort()[[0, -1]]
    assert np.isnan(compare.count_agreement(a.isel(category=two), a))  # two points always lie on a line


def test_which_neurons_serve_several_tasks(nothing_computes):
    members = {"a:x": make_member(0), "b:x": make_member(1, ("s", "xl")), "c:x": make_member(2)}
    with nothing_computes():
        lazy = compare.serving({name: member.chunk() for name, member in members.items()})
    found = compare.serving(members)
    xr.testing.assert_identical(lazy.compute(), found)
    by_hand = np.array([member.values.any(-1) for member in members.values()])
    np.testing.assert_array_equal(found["serves"], by_hand)
    np.testing.assert_array_equal(found["n_tasks"], by_hand.sum(0))

    table = compare.serving_table(found)
    assert len(table) == by_hand.any(0).sum()
    assert table["n_tasks"].tolist() == sorted(by_hand.sum(0)[by_hand.any(0)], reverse=True)
    for row in table.itertuples():
        serves = by_hand[:, row.layer, row.neuron]
        assert row.tasks == ", ".join(name for name, yes in zip(members, serves, strict=True) if yes)
        assert row.n_tasks == serves.sum()
    alone = table[table["n_tasks"] == 1][["layer", "neuron"]].values.tolist()
    assert alone == sorted(alone)


def test_neurons_of_different_encoders_serve_nothing_together():
    with pytest.raises(ValueError, match=r"memberships over .* expected the same layers and neurons"):
        compare.serving({"a": make_member(0), "b": make_member(1).isel(neuron=slice(9))})
    shifted = make_member(1).assign_coords(neuron=np.arange(40) + 1)
    with pytest.raises(ValueError, match="only neurons of one encoder"):
        compare.serving({"a": make_member(0), "b": shifted})
    with pytest.raises(ValueError, match="found no labelling"):
        compare.serving({})
