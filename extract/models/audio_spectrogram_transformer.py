"""AST, the audio spectrogram transformer: filter bank front end, and its folders as Encoders.

Goal: what transformers' ASTModel and ASTFeatureExtractor compute, with the front end in torch.
Conventions: filter banks (clip, frame, mel); the encoder's own frames are CLS, distillation token, then patches row by
row, lowest bands first. Audio beyond the 1024 frames of the model's input (10.24 s) is cut off, as its authors do;
shorter audio is filled up. Hidden states are the outputs of the layers; a last norm follows, so that the last one is
not the model's output.
The embedding is the mean of the two special frames after that norm.
Another batch size may pick another matrix kernel and so move results within float32 rounding.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .encoder import Encoder
from .log_mel import check_waveforms, triangles
from .transformers_files import open_folder, transformers_part

FLOOR = 2.0**-23
SAMPLE_RATE, WINDOW, HOP, N_FFT, LOWEST_HZ, PREEMPHASIS = 16_000, 400, 160, 512, 20.0, 0.97
# From the names in published files to those of transformers 5.
RENAMED = (
    (r"^encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def kaldi_mel(hz: np.ndarray | float) -> np.ndarray:
    """Hz to mels on Kaldi's scale, 1127 ln(1 + hz / 700)."""
    return 1127.0 * np.log1p(np.asarray(hz, dtype=np.float64) / 700.0)


def band_edges(n_mels: int) -> np.ndarray:
    """Edges in Hz (n_mels + 2), evenly spaced in mels: band m rises from edge m and falls to edge m + 2."""
    edges = np.linspace(float(kaldi_mel(LOWEST_HZ)), float(kaldi_mel(SAMPLE_RATE / 2)), n_mels + 2)
    return 700.0 * np.asarray(np.expm1(edges / 1127.0))


def band_filters(n_mels: int) -> np.ndarray:
    """Triangles of height 1 over mels, as Kaldi draws them: float64 (mel, bin)."""
    return triangles(kaldi_mel(band_edges(n_mels)), kaldi_mel(np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT))


class FilterBank(torch.nn.Module):
    """Waveforms (clip, sample) to Kaldi's log filter bank (clip, frame, mel), padded or cut to `frames`, normalised.

    Frames of 400 samples every 160, none beyond the ends; each less its mean, x_t - 0.97 x_{t-1}, under a symmetric
    Hann window; ln(max(filters @ |FFT|^2, 2^-23)). Lacking frames are 0 before (value - mean) / (2 std). The arithmetic
    is in float64, the result float32.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, *, frames: int, n_mels: int, norm: tuple[float, float] | None) -> None:
        super().__init__()
        self.frames, self.n_mels, self.norm = frames, n_mels, norm
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False, dtype=torch.float64), persistent=False)
        self.register_buffer("filters", torch.from_numpy(band_filters(n_mels)), persistent=False)

    def settings(self) -> dict[str, Any]:
        """Everything that fixes the numbers, as JSON values."""
        return {
            "kind": "kaldi filter bank", "frames": self.frames, "n_mels": self.n_mels, "window": WINDOW, "hop": HOP,
            "n_fft": N_FFT, "fmin": LOWEST_HZ, "fmax": SAMPLE_RATE / 2, "preemphasis": PREEMPHASIS, "floor": FLOOR,
            "norm": None if self.norm is None else list(self.norm),
        }  # fmt: skip

    def forward(self, waveforms: Tensor) -> Tensor:
        """(clip, sample) -> float32 (clip, frame, mel). Raises ValueError for fewer than 400 samples."""
        check_waveforms(waveforms, WINDOW)
        max_samples = (self.frames - 1) * HOP + WINDOW
        frames = waveforms[:, :max_samples].double().unfold(1, WINDOW, HOP)  # (clip, frame, sample)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        power = torch.fft.rfft((frames - PREEMPHASIS * before) * self.window, N_FFT).abs().square()
        bank = (power @ self.filters.T).clamp(min=FLOOR).log().float()
        bank = F.pad(bank, (0, 0, 0, self.frames - bank.shape[1]))
        return bank if self.norm is None else (bank - self.norm[0]) / (2 * self.norm[1])

    def n_frames(self, n_samples: int) -> int:
        """Frames of a waveform of any number of samples: always as many."""
        return self.frames


def frame_spans(n_samples: int, *, frames: int, n_mels: int, patch: int, strides: tuple[int, int]) -> np.ndarray:
    """Spans (frame, 4) of t0, t1 in s, f0, f1 in Hz, alike for any number of samples; NaN times: special frames."""
    edges = band_edges(n_mels)
    rows = np.arange(0, n_mels - patch + 1, strides[0])
    first = np.arange(0, frames - patch + 1, strides[1])
    time = np.stack([first * HOP, (first + patch - 1) * HOP + WINDOW], axis=1) / SAMPLE_RATE
    special = np.broadcast_to([np.nan, np.nan, edges[0], edges[-1]], (2, 4))
    bands = np.stack([edges[rows], edges[rows + patch + 1]], axis=1).repeat(len(first), axis=0)
    return np.concatenate([special, np.column_stack([np.tile(time, (len(rows), 1)), bands])])


def pooled(output: Any) -> Tensor:
    """Mean of CLS and distillation token after the last norm (clip, width)."""
    frames: Tensor = output.last_hidden_state
    return (frames[:, 0] + frames[:, 1]) / 2


def load(path: str, family: str = "ast") -> Encoder:
    """Encoder from a folder of AST.

    Raises ImportError without transformers, FileNotFoundError for files that are not there, ValueError for another
    model, a front end that is not this model's, or weights that do not fit.
    """
    folder = open_folder(path, family)
    config = folder.configuration(transformers_part().ASTConfig)
    frames, n_mels = config.max_length, config.num_mel_bins
    folder.check_front_end(sampling_rate=SAMPLE_RATE, max_length=frames, num_mel_bins=n_mels)
    norm = (
        (folder.setting("mean", float), folder.setting("std", float)) if folder.setting("do_normalize", bool) else None
    )
    if norm is not None and norm[1] <= 0:
        raise ValueError(f"{path}/preprocessor_config.json has std {norm[1]:g}; expected a deviation above 0")
    strides = (config.frequency_stride, config.time_stride)
    prefixes = ("audio_spectrogram_transformer.",)
    # Before the front end, so that its sizes are those of weights that are there.
    model = folder.model(transformers_part().ASTModel, config, prefixes=prefixes, renamed=RENAMED)
    bank = FilterBank(frames=frames, n_mels=n_mels, norm=norm)
    return Encoder(
        module=model,
        sample_rate=SAMPLE_RATE,
        sites=("layers.*.mlp.activation_fn",),
        prepare=bank,
        embed=pooled,
        frame_spans=partial(frame_spans, frames=frames, n_mels=n_mels, patch=config.patch_size, strides=strides),
        input_length=bank.n_frames,
        transformer_layers=("layers.*",),
        maps=("layers.*.mlp.fc2",),
        min_samples=WINDOW,
        name=family,
        front_end=bank.settings(),
    )
