"""A small network of BYOL-A's layout: log-mel, convolutions with pooling, frame-wise maps with ReLU, mean + max.

Conventions: the file stands alone (`module:FILE:build`). Its parts are called as the published ones: features, fc.
"""

import copy
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import Encoder

RATE, N_FFT, HOP, MELS, POOLED = 8_000, 256, 80, 32, 4
SITES = ("flat", "fc.1", "fc.4")
WIDTHS = (8 * MELS // POOLED, 48, 40)


class Network(nn.Module):
    """Log-mel (clip, 1, mel, frame) to features (clip, pooled frame, 40)."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for n_in, n_out in ((1, 6), (6, 8)):
            parts += [
                nn.Conv2d(n_in, n_out, 3, padding=1),
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*parts)
        self.flat = nn.Identity()  # neurons last: a site that can be edited
        self.fc = nn.Sequential(
            nn.Linear(WIDTHS[0], WIDTHS[1]), nn.ReLU(), nn.Dropout(0.3), nn.Linear(WIDTHS[1], WIDTHS[2]), nn.ReLU()
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        maps = self.features(log_mel)  # (clip, channel, mel, frame)
        output: Tensor = self.fc(self.flat(maps.permute(0, 3, 1, 2).flatten(2)))
        return output


def log_mel(waveforms: Tensor) -> Tensor:
    """(clip, sample) -> (clip, 1, mel, frame): log of the power in bands of equal width, standardised."""
    window = torch.hann_window(N_FFT)
    power = torch.stft(waveforms, N_FFT, HOP, window=window, return_complex=True).abs().square()[:, :-1]
    bands = power.unflatten(1, (MELS, -1)).mean(dim=2)
    return ((bands + 1e-6).log()[:, None] + 5) / 4


def mean_and_max(features: Tensor) -> Tensor:
    """(clip, frame, width) -> (clip, width)."""
    return features.mean(dim=1) + features.amax(dim=1)


def n_frames(n_samples: int) -> int:
    return n_samples // HOP + 1


def spans(n_samples: int) -> np.ndarray:
    """Frames after pooling."""
    t0 = np.arange(n_frames(n_samples) // POOLED) * POOLED * HOP / RATE
    return np.column_stack([t0, t0 + POOLED * HOP / RATE, 0 * t0, 0 * t0 + RATE / 2])


@cache
def calibrated() -> Network:
    """Weights drawn, then shifted so that each neuron is on in some frames of tones and noise, and off in most."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        network = Network()
        t = torch.arange(RATE // 2) / RATE
        tones = (2 * torch.pi * (200 + 3000 * torch.rand(24, 1)) * t).sin()
        loud = 10 ** (-2 + 1.3 * torch.rand(48, 1)) * (-6 * (t - t[-1] * torch.rand(48, 1)).abs() / t[-1]).exp()
        noise = torch.randn(48, len(t))
        sounds = log_mel(loud * torch.cat([tones, noise[:24]]) + 1e-3 * noise)
        for part in network.features:
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
                nn.init.constant_(part.bias, -1.2)
        network.train()(sounds)
        flat = network.eval().features(sounds).permute(0, 3, 1, 2).flatten(2)
        for i in (0, 3):
            nn.init.normal_(network.fc[i].weight, std=0.2)
            network.fc[i].bias -= network.fc[: i + 1](flat).flatten(0, 1).quantile(0.85, dim=0)
    return network


def build() -> Encoder:
    """A copy each time."""
    network = copy.deepcopy(calibrated())
    return Encoder(
        module=network, sample_rate=RATE, sites=SITES, prepare=log_mel, embed=mean_and_max, frame_spans=spans,
        input_length=n_frames, min_samples=3 * N_FFT,
    )  # fmt: skip
