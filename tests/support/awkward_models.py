"""Small models of many shapes, whose passes are awkward to start in the middle."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import Encoder

LAYERS, NEURONS, WIDTH, CHUNK = 4, 6, 5, 8
SHAPES = ("plain", "in place", "tuples", "shared norm", "one frame", "turned", "no gradient", "by name")
"""Replay does these, "no gradient" by keeping more."""
STRANGE = ("recurrent", "seen elsewhere")
"""And these it must leave alone: a chunk begins with what the last one ended with; another module reads the neurons."""


class Block(nn.Module):
    """Mixes frames, then a feed-forward part; norms afterwards, as base HuBERT does."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape
        self.mix = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.fc1 = nn.Linear(WIDTH, NEURONS)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(NEURONS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, frames: Tensor, bias: Tensor, norm: nn.Module) -> Any:
        mixed = self.mix(frames)
        if mixed.ndim == 3:
            mixed = mixed + mixed.mean(dim=1, keepdim=True)
        if self.shape == "in place":
            frames += mixed
        else:
            frames = frames + mixed + bias
        filled = self.fc1(norm(frames) if self.shape == "shared norm" else frames)
        turn = self.shape == "turned"  # the site shows (clip, neuron, frame)
        active = self.act(filled.transpose(1, 2)).transpose(1, 2) if turn else self.act(input=filled)
        changed = self.fc2(input=active) if self.shape == "by name" else self.fc2(active)
        if self.shape == "in place":
            changed += frames
        else:
            changed = changed + frames
        if self.shape == "seen elsewhere":
            changed = changed + active[..., :WIDTH]
        output = norm(changed)
        return (output, bias + 0.1) if self.shape == "tuples" else output


class Toy(nn.Module):
    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape
        self.front = nn.Linear(CHUNK, WIDTH)
        self.bias = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, waveforms: Tensor) -> Tensor:
        """(clip, sample) -> (clip, frame, width), in runs of two frames of CHUNK samples."""
        outputs = []
        carried = 0.0
        for chunk in waveforms.unfold(1, CHUNK, CHUNK).split(2, dim=1):
            if self.shape == "no gradient":
                with torch.no_grad():
                    frames = self.front(chunk).clone()
            else:
                frames = self.front(chunk)
            if self.shape == "recurrent":
                frames = frames + carried
            if self.shape == "one frame":
                frames = frames.mean(dim=1)
            state: Any = (frames, self.bias(torch.ones(1)))
            for block in self.blocks:
                norm = self.norm if self.shape == "shared norm" else block.norm
                made = block(*state, norm)
                state = made if self.shape == "tuples" else (made, state[1])
            outputs.append(state[0] if state[0].ndim == 3 else state[0][:, None])
            carried = outputs[-1].mean(dim=1, keepdim=True)
        return torch.cat(outputs, dim=1)


def turned(output: Tensor) -> Tensor:
    return output.transpose(1, 2)


def toy_encoder(shape: str, **changes: Any) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(SHAPES.index(shape) if shape in SHAPES else 0)
        model = Toy(shape).eval()
    given: dict[str, Any] = {
        "module": model, "sample_rate": 4 * CHUNK, "sites": ["blocks.*.act"], "maps": ["blocks.*.fc2"],
        "frame_spans": partial(spans, size=2 * CHUNK if shape == "one frame" else CHUNK),
    }  # fmt: skip
    if shape == "turned":
        given["neurons"] = turned
    return Encoder(**{**given, **changes})


def spans(n_samples: int, *, size: int, special: int | None = None) -> np.ndarray:
    """Tokens of `size` samples, of which one may be special."""
    t0 = np.arange(n_samples // size) * 1.0
    if special is not None:
        t0[special] = np.nan
    return np.column_stack([t0, t0, t0, t0])
