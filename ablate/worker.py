"""Encoder + clips + interventions + probe -> scores of some clips. Composition only.

Goal: the unit of work of an ablation, an ordinary function of a range of clips with the same result wherever it runs.
Conventions: a piece is a range of positions in `Job.clips`. A worker may be called by two threads at once: clips are
decoded side by side, the encoder takes one batch at a time.
Contents: `Job`, `Scores`, `AblationWorker`, `Cancelled`.
"""

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..analysis.probe.probe import Probe
from ..extract.audio.corpus import Corpus
from ..extract.forward import Forward, arithmetic, halving
from ..extract.loader import LoadedClip, Loader
from ..extract.models.encoder import Encoder
from ..extract.models.registry import load_encoder
from ..extract.pipeline import Stopped
from ..extract.plan import to_device
from ..store.provenance import Identity, Plan
from .effects import Floats, clip_scores, measures_of
from .intervention import Intervention
from .replay.rerun import Batch, Rerunner


class Cancelled(Stopped):
    """The run was told to end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """All that a worker needs, picklable; arrays are (clip) over the clips that are tested."""

    encoder: Encoder | str
    """Or its name: then every worker loads it itself."""
    device: str | None
    corpus: Corpus
    identity: Identity
    plan: Plan
    interventions: tuple[Intervention, ...]
    """The one in question, then its controls."""
    probe: Probe
    clips: NDArray[np.int64]
    """Numbers in the corpus."""
    truth: NDArray[np.int64]
    """Codes of their categories."""
    heads: NDArray[np.int64]
    """Numbers of the probe's heads that score them."""
    audio: NDArray[np.uint64]
    """Digests of the audio that the store was made from."""
    donors: NDArray[np.int64] | None = None
    """Numbers in the corpus of the clips that patches come from."""
    donated: NDArray[np.uint64] | None = None
    """Digests of their audio in the store."""
    toward: int | None = None
    """Code of the category that clips are to become."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the clips of a piece gave, in their order; intervention 0 is none."""

    scores: Floats
    """(measure, intervention, clip), as of `statistics.clip_scores`."""
    named: NDArray[np.int32]
    """(intervention, clip): codes of the categories named."""
    embedding: NDArray[np.float32]
    """(clip, embedding) without intervention."""
    method: str
    """How the encoder was rerun, as `Rerunner` says it."""


class AblationWorker:
    """Scores ranges of a job's clips: `worker(piece)`."""

    def __init__(self, job: Job) -> None:
        encoder = load_encoder(job.encoder) if isinstance(job.encoder, str) else job.encoder
        self.job, self.encoder = job, to_device(encoder, job.device)
        self.loader = Loader(job.corpus.clips, self.encoder, job.plan)
        self.forward = Forward(self.encoder, job.identity, job.plan)
        self.rerunner = Rerunner(self.encoder, job.interventions)
        self._one_at_a_time, self._ended = threading.Lock(), False

    def close(self) -> None:
        """Make calls under way end soon."""
        self._ended = True

    def __call__(self, piece: range) -> Scores:
        """Scores of the clips at these positions.

        Raises ValueError for audio that is not what the store was made from, and for interventions that leave no
        numbers, as a huge gain does; OSError where audio cannot be read.
        """
        job, n = self.job, len(piece)
        heard = [self._hear(i, job.clips[at], job.audio[at]) for i, at in enumerate(piece)]
        donors = None
        if job.donors is not None and job.donated is not None:
            donors = [self._hear(i, job.donors[at], job.donated[at]) for i, at in enumerate(piece)]
        n_interventions = 1 + len(job.interventions)
        scores = np.empty((len(measures_of(job.toward is not None)), n_interventions, n))
        named = np.empty((n_interventions, n), np.int32)
        base = np.empty((n, job.identity.embedding), np.float32)
        for batch in self._batches(heard, donors):
            for part, embeddings in self._fitting(batch, donors):
                self._require_numbers(embeddings)
                at = np.array([clip.index for clip in part])
                logits = job.probe.logits(embeddings, job.heads[at + piece.start])
                scores[..., at], named[:, at] = clip_scores(logits, job.truth[at + piece.start], job.toward)
                base[at] = embeddings[0]
        return Scores(scores=scores, named=named, embedding=base, method=self.rerunner.method)

    def _require_numbers(self, embeddings: NDArray[np.float32]) -> None:
        """Raise ValueError where an intervention's embeddings are not finite: no probe can be asked about them."""
        for intervention, embedding in zip(self.job.interventions, embeddings[1:], strict=True):
            if not np.isfinite(embedding).all():
                raise ValueError(
                    f"embeddings under {intervention.name or 'an intervention'} (gain {intervention.gain:g}) hold NaN "
                    "or infinity; expected numbers: use a gain nearer to 1"
                )

    def _hear(self, index: int, number: np.int64, digest: np.uint64) -> LoadedClip:
        clip = self.job.corpus.clips.clip(int(number))
        heard = self.loader.load(index, clip)
        if heard.reason or heard.digest != int(digest):
            raise ValueError(
                f"{clip.name} {heard.reason or 'is not the audio that was extracted'}; expected the files that the "
                "store was made from: see `otoscope verify --audio DIR`"
            )
        return heard

    def _batches(self, heard: list[LoadedClip], donors: list[LoadedClip] | None) -> list[list[LoadedClip]]:
        """Batches of equal input length; of one clip where donors may be of other lengths."""
        if donors is not None and self.loader.unit is None:
            return [[clip] for clip in heard]
        return list(self.loader.batches(heard))

    def _fitting(
        self, batch: list[LoadedClip], donors: list[LoadedClip] | None
    ) -> list[tuple[list[LoadedClip], NDArray[np.float32]]]:
        """A batch and its embeddings, in parts where the device's memory does not suffice for the whole."""

        def attempt(size: int) -> list[tuple[list[LoadedClip], NDArray[np.float32]]]:
            parts = [batch[first : first + size] for first in range(0, len(batch), size)]
            with self._one_at_a_time, arithmetic(self.job.plan.threads):
                return [(part, self._rerun(part, donors)) for part in parts]

        n = len(batch)
        return halving(attempt, n, n, self.forward.longest(batch))[0]

    @torch.inference_mode()
    def _rerun(self, batch: list[LoadedClip], donors: list[LoadedClip] | None) -> NDArray[np.float32]:
        theirs = None if donors is None else self._prepared([donors[clip.index] for clip in batch])
        return self.rerunner(self._prepared(batch, theirs), self._go_on)

    def _prepared(self, batch: list[LoadedClip], donors: Batch | None = None) -> Batch:
        return Batch(inputs=self.forward.prepare(batch), n_samples=self.forward.longest(batch), donors=donors)

    def _go_on(self, _done: int) -> None:
        if self._ended:
            raise Cancelled("the run was ended")
