"""A prompted encoder whose activations can be worked out by hand, and the same in plain arithmetic.

Conventions: a token is a character of the prompt, or HOP samples. Tokens are whole numbers of 1/32768 and the weights
small whole numbers, so that every sum is exact in float32 whatever its order. A token's state is the sum of all tokens
up to it, as a decoder sees no further. The file stands alone: tests load it by its path (`module:FILE:prompted`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.extract.audio.clip import AUDIO
from otoscope.extract.models.encoder import Encoder

RATE, HOP, NEURONS = 1000, 10, 7
WEIGHT = np.random.default_rng(0).integers(-2, 3, (NEURONS, HOP))


class Causal(nn.Module):
    """Sums of tokens, and neurons that are linear in them; records the shape of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = nn.Linear(HOP, NEURONS, bias=False)
        self.neurons.weight = nn.Parameter(torch.tensor(WEIGHT, dtype=torch.float32))
        self.act, self.out = nn.ReLU(), nn.Linear(NEURONS, HOP, bias=False)
        self.out.weight = nn.Parameter(torch.tensor(WEIGHT.T.copy(), dtype=torch.float32))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape[:2]))
        states: Tensor = tokens.cumsum(dim=1)
        states = states + self.out(self.act(self.neurons(states)))
        return states


def parts(prompt: str) -> tuple[str, str]:
    """Text before and after the sound."""
    if prompt.count(AUDIO) != 1:
        raise ValueError(f"prompt {prompt!r} has {prompt.count(AUDIO)} {AUDIO}; expected one: correct it")
    before, _, after = prompt.partition(AUDIO)
    return before, after


def of_text(text: str) -> np.ndarray:
    """A token for each character, (token, HOP)."""
    rows = [[(ord(character) * (k + 1)) % 11 - 5 for k in range(HOP)] for character in text]
    return np.array(rows, np.float32).reshape(-1, HOP) / 32768


def prepare(waveforms: Tensor, prompts: Sequence[str]) -> Tensor:
    """(clip, sample) and (clip) -> (clip, token, HOP)."""
    sounds = waveforms.unfold(1, HOP, HOP)
    rows = []
    for sound, prompt in zip(sounds, prompts, strict=True):
        before, after = (torch.from_numpy(of_text(text)) for text in parts(prompt))
        rows.append(torch.cat([before, sound, after]))
    return torch.stack(rows)


def layout(n_samples: int, prompt: str) -> tuple[int, ...]:
    before, after = parts(prompt)
    return len(before), n_samples // HOP, len(after)


def spans(n_samples: int, prompt: str) -> np.ndarray:
    before, n, after = layout(n_samples, prompt)
    t0 = np.arange(n) * HOP / RATE
    text = [np.full((k, 2), np.nan) for k in (before, after)]
    times = np.vstack([text[0], np.column_stack([t0, t0 + HOP / RATE]), text[1]])
    return np.column_stack([times, np.zeros((len(times), 2))])


def prompted(**changes: Any) -> Encoder:
    """The encoder; `expected` says in numpy what it does."""
    given: dict[str, Any] = {
        "module": Causal(), "sample_rate": RATE, "sites": ["act"], "maps": ["out"], "prepare": prepare,
        "prompted": True, "embed": lambda states: states[:, -1], "frame_spans": spans, "input_length": layout,
        "min_samples": HOP, "max_samples": 2 * RATE, "name": "prompted",
    }  # fmt: skip
    return Encoder(**{**given, **changes})


def expected(
    samples: np.ndarray, prompt: str, frames: str = "last", unit: int | None = None
) -> tuple[np.ndarray, int, np.ndarray]:
    """What one clip gives: mean activations (neuron), how many tokens count, embedding (HOP)."""
    own = len(samples)
    if unit is not None:
        samples = np.concatenate([samples, np.zeros(unit)])[:unit]
    before, after = parts(prompt)
    n = len(samples) // HOP
    sound = samples[: n * HOP].reshape(n, HOP) / 32768
    states = np.vstack([of_text(before), sound, of_text(after)]).cumsum(axis=0, dtype=np.float64)
    neurons = np.maximum(states @ WEIGHT.T, 0)
    first = len(before)
    counted = {
        "last": [len(states) - 1],
        "audio": [first + k for k in range(n) if k * HOP < own],
        "published": list(range(first, first + n)),
        "all": list(range(len(states))),
    }[frames]
    total = neurons[counted].sum(axis=0).astype(np.float32)
    return total / np.float32(len(counted)), len(counted), (states + neurons @ WEIGHT)[-1].astype(np.float32)
