"""Whisper's encoder: audio of any length in windows of 30 s.

Goal: what transformers' WhisperEncoder and WhisperFeatureExtractor compute, window by window.
Conventions: every window is filled with zeros to 30 s and makes 1500 tokens of 320 samples; tokens that hold none of
the audio are special tokens (NaN times) and are left out of the output. Hidden states are the outputs of the layers; a
last norm follows, so that the last one is not the model's output. The embedding is the mean over the kept tokens.
Another batch size may pick another matrix kernel and so move results within float32 rounding.
Contents: `Windows`, `load`.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Encoder
from .hf_files import open_folder, transformers_part
from .log_mel import mel_filters

SAMPLE_RATE, N_FFT, HOP, TOKEN = 16_000, 400, 160, 320
FLOOR, RANGE = 1e-10, 8.0


class Windows(nn.Module):
    """Waveforms (clip, sample) through log-mel and encoder, window by window: tokens (clip, token, width).

    A window's log-mel is log10 of the power in Slaney bands from 0 to 8000 Hz, at least 1e-10 and at least the window's
    maximum less 8, then (value + 4) / 4. ceil(samples / 320) tokens are kept.
    """

    hann: Tensor
    filters: Tensor

    def __init__(self, encoder: nn.Module, *, n_mels: int, tokens: int) -> None:
        super().__init__()
        self.encoder, self.tokens = encoder, tokens
        filters = mel_filters(SAMPLE_RATE, N_FFT, n_mels, 0.0, 8000.0)
        # Constants of the front end, not weights: they stay out of the state dict and its digest.
        self.register_buffer("hann", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def log_mel(self, window: Tensor) -> Tensor:
        """A full window (clip, sample) -> (clip, mel, frame)."""
        spectrum = torch.stft(window, N_FFT, HOP, window=self.hann, return_complex=True)[..., :-1]
        log = (self.filters @ spectrum.abs().square()).clamp(min=FLOOR).log10()
        return (log.maximum(log.amax(dim=(1, 2), keepdim=True) - RANGE) + 4) / 4

    def forward(self, waveforms: Tensor) -> Tensor:
        """(clip, sample) -> (clip, token, width), one window after another so that memory does not grow with length."""
        size = self.tokens * TOKEN
        parts = []
        for window in torch.split(waveforms, size, dim=1):
            output = self.encoder(self.log_mel(F.pad(window, (0, size - window.shape[1])))).last_hidden_state
            parts.append(output[:, : n_tokens(window.shape[1])])
        return torch.cat(parts, dim=1)


def n_tokens(n_samples: int) -> int:
    """Tokens that hold some of the audio, ceil(samples / 320)."""
    return -(-n_samples // TOKEN)


def whole_tokens(waveforms: Tensor) -> Tensor:
    """Zeros at the end up to a whole token, as a window's own filling would be: (clip, sample) -> (clip, sample)."""
    return F.pad(waveforms, (0, -waveforms.shape[1] % TOKEN))


def token_spans(n_samples: int, *, tokens: int) -> np.ndarray:
    """Spans (token, 4) of t0, t1 in s and 0 to 8000 Hz, all tokens of all windows; times NaN beyond the audio."""
    number = np.arange(-(-n_tokens(n_samples) // tokens) * tokens)
    t0 = np.where(number < n_tokens(n_samples), number * TOKEN / SAMPLE_RATE, np.nan)
    band = np.broadcast_to([0.0, SAMPLE_RATE / 2], (len(t0), 2))
    return np.column_stack([t0, t0 + TOKEN / SAMPLE_RATE, band])


def load(path: str) -> Encoder:
    """Encoder from a folder of Whisper, whose decoder is not loaded.

    Raises ImportError without transformers, FileNotFoundError for files that are not there, ValueError for another
    model, a front end that is not this model's, or weights that do not fit.
    """
    folder = open_folder(path, "whisper")
    config = transformers_part().WhisperConfig.from_dict(dict(folder.config))
    names = ("sampling_rate", "n_fft", "hop_length", "chunk_length", "feature_size")
    asked = (SAMPLE_RATE, N_FFT, HOP, config.max_source_positions * TOKEN / SAMPLE_RATE, config.num_mel_bins)
    found = tuple(folder.setting(name, int) for name in names)
    if found != asked or folder.front_end.get("dither"):
        raise ValueError(
            f"{path}/preprocessor_config.json has {', '.join(names)} {found} and dither "
            f"{folder.front_end.get('dither', 0.0)}; expected {asked} and 0: take both files from one published model"
        )
    make = transformers_part(".models.whisper.modeling_whisper").WhisperEncoder
    encoder = folder.model(make, config, prefixes=("model.encoder.", "encoder."))
    return Encoder(
        module=Windows(encoder, n_mels=config.num_mel_bins, tokens=config.max_source_positions).eval(),
        sample_rate=SAMPLE_RATE,
        sites=("encoder.layers.*.activation_fn",),
        prepare=whole_tokens,
        token_spans=partial(token_spans, tokens=config.max_source_positions),
        input_length=n_tokens,
        blocks=("encoder.layers.*",),
        maps=("encoder.layers.*.fc2",),
        name="whisper",
        front_end={
            "kind": "log10-mel", "n_fft": N_FFT, "hop": HOP, "n_mels": config.num_mel_bins, "floor": FLOOR,
            "range": RANGE, "window_tokens": config.max_source_positions, "token_samples": TOKEN,
        },
    )  # fmt: skip
