"""Totals of what is stored, as it lies on disk, are those of the same values in memory, whatever was selected of it.

And what is damaged or missing is said as by reading it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from otoscope.analysis import adders, rates, totals
from otoscope.store.reader import open_store

from ..support.amounts import quick_sample
from ..support.known_store import make_known

Statistic = Callable[[xr.Dataset, xr.DataArray], xr.DataArray]
LINES = xr.DataArray(np.linspace(-1, 1, 2 * 300).reshape(2, 300), dims=("layer", "neuron"))
STATISTICS: dict[str, Statistic] = {
    "bits": lambda ds, codes: rates.activation_probability(ds["active_bits"], codes),
    "above a number": lambda ds, codes: rates.probability_above(ds["mean"], 0.1, codes),
    "above one per neuron": lambda ds, codes: rates.probability_above(ds["mean"], of_neurons(ds), codes),
    "above lazy ones": lambda ds, codes: rates.probability_above(ds["mean"], of_neurons(ds).chunk(neuron=7), codes),
    "frames": lambda ds, codes: rates.frame_probability(ds["positive_frames"], ds["frame_count"], codes),
    "means": lambda ds, codes: rates.category_mean(ds["mean"], codes),
}


def of_neurons(ds: xr.Dataset) -> xr.DataArray:
    return LINES.isel(layer=ds["layer"].values, neuron=ds["neuron"].values)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    url = str(tmp_path_factory.mktemp("totals") / "known.zarr")
    known = make_known()
    known.begin(url)
    known.write(url)
    return open_store(url)["t"].to_dataset()


@pytest.fixture(scope="module")
def loaded(task: xr.Dataset) -> xr.Dataset:
    return task.compute()


def axis(n: int) -> st.SearchStrategy[Any]:
    return st.slices(n) | st.lists(st.integers(0, n - 1), min_size=1, max_size=40)


@pytest.mark.filterwarnings("ignore:Increasing number of chunks")  # of drawn selections, by dask
@pytest.mark.parametrize("name", STATISTICS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_of_any_selection(task: xr.Dataset, loaded: xr.Dataset, name: str, data: st.DataObject) -> None:
    dims = ("clip",) if name == "bits" else ("clip", "neuron", "layer")
    where = {dim: data.draw(axis(task.sizes[dim])) for dim in data.draw(st.sets(st.sampled_from(dims)))}
    try:
        lazy = task.isel(where)
    except ValueError:  # Dask selects nothing by a list from chunks of one
        assume(False)
    n = lazy.sizes["clip"]
    seed = data.draw(st.integers(0, 99))
    codes = xr.DataArray(
        np.random.default_rng(seed).integers(-1, 3, n), dims="clip", attrs={"categories": ["a", "b", "c"]}
    )
    assume(n and lazy.sizes["neuron"] and lazy.sizes["layer"])
    found, expected = (STATISTICS[name](ds, codes) for ds in (lazy, loaded.isel(where)))
    np.testing.assert_array_equal(found.compute(), expected)


def test_they_are_walked_as_they_lie(task: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the reader shows, and of selected clips in any order, without a task for each chunk."""
    monkeypatch.setattr(totals, "_step", None)
    for ds in (task, task.isel(clip=[7, 3, 3, 100]), task.isel(clip=slice(None, None, 2))):
        codes = xr.DataArray(np.arange(ds.sizes["clip"]) % 3, dims="clip", attrs={"categories": ["a", "b", "c"]})
        for name in STATISTICS.keys() - {"frames"}:  # the clips' numbers of frames are read by Dask
            STATISTICS[name](ds, codes).compute(scheduler="synchronous")


@pytest.mark.parametrize("name", quick_sample(STATISTICS, 2))
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damage_is_said_as_by_reading(tmp_path: Path, name: str, how: str) -> None:
    url, known = str(tmp_path / "known.zarr"), make_known()
    known.begin(url)
    known.write(url)
    array = {"bits": "active_bits", "frames": "positive_frames"}.get(name, "mean")
    damaged = sorted((tmp_path / "known.zarr/t" / array / "c").rglob("*/1/0"))[0]
    whole = bytearray(damaged.read_bytes())
    if how == "gone":
        damaged.unlink()
    else:
        whole[5] ^= 1
        damaged.write_bytes(whole if how == "flipped" else whole[: len(whole) // 2])
    ds = open_store(url)["t"].to_dataset()
    codes = xr.DataArray(np.zeros(ds.sizes["clip"], int), dims="clip", attrs={"categories": ["a"]})
    with pytest.raises((ValueError, FileNotFoundError)) as reading:
        ds[array].compute(scheduler="synchronous")
    with pytest.raises(type(reading.value)) as counting:
        STATISTICS[name](ds, codes).compute(scheduler="synchronous")
    assert str(counting.value) == str(reading.value)
    assert f"t/{array}" in str(counting.value)
    if how != "gone":
        assert "c/0/1/0" in str(counting.value)


def test_every_float16_is_compared_and_widened_exactly() -> None:
    """All 65,536 of them, with every kind of number, against numpy's float64."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(adders.widened(halves), halves.astype(np.float32))
    digits = [adders._single_by_digits(bits) for bits in halves.view(np.uint16)]  # where there is no instruction for it
    np.testing.assert_array_equal(digits, halves.astype(np.float32))
    own = [0.0, -0.0, 1e-9, -1e-9, 2**-24, 0.1, -0.1, 1 / 3, 65504, 65505, 1e9, -65504, -65505, -1e9, np.inf, -np.inf]
    floors = np.array([*own, np.nan, 6e-5, -6e-5], np.float32)
    keys, counts = adders.keys_of(floors), np.zeros((1 << 16, 1, len(floors)), np.int32)
    rows = np.repeat(halves.view(np.int16)[:, None], len(floors), 1)
    adders.add_keys_above(rows, np.arange(1 << 16), np.arange((1 << 16) + 1), keys, counts, 0, 0)
    np.testing.assert_array_equal(counts[:, 0] > 0, halves.astype(np.float64)[:, None] > floors.astype(np.float64))
