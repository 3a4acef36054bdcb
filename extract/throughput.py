"""How fast a worker is, from as much of its work as there is time for.

Goal: an answer in bounded time from any encoder on any machine, that says what it rests on.
Conventions: wall seconds, as of `time.perf_counter`. A pass is stopped between two layers, where a hook is called.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from ..store.blocks import Block, blocks
from .failures import Trial
from .pipeline import Stopped
from .worker import Worker

MAX_PARTS = 16  # of the corpus, that are looked at


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How fast a worker decoded clips and ran them through the encoder."""

    n_clips: int = 0
    seconds: float = 0.0
    """Wall time of all of them."""
    batch: int = 0
    """How many ran at once, at most."""
    layers: tuple[int, int] | None = None
    """Where the first pass was stopped for want of time: after so many layers, of how many."""
    device_bytes: int = 0
    """Most memory that tensors took on a CUDA device; 0 elsewhere."""

    def __add__(self, other: "Throughput") -> "Throughput":
        """That of both, one after the other."""
        return Throughput(
            n_clips=self.n_clips + other.n_clips,
            seconds=self.seconds + other.seconds,
            batch=max(self.batch, other.batch),
            device_bytes=max(self.device_bytes, other.device_bytes),
        )

    @property
    def clips_per_second(self) -> float:
        """Of the worker; 0 where no clip could be run.

        Where the first pass was stopped, its layers are taken to be alike, and to run once: a clip that the encoder
        takes in several pieces lasts longer.
        """
        reached, of = self.layers or (1, 1)
        return self.n_clips / self.seconds * min(1.0, reached / of) if self.n_clips else 0.0

    @property
    def basis(self) -> str:
        """What it rests on, for a person to read."""
        clips = "1 clip" if self.n_clips == 1 else f"{self.n_clips} clips"
        if self.layers:
            reached, of = self.layers
            return f"by {min(reached, of)} of {of} layers of {clips}, as there was no time for more"
        return f"measured on {clips}, up to {self.batch} at once"


def measure_throughput(worker: Worker, deadline: float) -> Throughput:
    """Clips per second of decoding and the forward pass, on parts of the corpus's blocks, as far as time allows.

    Begins with one clip and doubles up to the plan's batch; where there is time for more, only whole batches after the
    first count, else the largest number of clips that ran at once. Nothing is begun that would last beyond `deadline`
    by what was measured before, and a pass that does is stopped. The parts lie evenly over the corpus, so that clips
    sorted by length are all met.
    deadline: as of `time.perf_counter`.
    """
    plan, parts = worker.plan, _Parts(worker, deadline)
    every = list(blocks("", plan.n_clips, plan.block))
    step = max(1.0, len(every) / MAX_PARTS)
    order = [every[int(i * step)] for i in range(min(MAX_PARTS, len(every)))]
    max_clips = min(plan.batch, plan.block)
    sizes = [*(1 << i for i in range((max_clips - 1).bit_length())), max_clips]
    largest: Throughput | None = None
    with parts.watched():
        for size in sizes:
            ran = parts.run(order[0], size)
            if ran is None:
                return largest or parts.stopped or Throughput()
            largest = ran if ran.n_clips else largest
        total = Throughput()
        for batches in (1, 2, 4, 8):
            for block in order:
                ran = parts.run(block, batches * plan.batch)
                if ran is None:
                    return total if total.n_clips else largest or Throughput()
                total += ran
            if batches * plan.batch >= plan.block:
                break
    return total if total.n_clips else largest or Throughput()


class _Parts:
    """Runs parts of blocks until a deadline."""

    stopped: Throughput | None = None
    """What a pass showed that was stopped."""

    def __init__(self, worker: Worker, deadline: float):
        self.worker, self.deadline = worker, deadline
        self.names = [site.name for site in worker.forward.sites]
        self._reached, self._each = 0, 0.0  # layers in this part; seconds of a clip in the one before

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count layers during the `with` block, and stop the pass that is at one when the time is over."""

        def reach(*_: object) -> None:
            self._reached += 1
            if time.perf_counter() > self.deadline:
                raise Stopped("the time is over")

        with ExitStack() as hooks:
            for name in self.names:
                part = self.worker.encoder.module.get_submodule(name)
                hooks.callback(part.register_forward_hook(reach).remove)
            yield

    def run(self, block: Block, n: int) -> Throughput | None:
        """The throughput on the first `n` clips of a block, with none that ran where none can be decoded.

        None where there is no time for them.
        """
        clips, began = range(block.start, min(block.stop, block.start + n)), time.perf_counter()
        if began + self._each * len(clips) > self.deadline:
            return None
        self._reached = 0
        batch, layers = min(len(clips), self.worker.plan.batch), None
        try:
            self.worker(Trial(block=block, clips=clips))
        except Stopped:
            layers = self._reached, len(self.names)
        seconds = time.perf_counter() - began
        device = self.worker.forward.device
        used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        if not self._reached:  # what cannot be decoded says nothing of the others
            return Throughput()
        ran = Throughput(n_clips=len(clips), seconds=seconds, batch=batch, layers=layers, device_bytes=used)
        if layers:
            self.stopped = ran
            return None
        self._each = seconds / len(clips)
        return ran
