"""An encoder whose activations can be worked out by hand, and the same in plain arithmetic.

Conventions: audio is whole numbers of 1/32768 and the weights are small whole numbers, so that every sum is exact in
float32 whatever its order, and numpy's results can be compared bit for bit. The file stands alone: tests load it by its
path (`module:FILE:closed_form`), and copy it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import Encoder

RATE, HOP, WIDTHS, CLS = 1000, 10, (11, 3), 0.25
WEIGHTS = [np.random.default_rng(seed).integers(-2, 3, (width, HOP)) for seed, width in enumerate(WIDTHS)]


class Layer(nn.Module):
    """Neurons that are linear in the tokens; passes twice the tokens on."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.neurons = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.neurons.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32))

    def forward(self, tokens: Tensor) -> Tensor:
        self.neurons(tokens)
        return 2 * tokens


class ClosedForm(nn.Module):
    """Tokens of HOP samples after a constant CLS; two layers, unequal in width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(Layer, WEIGHTS))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.cat([torch.full((len(tokens), 1, HOP), CLS), tokens], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        return tokens


def in_frames(waveforms: Tensor) -> Tensor:
    """(clip, sample) -> (clip, token, HOP); samples that fill no token are left out."""
    return waveforms.unfold(1, HOP, HOP)


def of_clips(tokens: Tensor) -> bool:
    """Whether a batch is of clips, not the one or two seconds of sound by which an encoder is looked at."""
    return tokens.shape[1] not in (RATE // HOP, 2 * RATE // HOP)


def spans(n_samples: int) -> np.ndarray:
    """CLS first, then HOP samples per token."""
    t0 = np.arange(n_samples // HOP) * HOP / RATE
    times = np.column_stack([t0, t0 + HOP / RATE])
    return np.column_stack([np.vstack([[np.nan, np.nan], times]), np.zeros((len(t0) + 1, 2))])


def largest(tokens: Tensor) -> Tensor:
    """Embedding: the largest value over the tokens (clip, HOP)."""
    return tokens.amax(dim=1)


def closed_form(**changes: Any) -> Encoder:
    """The encoder; `expected` says in numpy what it does."""
    given: dict[str, Any] = {
        "module": ClosedForm(),
        "sample_rate": RATE,
        "sites": ["layers.*.neurons"],
        "prepare": in_frames,
        "embed": largest,
        "frame_spans": spans,
        "input_length": lambda n: n // HOP,
        "transformer_layers": ["layers.*"],
        "min_samples": HOP,
        "name": "closed-form",
    }
    return Encoder(**{**given, **changes})


def expected(samples: np.ndarray, frames: str = "audio", unit: int | None = None) -> dict[str, np.ndarray]:
    """What one clip gives, by plain arithmetic: mean and positive (layer, neuron), frame_count, embedding, hidden."""
    sound = np.asarray(samples, np.float64) / 32768
    if unit is not None:
        sound = np.concatenate([sound, np.zeros(unit)])[:unit]
    tokens = sound[: len(sound) // HOP * HOP].reshape(-1, HOP)
    within = np.array([start < len(samples) for start in range(0, len(tokens) * HOP, HOP)])
    rows = {
        "audio": tokens[within],
        "published": tokens,
        "all": np.vstack([np.full((1, HOP), CLS), tokens]),
    }[frames]
    count = np.float32(len(rows))
    neurons = [2.0**layer * rows @ weight.T for layer, weight in enumerate(WEIGHTS)]
    mean = np.full((2, max(WIDTHS)), np.nan, np.float32)
    positive = np.zeros((2, max(WIDTHS)), np.uint16)
    for layer, values in enumerate(neurons):
        mean[layer, : WIDTHS[layer]] = values.sum(axis=0).astype(np.float32) / count
        positive[layer, : WIDTHS[layer]] = (values > 0).sum(axis=0)
    hidden = np.stack([(2.0**state * rows).sum(axis=0).astype(np.float32) / count for state in range(3)])
    return {
        "mean": mean, "positive_frames": positive, "frame_count": np.asarray(len(rows)),
        "embedding": tokens.max(axis=0).astype(np.float32), "hidden": hidden,
    }  # fmt: skip
