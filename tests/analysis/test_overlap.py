"""Common neuron ratios against python's sets."""

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import common_neuron_ratio
from otoscope.analysis.overlap import arranged, overlap_cell, overlap_map


def make_member(seed, n_categories, density=0.1):
    found = np.random.default_rng(seed).random((3, 40, n_categories)) < density
    found[..., 0] = False
    names = [f"{seed}-{i}" for i in range(n_categories)]
    return xr.DataArray(found, dims=("layer", "neuron", "category"), coords={"category": names, "layer": [0, 1, 2]})


def as_sets(member):
    return [set(map(tuple, np.argwhere(member.values[..., c]))) for c in range(member.sizes["category"])]


@pytest.mark.parametrize("across", [False, True])
def test_jaccard_of_sets(across, nothing_computes):
    a, b = make_member(1, 5), make_member(2, 7, density=0.4)
    pair = (a, b) if across else (a,)
    expected = [[len(x & y) / len(x | y) if x | y else np.nan for y in as_sets(pair[-1])] for x in as_sets(a)]
    ratio = common_neuron_ratio(*pair)
    assert ratio.dims == ("category", "other_category")
    np.testing.assert_array_equal(ratio, expected)
    assert ratio["category"].values.tolist() == a["category"].values.tolist()
    assert ratio["other_category"].values.tolist() == pair[-1]["category"].values.tolist()
    with nothing_computes():
        lazy = common_neuron_ratio(*(m.chunk(neuron=9, category=2) for m in pair))
    np.testing.assert_array_equal(lazy, ratio)
    if not across:
        assert np.isnan(ratio[0, 0])  # two empty sets
        np.testing.assert_array_equal(np.diag(ratio)[1:], 1)
        np.testing.assert_array_equal(ratio, ratio.values.T)


@pytest.mark.parametrize("across", [False, True])
def test_the_map_and_its_cells_are_those_of_sets(across):
    a, b = make_member(1, 5), make_member(2, 7, density=0.4)
    found = overlap_map(a, b) if across else overlap_map(a)
    b = b if across else a
    np.testing.assert_array_equal(found.ratio, common_neuron_ratio(a, b))
    assert found.own.tolist() == [len(x) for x in as_sets(a)]
    assert found.other.tolist() == [len(y) for y in as_sets(b)]
    assert found.shared.tolist() == [[len(x & y) for y in as_sets(b)] for x in as_sets(a)]
    for name, x in zip(found.categories, as_sets(a), strict=True):
        for other, y in zip(found.other_categories, as_sets(b), strict=True):
            cell = overlap_cell(a, name, b.transpose("category", ...), other)
            parts = (cell.shared, cell.only_first, cell.only_second)
            assert [set(map(tuple, np.argwhere(part))) for part in parts] == [x & y, x - y, y - x]
    with pytest.raises(LookupError, match=r"no category 'dog'; those that exist: '1-0', '1-1'"):
        overlap_cell(a, "dog", b, found.other_categories[0])
    with pytest.raises(ValueError, match="only neurons of one encoder can be common"):
        overlap_cell(a, "1-1", b.isel(neuron=slice(39)), found.other_categories[0])


def test_neurons_of_different_encoders_have_nothing_in_common():
    a = make_member(1, 3)
    for b in (a.isel(neuron=slice(39)), a.assign_coords(layer=[0, 1, 3])):
        with pytest.raises(ValueError, match=r"only neurons of one encoder can be common"):
            common_neuron_ratio(a, b)


def square(rows, columns):
    values = np.arange(len(rows) * len(columns), dtype=float).reshape(len(rows), len(columns))
    coords = {"category": list(rows), "other_category": list(columns)}
    return xr.DataArray(values, dims=("category", "other_category"), coords=coords)


def test_arranged_moves_categories_and_their_ratios_together():
    ratio = square("abcde", "dxba")
    found = arranged(ratio, order=["x", "c"], groups={"a": "vowels", "e": "vowels", "b": "labials", "x": "others"})
    assert "".join(found["category"].values) == "aebcd"  # c comes first, but has no group
    assert found["group"].values.tolist() == ["vowels", "vowels", "labials", "", ""]
    assert "".join(found["other_category"].values) == "xbad"
    assert found["other_group"].values.tolist() == ["others", "labials", "vowels", ""]
    xr.testing.assert_equal(
        found.drop_vars(["group", "other_group"]).sortby(["category", "other_category"]),
        ratio.sortby(["category", "other_category"]),
    )


def test_an_order_alone_keeps_the_rest_as_it_was():
    found = arranged(square("abcde", "dxba"), order=["e", "b"])
    assert "".join(found["category"].values) == "ebacd"
    assert "".join(found["other_category"].values) == "bdxa"
    assert "group" not in found.coords
    xr.testing.assert_identical(arranged(square("ab", "c")), square("ab", "c"))


def test_an_arrangement_of_other_categories_raises():
    with pytest.raises(LookupError, match="no category 'z' to arrange; those that exist: a, b, c"):
        arranged(square("ab", "c"), order=["a", "z"])
    with pytest.raises(LookupError, match="no category 'z'"):
        arranged(square("ab", "c"), groups={"z": "x"})
    with pytest.raises(ValueError, match="names 'a' twice"):
        arranged(square("ab", "c"), order=["a", "b", "a"])
