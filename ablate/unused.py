"""Which layers the embedding is computed from.

Goal: neurons whose values nothing uses are refused, rather than reported to have no effect.
Conventions: found by trial, as no model's code is known, and by whole passes, whatever reruns do. All values of a layer
are replaced by random numbers, as large as its largest one and then far larger, which differ between clips, frames and
neurons, so that no norm can undo them. A layer is unused if no embedding of a few clips is moved by more than rounding,
which is seen in a second pass without any change.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..extract.audio.corpus import Corpus
from ..extract.forward import Forward, arithmetic
from ..extract.loader import LoadedClip, Loader
from ..extract.models.encoder import Encoder, is_foreign
from ..extract.models.tap import match_sites, tap
from ..store.neurons import NeuronSet
from .intervention import Edit
from .replay.rerun import whole_pass
from .worker import Interventions, load_clips

CLIPS = 3  # that a layer must leave alone to be unused; one suffices to show that it is used
FACTORS = (1.0, 1e3)  # of a layer's largest value
MAX_VALUE = 1e4  # float16 ends at 6.5e4
ROUNDING = 10  # times the difference of two passes without any change, which is 0 on most devices


class Tested(Interventions, Protocol):
    """What is asked of a study here."""

    @property
    def neurons(self) -> NeuronSet:
        """The set in question."""

    @property
    def clips(self) -> NDArray[np.int64]:
        """Numbers of the tested clips."""

    @property
    def audio(self) -> NDArray[np.uint64]:
        """Digests of their audio."""


def check_used(study: Tested, encoder: Encoder, corpus: Corpus) -> None:
    """Raise ValueError, naming them, if the set has neurons in layers that the embedding is not computed from.

    encoder: on its device. Raises as a worker does for audio that is not what the store was made from.
    """
    loader, forward = Loader(corpus.clips, encoder, study.plan), Forward(encoder, study.identity, study.plan)
    layers = list(study.neurons.by_layer)
    for at in np.unique(np.linspace(0, len(study.clips) - 1, CLIPS).round().astype(int)):
        clips = load_clips(loader, corpus, study.clips[[at]], study.audio[[at]])

        def left(clips: list[LoadedClip], inputs: Any, n_samples: int, asked: list[int] = layers) -> list[int]:
            with encoder.counted(n_samples, forward.seconds(clips), study.identity.frames, clips[0].prompt):
                return unused_layers(encoder, inputs, asked)

        with arithmetic(study.plan.threads):
            (layers,) = forward.prepared(clips, left)
        if not layers:
            return
    sites = match_sites(encoder.module, encoder.sites)
    named = ", ".join(f"{layer} ({sites[layer]})" for layer in layers)
    raise ValueError(
        f"the embedding stays the same whatever the values of layer {named}: nothing that it is computed from uses "
        "them; expected neurons of layers that it depends on: take a set without this layer, or name as site what the "
        "model goes on with, and extract again"
    )


@torch.inference_mode()
def unused_layers(encoder: Encoder, inputs: Any, layers: Sequence[int]) -> list[int]:
    """Those of the layers whose values do not matter to the embedding of the inputs, in the order given.

    inputs: what the module takes, clip first. A model that fails on values of another kind uses them.
    Raises ValueError for a site whose output cannot be edited.
    """
    sites = match_sites(encoder.module, encoder.sites)
    layer_of = {sites[layer]: layer for layer in layers}
    shown: dict[int, list[tuple[torch.Size, float]]] = {layer: [] for layer in layers}

    def read(site: str, output: Any) -> None:
        values = encoder.neurons(output)
        shown[layer_of[site]].append((values.shape, float(values.abs().max()) or 1.0))

    with tap(encoder.module, list(layer_of), read=read):
        base = encoder.run(inputs).float()

    def moved(edits: list[Edit | None], new: Sequence[Tensor] = ()) -> Tensor:
        embedding = whole_pass(encoder, sites, inputs, edits, lambda _layer, run, _edit: new[run])
        return (embedding.float() - base).abs().max()

    rounding = ROUNDING * moved([None] * len(sites))

    def is_used(layer: int, factor: float) -> bool:
        generator = torch.Generator().manual_seed(layer)
        new = [
            (min(factor * largest, MAX_VALUE) * (2 * torch.rand(shape, generator=generator) - 1)).to(encoder.device)
            for shape, largest in shown[layer]
        ]
        edit = Edit(neurons=torch.arange(new[0].shape[-1], device=encoder.device), mode="patch")
        try:
            return not bool(moved([edit if site == sites[layer] else None for site in sites], new) <= rounding)
        except Exception as error:
            if not is_foreign(error):
                raise
            return True

    return [layer for layer in layers if not any(is_used(layer, factor) for factor in FACTORS)]
