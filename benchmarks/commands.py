"""How long do the commands take that do nothing?

`otoscope --help`, `import otoscope`, and the same `otoscope extract` again on a finished store, in fresh processes.
"""

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import harness
from .harness import Figure, Measured, interleaved
from .synthetic import write_audio

OTOSCOPE = str(Path(sys.executable).with_name("otoscope"))


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    blocks: int
    """Of the store with many."""
    repetitions: int
    extract_repetitions: int


FULL = Size(clips=300, blocks=1000, repetitions=21, extract_repetitions=5)
SMALL = Size(clips=10, blocks=2, repetitions=1, extract_repetitions=1)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def measure(scratch: Path, size: Size) -> Measured:
    manifest = write_audio(scratch / "corpus", n_clips=size.clips, seconds=1.0, n_categories=10)
    store = str(scratch / "store.zarr")
    extract = (OTOSCOPE, "extract", store, "--encoder", "tiny-ssl", "--corpus", str(manifest), "--task", "t")
    run(*extract)
    many = write_audio(scratch / "many", n_clips=2 * size.blocks, seconds=0.2, n_categories=10)
    blocks = (*extract[:2], str(scratch / "blocks.zarr"), *extract[3:6], str(many), *extract[7:], "--block", "2")
    run(*blocks)
    start = interleaved(
        {
            "help": lambda: run(OTOSCOPE, "--help"),
            "import": lambda: run(sys.executable, "-c", "import otoscope"),
            "nothing": lambda: run(sys.executable, "-c", "pass"),
        },
        size.repetitions,
    )
    again = interleaved(
        {"extract again": lambda: run(*extract), "blocks again": lambda: run(*blocks)}, size.extract_repetitions
    )
    fresh = f"median of {size.repetitions} fresh processes"
    rows = (
        ("`otoscope --help`", start["help"], 0.3, fresh),
        ("`import otoscope`", start["import"], 0.3, f"Python's own start included; {fresh}"),
        (
            "the same `otoscope extract` again", again["extract again"], 8,
            f"finished store of {size.clips} clips, tiny-ssl; median of {size.extract_repetitions} fresh processes",
        ),
        (
            f"the same again on {size.blocks:,} blocks", again["blocks again"], 5,
            f"finished store of {2 * size.blocks:,} clips in blocks of 2; no encoder is loaded; likewise",
        ),
    )  # fmt: skip
    figures = [
        Figure(name=name, value=statistics.median(seconds), unit="s", bound=bound, at_least=False, how=how)
        for name, seconds, bound, how in rows
    ]
    return Measured(figures=figures, raw={"seconds": {**start, **again}})


def main() -> None:
    harness.main("commands")


if __name__ == "__main__":
    main()
