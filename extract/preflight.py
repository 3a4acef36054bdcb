"""What is known before the first block: whether the encoder fits, whether its batches leak, what the run will take.

Goal: whatever does not fit together, or into the machine, is refused while nothing has happened yet.
Conventions: the encoder is loaded and asked where workers run. Bytes and seconds. Parity: what a clip gives in a batch
of many is what it gives alone; differences are max |many - alone| / max |alone| per site and for the embedding, over a
few clips of the corpus that share a batch as they would in the run.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..cluster.executor import Executor, Failed, Killed
from ..store.block_values import MAX_FLOAT16, Summary
from ..store.blocks import blocks
from ..store.changes.staged import Origin
from ..store.provenance import Plan, tolerance
from ..store.schema import sizes, template
from ..store.status import TaskStatus
from .forward import arithmetic, hardware_of
from .loader import LoadedClip, Loader, UnreadableAudio
from .models.encoder import LOWER
from .models.latents import check_lengths
from .plan import MAX_BATCH_SAMPLES, Extraction, anatomy_of, check_plan, check_prompts, in_bytes, origin_of
from .throughput import Throughput, measure_throughput
from .worker import BATCHES_AHEAD, CALLS, Worker

log = logging.getLogger(__name__)

CALIBRATION_SECONDS = 2.5  # from the first pass on
MIN_CALIBRATION_SECONDS = 1.0  # of it, for clips
AT_REST_BYTES = 500_000_000  # of a worker's process before the model: torch and what comes with it
TOLERANCE = 1e-4
"""Rounding in float32 moves results by less than a tenth of this, a leak by a hundred times as much or more."""
PARITY_CLIPS = 2
MAX_CLIPS_TRIED = 16
MAX_PROPOSED_BATCH = 256  # more only makes a model's passes longer


@dataclass(frozen=True, kw_only=True)
class PreflightResult:
    """What can only be found out where the encoder is."""

    origin: Origin
    hardware: str
    """As of `hardware_of`."""
    batch: int
    """The plan's, or the one that is proposed instead."""
    weights_bytes: int
    """Size of the module's parameters and buffers, and of copies in 16 bits."""
    parity: str = ""
    """What `check_parity` has to record with the blocks."""
    warnings: tuple[str, ...] = ()
    throughput: Throughput | None = None


@dataclass(frozen=True, eq=False)
class Preflight:
    """Looks at an encoder where workers run; as an executor's worker its one piece of work is to answer."""

    extraction: Extraction
    """Without its origin."""
    frames: str | None
    """None for the encoder's default."""
    parity: str | None
    """What to do about a model without parity; None leaves the check out."""
    calibrate: bool = False
    """Whether to measure the throughput on a few of the clips."""
    propose_batch: bool = False
    """Whether the batch is nobody's choice: on CUDA then as many clips as its memory suggests."""

    def __call__(self) -> Callable[[str], PreflightResult]:
        """What answers; its argument means nothing."""
        return self.look

    def look(self, _: str = "") -> PreflightResult:
        """Load the encoder and answer. Raises ValueError and LookupError for what does not fit together."""
        encoder = self.extraction.model.load()
        began = time.perf_counter()
        anatomy = anatomy_of(encoder)
        origin = origin_of(encoder, self.frames or encoder.default_frames, anatomy=anatomy)
        extraction = replace(self.extraction, origin=origin)
        check_plan(encoder, origin.identity, extraction.plan, extraction.model.precision)
        check_prompts(encoder, extraction.clips)
        loader = Loader(
            extraction.clips, encoder, extraction.plan, allow_missing=extraction.allow_missing, limits=extraction.limits
        )
        check_lengths(encoder, loader.unit, clip_lengths(loader, range(len(extraction.clips))))
        if self.propose_batch and (free := free_bytes(encoder.device)):
            with closing(Worker(extraction, encoder)) as worker:
                batch = proposed_batch(worker, free)
            extraction = replace(extraction, plan=replace(extraction.plan, batch=batch))
        tensors = [*encoder.module.parameters(), *encoder.module.buffers()]
        size = sum(t.numel() * t.element_size() for t in tensors)
        size += size // 2 * (encoder.precision in LOWER)  # copies of 16 bits
        result = PreflightResult(
            origin=origin, hardware=hardware_of(encoder), batch=extraction.plan.batch, weights_bytes=size
        )
        if self.parity is None and not self.calibrate:
            return result
        with closing(Worker(extraction, encoder)) as worker:
            parity = check_parity(worker, self.parity) if self.parity is not None else ""
            deadline = max(began + CALIBRATION_SECONDS, time.perf_counter() + MIN_CALIBRATION_SECONDS)
            throughput = measure_throughput(worker, deadline) if self.calibrate else None
        warnings = tuple(
            f"encoder {encoder.name} can be extracted but not ablated at site {site}: {reason} (docs/encoders.md has "
            "recipes)"
            for site, reason in anatomy.uneditable.items()
        )
        return replace(result, parity=parity, throughput=throughput, warnings=warnings)

    def run(self, executor: Executor) -> PreflightResult:
        """The answer from where the executor's workers run. Raises as `look`, and OSError where that kills them."""
        if not executor.remote:
            return self.look()
        with closing(executor.run(self, [""])) as events:
            (event,) = events
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Killed):
            raise OSError(
                f"an encoder that was only tried on a few clips {event.how}; expected a worker that survives it: try "
                "it with --executor serial, or give the worker more memory"
            )
        return event.result


def clip_lengths(loader: Loader, clips: Iterable[int]) -> Iterator[int]:
    """Samples of clips of these numbers, at the encoder's rate; nothing of those that cannot be read."""
    for number in clips:
        with suppress(UnreadableAudio):
            clip = loader.load(number, loader.clips.clip(number))
            if not clip.reason:
                yield len(clip.samples)


def free_bytes(device: torch.device) -> int:
    """Bytes of a CUDA device's memory that tensors of this process may still take; 0 elsewhere."""
    if device.type != "cuda":
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def pass_bytes(worker: Worker, batch: list[LoadedClip]) -> int:
    """Most bytes that tensors of a pass over a batch take on a CUDA device."""
    device = worker.forward.device
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _summary(worker, batch)
    return torch.cuda.max_memory_allocated(device) - before


def proposed_batch(worker: Worker, free: int) -> int:
    """The largest power of two of clips that half of `free` bytes have room for, as far as two passes tell.

    Memory is taken to grow evenly with clips as long as the longest of the corpus's first; a batch of longer ones is
    halved when it comes. At least 1, at most `MAX_PROPOSED_BATCH`, a block, and `MAX_BATCH_SAMPLES`. Where no clip is
    readable, the plan's.
    """
    plan, clips = worker.plan, _few(worker)
    if not clips:
        return plan.batch
    clip = max(clips, key=lambda clip: len(clip.samples))
    limit = min(MAX_PROPOSED_BATCH, plan.block, max(1, MAX_BATCH_SAMPLES // worker.forward.longest([clip])))
    with arithmetic(plan.threads):
        pass_bytes(worker, [clip] * 2)  # the first pass takes memory that libraries keep
        two, four = (pass_bytes(worker, [clip] * n) for n in (2, 4))
    each = max(1, (four - two) // 2)
    room = min(limit, (free // 2 - max(0, two - 2 * each)) // each)
    batch: int = 1 << max(0, room.bit_length() - 1) if room > 0 else 1
    log.info("%d clips at once: %s each, and %s of the device's memory are free", batch, in_bytes(each), in_bytes(free))
    return batch


def check_parity_choice(choice: str) -> None:
    """Raise ValueError for a choice that `check_parity` does not know."""
    if choice not in ("refuse", "warn"):
        raise ValueError(f"{choice!r} is not a valid way to treat a model without parity; expected refuse or warn")


def check_parity(worker: Worker, choice: str) -> str:
    """Refuse or warn about a model without parity; what to record with the blocks.

    The text states the tolerance, not the difference measured, so that it is the same wherever a run is resumed; it is
    empty where there was nothing to compare: batches of one, fewer than two readable clips.
    Raises ValueError for a model without parity unless `choice` is "warn", for one that fails on the clips, and where
    no clip's means can be stored.
    """
    encoder, plan = worker.encoder, worker.plan
    # A second tells as much as all of a clip, and takes less time.
    fixed = encoder.prompted or worker.loader.unit is not None
    batch = _few(worker, None if fixed else max(encoder.sample_rate, encoder.min_samples))
    with arithmetic(plan.threads):
        if batch:
            many = _summary(worker, batch)
            largest = many.largest_means
            # One clip whose means do not fit fails alone, later.
            if "mean" in plan.variables and plan.mean_dtype == "float16" and largest.min() > MAX_FLOAT16:
                raise ValueError(
                    f"encoder {worker.encoder.name} has mean activations of {largest.min():g} on {len(largest)} clips; "
                    f"float16 holds up to {MAX_FLOAT16:g}: keep them by --mean-dtype float32"
                )
        if len(batch) < 2:
            return ""
        # One of them tells: what is mixed over a batch reaches its last clip. One that is not finite fails anyway.
        for number in reversed(range(len(batch))):
            alone = _summary(worker, batch[number : number + 1])
            if np.isfinite(alone.embedding).all() and np.isfinite(alone.largest_means).all():
                break
    differences = {"embedding": _difference(many.embedding, number, alone.embedding[0])}
    for layer, site in enumerate(worker.forward.sites):
        differences[site.name] = _difference(many.means[layer], number, alone.means[layer][0])
    where = max(differences, key=lambda name: differences[name])
    log.info("a clip in a batch of %d and alone differ by at most %.2g", len(batch), differences[where])
    max_difference = tolerance(worker.identity.precision, TOLERANCE)
    if differences[where] <= max_difference:
        return f" parity within {max_difference:.2g}"
    text = (
        f"encoder {worker.encoder.name} gives a clip in a batch of {len(batch)} other results than alone: "
        f"{where} differs by {differences[where]:.2g} of its largest value; expected at most {max_difference:.2g}"
    )
    if choice == "refuse":
        raise ValueError(
            f"{text}: see that it is in evaluation mode and that nothing is computed over the batch, or run it with "
            'batch 1, or accept this with parity "warn"'
        )
    log.warning("%s", text)
    return f" parity not within {max_difference:.2g}, accepted"


def _few(worker: Worker, max_samples: int | None = None) -> list[LoadedClip]:
    """The corpus's first readable clips, up to `PARITY_CLIPS`, such that they share a batch: too long ones are cut.

    The first, because they stay the first when clips are appended. Where prompts are laid out otherwise, they are one
    clip's for all.
    """
    few: list[LoadedClip] = []
    clips = worker.extraction.clips
    for number in range(min(MAX_CLIPS_TRIED, len(clips))):
        try:
            clip = worker.loader.load(number, clips.clip(number))
        except UnreadableAudio:
            continue
        if not clip.reason:
            few.append(clip)
        if len(few) == min(PARITY_CLIPS, worker.plan.batch):
            break
    if len(few) < 2:
        return few
    shortest = min(few, key=lambda clip: len(clip.samples))
    layout, n_samples = worker.loader.layout, len(shortest.samples)
    if max_samples is not None:
        n_samples = min(n_samples, max_samples)
    alike = [
        clip
        if layout(clip) == layout(shortest) and len(shortest.samples) == n_samples
        else replace(clip, samples=np.ascontiguousarray(clip.samples[:n_samples]), prompt=shortest.prompt)
        for clip in few
    ]
    if worker.loader.unit is not None:
        return alike
    return sorted(alike, key=lambda clip: len(clip.samples))  # clips of one length are prepared together


def _summary(worker: Worker, batch: list[LoadedClip]) -> Summary:
    return worker.forward.results(batch, len(batch))[0].fetch()[0]


def _difference(many: np.ndarray, number: int, alone: np.ndarray) -> float:
    """max |in a batch - alone| of a clip over the largest value of all; 0 for one that fails in any case.

    many: (clip, value) of the batch, in which it has this number. alone: (value), not finite where the clip fails.
    """
    if not np.isfinite(alone).all():
        return 0.0
    difference = float(np.abs(many[number] - alone).max())
    if not np.isfinite(difference):
        return float("inf")
    largest = max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) for values in (many, alone))
    return difference / max(largest, float(np.finfo(np.float32).tiny))


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
    """Of one worker; 0 where nothing is left to do, or no clip could be run."""
    seconds: float
    """For all that is left, with `workers` of them."""
    workers: int
    basis: str = ""
    """What the two rest on."""
    rough: bool = False
    """Whether there was no time to measure a whole pass."""

    def lines(self) -> list[str]:
        """The forecast for a person to read."""
        disk = ", ".join(f"{name} {in_bytes(n)}" for name, n in self.disk.items())
        lines = [
            f"to do: {self.n_clips} clips in {self.n_blocks} blocks",
            f"on disk: {in_bytes(sum(self.disk.values()))} in {self.n_objects} objects ({disk}); "
            f"{in_bytes(self.disk_left)} still to be written",
            f"memory: about {in_bytes(self.memory)} per worker"
            + (f", and {in_bytes(self.device_memory)} of its device's" if self.device_memory else ""),
        ]
        if self.clips_per_second:
            each = f"{self.clips_per_second:.3g} clips/s per worker"
            with_ = f"{self.workers} worker{'s' * (self.workers > 1)}"
            about = f"roughly {in_time(self.seconds)} or more" if self.rough else f"about {in_time(self.seconds)}"
            lines.append(f"time: {about} with {with_} ({each}, {self.basis})")
        elif self.n_clips:
            lines.append("time: not known, as none of the first clips could be run through the encoder in time")
        return lines


def in_time(seconds: float) -> str:
    """Seconds for a person to read: 40 s, 12 min, 3.5 h, 2.1 days."""
    units = (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48), ("days", 86400, float("inf")))
    unit, size = next((unit, size) for unit, size, limit in units if seconds < limit * size)
    n = seconds / size
    return f"{n:.0f} {unit}" if n >= 10 else f"{n:.2g} {unit}"


def forecast(
    found: PreflightResult, plan: Plan, labels: Iterable[str], status: TaskStatus | None, max_workers: int
) -> Forecast:
    """What a run would do and take.

    labels: names of the label columns. status: how the task stands, None where there is none yet.
    """
    identity, throughput = found.origin.identity, found.throughput
    committed = np.zeros(plan.n_clips, bool)
    if status is not None:
        committed[: len(status.committed)] = status.committed
    pending = [block for block in blocks("", plan.n_clips, plan.block) if not committed[block.clips].all()]
    n_clips = sum(map(len, pending))
    rate = throughput.clips_per_second if throughput else 0.0
    workers = max(1, min(max_workers, len(pending)))
    disk = sizes(identity, plan)
    specs = template(identity, plan, labels)
    # Objects that hold values, and one document for each array and the group.
    n_objects = len(specs) + 1
    for spec in specs.values():
        n_objects += int(np.prod([-(-n // size) for n, size in zip(spec.shape, spec.object_shape, strict=True)]))
    largest_object = max(
        int(np.prod(specs[name].object_shape)) * np.dtype(specs[name].dtype).itemsize for name in plan.variables
    )
    # Between the stages of a worker wait results of some batches, and audio decoded ahead (10 s per clip).
    states, width = identity.hidden if "hidden" in plan.variables else (0, 0)
    results = 4 * (2 * sum(width for _, width in identity.sites) + states * width + identity.embedding)
    audio = round(2 * 2 * 4 * (plan.unit_sec or 10.0) * int(identity.front_end["sample_rate"]))
    queued = plan.batch * ((BATCHES_AHEAD + 2) * results + audio)
    # The largest object lies in memory twice more while it is encoded.
    block = sum(disk.values()) * plan.block // plan.n_clips
    return Forecast(
        n_clips=n_clips,
        n_blocks=len(pending),
        n_objects=n_objects,
        disk=disk,
        disk_left=sum(disk.values()) * n_clips // plan.n_clips,
        memory=AT_REST_BYTES + found.weights_bytes + CALLS * block + 2 * largest_object + queued,
        device_memory=throughput.device_bytes if throughput else 0,
        clips_per_second=rate,
        seconds=n_clips / rate / workers if rate else 0.0,
        workers=workers,
        basis=throughput.basis if throughput else "",
        rough=throughput is not None and throughput.layers is not None,
    )
