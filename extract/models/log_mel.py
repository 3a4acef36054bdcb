"""Waveforms to log-mel spectrograms, as M2D's authors compute them.

Goal: one front end whose every number is stated, so that it can be recorded and rebuilt.
Conventions: waveforms (clip, sample) in [-1, 1]; frame k is centred on sample k * hop; band 0 is the lowest.
"""

import numpy as np
import torch
from torch import Tensor

# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, then logarithmic.
_HZ_PER_MEL = 200 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Hz to mels on Slaney's scale: hz / (200/3) below 1 kHz, 15 + 27 ln(hz/1000) / ln 6.4 from there."""
    hz = np.asarray(hz, dtype=np.float64)
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """Mels to Hz, the inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


def mel_edges(n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Edges in Hz (n_mels + 2), evenly spaced in mels: band m rises from edge m and falls to edge m + 2."""
    return mel_to_hz(np.linspace(float(hz_to_mel(fmin)), float(hz_to_mel(fmax)), n_mels + 2))


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangular filters (mel, bin) in float64, each of area 1 over frequency in Hz, as Slaney norms them."""
    edges = mel_edges(n_mels, fmin, fmax)
    heights = triangles(edges, np.arange(n_fft // 2 + 1) * sample_rate / n_fft)
    return np.asarray(heights * 2 / (edges[2:, None] - edges[:-2, None]))


def triangles(edges: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Triangles (mel, bin) of height 1 on the scale of `edges` and `bins`, from edge m by edge m + 1 to edge m + 2."""
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    sides = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.asarray(np.maximum(sides, 0))


def check_waveforms(waveforms: Tensor, min_samples: int) -> None:
    """Raise ValueError for anything but (clip, sample) with so many samples."""
    if waveforms.ndim != 2 or waveforms.shape[1] < min_samples:
        raise ValueError(
            f"waveforms have shape {tuple(waveforms.shape)}; expected (clip, sample) with at least {min_samples} "
            "samples: pad or drop such clips"
        )


class LogMel(torch.nn.Module):
    """Waveforms (clip, sample) to log-mel spectrograms (clip, mel, frame), frames = samples // hop + 1.

    ln(mel_filters @ |STFT|^2 + eps), STFT with a periodic Hann window of `n_fft` samples and reflected ends.
    The defaults are M2D's: 25 ms windows, 10 ms hop, 80 bands from 50 Hz to half the sample rate, eps =
    2^-23, so that silence is -15.942385. No clip's values depend on the other clips.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16_000,
        *,
        n_fft: int | None = None,
        hop: int | None = None,
        n_mels: int = 80,
        fmin: float = 50.0,
        fmax: float | None = None,
        eps: float = 2.0**-23,
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_mels, self.fmin, self.eps = sample_rate, n_mels, fmin, eps
        self.n_fft = sample_rate // 40 if n_fft is None else n_fft
        self.hop = sample_rate // 100 if hop is None else hop
        self.fmax = sample_rate / 2 if fmax is None else fmax
        if not 0 <= self.fmin < self.fmax <= sample_rate / 2:
            raise ValueError(
                f"mel bands from {self.fmin} to {self.fmax} Hz; expected 0 <= fmin < fmax, at "
                f"most {sample_rate / 2}, half the sample rate"
            )
        filters = mel_filters(sample_rate, self.n_fft, n_mels, self.fmin, self.fmax)
        # Constants of the front end, not weights: they stay out of the state dict and its digest.
        self.register_buffer("window", torch.hann_window(self.n_fft, periodic=True), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    @property
    def min_samples(self) -> int:
        """Shortest waveform whose end can be reflected by half a window."""
        return self.n_fft // 2 + 1

    def n_frames(self, n_samples: int) -> int:
        """Frames of a waveform of `n_samples`."""
        return n_samples // self.hop + 1

    def settings(self) -> dict[str, str | int | float]:
        """Everything that fixes the numbers, as JSON values."""
        stated: dict[str, str | int] = {
            "kind": "log-mel",
            "mel": "slaney scale, slaney area",
            "window": "hann, periodic",
        }
        stated |= {"ends": "centred, reflected", "power": 2, "log": "natural"}
        numbers = {name: getattr(self, name) for name in ("sample_rate", "n_fft", "hop", "n_mels", "eps")}
        return {**stated, **numbers, "fmin": float(self.fmin), "fmax": float(self.fmax)}

    def forward(self, waveforms: Tensor) -> Tensor:
        """(clip, sample) -> (clip, mel, frame). Raises ValueError for fewer than `min_samples` samples."""
        check_waveforms(waveforms, self.min_samples)
        # center=True pads with pad_mode="reflect", torch's default
        spectrum = torch.stft(waveforms, self.n_fft, self.hop, window=self.window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(self.filters @ power + self.eps)

    @torch.inference_mode()
    def of(self, samples: np.ndarray) -> np.ndarray:
        """Of one waveform (sample) in float32, with zeros up to `min_samples`: (mel, frame)."""
        padded = np.pad(samples, (0, max(0, self.min_samples - len(samples))))
        found: np.ndarray = self(torch.from_numpy(padded)[None])[0].numpy()
        return found
