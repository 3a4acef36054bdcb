"""Frames to one summary per clip and neuron, on the device, while the forward pass runs. Pure.

Goal: mean over the counted frames, the bit mean > 0, and the number of counted frames with positive activation,
without keeping any activation longer than its layer.
Conventions: activations (clip, frame, neuron); weights (clip, frame) are 1.0 where a frame counts, else 0.0; a model
that runs its sites several times in one pass (chunks of long audio) shows its frames one run after the other.
"""

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..messages import one_line
from .models.encoder import Site, as_frames, layer_frames

log = logging.getLogger(__name__)

PART_VALUES = 2**22  # of activations that are added up at a time on a processor: 16 MB in float32


def counted_frames(spans: np.ndarray, seconds: np.ndarray, frames: str, *, prompted: bool = False) -> np.ndarray:
    """Which frames count, float32 (clip, frame).

    spans: (frame, 4), t0 in column 0, NaN for special frames. seconds: each clip's own length (clip), before padding.
    frames: "audio" counts frames that start before the clip's own end; "published" all but special frames, padding
        included; "all" every frame; "last" the last of those that "audio" counts.
    prompted: whether frames are tokens of a prompt around the sound: "last" is then the last token of all.
    """
    t0 = spans[:, 0]
    if frames == "audio":
        counted = t0 < seconds[:, None]  # NaN compares as False
    elif frames == "last" and prompted:
        counted = np.broadcast_to(np.arange(len(t0)) == len(t0) - 1, (len(seconds), len(t0)))
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


class Reduction(Protocol):
    """What adds frames up; one instance per batch."""

    name: str
    """Recorded with the blocks: it decides over the last bits of sums."""

    def add(self, frames: Tensor, weights: Tensor, total: Tensor, positive: Tensor | None) -> None:
        """Add to the sums, and to the counts of positive frames where they are wanted, a run of frames.

        frames: (clip, frame, width), of any floating type. weights: float32 (clip, frame). total, positive: float32
        (clip, width), contiguous.
        """


class ByTorch:
    """Adds by torch's own operations; on a processor in parts, between whose operations its cache holds them."""

    name = "torch"

    def __init__(self) -> None:
        self._scratch = torch.empty(0)
        self._layout: tuple[Any, ...] = ()  # of the parts that it was made for

    def add(self, frames: Tensor, weights: Tensor, total: Tensor, positive: Tensor | None) -> None:
        """As `Reduction.add`."""
        n = len(frames)
        if frames.device.type == "cpu":  # a product of matrices gives each thread clips of its own
            n = max(torch.get_num_threads(), PART_VALUES // max(1, frames.shape[1] * frames.shape[2]))
        part = frames[:n]
        if (layout := (part.shape, part.stride())) != self._layout:
            # One buffer for all layers: allocating costs more than summing.
            self._scratch, self._layout = torch.empty_like(part, dtype=weights.dtype), layout
        for first in range(0, len(frames), n):
            clips = slice(first, first + n)
            some, of_frame = frames[clips], weights[clips, None]
            scratch = self._scratch[: len(some)]
            # A model may compute in half precision; sums are float32.
            wide = some if some.dtype == weights.dtype else scratch.copy_(some)
            total[clips] += torch.bmm(of_frame, wide).squeeze(1)
            if positive is not None:
                positive[clips] += torch.bmm(of_frame, torch.gt(wide, 0, out=scratch)).squeeze(1)


@cache
def reduction_on(device: torch.device) -> type[Reduction]:
    """Triton's kernel on CUDA, where triton is installed and works there (also in its interpreter); else torch."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return ByTorch
    try:
        from .triton_sums import ByTriton

        tried = torch.ones(1, 1, 1, device=device)
        ByTriton().add(tried, tried[0], tried[0], None)
    except Exception as error:  # not installed; no C compiler; a device that it does not know
        log.warning(
            "frames are reduced by torch, which moves several times the bytes, as triton does not work on %s (%s: %s); "
            "pip install 'otoscope[triton]', and a C compiler, are what it takes",
            device, type(error).__name__, one_line(error),
        )  # fmt: skip
        return ByTorch
    return ByTriton


class FrameSum:
    """Sum over the counted frames, float32 (clip, width), of frames that come in one or several runs."""

    positive: Tensor | None = None
    """Counted frames above 0, whole numbers in float32 (clip, width), where they are counted."""

    def __init__(
        self, name: str, weights: Tensor, width: int, *, count: bool = False, reduction: Reduction | None = None
    ):
        """weights: (clip, frame). count: whether positive frames are counted. reduction: by default the device's."""
        self.name, self.weights, self.reduction = name, weights, reduction or reduction_on(weights.device)()
        self.total = torch.zeros(len(weights), width, device=weights.device)
        if count:
            self.positive = torch.zeros_like(self.total)
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
        with torch.autocast(frames.device.type, enabled=False):  # sums are float32, whatever the model computes in
            self.reduction.add(frames, self.weights[:, first : self.shown], self.total, self.positive)

    def check_count(self) -> None:
        """Raise ValueError where the frames seen are not those that `frame_spans` gives."""
        if self.shown != self.weights.shape[1]:
            raise ValueError(
                f"{self.name} shows {self.shown} frames per clip where frame_spans gives {self.weights.shape[1]}; "
                "expected sites of one time resolution, one span per frame: choose other sites or give `frame_spans=`"
            )


class Summaries:
    """Sums over the frames of one batch, for every site and, if wanted, every hidden state.

    summaries = Summaries(encoder.anatomy().sites, weights, neurons=encoder.neurons)
    with tap(encoder.module, summaries.sites, read=summaries.read, read_inputs=summaries.read_inputs):
        output = encoder.module(inputs)
    summaries.mean(0)    # (clip, neuron) of layer 0
    """

    def __init__(
        self, sites: Sequence[Site], weights: Tensor, *, neurons: Callable[[Any], Tensor] = as_frames,
        transformer_layers: Sequence[str] = (), hidden: int = 0,
    ):  # fmt: skip
        """sites: as `anatomy` gives them. weights: (clip, frame) on the device.

        transformer_layers: modules whose hidden states, `hidden` wide, are kept.
        """
        self.neurons = neurons
        self.count = weights.sum(dim=1)  # (clip)
        names = [site.name for site in sites]
        self.layers = {name: layer for layer, name in enumerate(names)}
        self.states = {name: state for state, name in enumerate(transformer_layers, start=1)}
        self.sites = [*names, *(name for name in transformer_layers if name not in self.layers)]
        reduction = reduction_on(weights.device)()
        self._layers = [FrameSum(f"site {s.name}", weights, s.width, count=True, reduction=reduction) for s in sites]
        states = ["input of the first transformer layer", *transformer_layers] if transformer_layers else []
        self._hidden = [FrameSum(name, weights, hidden, reduction=reduction) for name in states]

    def read(self, site: str, output: Any) -> None:
        """Take in one output of a site; to be passed to `tap`."""
        if site in self.layers:
            self._layers[self.layers[site]].add(self.neurons(output))
        if site in self.states:
            self._hidden[self.states[site]].add(layer_frames(output))

    @property
    def read_inputs(self) -> dict[str, Callable[[Any], None]]:
        """What takes in the input of the first transformer layer, hidden state 0; to be passed to `tap`."""
        return {name: lambda value: self._hidden[0].add(as_frames(value)) for name in list(self.states)[:1]}

    def mean(self, layer: int) -> Tensor:
        """Mean activation over the counted frames, float32 (clip, neuron)."""
        return self._layers[layer].total / self.count[:, None]

    def positive_frames(self, layer: int) -> Tensor:
        """Counted frames with activation above 0, whole numbers in float32 (clip, neuron)."""
        positive = self._layers[layer].positive
        assert positive is not None
        return positive

    def hidden(self) -> Tensor:
        """Mean hidden states over the counted frames, float32 (state, clip, width)."""
        return torch.stack([state.total for state in self._hidden]) / self.count[:, None]

    def check_complete(self) -> None:
        """Raise ValueError where a site has shown other frames than `frame_spans` gives."""
        for frame_sum in (*self._layers, *self._hidden):
            frame_sum.check_count()
