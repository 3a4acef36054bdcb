"""Categories are strings that whole numbers find, and in all else like an array's own strings.

What pandas and xarray do with the index is theirs: these are the operations that must not change with their versions.
"""

import pickle
import traceback
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zarr.errors import UnstableSpecificationWarning

from otoscope.ablate.effects import clip_scores, compare
from otoscope.analysis import across
from otoscope.analysis.categories import category_names
from otoscope.analysis.null.permutation import permutation_null
from otoscope.analysis.null.resampling import take_sample
from otoscope.analysis.published.given import read_probability
from otoscope.analysis.rates import category_mean

NAMES = ["1", "3", "03", "10", "2"]
VALUES = np.arange(10.0).reshape(2, 5)


def array(category, **more) -> xr.DataArray:
    coords = {"neuron": [0, 1], "category": category, "n_clips": ("category", np.arange(5)), **more}
    return xr.DataArray(VALUES, dims=("neuron", "category"), coords=coords, name="p")


@pytest.fixture
def ours() -> xr.DataArray:
    return array(category_names(NAMES))


@pytest.fixture
def plain() -> xr.DataArray:
    return array(NAMES)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        *[(key, 1) for key in ("3", 3, np.int64(3), np.uint8(3), np.array(3), xr.DataArray(3))],
        *[(key, [1, 3]) for key in (["3", "10"], [3, 10], np.array([3, 10], np.int32), [3, "10"])],
        (xr.DataArray([[3, 2], [1, 1]], dims=("a", "b")), [[1, 4], [0, 0]]),
    ],
)
def test_numbers_find_the_names_that_look_like_them(ours, asked, found):
    assert np.array_equal(ours.sel(category=asked), VALUES[:, found])
    assert np.array_equal(ours.loc[:, asked], VALUES[:, found])


@pytest.mark.parametrize(
    "absent", [4, -3, 3.0, np.float32(3), True, np.True_, None, "x", [3, 4], [3.0], [3, 3.5], (3, 1)]
)
def test_what_is_absent_is_a_key_error(ours, absent):
    with pytest.raises(KeyError):
        ours.sel(category=absent)


def test_the_error_names_what_exists(ours):
    with pytest.raises(KeyError) as error:
        ours.sel(category=4)
    assert "no category 4; those that exist: 1, 3, 03, 10, 2" in "".join(traceback.format_exception(error.value))
    with pytest.raises(KeyError, match=r"those that exist: 0, 1, .*, 19, \.\.\."):
        category_names([str(i) for i in range(1000)]).to_index().get_loc("a")
    with pytest.raises(KeyError, match="not found"):
        ours.drop_sel(category=3)
    with pytest.raises(TypeError, match="slice"):
        ours.sel(category=slice(1, 3))


KEPT = {
    "selection": lambda x: x.isel(category=[1, 0, 4]),
    "selection by name": lambda x: x.sel(category=["3", "2"]),
    "slice": lambda x: x.isel(category=slice(1, None)),
    "slice of names": lambda x: x.sel(category=slice("3", "2")),
    "bools": lambda x: x.where(x["category"] != "1", drop=True),
    "sorted": lambda x: x.sortby("category", ascending=False),
    "arithmetic": lambda x: x * array(NAMES),
    "arithmetic of others": lambda x: x - array(NAMES).isel(category=[4, 1]),
    "as a data set": lambda x: x.to_dataset(name="p").assign(q=x)["q"],
    "in a tree": lambda x: xr.DataTree.from_dict({"/t": x.to_dataset(name="p")})["t"]["p"],
    "renamed": lambda x: x.rename(category="b").rename(b="category"),
    "attributes": lambda x: x.assign_coords(category=x["category"].assign_attrs(long_name="a:b")),
    "aligned": lambda x: xr.align(x, array(NAMES), join="exact")[0],
    "put together": lambda x: xr.concat([x, x + 1], dim="task", coords="different", compat="equals"),
    "without other coordinates": lambda x: x.reset_coords(drop=True),
    "ufunc": lambda x: xr.apply_ufunc(np.sqrt, x),
    "chunks": lambda x: x.chunk(category=2).cumsum("category").compute(),
    "copied": lambda x: x.copy(deep=True),
    "pickled": lambda x: pickle.loads(pickle.dumps(x)),
}
LOST = {
    "end to end": lambda x: xr.concat([x, x.assign_coords(category=list("abcde"))], dim="category"),
    "first operand": lambda x: array(NAMES) * x,
    "joined": lambda x: xr.align(array(NAMES).isel(category=[1]), x, join="outer")[1],
    "grouped": lambda x: x.groupby("category").mean(),
    "stacked": lambda x: x.stack(z=("neuron", "category")).unstack("z"),
    "padded": lambda x: x.pad(category=1),
    "reindexed": lambda x: x.reindex(category=["3", "7"]),
}


@pytest.mark.parametrize("name", [*KEPT, *LOST])
def test_every_operation_gives_what_it_gives_for_plain_strings(ours, plain, name):
    operation = {**KEPT, **LOST}[name]
    result, expected = operation(ours), operation(plain)
    xr.testing.assert_identical(result, expected)
    xr.testing.assert_identical(expected, result)
    assert result["category"].dtype == expected["category"].dtype
    assert repr(result) == repr(expected)
    if name in KEPT:
        xr.testing.assert_identical(result.sel(category=3), result.sel(category="3"))
    else:
        with pytest.raises(KeyError):
            result.sel(category=3)


def test_whole_numbers_of_others_are_other_categories(ours, plain):
    numbers = plain.assign_coords(category=[1, 3, 0, 10, 2])
    assert (ours * numbers).sizes["category"] == (numbers * ours).sizes["category"] == 0
    for aligned, expected in zip(
        xr.align(ours, numbers, join="outer"), xr.align(plain, numbers, join="outer"), strict=True
    ):
        xr.testing.assert_identical(aligned, expected)
    with pytest.raises(ValueError, match="exact"):
        xr.align(ours, numbers, join="exact")
    found = ours.reindex(category=[3, 7])
    assert found["category"].values.tolist() == [3, 7]
    assert np.array_equal(found, [[1, np.nan], [6, np.nan]], equal_nan=True)


def test_files_and_frames_are_those_of_plain_strings(ours, plain, tmp_path):
    for name, each in (("ours", ours), ("plain", plain)):
        with warnings.catch_warnings(category=UnstableSpecificationWarning, action="ignore"):  # of any <U in zarr 3
            each.to_dataset().to_zarr(tmp_path / name, consolidated=False)
    xr.testing.assert_identical(*(xr.open_zarr(tmp_path / name, consolidated=False) for name in ("ours", "plain")))
    frame, expected = ours.to_pandas(), plain.to_pandas()
    pd.testing.assert_frame_equal(frame, expected, check_column_type=False)
    assert frame[3].tolist() == frame["3"].tolist() == VALUES[:, 1].tolist()
    assert frame.T.loc[[3, 10]].index.tolist() == ["3", "10"]
    assert frame.to_csv() == expected.to_csv()
    pd.testing.assert_frame_equal(ours.to_dataframe().reset_index(), plain.to_dataframe().reset_index())
    pd.testing.assert_frame_equal(frame + expected, 2 * expected, check_column_type=False)
    pd.testing.assert_frame_equal(pd.concat([frame, expected]), pd.concat([expected, frame]), check_column_type=False)


def results(task, table):
    """Everything that has categories, of a task whose labels are numbers."""
    asked = task.otoscope
    tree = xr.DataTree.from_dict({"one": task, "two": task.isel(clip=slice(60))})
    unlike = xr.DataTree.from_dict({"one": task.isel(clip=(task["animal"] != "2").values), "two": task})
    chosen = asked.class_specific("animal", percentile=30)
    codes = asked.codes("animal")
    truth = np.arange(20) % 3
    scores, predicted = clip_scores(np.random.default_rng(0).normal(size=(4, 20, 3)), truth, None)
    yield asked.probability("animal")
    yield asked.probability("animal", reading="frame")
    yield category_mean(task["mean"], codes)
    yield from (chosen["member"], chosen["probability"], chosen)
    yield asked.common_neuron_ratio("animal", percentile=30)
    yield permutation_null(take_sample(task["active"], codes), permutations=9, percentile=30)
    yield from (across(each, lambda ds: ds.otoscope.probability("animal")) for each in (tree, unlike))
    yield across(unlike, lambda ds: ds.otoscope.common_neuron_ratio("animal", percentile=30))
    yield compare(scores, predicted, truth, ["2", "3", "03"])
    table.write_text("layer,neuron,2,3,03\n0,0,0.5,0.25,0\n")
    yield read_probability(table)


def test_every_result_answers_numbers(new_task, tmp_path):
    for result in results(new_task(categories=("3", "03", "2")), tmp_path / "p.csv"):
        for dim in {"category", "other_category", "predicted"} & set(result.dims):
            assert result[dim].dtype.kind in "UO"
            assert result.sel({dim: 3})[dim].item() == "3"
            xr.testing.assert_identical(result.sel({dim: [3, 2]}), result.sel({dim: ["3", "2"]}))
            with pytest.raises(KeyError):
                result.sel({dim: 4})


def test_results_stay_lazy(new_task, nothing_computes):
    with nothing_computes():
        p = new_task(categories=("3", "03", "2")).otoscope.probability("animal")
        assert p.sel(category=[3, 2]).chunks is not None
