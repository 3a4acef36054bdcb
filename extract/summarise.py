"""Frames to one summary per clip and neuron, on the device, while the forward pass runs. Pure.

Goal: mean over the counted frames, the bit mean > 0, and the number of counted frames with positive activation,
without keeping any activation longer than its layer.
Conventions: activations (clip, frame, neuron); weights (clip, frame) are 1.0 where a frame counts, else 0.0; a model
that runs its sites several times in one pass (chunks of long audio) shows its frames one run after the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .models.encoder import Anatomy, as_frames, layer_frames


def counted_frames(spans: np.ndarray, seconds: np.ndarray, frames: str) -> np.ndarray:
    """Which frames count, float32 (clip, frame).

    spans: (frame, 4), t0 in column 0, NaN for special frames. seconds: each clip's own length (clip), before padding.
    frames: "audio" counts frames that start before the clip's own end; "published" all but special frames, padding
        included; "all" every frame; "last" the last of those that "audio" counts.
    """
    t0 = spans[:, 0]
    if frames == "audio":
        counted = t0 < seconds[:, None]  # NaN compares as False
    elif frames == "last":
        inside = t0 < seconds[:, None]
        counted = inside & (np.cumsum(inside, axis=1) == inside.sum(axis=1, keepdims=True))
    elif frames == "published":
        counted = np.broadcast_to(~np.isnan(t0), (len(seconds), len(t0)))
    elif frames == "all":
        counted = np.ones((len(seconds), len(t0)), dtype=bool)
    else:
        raise ValueError(f"{frames!r} is not a valid rule for frames; expected audio, published, all or last")
    return counted.astype(np.float32)


class FrameSum:
    """Sum over the counted frames, float32 (clip, width), of frames that come in one or several runs."""

    def __init__(self, name: str, weights: Tensor, width: int):
        self.name, self.weights = name, weights
        self.total = torch.zeros(len(weights), width, device=weights.device)
        self.shown = 0

    def add(self, frames: Tensor) -> None:
        """Add the next run of frames (clip, frame, width)."""
        first, self.shown = self.shown, self.shown + frames.shape[1]
        if frames.shape[2] != self.total.shape[1]:
            raise ValueError(
                f"{self.name} shows {frames.shape[2]} neurons where a second of sound showed {self.total.shape[1]}; "
                "expected (clip, frame, neuron), of as many neurons for any length: give the encoder `neurons=`, a "
                "function that arranges it so"
            )
        if self.shown > self.weights.shape[1]:
            self.check_count()
        frames = frames.to(self.weights.dtype)  # a model may compute in half precision; sums are float32
        with torch.autocast(frames.device.type, enabled=False):
            self.total += torch.bmm(self.weights[:, None, first : self.shown], frames).squeeze(1)

    def check_count(self) -> None:
        """Raise ValueError where the frames seen are not those that `frame_spans` gives."""
        if self.shown != self.weights.shape[1]:
            raise ValueError(
                f"{self.name} shows {self.shown} frames per clip where frame_spans gives {self.weights.shape[1]}; "
                "expected sites of one time resolution, one span per frame: choose other sites or give `frame_spans=`"
            )


class Summaries:
    """Sums over the frames of one batch, for every site and, if wanted, every hidden state.

    summaries = Summaries(anatomy, weights, neurons=encoder.neurons)
    with tap(encoder.module, summaries.sites, read=summaries.read, read_inputs=summaries.read_inputs):
        output = encoder.module(inputs)
    summaries.mean(0)    # (clip, neuron) of layer 0
    """

    def __init__(
        self, anatomy: Anatomy, weights: Tensor, *, neurons: Callable[[Any], Tensor] = as_frames,
        transformer_layers: Sequence[str] = (),
    ):  # fmt: skip
        """weights: (clip, frame) on the device. transformer_layers: modules whose hidden states are kept."""
        self.neurons = neurons
        self.count = weights.sum(dim=1)  # (clip)
        names = [site.name for site in anatomy.sites]
        self.layers = {name: layer for layer, name in enumerate(names)}
        self.states = {name: state for state, name in enumerate(transformer_layers, start=1)}
        self.sites = [*names, *(name for name in transformer_layers if name not in self.layers)]
        self._total = [FrameSum(f"site {s.name}", weights, s.width) for s in anatomy.sites]
        self._positive = [FrameSum(f"site {s.name}", weights, s.width) for s in anatomy.sites]
        states = ["input of the first transformer layer", *transformer_layers] if transformer_layers else []
        self._hidden = [FrameSum(name, weights, anatomy.hidden) for name in states]
        self._scratch = torch.empty(0, device=weights.device)

    def read(self, site: str, output: Any) -> None:
        """Take in one output of a site; to be passed to `tap`."""
        if site in self.layers:
            layer, activation = self.layers[site], self.neurons(output)
            self._total[layer].add(activation)
            if (self._scratch.shape, self._scratch.dtype) != (activation.shape, activation.dtype):
                # One buffer for all layers: allocating costs more than summing.
                self._scratch = torch.empty_like(activation)
            self._positive[layer].add(torch.gt(activation, 0, out=self._scratch))
        if site in self.states:
            self._hidden[self.states[site]].add(layer_frames(output))

    @property
    def read_inputs(self) -> dict[str, Callable[[Any], None]]:
        """What takes in the input of the first transformer layer, hidden state 0; to be passed to `tap`."""
        return {name: lambda value: self._hidden[0].add(as_frames(value)) for name in list(self.states)[:1]}

    def mean(self, layer: int) -> Tensor:
        """Mean activation over the counted frames, float32 (clip, neuron)."""
        return self._total[layer].total / self.count[:, None]

    def positive_frames(self, layer: int) -> Tensor:
        """Counted frames with activation above 0, whole numbers in float32 (clip, neuron)."""
        return self._positive[layer].total

    def hidden(self) -> Tensor:
        """Mean hidden states over the counted frames, float32 (state, clip, width)."""
        return torch.stack([state.total for state in self._hidden]) / self.count[:, None]

    def check_complete(self) -> None:
        """Raise ValueError where a site has shown other frames than `frame_spans` gives."""
        for frame_sum in (*self._total, *self._hidden):
            frame_sum.check_count()
