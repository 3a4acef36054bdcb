"""An encoder of patches whose neurons can be read off the sound; `tones` writes its clips.

A column is 2,560 samples (0.16 s) and a patch one of two bands of it, 0 to 2 and 2 to 8 kHz, low band first; a clip of
one second has seven columns, of which the last ends 0.12 s after the clip. Neuron 0 is the level of a patch, neuron 1
its mean frequency in kHz where there is sound in it; neuron 2 is dead, neuron 3 active where it is soft.
"""

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import Encoder

RATE, COLUMN, EDGE = 16_000, 2_560, 2_000
SECONDS = COLUMN / RATE


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, columns: Tensor) -> Tensor:
        """(clip, column, sample) -> (clip, patch, 4), all columns of the low band first."""
        power = torch.fft.rfft(columns).abs().square() * (2 / COLUMN**2)
        hz = torch.linspace(0, RATE / 2, COLUMN // 2 + 1)
        bands = [(hz < EDGE).float(), (hz >= EDGE).float()]
        level = torch.cat([(power * band).sum(-1).sqrt() for band in bands], dim=1)
        centre = torch.cat([(power * band * hz).sum(-1) / ((power * band).sum(-1) + 1e-9) / 1000 for band in bands], 1)
        pitch = centre * (level > 0.02)
        return self.act(torch.stack([level, pitch, -level, 0.05 - level], dim=-1))


def in_columns(waveforms: Tensor) -> Tensor:
    lacking = -waveforms.shape[1] % COLUMN
    return nn.functional.pad(waveforms, (0, lacking)).unfold(1, COLUMN, COLUMN)


def spans(n_samples: int) -> np.ndarray:
    n = -(-n_samples // COLUMN)
    t0 = np.tile(np.arange(n) * SECONDS, 2)
    low = np.repeat([0.0, EDGE], n)
    return np.column_stack([t0, t0 + SECONDS, low, np.where(low, RATE / 2, EDGE)])


def patches() -> Encoder:
    """For `module:`."""
    return Encoder(
        module=Patches(), sample_rate=RATE, sites=["act"], prepare=in_columns, frame_spans=spans, name="patches",
        input_length=lambda n: -(-n // COLUMN), embed=lambda y: y.mean(1), min_samples=400,
    )  # fmt: skip
