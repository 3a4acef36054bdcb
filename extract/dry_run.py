"""What a run would take: disk, memory, time. Arithmetic on the plan, and a short calibration's figures.

Goal: the cost is known before the first clip is decoded, and what cannot fit is refused.
Conventions: bytes and seconds.
Contents: `Forecast`, `n_objects`, `bytes_of`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..store.provenance import Identity, Plan
from ..store.schema import sizes, template
from .plan import in_bytes


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would do and take."""

    n_clips: int
    """Clips still to be extracted."""
    n_blocks: int
    """Blocks still to be extracted."""
    n_objects: int
    """Files, or objects, of the whole task."""
    disk: dict[str, int]
    """Bytes on disk by variable, of the whole task."""
    disk_left: int
    """Bytes still to be written."""
    memory: int
    """Bytes of memory of one worker."""
    device_memory: int
    """Bytes that the calibration took on a CUDA device; 0 elsewhere."""
    clips_per_second: float
    """Of one worker; 0 where nothing is left to do."""
    seconds: float
    """For all that is left, with `workers` of them."""
    workers: int

    def lines(self) -> list[str]:
        """The forecast for a person to read."""
        disk = ", ".join(f"{name} {in_bytes(n)}" for name, n in self.disk.items())
        said = [
            f"to do: {self.n_clips} clips in {self.n_blocks} blocks",
            f"on disk: {in_bytes(sum(self.disk.values()))} in {self.n_objects} objects ({disk}); "
            f"{in_bytes(self.disk_left)} still to be written",
            f"memory: about {in_bytes(self.memory)} per worker"
            + (f", and {in_bytes(self.device_memory)} of its device's" if self.device_memory else ""),
        ]
        if self.clips_per_second:
            each = f"{self.clips_per_second:.3g} clips/s per worker"
            with_ = f"{self.workers} worker{'s' * (self.workers > 1)}"
            said.append(f"time: about {in_time(self.seconds)} with {with_} ({each}, measured on a few clips)")
        return said


def in_time(seconds: float) -> str:
    """Seconds for a person to read: 40 s, 12 min, 3.5 h, 2.1 days."""
    units = (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48), ("days", 86400, float("inf")))
    unit, size = next((unit, size) for unit, size, most in units if seconds < most * size)
    n = seconds / size
    return f"{n:.0f} {unit}" if n >= 10 else f"{n:.2g} {unit}"


def n_objects(identity: Identity, plan: Plan, labels: Iterable[str]) -> int:
    """Stored objects of a task: those that hold values, and one document for each array and the group.

    labels: names of the label columns.
    """
    specs = template(identity, plan, {name: () for name in labels})
    parts = [
        int(np.prod([-(-n // size) for n, size in zip(spec.shape, spec.object_shape, strict=True)]))
        for spec in specs.values()
    ]
    return sum(parts) + len(specs) + 1


def bytes_of(identity: Identity, plan: Plan, n_clips: int) -> int:
    """Bytes of the kept variables of so many clips."""
    return sum(sizes(identity, plan).values()) * n_clips // plan.n_clips


def largest_object(identity: Identity, plan: Plan) -> int:
    """Bytes of the largest object that a block writes."""
    specs = template(identity, plan)
    return max(int(np.prod(specs[name].object_shape)) * np.dtype(specs[name].dtype).itemsize for name in plan.variables)


def queued_bytes(identity: Identity, plan: Plan, sample_rate: int, batches: int) -> int:
    """Bytes between the stages of a worker: results of so many batches, and audio decoded ahead (10 s per clip)."""
    neurons = sum(width for _, width in identity.sites)
    states, width = identity.hidden if "hidden" in plan.variables else (0, 0)
    per_clip = 4 * (2 * neurons + states * width + identity.embedding)
    seconds = plan.unit_sec or 10.0
    return plan.batch * (batches * per_clip + round(2 * 2 * 4 * seconds * sample_rate))
