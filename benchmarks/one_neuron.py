"""How long does it take to look at one neuron over all clips?

Its means and its bits, by name from the lazy data set, warm (the operating system has the file in memory).
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import otoscope

from . import harness
from .harness import Figure, Measured, interleaved
from .synthetic import TASK, write_store


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    block: int
    repetitions: int


FULL = Size(clips=100_000, block=2048, repetitions=15)
SMALL = Size(clips=500, block=128, repetitions=2)
LAYER, NEURON = 7, 1234


def measure(scratch: Path, size: Size) -> Measured:
    url = str(scratch / "store.zarr")
    write_store(url, n_clips=size.clips, n_categories=50, keep=("mean",), block=size.block)
    ds = otoscope.open(url)[TASK].to_dataset()
    cases = {
        "means": lambda: ds["mean"].sel(layer=LAYER, neuron=NEURON).values,
        "bits": lambda: ds["active"].sel(layer=LAYER, neuron=NEURON).values,
    }
    np.testing.assert_array_equal(cases["means"]() > 0, cases["bits"]())  # and both are warm now
    seconds = interleaved(cases, size.repetitions)
    figures = [
        Figure(
            name=f"one neuron's {name}",
            value=statistics.median(seconds[name]),
            unit="s",
            bound=0.1,
            at_least=False,
            how=f"{size.clips:,} clips, by layer and neuron, warm; median of {size.repetitions}",
        )
        for name in cases
    ]
    return Measured(figures=figures, raw={"seconds": seconds})


def main() -> None:
    harness.main("one_neuron")


if __name__ == "__main__":
    main()
