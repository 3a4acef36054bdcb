"""HuBERT, WavLM, wav2vec 2.0, data2vec-audio and MERT: one shape of model, four classes.

Goal: models of transformers that take samples, each by its own class, with the front end that its folder states. The
published configurations of MERT describe HuBERT at 24 kHz, which transformers has; the code beside them is never run.
Conventions: a frame every product of the convolutions' strides (320 samples); neurons are the outputs of the activation
between the two maps of each layer's feed-forward part; hidden state k is the output of layer k, state 0 what enters
the first layer. In "large" models (do_stable_layer_norm) a last norm follows, so that there the last hidden state
is not the model's output. The embedding is the mean over time of the model's output.
Another batch size may pick another matrix kernel and so move results within float32 rounding.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from .encoder import Encoder, same, spans_of_all_bands
from .transformers_files import open_folder, transformers_part

CLASSES = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "data2vec": "Data2VecAudio", "mert": "Hubert"}
"""Family -> what the classes of its model and its configuration begin with."""
PREFIXES = {"data2vec": "data2vec_audio.", "mert": "mert_model."}
"""Where the encoder sits in files of larger models, if not under the family's name."""
ONLY_IN_THEIR_CODE = ("feature_extractor_cqt", "deepnorm")
"""Layers of MERT that HuBERT's class does not have: constant-Q input, deep norm."""
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


def frame_spans(n_samples: int, *, kernels: Sequence[int], strides: Sequence[int], sample_rate: int) -> np.ndarray:
    """Spans (frame, 4) of t0, t1 in s, which samples the convolutions of a frame see, and 0 Hz to half the rate."""
    n_frames = n_samples
    for kernel, stride in zip(kernels, strides, strict=True):
        n_frames = (n_frames - kernel) // stride + 1
    t0 = np.arange(n_frames) * math.prod(strides) / sample_rate
    return spans_of_all_bands(t0, t0 + receptive_field(kernels, strides) / sample_rate, sample_rate)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame sees, the shortest input."""
    seen = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        seen = (seen - 1) * stride + kernel
    return seen


def load(path: str, family: str) -> Encoder:
    """Encoder from a folder of one of these families.

    Raises ImportError without transformers, FileNotFoundError for files that are not there, ValueError for another
    family's model, weights that do not fit, or a MERT that HuBERT's class cannot express.
    """
    folder = open_folder(path, family)
    beyond = [name for name in ONLY_IN_THEIR_CODE if family == "mert" and folder.config.get(name)]
    if beyond:
        raise ValueError(
            f"{path}/config.json switches on {' and '.join(beyond)}, layers that only the code shipped with that model "
            "has, and it is never run; expected a MERT without them, as MERT-v1-95M: wrap this one in a module: factory"
        )
    config = folder.configuration(getattr(transformers_part(), f"{CLASSES[family]}Config"))
    model_class = getattr(transformers_part(), f"{CLASSES[family]}Model")
    kernels, strides = tuple(config.conv_kernel), tuple(config.conv_stride)
    sample_rate, normalise = folder.setting("sampling_rate", int), folder.setting("do_normalize", bool)
    return Encoder(
        module=folder.model(model_class, config, prefixes=(PREFIXES.get(family, f"{family}."),)),
        sample_rate=sample_rate,
        sites=("encoder.layers.*.feed_forward.intermediate_act_fn",),
        prepare=normalised if normalise else same,
        embed=mean_over_time,
        frame_spans=partial(frame_spans, kernels=kernels, strides=strides, sample_rate=sample_rate),
        transformer_layers=("encoder.layers.*",),
        maps=("encoder.layers.*.feed_forward.output_dense",),
        min_samples=receptive_field(kernels, strides),
        name=family,
        front_end={"kind": "samples", "normalise": f"per clip, eps {EPS:g}" if normalise else "none"},
    )
