"""Study + encoder + clips -> scores of some clips. Composition only.

Goal: the unit of work of an ablation, an ordinary function of a range of clips with the same result wherever it runs.
Conventions: a piece is a range of positions in `Study.clips`. A worker may be called by two threads at once: clips are
decoded side by side, the encoder takes one batch at a time.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..analysis.probe.probe import Probe
from ..extract.audio.corpus import Corpus
from ..extract.audio.decoding import NO_LIMITS
from ..extract.forward import Forward, arithmetic
from ..extract.loader import LoadedClip, Loader
from ..extract.models.encoder import Encoder
from ..extract.models.registry import load_encoder
from ..extract.pipeline import Stopped
from ..extract.plan import to_device
from ..store.neurons import NeuronSet
from ..store.provenance import Identity, Plan, digest_of
from .effects import MEASURES, TARGET_MEASURES, clip_scores
from .intervention import Intervention
from .paired import Floats
from .replay.rerun import Batch, Rerunner
from .request import Request


class Cancelled(Stopped):
    """The run was told to end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A request with all names looked up, picklable: nothing has been run yet. Arrays are (clip) over tested clips."""

    request: Request
    identity: Identity
    plan: Plan
    categories: tuple[str, ...]
    interventions: tuple[Intervention, ...]
    """The one in question, then its controls."""
    probe: Probe
    heads: NDArray[np.int64]
    """Heads of the probe that the clips are tested by."""
    truth: NDArray[np.int64]
    """Codes of the clips' categories."""
    clips: NDArray[np.int64]
    """Numbers of the clips in store and corpus."""
    names: tuple[str, ...]
    chance: Mapping[str, float]
    """Whether the probe does better than chance on them, as of `chance_test`."""
    notes: tuple[str, ...]
    """What speaks against the probe, and clips that are left out, a line each."""
    selected: str
    """On which clips the set was selected, and whether these are among them, in a line; "" where nothing was."""
    embedding: NDArray[np.float32]
    """(clip, embedding) as stored."""
    audio: NDArray[np.uint64]
    """Digests of the audio that the store was made from."""
    donors: NDArray[np.int64]
    """Numbers of the clips that patches come from; empty where nothing is patched."""
    donor_audio: NDArray[np.uint64]
    """Digests of their audio in the store."""

    def summary(self) -> str:
        """What is about to happen, in a line."""
        layers = ", ".join(f"{n} in layer {layer}" for layer, n in self.neurons.counts.items())
        n, wanted = len(self.controls), self.request.controls
        limit = f"; p_rank at least {1 / (1 + n):.2g}" if n else ""
        if n < wanted and self.request.control == "matched":
            limit += f", since there are no {wanted} different controls"
        return (
            f"{self.neurons.name}: {len(self.neurons)} neurons ({layers}); {n} controls; "
            f"{len(self.clips)} test clips of {len(self.categories)} categories{limit}"
            f"{f'; {self.selected}' if self.selected else ''}"
        )

    @property
    def neurons(self) -> NeuronSet:
        """The set in question."""
        return self.interventions[0].neurons

    @property
    def controls(self) -> tuple[NeuronSet, ...]:
        """The sets that it is compared with."""
        return tuple(control.neurons for control in self.interventions[1:])

    @property
    def target(self) -> int | None:
        """Code of the category that clips are to become."""
        return self.categories.index(self.request.category) if self.request.category else None

    @property
    def digest(self) -> str:
        """SHA-256 of all that the result depends on: equal digests, equal results."""
        asked = {name: value for name, value in self.request.to_json().items() if name != "set"}  # its neurons count
        read = {
            "request": asked, "gain": self.interventions[0].gain, "identity": self.identity.to_json(),
            "probe": self.probe.digest, "neurons": self.neurons.digest,
            "clips": digest_of([self.plan.names, self.plan.sources, self.plan.prompts]),
            "tested": digest_of(self.clips.tolist()), "truth": digest_of(self.truth.tolist()),
            "audio": digest_of(self.audio.tolist()), "donor_audio": digest_of(self.donor_audio.tolist()),
        }  # fmt: skip
        return digest_of(read)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the clips of a piece gave, in their order; intervention 0 is none."""

    scores: Floats
    """(measure, intervention, clip), as of `effects.clip_scores`."""
    predicted: NDArray[np.int32]
    """(intervention, clip): codes of the predicted categories."""
    changed: NDArray[np.bool_]
    """(intervention, clip): whether the embedding is another one than without intervention."""
    embedding: NDArray[np.float32]
    """(clip, embedding) without intervention."""
    method: str
    """How the encoder was rerun, as in `Rerunner.method`."""


class Interventions(Protocol):
    """What a worker needs to know of a study to rerun its clips."""

    @property
    def identity(self) -> Identity:
        """The store's."""

    @property
    def plan(self) -> Plan:
        """The task's."""

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """What is done to the encoder."""


class Reruns:
    """An encoder that reruns clips of a corpus under a study's interventions, a batch at a time.

    encoder: or its name: then every worker loads it itself. device: as of `to_device`. corpus: the task's clips.
    """

    def __init__(self, study: Interventions, encoder: Encoder | str, device: str | None, corpus: Corpus) -> None:
        loaded = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.corpus, self.encoder = corpus, to_device(loaded, device).at(study.identity.precision)
        self.interventions, self.threads = study.interventions, study.plan.threads
        self.loader = Loader(corpus.clips, self.encoder, study.plan, limits=NO_LIMITS)  # they were extracted
        self.forward = Forward(self.encoder, study.identity, study.plan)
        self.rerunner = Rerunner(self.encoder, study.interventions, frames=study.identity.frames)
        self._one_at_a_time, self._ended = threading.Lock(), False

    def close(self) -> None:
        """Make calls under way end soon."""
        self._ended = True

    def rerun(
        self, batch: list[LoadedClip], donors: Sequence[LoadedClip] = ()
    ) -> list[tuple[list[LoadedClip], NDArray[np.float32]]]:
        """Clips of one layout, as `Forward.prepared` divides them, with embeddings as of `Rerunner`.

        donors: by `index` of the clips, where there are patches; those of a batch are of one layout.
        Raises ValueError for interventions that leave no numbers, as a huge gain does.
        """

        def embeddings_of(part: list[LoadedClip], inputs: Any, n_samples: int) -> NDArray[np.float32]:
            theirs, given, seconds = [donors[clip.index] for clip in part] if donors else [], None, self.forward.seconds
            if theirs:
                prepared, length = self.forward.prepare(theirs), self.forward.longest(theirs)
                given = Batch(inputs=prepared, n_samples=length, seconds=seconds(theirs), prompt=theirs[0].prompt)
            prompt = part[0].prompt
            batch = Batch(inputs=inputs, n_samples=n_samples, seconds=seconds(part), donors=given, prompt=prompt)
            embeddings = self.rerunner(batch, self._check_running)
            for intervention, changed in zip(self.interventions, embeddings[1:], strict=True):
                if not np.isfinite(changed).all():  # no probe can be asked about them
                    raise ValueError(
                        f"embeddings under {intervention.name or 'an intervention'} (gain {intervention.gain:g}) hold "
                        "NaN or infinity; expected numbers: use a gain nearer to 1"
                    )
            return embeddings

        with self._one_at_a_time, arithmetic(self.threads):
            return self.forward.prepared(batch, lambda part, *of: (part, embeddings_of(part, *of)))

    def _check_running(self, _done: int) -> None:
        if self._ended:
            raise Cancelled("the run was ended")


class AblationWorker(Reruns):
    """Scores ranges of a study's clips: `worker(piece)`. Made as `Reruns`."""

    def __init__(self, study: Study, encoder: Encoder | str, device: str | None, corpus: Corpus) -> None:
        super().__init__(study, encoder, device, corpus)
        self.study = study

    def __call__(self, piece: range) -> Scores:
        """Scores of the clips at these positions.

        Raises ValueError for audio that is not what the store was made from, and for interventions that leave no
        numbers, as a huge gain does; OSError where audio cannot be read.
        """
        study, rows = self.study, slice(piece.start, piece.stop)
        clips = load_clips(self.loader, self.corpus, study.clips[rows], study.audio[rows])
        donors = load_clips(self.loader, self.corpus, study.donors[rows], study.donor_audio[rows])
        truth, heads = study.truth[rows], study.heads[rows]
        shape = 1 + len(study.interventions), len(piece)
        scores = np.empty((len(MEASURES) - (study.target is None) * len(TARGET_MEASURES), *shape))
        predicted, moved = np.empty(shape, np.int32), np.empty(shape, bool)
        base = np.empty((len(piece), study.identity.embedding), np.float32)
        # Donors of one batch may be of unequal length or layout.
        alone = donors and (self.loader.unit is None or self.encoder.prompted)
        for batch in [[clip] for clip in clips] if alone else list(self.loader.batches(clips)):
            for part, embeddings in self.rerun(batch, donors):
                at = np.array([clip.index for clip in part])
                logits = study.probe.logits(embeddings, heads[at])
                scores[..., at], predicted[:, at] = clip_scores(logits, truth[at], study.target)
                base[at], moved[:, at] = embeddings[0], (embeddings != embeddings[0]).any(axis=-1)
        method = self.rerunner.method
        return Scores(scores=scores, predicted=predicted, changed=moved, embedding=base, method=method)


def load_clips(
    loader: Loader, corpus: Corpus, numbers: NDArray[np.int64], digests: NDArray[np.uint64]
) -> list[LoadedClip]:
    """The clips of these numbers in the corpus. Raises ValueError for audio of another digest, or that is damaged."""
    found = []
    for index, (number, digest) in enumerate(zip(numbers.tolist(), digests.tolist(), strict=True)):
        clip = corpus.clips.clip(number)
        loaded = loader.load(index, clip)
        if loaded.reason or loaded.digest != digest:
            raise ValueError(
                f"{clip.name} {loaded.reason or 'is not the audio that was extracted'}; expected the files that "
                "the store was made from: see `otoscope verify --audio DIR`"
            )
        found.append(loaded)
    return found
