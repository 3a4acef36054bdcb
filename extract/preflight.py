"""What is sent to where workers run: small values that make the encoder and the worker there.

Goal: each worker loads the encoder itself, onto its own device, and whoever plans the run needs neither.
Conventions: everything here can be pickled if an encoder named by a string stays a string; nothing holds open files.
Contents: `Model`, `Recipe`, `Survey`, `Findings`, `Pace`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..store.blocks import Block, blocks
from ..store.provenance import Identity, Plan
from .audio.corpus import Corpus
from .failures import Trial
from .models.encoder import Encoder
from .models.registry import load_encoder
from .parity import check_parity
from .plan import identify, placed, refuse_impossible
from .worker import Worker

CALIBRATION_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """An encoder, or the name by which each worker loads its own, and the device it goes to."""

    encoder: Encoder | str
    device: str | None = None
    """As in `capture`; the default is looked up where the encoder is made."""

    def make(self) -> Encoder:
        """The encoder on its device. Raises as `load_encoder` and `placed`."""
        return placed(load_encoder(self.encoder) if isinstance(self.encoder, str) else self.encoder, self.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """Makes a worker, in whatever process calls it."""

    model: Model
    url: str
    corpus: Corpus
    identity: Identity
    plan: Plan
    code: str
    allow_missing: bool
    check: bool
    """Whether the encoder made here may be another than the one whose identity this is."""

    def __call__(self) -> Worker:
        """A new worker. Raises ValueError where the encoder here is not the run's."""
        encoder = self.model.make()
        if self.check:
            differences = self.identity.differences(identify(encoder, self.identity.frames))
            if differences:
                raise ValueError(
                    f"encoder {encoder.name} is not the same for all workers ({'; '.join(differences)}); expected the "
                    "same files, and devices of one kind, wherever a worker runs"
                )
        return Worker(
            url=self.url, corpus=self.corpus, encoder=encoder, identity=self.identity, plan=self.plan, code=self.code,
            allow_missing=self.allow_missing,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a worker decoded clips and ran them through the encoder."""

    n_clips: int
    seconds: float
    """Wall time of all of them."""
    device_bytes: int
    """Most memory that tensors took on a CUDA device; 0 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What can only be told where the encoder is."""

    identity: Identity
    weights_bytes: int
    """Size of the module's parameters and buffers."""
    parity: str = ""
    """What `check_parity` has to record with the blocks."""
    pace: Pace | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """Looks at an encoder where workers run: a worker's recipe whose piece of work is to answer.

    findings = Survey(model=model, ...)()("")
    """

    model: Model
    frames: str
    url: str
    corpus: Corpus
    plan: Plan
    parity: str | None
    """What to do about a model without parity; None leaves the check out."""
    calibrate: bool = False
    """Whether to measure the pace on a few of the corpus's clips."""
    allow_missing: bool = False

    def __call__(self) -> Callable[[str], Findings]:
        """What answers; its argument means nothing."""
        return self.look

    def look(self, _: str = "") -> Findings:
        """Load the encoder and answer. Raises ValueError and LookupError for what does not fit together."""
        encoder = self.model.make()
        identity = identify(encoder, self.frames)
        refuse_impossible(encoder, identity, self.plan)
        tensors = [*encoder.module.parameters(), *encoder.module.buffers()]
        findings = Findings(identity=identity, weights_bytes=sum(t.numel() * t.element_size() for t in tensors))
        if self.parity is None and not self.calibrate:
            return findings
        worker = Worker(
            url=self.url, corpus=self.corpus, encoder=encoder, identity=identity, plan=self.plan, code="",
            allow_missing=self.allow_missing,
        )  # fmt: skip
        try:
            said = check_parity(worker, self.parity) if self.parity is not None else ""
            pace = measure_pace(worker, CALIBRATION_SECONDS) if self.calibrate else None
        finally:
            worker.close()
        return replace(findings, parity=said, pace=pace)


def measure_pace(worker: Worker, seconds: float) -> Pace:
    """Clips per second of decoding and the forward pass, on parts of the corpus's blocks, for about so many seconds.

    The parts lie evenly over the corpus, so that clips sorted by length are all met; the first batch, which warms up,
    does not count.
    """
    plan = worker.plan
    every = list(blocks("", plan.n_clips, plan.block))
    order: list[Block] = [every[i * len(every) // 16] for i in range(16)] if len(every) > 16 else every
    worker(Trial(block=order[0], clips=_head(order[0], plan.batch)))
    n_clips, began = 0, time.perf_counter()
    for batches in (1, 2, 4, 8):
        for block in order:
            part = _head(block, batches * plan.batch)
            worker(Trial(block=block, clips=part))
            n_clips += len(part)
            if time.perf_counter() - began > seconds:
                break
        took = time.perf_counter() - began
        if took > seconds or batches * plan.batch >= plan.block:
            break
    device = worker.forward.device
    used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Pace(n_clips=n_clips, seconds=took, device_bytes=used)


def _head(block: Block, n: int) -> range:
    return range(block.start, min(block.stop, block.start + n))
