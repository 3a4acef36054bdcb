"""How long does `otoscope.open` take on a large store, and the first question of one neuron on a very large one?

In fresh processes, after the imports, so that nothing of the store is in the process yet.
"""

import gc
import statistics
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

import otoscope
import otoscope.analysis.accessor
import otoscope.store.reader
from otoscope.analysis.rates import activation_probability

from . import harness
from .harness import Figure, Measured, fresh_process, memory_rise, seconds_of
from .synthetic import LABEL, TASK, write_store


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    many: int
    """Clips of the very large store."""
    block: int
    repetitions: int


FULL = Size(clips=100_000, many=1_000_000, block=2048, repetitions=9)
SMALL = Size(clips=500, many=700, block=128, repetitions=2)


def opening(url: str) -> float:
    """Seconds, none of them spent on the garbage that imports leave."""
    gc.collect()
    return seconds_of(lambda: otoscope.open(url))


def probability_of_one(url: str) -> xr.DataArray:
    """P of one neuron for every category, from a store that is not open yet: (layer, neuron, category)."""
    ds = otoscope.open(url)[TASK].to_dataset()
    one = ds["active"].isel(layer=slice(7, 8), neuron=slice(1234, 1235))
    return activation_probability(one, ds.otoscope.codes(LABEL)).compute()


def first_probability(url: str) -> float:
    """Seconds until the first P."""
    gc.collect()
    return seconds_of(lambda: probability_of_one(url))


def rise(url: str) -> int:
    """Bytes by which that raises the memory of a process that has imported everything."""
    return memory_rise(lambda: probability_of_one(url))


def measure(scratch: Path, size: Size) -> Measured:
    url = str(scratch / "store.zarr")
    write_store(url, n_clips=size.clips, n_categories=50, block=size.block)
    seconds = [fresh_process("opening:opening", url=url) for _ in range(size.repetitions)]
    figure = Figure(
        name="`otoscope.open`", value=statistics.median(seconds), unit="s", bound=0.5, at_least=False,
        how=f"{size.clips:,} clips, after imports; median of {size.repetitions} fresh processes",
    )  # fmt: skip
    many = str(scratch / "many.zarr")
    write_store(many, n_clips=size.many, n_categories=50, block=size.block, n_labels=3)
    first = [fresh_process("opening:first_probability", url=many) for _ in range(size.repetitions)]
    risen = [fresh_process("opening:rise", url=many) for _ in range(3)]
    how = f"{size.many:,} clips with 3 label columns, 12 layers of 3,072 neurons, opening included"
    figures = [
        figure,
        Figure(
            name="first probability of one neuron, very large store", value=statistics.median(first), unit="s",
            bound=3, at_least=False, how=f"{how}; median of {size.repetitions} fresh processes",
        ),
        Figure(
            name="first probability of one neuron, rise of memory", value=max(risen) / 1e9, unit="GB", bound=1,
            at_least=False, how="the same, above the imported process; worst of 3 processes",
        ),
    ]  # fmt: skip
    return Measured(figures=figures, raw={"seconds": seconds, "first_seconds": first, "rise_bytes": risen})


def main() -> None:
    harness.main("opening")


if __name__ == "__main__":
    main()
