"""How long does `otoscope.open` take on a large store?

In fresh processes, after the imports, so that nothing of the store is in the process yet.
"""

import gc
import statistics
from dataclasses import dataclass
from pathlib import Path

import otoscope
import otoscope.analysis.accessor
import otoscope.store.reader

from . import harness
from .harness import Figure, Measured, fresh_process, seconds_of
from .synthetic import write_store


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    block: int
    repetitions: int


FULL = Size(clips=100_000, block=2048, repetitions=9)
SMALL = Size(clips=500, block=128, repetitions=2)


def opening(url: str) -> float:
    """Seconds, none of them spent on the garbage that imports leave."""
    gc.collect()
    return seconds_of(lambda: otoscope.open(url))


def measure(scratch: Path, size: Size) -> Measured:
    url = str(scratch / "store.zarr")
    write_store(url, n_clips=size.clips, n_categories=50, block=size.block)
    seconds = [fresh_process("opening:opening", url=url) for _ in range(size.repetitions)]
    figure = Figure(
        name="`otoscope.open`", value=statistics.median(seconds), unit="s", bound=0.5, at_least=False,
        how=f"{size.clips:,} clips, after imports; median of {size.repetitions} fresh processes",
    )  # fmt: skip
    return Measured(figures=[figure], raw={"seconds": seconds})


def main() -> None:
    harness.main("opening")


if __name__ == "__main__":
    main()
