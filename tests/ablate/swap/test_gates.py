"""Two neurons that an answer needs both of, or either of: rows and columns tell AND from OR, the mean does not."""

import numpy as np
import pytest
import torch
from torch import nn

from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.ablate.swap.pairs import swaps_of
from otoscope.ablate.swap.result import table_of_margins
from otoscope.extract.models.encoder import Encoder
from otoscope.store.neurons import NeuronSet

SIZES = (2, 2, 2, 2)
ONE, BOTH = NeuronSet(pairs=((0, 0),)), NeuronSet(pairs=((0, 0), (0, 1)))


class Gate(nn.Module):
    """Two neurons, 1 where the sound is of the first category; the first answer's score is their AND or OR."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.act = kind, nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        one, other = self.act(inputs)[:, -1].unbind(-1)
        gate = torch.minimum(one, other) if self.kind == "and" else torch.maximum(one, other)
        return torch.stack([gate, torch.zeros_like(gate)], dim=-1)


def table(kind, neurons, keep=False):
    encoder = Encoder(
        module=Gate(kind), sample_rate=100, sites=["act"], name=kind,
        prepare=lambda waveforms: waveforms.reshape(len(waveforms), -1, 2), embed=lambda y: y, min_samples=2,
    )  # fmt: skip
    pairs = np.arange(16).reshape(SIZES)
    swaps = swaps_of(pairs)
    is_first = torch.from_numpy((np.arange(16) // 8 == 0).astype("f4"))
    sounds = torch.zeros(16, 4)
    sounds[:, 2:] = is_first[:, None]
    interventions = [Intervention(neurons=neurons, mode="patch", tokens="last", keep=keep)]
    interventions += [Intervention(neurons=NeuronSet(pairs=()), mode="patch", tokens="last", keep=True)] * keep
    donors = Batch(inputs=encoder.inputs(sounds[swaps.donor]), n_samples=4)
    batch = Batch(inputs=encoder.inputs(sounds[swaps.clip]), n_samples=4, donors=donors)
    logits = Rerunner(encoder, interventions)(batch).astype(float)
    each = np.arange(len(swaps.clip))
    margins = logits[:, each, swaps.own] - logits[:, each, swaps.other]
    found = table_of_margins(margins, swaps, ("first", "second"), keep=keep)
    return found.set_index(["part", "category"])["E_A"]


@pytest.mark.parametrize(("kind", "necessity", "sufficiency"), [("and", 1, 0), ("or", 0, 1)])
def test_rows_and_columns_tell_and_from_or(kind, necessity, sufficiency):
    effect = table(kind, ONE)
    assert effect["necessity", "first"] == necessity
    assert effect["sufficiency", "first"] == sufficiency
    assert effect["overall", ""] == 0.5


@pytest.mark.parametrize("kind", ["and", "or"])
def test_both_neurons_are_necessary_and_sufficient(kind):
    effect = table(kind, BOTH)
    assert effect["necessity", "first"] == effect["sufficiency", "first"] == 1


@pytest.mark.parametrize(("kind", "held"), [("and", 0), ("or", 1)])
def test_kept_alone_one_neuron_holds_what_one_of_an_or_can(kind, held):
    """In clips of the first category, whose other neuron is the partner's."""
    assert table(kind, ONE, keep=True)["necessity", "first"] == held
