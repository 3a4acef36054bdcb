"""Resources: what a run needs, what a machine has, and a refusal where the one does not fit into the other.

Goal: whatever cannot fit is said before the start. Knows nothing of what the work is.
Conventions: bytes and seconds; a machine's memory is what a container may use, where that is less.
Contents: `Needs`, `Machine`, `this_machine`, `refuse_what_cannot_fit`, `worker_memory`, `duration`.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is still to be taken up."""

    disk: int
    """Bytes that will be written."""
    memory: int
    """Bytes of memory of one worker."""
    workers: int = 1
    """Workers on this machine; 0 where they run on others."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is."""

    disk: int | None
    """Free bytes where the output goes; None where that is not a disk of this machine."""
    memory: int | None
    """Bytes of memory in all; None where the system does not say."""
    cores: int
    """Processor cores that this process may use."""


def this_machine(place: str | None) -> Machine:
    """The machine that runs this. place: local path that the output goes to, made or not; None for anywhere else."""
    disk = None
    if place is not None:
        folder = next(part for part in (Path(place).absolute(), *Path(place).absolute().parents) if part.exists())
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


def refuse_what_cannot_fit(needs: Needs, machine: Machine, where: str) -> None:
    """Raise OSError for a disk that is too full, ValueError for workers that the machine's memory cannot hold."""
    if machine.disk is not None and needs.disk > machine.disk:
        raise OSError(
            f"{where} needs {_gb(needs.disk)} more on disk and {_gb(machine.disk)} are free there; expected "
            "room for all of it: make room, choose another place, or keep fewer variables"
        )
    if machine.memory is not None and needs.workers * needs.memory > machine.memory:
        who = f"{needs.workers} worker{'s' * (needs.workers > 1)}"
        raise ValueError(
            f"{where} takes about {_gb(needs.memory)} of memory for each of {who} and this machine has "
            f"{_gb(machine.memory)}; expected room for all of them: choose a smaller block, fewer workers, or keep "
            "fewer variables"
        )


def worker_memory(*, at_rest: int, piece: int, in_flight: int, largest_object: int, queued: int) -> int:
    """Bytes of memory that one worker takes at most.

    at_rest: process and model. piece: results of one piece of work, of which `in_flight` are held. largest_object: of
    those written, which lies in memory twice more while it is encoded. queued: all that waits between the stages.
    """
    return at_rest + in_flight * piece + 2 * largest_object + queued


def duration(n: int, seconds_each: float, workers: int) -> float:
    """Seconds for n units shared by workers, each of which takes so many seconds for one."""
    return n * seconds_each / workers


def _gb(n: int) -> str:
    return f"{n / 1e9:.3g} GB"
