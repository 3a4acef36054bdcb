"""How long do thresholds of the neuron's own take, the 80th percentiles of all neurons, and how much memory?

Warm (the operating system has the file in memory), beside plainly reading the same means a block at a time, and beside
numpy's quantile of the means of some layers, a stored chunk's neurons at a time. All have two threads.
"""

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import xarray as xr

import otoscope
import otoscope.analysis.accessor
import otoscope.store.reader
from otoscope.store.schema import NEURON_CHUNK

from . import harness
from .harness import Figure, Measured, fresh_process, interleaved, median_ratio, memory_rise, read_objects
from .synthetic import LABEL, LAYERS, TASK, WIDTH, write_store

THREADS = 2
HOW = "q80"


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    block: int
    repetitions: int
    numpy_neurons: int
    """Neurons that numpy looks at; its time is scaled up to all."""
    rates: int
    """Clips of the store whose probabilities are compared."""


FULL = Size(clips=100_000, block=2048, repetitions=5, numpy_neurons=2 * NEURON_CHUNK, rates=16_384)
SMALL = Size(clips=300, block=128, repetitions=1, numpy_neurons=NEURON_CHUNK, rates=200)


def by_otoscope(ds: xr.Dataset) -> np.ndarray:
    """(layer, neuron) thresholds."""
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        return ds.otoscope.neuron_thresholds(LABEL, threshold=HOW).values


def by_reading(ds: xr.Dataset) -> None:
    """All means, in blocks as they are stored."""
    blocks = ds["mean"].data.to_delayed().ravel()
    in_threads(lambda block: block.compute(scheduler="synchronous"), list(blocks))


def by_numpy(ds: xr.Dataset, n_neurons: int) -> np.ndarray:
    """(neuron) thresholds of the first neurons."""
    means = ds["mean"].data

    def find(start: int) -> np.ndarray:
        column = means[0, start : start + NEURON_CHUNK].compute(scheduler="synchronous")
        return np.quantile(column, 0.8, axis=1, method="lower")

    return np.concatenate(in_threads(find, list(range(0, n_neurons, NEURON_CHUNK))))


def in_threads(function: Callable, of: list) -> list:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, of))


def rate(ds: xr.Dataset, threshold: xr.DataArray) -> np.ndarray:
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        return ds.otoscope.probability(LABEL, threshold=threshold).values


def rise(url: str) -> int:
    """Bytes by which opening the store and finding thresholds raise the memory of a process with all imports."""
    return memory_rise(lambda: by_otoscope(otoscope.open(url)[TASK].to_dataset()))


def measure(scratch: Path, size: Size) -> Measured:
    url, few = str(scratch / "store.zarr"), str(scratch / "few.zarr")
    write_store(url, n_clips=size.clips, n_categories=50, keep=("mean",), block=size.block)
    write_store(few, n_clips=size.rates, n_categories=50, keep=("mean",), block=size.block)
    ds, fewer = (otoscope.open(each)[TASK].to_dataset() for each in (url, few))
    n_numpy = min(size.numpy_neurons, WIDTH)
    one = ds.isel(layer=[0], neuron=slice(n_numpy))
    np.testing.assert_array_equal(by_otoscope(one)[0], by_numpy(ds, n_numpy))  # and the machine code is there
    seconds = interleaved(
        {
            "otoscope": lambda: by_otoscope(ds),
            "reading": lambda: by_reading(ds),
            "numpy": lambda: by_numpy(ds, n_numpy),
        },
        size.repetitions,
    )
    seconds["numpy"] = [LAYERS * WIDTH / n_numpy * s for s in seconds["numpy"]]
    lines = fewer.otoscope.neuron_thresholds(LABEL, threshold=HOW).compute()
    rates = interleaved(
        {
            "one each": lambda: rate(fewer, lines),
            "bytes": lambda: read_objects(few, f"{TASK}/mean", THREADS),
        },
        size.repetitions,
    )
    risen = [fresh_process("thresholds:rise", url=url) for _ in range(3)]

    how = f"{size.clips:,} clips x {LAYERS * WIDTH:,} neurons, warm, {THREADS} threads"
    of = f"median of {size.repetitions}"
    figures = [
        Figure(
            name="80th percentiles of all neurons' means", value=statistics.median(seconds["otoscope"]), unit="s",
            bound=30, at_least=False, how=f"{how}; {of}",
        ),
        Figure(
            name="80th percentiles, against reading the means",
            value=median_ratio(seconds["otoscope"], seconds["reading"]), unit="times",
            bound=2, at_least=False, how=f"{how}; {of} ratios",
        ),
        Figure(
            name="80th percentiles, times faster than numpy", value=median_ratio(seconds["numpy"], seconds["otoscope"]),
            unit="times", bound=1, at_least=True, how=f"{how}; numpy on {n_numpy} neurons, scaled to all; {of} ratios",
        ),
        Figure(
            name="80th percentiles, rise of memory", value=max(risen) / 1e9, unit="GB", bound=1, at_least=False,
            how="the same, opening included, above the imported process; worst of 3 processes",
        ),
        Figure(
            name="probabilities at one threshold per neuron, against reading the means",
            value=median_ratio(rates["one each"], rates["bytes"]), unit="times", bound=5, at_least=False,
            how=f"{size.rates:,} clips x {LAYERS * WIDTH:,} neurons, bytes from page cache; {of} ratios",
        ),
    ]  # fmt: skip
    return Measured(figures=figures, raw={"seconds": {**seconds, **rates}, "rise_bytes": risen})


def main() -> None:
    harness.main("thresholds")


if __name__ == "__main__":
    main()
