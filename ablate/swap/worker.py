"""Study of swaps + encoder + clips -> margins of some swaps. Composition only.

Conventions: a piece is a range of swaps. Number 0 is no intervention.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...extract.audio.corpus import Corpus
from ...extract.models.encoder import Encoder
from ...store.neurons import NeuronSet
from ...store.provenance import Identity, Plan, digest_of
from ..intervention import ALL, Intervention
from ..paired import Floats
from ..worker import Reruns, load_clips
from .pairs import Swaps
from .request import Swap


@dataclass(frozen=True, kw_only=True, eq=False)
class SwapStudy:
    """A request with all names looked up, picklable; nothing has been run. Arrays are (clip) over measured clips."""

    request: Swap
    identity: Identity
    plan: Plan
    categories: tuple[str, ...]
    """Of sounds and of texts."""
    answers: Mapping[str, str]
    """By category, in their order."""
    interventions: tuple[Intervention, ...]
    """The set in question, its controls, and, where sets are kept, a swap of all neurons."""
    n_controls: int
    swaps: Swaps
    """Of numbers of measured clips, counted from 0."""
    clips: NDArray[np.int64]
    """Numbers of the clips in store and corpus, in order."""
    names: tuple[str, ...]
    prompts: tuple[str, ...]
    embedding: NDArray[np.float32]
    """(clip, embedding) as stored."""
    audio: NDArray[np.uint64]
    """Digests of the audio that the store was made from."""
    notes: tuple[str, ...]
    """What was left out, and what speaks against the numbers, a line each."""

    @property
    def neurons(self) -> NeuronSet:
        """The set in question."""
        return self.interventions[0].neurons

    @property
    def controls(self) -> tuple[NeuronSet, ...]:
        """The sets that it is compared with."""
        return tuple(control.neurons for control in self.interventions[1 : 1 + self.n_controls])

    def summary(self) -> str:
        """What is about to happen, in a line."""
        K, J, _, M = self.swaps.pairs.shape
        return (
            f"{self.neurons.name}: {len(self.neurons)} neurons; {self.n_controls} controls; {len(self.swaps.clip)} "
            f"swaps among {len(self.clips)} clips, {K} categories of {J} sounds and of {M} wordings"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all that the result depends on: equal digests, equal results."""
        asked = {name: value for name, value in self.request.to_json().items() if name != "set"}  # its neurons count
        return digest_of(
            {
                "request": asked, "identity": self.identity.to_json(), "neurons": self.neurons.digest,
                "clips": digest_of([self.plan.names, self.plan.sources, self.plan.prompts]),
                "swapped": digest_of(self.clips[self.swaps.pairs].ravel().tolist()),
                "audio": digest_of(self.audio.tolist()),
            }
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Margins:
    """What the swaps of a piece gave, in their order."""

    margins: Floats
    """(1 + intervention, swap): logit of the clip's category minus that of its partner's."""
    moved: NDArray[np.bool_]
    """(intervention, swap): whether the embedding is another one than without intervention."""
    clips: NDArray[np.int64]
    """Measured clips that are in these swaps, each once."""
    embedding: NDArray[np.float32]
    """(clip, embedding) of them, without intervention."""
    method: str
    """How the encoder was rerun, as in `Rerunner.method`."""


class SwapWorker(Reruns):
    """Margins of ranges of swaps: `worker(piece)`. Otherwise made as `Reruns`.

    head: (category, embedding), rows of the model's own head that score the answers; margins are float64.
    """

    def __init__(
        self,
        study: SwapStudy,
        head: NDArray[np.float32],
        encoder: Encoder | str,
        device: str | None,
        corpus: Corpus,
    ) -> None:
        super().__init__(study, encoder, device, corpus)
        self.study, self.head = study, head.astype(np.float64)

    def __call__(self, piece: range) -> Margins:
        """Raises as `AblationWorker`, and ValueError where all tokens are swapped of partners of unequal length."""
        study, swaps, rows = self.study, self.study.swaps, slice(piece.start, piece.stop)
        clip, donor = swaps.clip[rows], swaps.donor[rows]
        used = np.union1d(clip, donor)
        loaded = load_clips(self.loader, self.corpus, study.clips[used], study.audio[used])
        at = {number: one for number, one in zip(used.tolist(), loaded, strict=True)}
        donors = [at[number] for number in donor.tolist()]
        alike: dict[Hashable, list[int]] = {}
        for i, number in enumerate(clip.tolist()):
            layouts = self.loader.layout(at[number]), self.loader.layout(donors[i])
            if study.request.at == ALL and layouts[0] != layouts[1]:
                names = [study.names[k] for k in (number, int(donor[i]))]
                raise ValueError(
                    f"{names[0]} and {names[1]} have tokens of other layouts; expected sounds of one length where all "
                    "tokens are swapped: give --at last, or extract with --unit-sec"
                )
            alike.setdefault(layouts, []).append(i)
        shape = len(study.interventions), len(piece)
        margins, moved = np.empty((1 + shape[0], shape[1])), np.empty(shape, bool)
        embedding: dict[int, NDArray[np.float32]] = {}
        own, other = swaps.own[rows], swaps.other[rows]
        for numbers in alike.values():
            for start in range(0, len(numbers), study.plan.batch):
                batch = [replace(at[int(clip[i])], index=i) for i in numbers[start : start + study.plan.batch]]
                batch.sort(key=lambda one: len(one.samples))
                for part, found in self.rerun(batch, donors):
                    these = np.array([one.index for one in part])
                    logits = found.astype(np.float64) @ self.head.T
                    each = np.arange(len(these))
                    margins[:, these] = logits[:, each, own[these]] - logits[:, each, other[these]]
                    moved[:, these] = (found[1:] != found[0]).any(axis=-1)
                    embedding.update(zip(clip[these].tolist(), found[0], strict=True))
        return Margins(
            margins=margins, moved=moved, clips=np.array(list(embedding), np.int64),
            embedding=np.stack(list(embedding.values())), method=self.rerunner.method,
        )  # fmt: skip
