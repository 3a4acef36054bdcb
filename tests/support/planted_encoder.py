"""An encoder built by hand, in which a known set of neurons carries one category; `planted_corpus` writes its clips.

A frame is 16 samples. Samples 0 to 3 say which category a clip is of ("a" to "d"), except that a clip of "d" is one of
"c" with sample 3 loud beside: whoever does not read sample 3 takes it for "c". Samples 8 to 15 differ from clip to clip
and mean nothing. Three layers of 60 neurons write into dimensions 16 on, of which the embedding is the mean. Seven
PLANTED neurons read sample 3 and nothing else does; all others read "a", "b" and "c" and the rest, each its own mix,
and fire in some clips of several categories.
"""

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import Encoder

RATE, HOP, WIDTH, NEURONS, LAYERS = 1000, 16, 16 + 12, 60, 3
CATEGORIES = ("a", "b", "c", "d")
PLANTED = ((1, 3), (1, 17), (1, 18), (1, 40), (1, 59), (2, 0), (2, 31))


class FeedForward(nn.Module):
    """x + fc2(relu(fc1(x)))."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        rng = np.random.default_rng(layer)
        reads = np.zeros((NEURONS, WIDTH))
        reads[:, :3] = rng.uniform(0.2, 1.5, (NEURONS, 3))
        reads[:, 8:16] = rng.normal(0, 0.3, (NEURONS, 8))
        bias = rng.uniform(-0.9, -0.5, NEURONS)
        writes = np.zeros((WIDTH, NEURONS))
        writes[16:-2] = rng.normal(0, 0.3, (WIDTH - 18, NEURONS))
        for of, neuron in PLANTED:
            if of == layer:
                reads[neuron], writes[:, neuron] = 0, 0
                reads[neuron, 3], bias[neuron], writes[-2:, neuron] = 1.0, -0.3, (0.5, -0.5)
        self.fc1, self.act, self.fc2 = nn.Linear(WIDTH, NEURONS), nn.ReLU(), nn.Linear(NEURONS, WIDTH, bias=False)
        for parameter, values in ((self.fc1.weight, reads), (self.fc1.bias, bias), (self.fc2.weight, writes)):
            parameter.data = torch.tensor(values, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.act(self.fc1(x)))


class Planted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(map(FeedForward, range(LAYERS)))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.nn.functional.pad(tokens, (0, WIDTH - HOP))
        for block in self.blocks:
            hidden = block(hidden)
        return hidden[..., HOP:]


def planted() -> Encoder:
    """For `module:`."""
    return Encoder(
        module=Planted(),
        sample_rate=RATE,
        sites=["blocks.*.act"],
        maps=["blocks.*.fc2"],
        transformer_layers=["blocks.*"],
        prepare=in_frames,
        min_samples=HOP,
        input_length=lambda n: n // HOP,
        name="planted",
    )


def in_frames(waveforms: Tensor) -> Tensor:
    """(clip, sample) -> (clip, frame, HOP)."""
    return waveforms.unfold(1, HOP, HOP)
