"""Exemplars against a plain sort, whatever the chunks; and by name from a store."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import otoscope
from otoscope.analysis.exemplars import exemplar_clips, exemplars_table

from ..support.closed_form import expected


def by_sorting(values, counted, k, lowest):
    """Positions by Python's stable sort, clip by clip."""
    rows = []
    for row in values.reshape(-1, values.shape[-1]).astype(float):
        clips = [i for i in range(len(row)) if counted[i] and not np.isnan(row[i])]
        clips.sort(key=lambda i: row[i] if lowest else -row[i])
        rows.append((clips + [-1] * k)[:k])
    return np.array(rows).reshape(*values.shape[:-1], k)


def make_values(seed, shape, ties):
    rng = np.random.default_rng(seed)
    values = rng.choice([-1.5, -0.0, 0.0, 1e-7, 2.0, np.nan], shape) if ties else rng.standard_normal(shape)
    return values.astype(np.float16 if seed % 2 else np.float32), rng.random(shape[-1]) < 0.8


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_positions_are_those_of_a_stable_sort(seed, ties, lowest):
    values, counted = make_values(seed, (2, 5, 43), ties)
    array = xr.DataArray(values, dims=("layer", "neuron", "clip"))
    found = exemplar_clips(array, xr.DataArray(counted, dims="clip"), 7, lowest)
    want = by_sorting(values, counted, 7, lowest)
    np.testing.assert_array_equal(found["position"], want)
    there = want >= 0
    assert there.all() or ties
    picked = np.take_along_axis(values, np.where(there, want, 0), axis=-1).astype(np.float32)
    np.testing.assert_array_equal(found["value"], np.where(there, picked, np.nan))


@pytest.mark.parametrize("chunks", [{"clip": 5}, {"clip": (1, 40, 2)}, {"clip": 10, "neuron": 2}, {"layer": 1}, {}])
def test_any_chunks_give_the_same_and_nothing_computes(chunks, nothing_computes):
    values, counted = make_values(1, (2, 5, 43), ties=True)
    array = xr.DataArray(values, dims=("layer", "neuron", "clip"))
    allowed = xr.DataArray(counted, dims="clip")
    with nothing_computes():
        lazy = exemplar_clips(array.transpose("clip", ...).chunk(chunks), allowed.chunk(clip=9), 7)
        one = exemplar_clips(array.isel(layer=1, neuron=3).chunk(clip=chunks.get("clip", 43)), allowed, 7)
    xr.testing.assert_identical(lazy.compute(), exemplar_clips(array, allowed, 7))
    xr.testing.assert_equal(one.compute(), exemplar_clips(array, allowed, 7).isel(layer=1, neuron=3))


def test_fewer_clips_than_requested():
    found = exemplar_clips(xr.DataArray([3.0, np.nan, 4.0], dims="clip"), k=5)
    assert found["position"].values.tolist() == [2, 0, -1, -1, -1]
    assert np.isnan(found["value"].values[2:]).all()
    empty = xr.DataArray(np.zeros((2, 0)), dims=("neuron", "clip"))
    for values in (empty, empty.chunk()):
        assert (exemplar_clips(values, k=2)["position"] == -1).all()


def test_a_table_names_clips_and_labels(finished):
    ds = otoscope.open(finished.url)["t"].ds
    means = np.array([expected(sound)["mean"] for sound in finished.sounds])  # (clip, layer, neuron)
    for lowest in (False, True):
        table = exemplars_table(ds, [(1, 2), (0, 7)], k=4, lowest=lowest)
        assert table["layer"].tolist() == [1] * 4 + [0] * 4
        assert table["rank"].tolist() == [1, 2, 3, 4] * 2
        for layer, neuron in ((1, 2), (0, 7)):
            stored = means[:, layer, neuron].astype(np.float16)
            want = by_sorting(stored, np.ones(37, bool), 4, lowest)
            rows = table[table["layer"] == layer]
            assert rows["clip"].tolist() == ds["clip"].values[want].tolist()
            assert rows["path"].tolist() == [f"audio/{i:03d}.wav" for i in want]
            assert rows["mean"].tolist() == stored[want].astype(float).tolist()
            assert rows["kind"].tolist() == ["abc"[i % 3] for i in want]
            assert rows["number"].tolist() == [str(i % 11) for i in want]


def test_failed_clips_rank_nowhere(task):
    ds = task.assign(mean=task["mean"].fillna(100))
    table = exemplars_table(ds, [(0, 0)], k=200)
    ok = (task["status"] == 1).values
    assert len(table) == ok.sum()
    assert set(table["clip"]) == set(task["clip"].values[ok])


def test_mistakes_are_named(task):
    with pytest.raises(LookupError, match=r"no neuron \(2, 17\); expected layer 0 to 2, neuron 0 to 19 where"):
        exemplars_table(task, [(2, 17)])  # the last layer is 15 wide
    with pytest.raises(LookupError, match=r"no neuron \(3, 0\)"):
        exemplars_table(task, [(3, 0)])
    with pytest.raises(LookupError, match="--keep mean"):
        exemplars_table(task.drop_vars("mean"), [(0, 0)])
    with pytest.raises(LookupError, match="have no clips; expected a store"):
        exemplars_table(xr.Dataset({"probability": ("category", [0.5])}), [(0, 0)])
    with pytest.raises(ValueError, match="found no neuron"):
        exemplars_table(task, [])
    with pytest.raises(ValueError, match="k is 0"):
        exemplar_clips(task["mean"], k=0)
    with pytest.raises(ValueError, match="one bool per clip"):
        exemplar_clips(task["mean"], task["status"].isel(clip=slice(3)) == 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clips():
    code = """
import sys, tracemalloc, dask.array as da, numpy as np, xarray as xr
from otoscope.analysis.exemplars import exemplar_clips
blocks = int(sys.argv[1])
noise = lambda block_id: np.random.default_rng(block_id[2]).random((1, 64, 2000), np.float32)
chunks = ((1,), (64,), (2000,) * blocks)
values = xr.DataArray(da.map_blocks(noise, chunks=chunks, dtype=np.float32), dims=("layer", "neuron", "clip"))
exemplar_clips(values.isel(clip=slice(4000))).compute(scheduler="synchronous")
tracemalloc.start()
exemplar_clips(values).compute(scheduler="synchronous")
print(tracemalloc.get_traced_memory()[1])
"""
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, check=True).stdout)
        for n in (4, 40)
    ]
    assert peaks[1] < 1.3 * peaks[0]


def test_exemplars_by_accessor_stay_lazy(finished, nothing_computes):
    ds = otoscope.open(finished.url)["t"].ds
    with nothing_computes():
        lazy = ds.otoscope.exemplars(1, 2, k=40)
        many = ds.otoscope.exemplars([1], [2, 0], k=40)
    found = lazy.compute()
    table = exemplars_table(ds, [(1, 2)], k=40)
    assert found["clip"].values.tolist() == [*table["clip"], "", "", ""]
    assert found["value"].values[:37].tolist() == table["mean"].tolist()
    assert many.compute()["clip"].values[0, 0].tolist() == found["clip"].values.tolist()


def test_which_neurons_serve_two_labellings_of_a_task(task):
    found = task.otoscope.serving("animal", "size", percentile=20).compute()
    assert found["serves"].dims == ("task", "layer", "neuron")
    for name in ("animal", "size"):
        member = task.otoscope.class_specific(name, percentile=20)["member"].compute()
        np.testing.assert_array_equal(found["serves"].sel(task=name), member.any("category"))
