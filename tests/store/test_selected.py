"""What a selection of an open data set shows of its stored arrays is what that selection gives, or is not known."""

from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import xarray as xr
from dask.tokenize import tokenize
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from otoscope.store.reader import open_store
from otoscope.store.selected import selected_by

from ..support.known_store import Known

DIMS = ("layer", "neuron", "clip")


@pytest.fixture(scope="module")
def task(known: Known, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Blocks of 32 clips of which some failed."""
    url = str(tmp_path_factory.mktemp("selected") / "known.zarr")
    known.begin(url)
    known.write(url)
    return open_store(url)["t"].to_dataset()


def axis(n: int) -> st.SearchStrategy[Any]:
    """A slice in steps of either sign, positions in any order, repeated or none, or a bool for each."""
    positions = st.lists(st.integers(0, n - 1), min_size=1, max_size=9)
    return st.slices(n) | positions | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array)


def read(values: xr.DataArray) -> np.ndarray | None:
    found = selected_by(values.data, tuple(map(str, values.dims)))
    return None if found is None else found.read()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_selected_is_followed(task: xr.Dataset, data: st.DataObject) -> None:
    values = task["mean"]
    for _ in range(2):
        dim = data.draw(st.sampled_from(DIMS))
        if values.sizes[dim]:
            try:
                values = values.isel({dim: data.draw(axis(values.sizes[dim]))})
            except ValueError:  # Dask selects nothing by a list from chunks of one
                assume(False)
        values = values.transpose(*data.draw(st.permutations(DIMS)))
    expected = values.transpose("layer", "clip", "neuron").values
    found = read(values)
    assert found is not None
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected)


def test_what_else_is_done_is_not_followed(task: xr.Dataset) -> None:
    mean = task["mean"]
    done = [
        mean * 2, mean.isel(clip=slice(9)) + 1, mean.where(mean > 0), mean.astype("f8"), mean.fillna(0), abs(mean),
        mean.cumsum("clip"), mean.roll(clip=3), mean.chunk(clip=7),
        mean.copy(data=mean.data.map_blocks(np.negative)), mean.isel(layer=0), mean.expand_dims(x=2).isel(x=0),
        mean.compute(), xr.concat([mean, mean], "clip"), mean.rename(layer="neuron", neuron="layer"),
        mean.isel(clip=[0]) - mean.isel(clip=[1]), task["active"],
    ]  # fmt: skip
    for each in done:
        assert read(each) is None


def test_a_selection_that_was_sent_elsewhere_is_read_there_by_dask(task: xr.Dataset) -> None:
    few = task["mean"].isel(clip=[3, 1])
    np.testing.assert_array_equal(cloudpickle.loads(cloudpickle.dumps(few)).values, few.values)


def test_two_openings_are_two(known: Known, tmp_path: Path) -> None:
    """The same place may hold other values when it is opened again."""
    url = str(tmp_path / "a.zarr")
    known.begin(url)
    known.write(url)
    found = [selected_by(open_store(url)["t"]["mean"].data, DIMS) for _ in range(2)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].stored is not found[1].stored
    names = {tokenize(each) for each in found}
    assert len(names) == 2
    assert {tokenize(each.part()) for each in found} == names
