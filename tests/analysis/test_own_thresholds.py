"""Thresholds of the neuron's own, against numpy's quantile and deviation of its values, sorted and exact."""

import itertools
from fractions import Fraction

import dask
import numpy as np
import pytest
import xarray as xr

import otoscope.analysis.accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis import class_specific
from otoscope.analysis import own_thresholds as module
from otoscope.analysis.null.permutation import permutation_null
from otoscope.analysis.null.resampling import redraw_clips
from otoscope.analysis.own_thresholds import neuron_thresholds
from otoscope.analysis.selection.selection import Selection

from ..support.amounts import quick_sample

FLOATS = ("f2", "f4", "f8")


def means(dtype: str, n_clips: int = 157) -> xr.DataArray:
    """(layer, neuron, clip), some neurons with what is special about floats."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 20, n_clips))
    values[0, 9] = np.round(values[0, 9])  # ties
    values[1, 7] *= 1e-7  # subnormal in float16
    values = values.astype(dtype)
    values[0, 0], values[0, 8] = 0, -1.5  # constant
    values[0, 1] = np.where(np.arange(n_clips) % 2, -0.0, 0.0)
    values[0, 2, ::3], values[0, 3, ::3], values[0, 4, ::5] = (
        np.inf,
        -np.inf,
        1e100 if dtype == "f8" else np.finfo(dtype).max,
    )
    values[1, 4] = np.finfo(dtype).smallest_subnormal * rng.integers(-3, 4, n_clips)
    values[1, 5], values[1, 6, 3] = np.nan, -np.nan  # a neuron that does not exist
    return xr.DataArray(values, {"neuron": np.arange(20), "site": ("layer", list("abc"))}, ("layer", "neuron", "clip"))


def expected(mean: xr.DataArray, counted: np.ndarray, how: str) -> np.ndarray:
    values, number = mean.values[..., counted].astype("f8"), Fraction(how[1:])
    if how[0] == "q":
        at = number * (values.shape[-1] - 1) // 100
        return np.where(np.isnan(values).any(-1), np.nan, np.sort(values, -1)[..., int(at)])
    with np.errstate(invalid="ignore", over="ignore"):
        return values.mean(-1) + float(number) * values.std(-1)


@pytest.mark.parametrize("dtype", quick_sample(FLOATS, 1))
@pytest.mark.parametrize("held", [0, 64 << 20], ids=["in passes", "kept"])
def test_any_chunking_gives_the_quantile_to_the_last_bit(
    dtype: str, held: int, monkeypatch: pytest.MonkeyPatch, nothing_computes
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", held)
    mean, counted = means(dtype), np.random.default_rng(1).random(157) < 0.7
    counted[3] = True
    cut = {"layer": 2, "neuron": 7, "clip": 31}
    for how, chunks in (("q0", cut), ("q29", cut), ("q80", {"neuron": 20}), ("q99.9", {}), ("q100", cut)):
        values = mean.chunk(chunks) if chunks else mean
        with nothing_computes():
            found = neuron_thresholds(values, counted, how)
        if chunks:
            assert found.chunks == values.chunks[:2]  # so that who compares them need not cut means anew
        np.testing.assert_array_equal(found, expected(mean, counted, how))
        assert found.dtype == np.float64
        assert found.dims == ("layer", "neuron")
        assert set(found.coords) == {"neuron", "site"}
        assert not np.signbit(found.values[0, 1])  # -0.0 is 0.0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("how", ["z0", "z1.5", "z-2"])
def test_any_chunking_gives_the_deviation(dtype: str, how: str) -> None:
    mean, counted = means(dtype), np.arange(157) % 3 > 0
    eager = neuron_thresholds(mean.transpose("clip", "layer", "neuron"), counted, how)
    np.testing.assert_allclose(eager, expected(mean, counted, how), rtol=1e-12, atol=1e-12)
    for chunks in ({"clip": 1}, {"clip": 31, "neuron": 7}):
        xr.testing.assert_identical(neuron_thresholds(mean.chunk(chunks), counted, how).compute(), eager)
    assert float(eager[0, 8]) == -1.5  # of a constant, so that it is never above


def test_the_deviation_of_large_numbers_does_not_cancel() -> None:
    exact = np.random.default_rng(0).standard_normal((1, 1, 1000))
    mean = xr.DataArray(exact + 1e8, dims=("layer", "neuron", "clip"))
    found = float(neuron_thresholds(mean, np.ones(1000, bool), "z1")[0, 0]) - 1e8
    assert found == pytest.approx(exact.mean() + exact.std(), abs=3e-8)


def test_ranks_are_those_of_the_percentage_and_not_of_its_float() -> None:
    """0.29 * 100 is less than 29 in floats, and 0.07 * 100 more than 7."""
    for n, percent in itertools.product((1, 2, 11, 101, 1001), ("0", "0.1", "7", "29", "57.7", "80", "100")):
        mean = xr.DataArray(np.arange(n, dtype="f4")[None, None], dims=("layer", "neuron", "clip"))
        rank = int(Fraction(percent) * (n - 1) / 100)
        assert float(neuron_thresholds(mean, np.ones(n, bool), f"q{percent}")[0, 0]) == rank


@pytest.mark.parametrize("how", ["q80", "z1"])
def test_without_a_clip_there_is_none(how: str) -> None:
    mean = means("f4")
    assert neuron_thresholds(mean, np.zeros(157, bool), how).isnull().all()
    assert neuron_thresholds(mean.isel(clip=slice(0)).chunk(), np.zeros(0, bool), how).isnull().all()
    assert neuron_thresholds(mean.isel(neuron=[]).chunk(), np.ones(157, bool), how).shape == (3, 0)
    with pytest.raises(ValueError, match="counted is of 9 clips, the means of 157"):
        neuron_thresholds(mean, np.ones(9, bool), how)


def test_a_task_holds_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of neurons is as wide as a stored chunk or as what fits; what does not fit is read in passes."""
    monkeypatch.setattr(module, "HELD_BYTES", 300 * 1000 * 4)
    wide = xr.DataArray(
        dask.array.zeros((1, 1000, 1000), dtype="f4", chunks=(1, 700, 100)), dims=("layer", "neuron", "clip")
    )
    lengths = [part.stop - part.start for part in module._ranges(wide.data)]
    assert lengths == [256, 256, 188, 256, 44]
    assert [part.stop - part.start for part in module._ranges((wide + 1 + 1).data)] == [700, 300]  # read whole
    blocks = []
    counting = wide.copy(
        data=wide.data.map_blocks(lambda block: (blocks.append(block.shape), block)[1], meta=np.zeros((0, 0, 0), "f4"))
    )
    neuron_thresholds(counting, np.ones(1000, bool), "q80").compute(scheduler="synchronous")
    assert len(blocks) == 5 * 10  # each of five ranges in one pass: no value has a bit after its first digit
    blocks.clear()
    neuron_thresholds(counting + np.float32(1) + np.float32(0.1), np.ones(1000, bool), "q80").compute(
        scheduler="synchronous"
    )
    assert len(blocks) == 3 * 10 + 10  # once for each digit where they are too many to be kept
    blocks.clear()
    monkeypatch.setattr(module, "HELD_BYTES", 700 * 1000 * 4)
    neuron_thresholds(counting + np.float32(1) + np.float32(0.1), np.ones(1000, bool), "q80").compute(
        scheduler="synchronous"
    )
    assert len(blocks) == 2 * 10


# Of a data set


def test_by_the_clips_that_count(task) -> None:
    labelled = task["animal"].notnull().values & (task["status"].values == 1)
    small = labelled & (task["size"].values == "s")
    for how, counted in (
        (Selection(threshold="q80"), labelled),
        (Selection(threshold="q80", where=("size=s",)), small),
        (Selection(threshold="q80", confirm=("size=xl",)), small),
        (Selection(threshold="median"), labelled),
        (Selection(threshold="z1.5"), labelled),
        (Selection(rule="contrast"), labelled),
    ):
        lines = expected(task["mean"], counted, how.line)
        lines = np.where(task["neuron_valid"], lines, np.nan)
        np.testing.assert_allclose(task.otoscope.neuron_thresholds("animal", how), lines, rtol=1e-12)
        active = task["mean"].values > lines[..., None]
        p = task.otoscope.probability("animal", how)
        for category in ("cat", "dog", "hen"):
            clips = counted & (task["animal"].values == category)
            share = np.where(task["neuron_valid"], active[..., clips].mean(-1), np.nan)
            np.testing.assert_array_equal(p.sel(category=category), share)
    with pytest.raises(ValueError, match=r"the threshold is 0\.5; expected one of the neuron's own: q80"):
        task.otoscope.neuron_thresholds("animal", threshold=0.5)


def test_ties_are_inactive_and_a_constant_neuron_is_never_active(task) -> None:
    mean = np.round(task["mean"].fillna(0))
    mean[0, 0] = 0.1
    tied = task.assign(mean=mean.chunk(clip=32))
    for how in ("q80", "median", "z0", "q100"):
        p = tied.otoscope.probability("animal", threshold=how).isel(layer=0, neuron=0)
        assert (p == 0).all(), how
    lines = tied.otoscope.neuron_thresholds("animal", threshold="q80").compute()
    counted = tied.otoscope.codes("animal").values >= 0
    assert (mean.values[..., counted] == lines.values[..., None]).mean() > 0.1
    share = (mean > lines).values[..., counted].mean(-1)
    assert (share <= 0.2).all()


def test_only_the_literal_zero_uses_the_bit(task) -> None:
    rounded = task.assign(mean=xr.zeros_like(task["mean"]))
    assert (rounded.otoscope.probability("animal", threshold="q80").fillna(0) == 0).all()
    assert (rounded.otoscope.probability("animal", threshold=0).fillna(0) > 0).any()


def test_it_is_held_fixed_when_labels_are_shuffled_and_clips_drawn_anew(new_task) -> None:
    task = new_task()
    sample = task.otoscope.sample("animal", threshold="q80", rule="lape")
    counted = task.otoscope.codes("animal").values >= 0
    active = task["mean"].values > expected(task["mean"], counted, "q80")[..., None]
    fixed = active[..., counted].transpose(2, 0, 1)[:, task["neuron_valid"].values]
    clips = redraw_clips(sample, 0, 0)
    assert len(np.unique(clips)) < len(clips)
    for drawn in (None, clips):
        counts, _ = sample.counts(sample.codes, 3, drawn)
        rows, codes = (fixed, sample.codes) if drawn is None else (fixed[drawn], sample.codes[drawn])
        np.testing.assert_array_equal(counts, [rows[codes == c].sum(0) for c in range(3)])
    how = Selection(threshold="q80", percentile=20, permutations=20)
    null = permutation_null(sample, how)
    ratio = task.otoscope.common_neuron_ratio("animal", selection=how)
    np.testing.assert_array_equal(null["common_neuron_ratio"], ratio)


def test_thresholds_are_found_once_for_all_blocks(task, monkeypatch: pytest.MonkeyPatch) -> None:
    found, find = [], module._thresholds
    monkeypatch.setattr(module, "_thresholds", lambda *given: (found.append(1), find(*given))[1])
    p = task.otoscope.probability("animal", threshold="q80")
    class_specific(p).compute()
    assert len(found) == task.sizes["layer"]
    task.otoscope.sample("animal", threshold="q80", rule="lape")
    assert len(found) == 2 * task.sizes["layer"]
