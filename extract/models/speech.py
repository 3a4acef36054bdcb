"""HuBERT, WavLM, wav2vec 2.0, data2vec-audio and MERT: one shape of model, five classes.

Goal: models of transformers that hear samples, each by its own class, with the front end that its folder states.
Conventions: a token every product of the convolutions' strides (320 samples); neurons are the outputs of the activation
between the two maps of each layer's feed-forward part; hidden state k is the output of layer k, state 0 what enters
the first layer. In "large" models (do_stable_layer_norm) a last norm follows, so that there the last hidden state
is not the model's output. The embedding is the mean over time of the model's output.
Another batch size may pick another matrix kernel and so move results within float32 rounding.
Contents: `as_encoder`, `load_as`, `normalised`, `token_spans`, `mean_over_time`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from .encoder import Encoder, same
from .hf_files import Folder, open_folder, transformers_part

SITES = ("encoder.layers.*.feed_forward.intermediate_act_fn",)
BLOCKS = ("encoder.layers.*",)
MAPS = ("encoder.layers.*.feed_forward.output_dense",)
EPS = 1e-7


def normalised(waveforms: Tensor) -> Tensor:
    """Each waveform less its mean over its deviation, (x - mean) / sqrt(variance + 1e-7); (clip, sample) -> same."""
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    output: Tensor = centred / (waveforms.var(dim=1, correction=0, keepdim=True) + EPS).sqrt()
    return output


def mean_over_time(output: Any) -> Tensor:
    """Model output to one embedding per clip (clip, width)."""
    mean: Tensor = output.last_hidden_state.mean(dim=1)
    return mean


def token_spans(n_samples: int, *, kernels: Sequence[int], strides: Sequence[int], sample_rate: int) -> np.ndarray:
    """Spans (token, 4) of t0, t1 in s, which samples the convolutions of a token see, and 0 Hz to half the rate."""
    n_tokens, hop, seen = n_samples, 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        n_tokens = (n_tokens - kernel) // stride + 1
        seen += (kernel - 1) * hop
        hop *= stride
    t0 = np.arange(n_tokens) * hop / sample_rate
    band = np.broadcast_to([0.0, sample_rate / 2], (n_tokens, 2))
    return np.column_stack([t0, t0 + seen / sample_rate, band])


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one token sees, the shortest input."""
    seen = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        seen = (seen - 1) * stride + kernel
    return seen


def as_encoder(model: nn.Module, config: Any, *, name: str, sample_rate: int, normalise: bool) -> Encoder:
    """A model of one of these classes as an Encoder.

    normalise: every clip, padding included, has its mean taken off and is divided by its deviation.
    """
    kernels, strides = tuple(config.conv_kernel), tuple(config.conv_stride)
    return Encoder(
        module=model,
        sample_rate=sample_rate,
        sites=SITES,
        prepare=normalised if normalise else same,
        embed=mean_over_time,
        token_spans=partial(token_spans, kernels=kernels, strides=strides, sample_rate=sample_rate),
        blocks=BLOCKS,
        maps=MAPS,
        min_samples=receptive_field(kernels, strides),
        name=name,
        front_end={"kind": "samples", "normalise": f"per clip, eps {EPS:g}" if normalise else "none"},
    )


def load_as(
    path: str, *, family: str, config_class: str, model_class: str, prefix: str,
    config: Mapping[str, Any] | None = None,
) -> Encoder:  # fmt: skip
    """Encoder from a folder of one family; `config` in place of what its config.json says.

    Raises ImportError without transformers, FileNotFoundError for files that are not there, ValueError for another
    family's model or weights that do not fit.
    """
    folder: Folder = open_folder(path, family)
    settings = getattr(transformers_part(), config_class).from_dict(dict(folder.config if config is None else config))
    return as_encoder(
        folder.model(getattr(transformers_part(), model_class), settings, prefixes=(prefix,)),
        settings,
        name=family,
        sample_rate=folder.setting("sampling_rate", int),
        normalise=folder.setting("do_normalize", bool),
    )
