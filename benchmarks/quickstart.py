"""How long does the quickstart take, and how much memory?

The command itself, after installation, in a fresh process; its peak resident set is what the system reports at its end.
"""

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import harness
from .harness import ROOT, Figure, Measured, fresh_process


@dataclass(frozen=True, kw_only=True)
class Size:
    repetitions: int
    arguments: tuple[str, ...] = ()


FULL = Size(repetitions=3)
SMALL = Size(repetitions=1, arguments=("--help",))


def command(directory: str, arguments: list[str]) -> dict[str, Any]:
    """Seconds, and peak bytes of the command; alone in a process, so that the peak is that of this one child."""
    import resource

    code = "from otoscope.cli.main import main; main()"
    run = [sys.executable, "-c", code, "quickstart", directory, *arguments]
    seconds = harness.seconds_of(lambda: subprocess.run(run, cwd=ROOT, check=True, capture_output=True))
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


def measure(scratch: Path, size: Size) -> Measured:
    runs = [
        fresh_process("quickstart:command", directory=str(scratch / str(i)), arguments=list(size.arguments))
        for i in range(size.repetitions)
    ]
    seconds, peak = [run["seconds"] for run in runs], [run["peak"] for run in runs]
    how = f"1,590 clips, two encoders, from synthesis to summary; {{}} of {size.repetitions} fresh processes"
    return Measured(
        figures=[
            Figure(
                name="`otoscope quickstart`", value=statistics.median(seconds), unit="s", bound=120, at_least=False,
                how=how.format("median"),
            ),
            Figure(
                name="`otoscope quickstart`, peak memory", value=max(peak) / 1e9, unit="GB", bound=2, at_least=False,
                how=how.format("worst"),
            ),
        ],
        raw={"seconds": seconds, "peak_bytes": peak},
    )  # fmt: skip


def main() -> None:
    harness.main("quickstart")


if __name__ == "__main__":
    main()
