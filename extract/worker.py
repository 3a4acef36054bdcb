"""Encoder + clips + summaries -> one block written. Composition only.

Goal: the unit of work, an ordinary function of a block that may be run again with the same result, and of which two
calls may be under way: one block is written while the next is decoded and computed.
Conventions: decode threads | one thread for the device | the calling thread packs, then writes. The device's thread
takes one block after the other, in the order of the calls.
Contents: `Worker`, `BlockReport`.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..store.bits import pack
from ..store.blocks import Block
from ..store.provenance import Identity, Plan
from ..store.schema import FAILED, OK, block_buffers
from ..store.writer import write_block
from .audio.corpus import Corpus
from .failures import Piece, Sparing, Trial
from .forward import Forward, Results, Summary, arithmetic
from .loader import DECODERS, Heard, Listener, unheard
from .models.encoder import Encoder
from .pipeline import InOrder, Queue, Stopped, Stopwatch, ahead

CALLS = 2  # that may be under way, as many as executors have in flight
BATCHES_AHEAD = 1  # that the device may be ahead of packing, beside the one that is packed and the one it computes
MOST_FRAMES = np.iinfo(np.uint16).max
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)

Computed = tuple[list[Heard], Results | None, int]  # a batch, what it gave, and how many clips the device had room for


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockReport:
    """What became of a block's clips, and what it took."""

    n_ok: int
    failures: tuple[tuple[str, str], ...] = ()
    """(clip name, reason) of each clip that failed."""
    batch: int = 0
    """Most clips that ran at once: the plan's batch, or less where the device's memory did not suffice."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work by stage; "waiting" is how long the device had nothing to do before and during the block."""


class Worker:
    """Extracts blocks of one task with one encoder: `worker(block)` writes and commits it.

    `close` ends it: its threads, and the calls under way.
    """

    def __init__(
        self, *, url: str, corpus: Corpus, encoder: Encoder, identity: Identity, plan: Plan, code: str,
        allow_missing: bool = False,
    ):  # fmt: skip
        self.url, self.corpus, self.identity, self.plan, self.code = url, corpus, identity, plan, code
        self.encoder = encoder
        self.listener = Listener(corpus, encoder, plan, allow_missing=allow_missing)
        self.forward = Forward(encoder, identity, plan)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._writing = threading.Lock()  # held for a block at a time: encoding takes its size in memory again
        self._lock = threading.Lock()  # of the three below
        self._open: list[Queue[Computed]] = []
        self._stopped = False
        self._free_since: float | None = None

    def __call__(self, piece: Piece) -> BlockReport:
        """Extract, write and commit a block, without the clips that kill; or try a part of a block, and write nothing.

        Raises UnreadableAudio or OSError where reading or writing fails, ValueError where the encoder does, `Stopped`
        where the worker is closed meanwhile; the block is then still pending. A block that is being written is
        finished in any case.
        """
        block = piece if isinstance(piece, Block) else piece.block
        clock = Stopwatch()
        try:
            values, status, batch, waiting = self._compute(piece, block, clock)
        except RuntimeError as error:
            if self._stopped:  # whatever it was that met closed pools first
                raise Stopped("the worker was closed; the block stays pending") from error
            raise
        if isinstance(piece, Trial):
            return BlockReport(n_ok=0, batch=batch, seconds={**clock.seconds, "waiting": waiting})
        version = self.code + (f" batch {batch} for want of memory" if batch < self.plan.batch else "")
        with self._writing, clock.on("write"):
            write_block(self.url, block, values, status, version, plan=self.plan)
        names = self.corpus.clips.table["name"].iloc[block.clips]
        failed = np.flatnonzero(status == FAILED)
        return BlockReport(
            n_ok=len(block) - len(failed),
            failures=tuple((str(names.iloc[i]), str(values["reason"][i])) for i in failed),
            batch=batch,
            seconds={**clock.seconds, "waiting": waiting},
        )

    def _compute(
        self, piece: Piece, block: Block, clock: Stopwatch
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int, float]:
        """The block's values (none for a trial), its status, how many clips ran at once, seconds the device waited."""
        clips = piece.clips if isinstance(piece, Trial) else range(block.start, block.stop)
        poison = dict(piece.poison) if isinstance(piece, Sparing) else {}
        values: dict[str, np.ndarray] = {}
        status, batch, began = np.full(len(block), FAILED, dtype="uint8"), self.plan.batch, time.perf_counter()

        def hear(number: int) -> Heard:
            if number in poison:
                return unheard(number - block.start, poison[number])
            with clock.on("decode"):
                return self.listener.hear(number - block.start, self.corpus.clips.clip(number))

        with (
            closing(InOrder(self._decoders, hear, clips, self.listener.depth)) as heard,
            ahead(self._device, lambda: self._run(heard), BATCHES_AHEAD) as computed,
            self._stoppable(computed),
        ):
            for clips_heard, results, room in computed:
                batch = min(batch, room)
                summary, forward, copy = (None, 0.0, 0.0) if results is None else results.land()
                clock.add("forward", forward)
                clock.add("copy", copy)
                if isinstance(piece, Trial):
                    continue
                with clock.on("pack"):
                    values = values or block_buffers(self.identity, self.plan, len(block))  # not while it waits
                    self.place(clips_heard, summary, values, status)
        return values, status, batch, max(0.0, self._device_seconds(began) - clock.seconds["forward"])

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

    def _run(self, heard: InOrder[int, Heard]) -> Iterator[Computed]:
        """Batches with their results, and how many clips ran at once; the whole of it in the device's thread."""
        most = self.plan.batch
        with arithmetic(self.plan.threads):
            for batch in self.listener.batches(heard):
                results = None
                if self.listener.unit is not None or not batch[0].reason:
                    results, most = self.forward.fitting(batch, most)
                yield batch, results, most

    def place(
        self, batch: list[Heard], summary: Summary | None, values: dict[str, np.ndarray], status: np.ndarray
    ) -> None:
        """Put what a batch gave at its clips' positions in the block; without a summary, only why there is none."""
        at = np.array([clip.index for clip in batch])
        values["audio_digest"][at] = [clip.digest for clip in batch]
        reasons = np.array([clip.reason for clip in batch], dtype=object)
        if summary is not None:
            every = (summary.embedding, *summary.means, *summary.hidden)
            finite = np.all([np.isfinite(x).all(axis=1) for x in every], axis=0)
            reasons[~finite & (reasons == "")] = "the encoder gives activations that are not finite"
            reasons[(summary.frames > MOST_FRAMES) & (reasons == "")] = (
                f"longer than {MOST_FRAMES} frames: cut it by start, stop"
            )
            if "mean" in self.plan.variables and self.plan.mean_dtype == "float16":
                largest = np.max([np.abs(mean).max(axis=1, initial=0) for mean in summary.means], axis=0)
                for i in np.flatnonzero((largest > LARGEST_FLOAT16) & (reasons == "")):
                    reasons[i] = (
                        f"a mean activation of {largest[i]:g}: float16 holds up to {LARGEST_FLOAT16:g}, keep float32"
                    )
            good = np.flatnonzero(reasons == "")
            self.place_values(at[good], good, summary, values)
        values["reason"][at] = reasons
        status[at[reasons == ""]] = OK

    def place_values(self, at: np.ndarray, rows: np.ndarray, summary: Summary, values: dict[str, np.ndarray]) -> None:
        """Put rows of a batch at their positions in the block. `active` is taken before `mean` is rounded."""
        values["frame_count"][at] = summary.frames[rows]
        if "embedding" in values:
            values["embedding"][at] = summary.embedding[rows]
        if "hidden" in values:
            values["hidden"][:, at] = summary.hidden[:, rows]
        for layer, every in enumerate(summary.means):
            mean = every[rows]
            width = mean.shape[1]
            active = np.zeros((len(rows), self.identity.n_neurons), dtype=bool)
            active[:, :width] = mean > 0
            values["active_bits"][layer, at] = pack(active)
            if "mean" in values:
                values["mean"][layer, at, :width] = mean
            if "positive_frames" in values:
                values["positive_frames"][layer, at, :width] = summary.positive[layer][rows]
