"""Encoder + clips + summaries -> one block written. Composition only.

Goal: the unit of work, an ordinary function of a block that may be run again with the same result, and of which two
calls may be under way: one block is written while the next is decoded and computed.
Conventions: decode threads | one thread for the device | the calling thread packs, then writes. The device's thread
takes one block after the other, in the order of the calls.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..store.block_values import BlockValues
from ..store.blocks import Block
from ..store.schema import FAILED
from ..store.writer import write_block
from .failures import Piece, Remainder, Trial
from .forward import Forward, Results, arithmetic, hardware_of
from .loader import DECODERS, LoadedClip, Loader, failed_clip
from .models.encoder import Encoder
from .pipeline import InOrder, Queue, Stopped, Stopwatch, ahead
from .plan import Extraction, origin_of

CALLS = 2  # that may be under way, as many as executors have in flight
BATCHES_AHEAD = 1  # that the device may be ahead of packing, beside the one that is packed and the one it computes

ON = " on "  # in a block's version, before the hardware

Computed = tuple[list[LoadedClip], Results | None, int]
"""A batch, what it gave, and how many clips the device had room for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockReport:
    """What became of a block's clips, and what it took."""

    n_ok: int
    failures: tuple[tuple[str, str], ...] = ()
    """(clip name, reason) of each clip that failed."""
    n_silent: int = 0
    """Clips whose samples are all zero."""
    batch: int = 0
    """Most clips that ran at once: the plan's batch, or less where the device's memory did not suffice."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work by stage; "waiting" is how long the device had nothing to do before and during the block."""


class Worker:
    """Extracts blocks of one task with one encoder: `worker(block)` writes and commits it.

    `close` ends it: its threads, and the calls under way.
    """

    def __init__(self, extraction: Extraction, encoder: Encoder):
        """`encoder`: the extraction's, whose identity is known."""
        self.extraction, self.identity, self.plan = extraction, extraction.identity, extraction.plan
        self.encoder, clips = encoder, extraction.clips
        self.loader = Loader(
            clips, encoder, self.plan, allow_missing=extraction.allow_missing, limits=extraction.limits
        )
        self.forward = Forward(encoder, self.identity, self.plan)
        self.hardware = hardware_of(encoder)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._writing = threading.Lock()  # held for a block at a time: encoding takes its size in memory again
        self._lock = threading.Lock()  # of the three below
        self._open: list[Queue[Computed]] = []
        self._stopped = False
        self._free_since: float | None = None

    def __call__(self, piece: Piece) -> BlockReport:
        """Extract, write and commit a block, without its crashing clips; or try a part of a block, and write nothing.

        Raises UnreadableAudio or OSError where reading or writing fails, ValueError where the encoder does, `Stopped`
        where the worker is closed meanwhile; the block is then still pending. A block that is being written is
        finished in any case.
        """
        block = piece if isinstance(piece, Block) else piece.block
        clock = Stopwatch()
        try:
            values, batch, n_silent, waiting = self._compute(piece, block, clock)
        except RuntimeError as error:
            if self._stopped:  # whatever it was that met closed pools first
                raise Stopped("the worker was closed; the block stays pending") from error
            raise
        if values is None:
            return BlockReport(n_ok=0, batch=batch, seconds={**clock.seconds, "waiting": waiting})
        extraction = self.extraction
        less = f" batch {batch} for want of memory" if batch < self.plan.batch else ""
        version = f"{extraction.code}{less}{ON}{self.hardware}"
        with self._writing, clock.on("write"):
            write_block(extraction.url, block, values.arrays, values.status, version, plan=self.plan)
        names = extraction.clips.table["name"].iloc[block.clips]
        failed = np.flatnonzero(values.status == FAILED)
        return BlockReport(
            n_ok=len(block) - len(failed),
            n_silent=n_silent,
            failures=tuple((str(names.iloc[i]), str(values.arrays["reason"][i])) for i in failed),
            batch=batch,
            seconds={**clock.seconds, "waiting": waiting},
        )

    def _compute(self, piece: Piece, block: Block, clock: Stopwatch) -> tuple[BlockValues | None, int, int, float]:
        """The block's values (None for a trial), how many clips ran at once, how many are silent, seconds waited."""
        numbers = piece.clips if isinstance(piece, Trial) else range(block.start, block.stop)
        crashing = dict(piece.crashing) if isinstance(piece, Remainder) else {}
        values, batch, n_silent, began = None, self.plan.batch, 0, time.perf_counter()

        def load(number: int) -> LoadedClip:
            if number in crashing:
                prompt = self.extraction.clips.clip(number).prompt
                return failed_clip(number - block.start, crashing[number], prompt=prompt)
            with clock.on("decode"):
                return self.loader.load(number - block.start, self.extraction.clips.clip(number))

        with (
            closing(InOrder(self._decoders, load, numbers, self.loader.depth)) as loaded,
            ahead(self._device, lambda: self._run(loaded), BATCHES_AHEAD) as computed,
            self._stoppable(computed),
        ):
            for clips, results, room in computed:
                batch = min(batch, room)
                summary, forward, copy = (None, 0.0, 0.0) if results is None else results.fetch()
                clock.add("forward", forward)
                clock.add("copy", copy)
                if isinstance(piece, Trial):
                    continue
                n_silent += sum(clip.is_silent for clip in clips)
                with clock.on("pack"):
                    values = values or BlockValues(self.identity, self.plan, len(block))  # not while it waits
                    at = np.array([clip.index for clip in clips])
                    values.put(at, [clip.digest for clip in clips], [clip.reason for clip in clips], summary)
        return values, batch, n_silent, max(0.0, self._device_seconds(began) - clock.seconds["forward"])

    def close(self) -> None:
        """End the calls under way, save those that write, and the threads. May be called from any thread, and again."""
        with self._lock:
            self._stopped = True
            for queue in self._open:
                queue.close()
        self._device.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _stoppable(self, queue: Queue[Computed]) -> Iterator[None]:
        """Let `close` end a queue during the `with` block."""
        with self._lock:
            self._open.append(queue)
            if self._stopped:
                queue.close()
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(queue)

    def _device_seconds(self, began: float) -> float:
        """How long the device was this call's, or nobody's: since the call before left it, or since this one began."""
        with self._lock:
            since, self._free_since = self._free_since or began, time.perf_counter()
            return self._free_since - since

    def _run(self, loaded: InOrder[int, LoadedClip]) -> Iterator[Computed]:
        """Batches with their results, and how many clips ran at once; the whole of it in the device's thread."""
        max_clips = self.plan.batch
        with arithmetic(self.plan.threads):
            for batch in self.loader.batches(loaded):
                results = None
                if self.loader.unit is not None or not batch[0].reason:
                    results, max_clips = self.forward.results(batch, max_clips)
                yield batch, results, max_clips


def make_worker(extraction: Extraction, *, check: bool) -> Worker:
    """A new worker, in whatever process calls this.

    check: whether the encoder loaded here may be another than the one whose identity the extraction has.
    Raises ValueError where it is.
    """
    encoder = extraction.model.load()
    assert extraction.origin is not None
    if check and (differences := extraction.origin.differences(origin_of(encoder, extraction.identity.frames))):
        raise ValueError(
            f"encoder {encoder.name} is not the same for all workers ({'; '.join(differences)}); expected the "
            "same files, and devices of one kind (cpu or cuda), wherever a worker runs"
        )
    worker = Worker(extraction, encoder)
    if extraction.hardware not in ("", worker.hardware):
        raise ValueError(
            f"a worker has {worker.hardware}, and the task's other blocks come from {extraction.hardware}; expected "
            "the same with --same-device: run where that device is, or leave the option out"
        )
    return worker
