"""Whisper's encoder: audio of any length in windows of 30 s.

Goal: what transformers' WhisperEncoder and WhisperFeatureExtractor compute, window by window.
Conventions: every window is filled with zeros to 30 s and makes 1500 frames of 320 samples; frames that hold none of
the audio have no time (NaN) and are left out of the output. Hidden states are the outputs of the layers; a
last norm follows, so that the last one is not the model's output. The embedding is the mean over the kept frames.
Another batch size may pick another matrix kernel and so move results within float32 rounding.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Encoder, spans_of_all_bands
from .log_mel import mel_filters
from .transformers_files import open_folder, transformers_part

SAMPLE_RATE, N_FFT, HOP, FRAME = 16_000, 400, 160, 320
FLOOR, RANGE = 1e-10, 8.0


class Features(nn.Module):
    """A window's log-mel: log10 of the power in Slaney bands from 0 to 8000 Hz, at least 1e-10 and at least the
    window's maximum less 8, then (value + 4) / 4."""

    hann: Tensor
    filters: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        filters = mel_filters(SAMPLE_RATE, N_FFT, n_mels, 0.0, 8000.0)
        # Constants of the front end, not weights: they stay out of the state dict and its digest.
        self.register_buffer("hann", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def log_mel(self, window: Tensor) -> Tensor:
        """A full window (clip, sample) -> (clip, mel, step), float32 whatever the encoder behind it computes in."""
        with torch.autocast(window.device.type, enabled=False):
            return self._log_mel(window)

    def _log_mel(self, window: Tensor) -> Tensor:
        spectrum = torch.stft(window, N_FFT, HOP, window=self.hann, return_complex=True)[..., :-1]
        log = (self.filters @ spectrum.abs().square()).clamp(min=FLOOR).log10()
        return (log.maximum(log.amax(dim=(1, 2), keepdim=True) - RANGE) + 4) / 4


class Windows(Features):
    """Waveforms (clip, sample) through log-mel and encoder, window by window: frames (clip, frame, width).

    ceil(samples / 320) frames are kept.
    """

    def __init__(self, encoder: nn.Module, *, n_mels: int, frames: int) -> None:
        super().__init__(n_mels)
        self.encoder, self.frames = encoder, frames

    def forward(self, waveforms: Tensor) -> Tensor:
        """(clip, sample) -> (clip, frame, width), one window after another so that memory does not grow with length."""
        size = self.frames * FRAME
        parts = []
        for window in torch.split(waveforms, size, dim=1):
            output = self.encoder(self.log_mel(F.pad(window, (0, size - window.shape[1])))).last_hidden_state
            parts.append(output[:, : n_frames(window.shape[1])])
        return torch.cat(parts, dim=1)


def n_frames(n_samples: int) -> int:
    """Frames that hold some of the audio, ceil(samples / 320)."""
    return -(-n_samples // FRAME)


def whole_frames(waveforms: Tensor) -> Tensor:
    """Zeros at the end up to a whole frame, as a window's own filling would be: (clip, sample) -> (clip, sample)."""
    return F.pad(waveforms, (0, -waveforms.shape[1] % FRAME))


def frame_spans(n_samples: int, *, window: int) -> np.ndarray:
    """Spans (frame, 4) of t0, t1 in s and 0 to 8000 Hz, all frames of all windows; times NaN beyond the audio.

    window: how many frames it has.
    """
    number = np.arange(-(-n_frames(n_samples) // window) * window)
    t0 = np.where(number < n_frames(n_samples), number * FRAME / SAMPLE_RATE, np.nan)
    return spans_of_all_bands(t0, t0 + FRAME / SAMPLE_RATE, SAMPLE_RATE)


def load(path: str, family: str = "whisper") -> Encoder:
    """Encoder from a folder of Whisper, whose decoder is not loaded.

    Raises ImportError without transformers, FileNotFoundError for files that are not there, ValueError for another
    model, a front end that is not this model's, or weights that do not fit.
    """
    folder = open_folder(path, family)
    config = folder.configuration(transformers_part().WhisperConfig)
    window, n_mels = config.max_source_positions, config.num_mel_bins
    seconds = window * FRAME / SAMPLE_RATE
    folder.check_front_end(
        sampling_rate=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, chunk_length=seconds, feature_size=n_mels, dither=0
    )
    make = transformers_part(".models.whisper.modeling_whisper").WhisperEncoder
    encoder = folder.model(make, config, prefixes=("model.encoder.", "encoder."))
    return Encoder(
        module=Windows(encoder, n_mels=n_mels, frames=window).eval(),
        sample_rate=SAMPLE_RATE,
        sites=("encoder.layers.*.activation_fn",),
        prepare=whole_frames,
        frame_spans=partial(frame_spans, window=window),
        input_length=n_frames,
        transformer_layers=("encoder.layers.*",),
        maps=("encoder.layers.*.fc2",),
        name=family,
        front_end={
            "kind": "log10-mel", "n_fft": N_FFT, "hop": HOP, "n_mels": n_mels, "floor": FLOOR, "range": RANGE,
            "window_tokens": window, "token_samples": FRAME,
        },
    )  # fmt: skip
