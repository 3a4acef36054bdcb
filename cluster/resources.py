"""Resources: what a machine has, and a refusal of what does not fit into it.

Goal: whatever cannot fit is refused before the start. Knows nothing of what the work is.
Conventions: bytes; a machine's memory is what a container may use, where that is less.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is."""

    disk: int | None
    """Free bytes where the output goes; None where that is not a disk of this machine."""
    memory: int | None
    """Bytes of memory in all; None where the system does not say."""
    cores: int
    """Processor cores that this process may use."""

    def check_fits(self, what: str, *, disk: int, memory: int, workers: int) -> None:
        """Raise OSError for a disk that is too full, ValueError for workers that the memory cannot hold.

        disk: bytes that will be written. memory: bytes of one worker. workers: of this machine, 0 where all run on
        others.
        """
        if self.disk is not None and disk > self.disk:
            raise OSError(
                f"{what} needs {_gb(disk)} more on disk and {_gb(self.disk)} are free there; expected "
                "room for all of it: make room, choose another path, or keep fewer variables"
            )
        if self.memory is not None and workers * memory > self.memory:
            who = f"{workers} worker{'s' * (workers > 1)}"
            raise ValueError(
                f"{what} takes about {_gb(memory)} of memory for each of {who} and this machine has "
                f"{_gb(self.memory)}; expected room for all of them: choose a smaller block, fewer workers, or keep "
                "fewer variables"
            )


def this_machine(path: str | None) -> Machine:
    """The machine that runs this. path: local one that the output goes to, made or not; None for anywhere else."""
    disk = None
    if path is not None:
        folder = next(part for part in (Path(path).absolute(), *Path(path).absolute().parents) if part.exists())
        usage = shutil.disk_usage(folder)
        disk = usage.free if usage.total else None  # a file system without disk, such as /proc, says 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(disk=disk, memory=_memory(), cores=cores)


def _memory() -> int | None:
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not on every system
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            whole = min(whole, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return whole


def _gb(n: int) -> str:
    return f"{n / 1e9:.3g} GB"
