"""Trace: what the neurons of one layer did in each frame of one clip, by the pass that the extraction makes.

Goal: the mean that a store holds, taken apart again: the counted frames of a trace average to it.
Conventions: spans as of `Encoder.spans`; values float32 (frame, neuron); times in seconds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..store.provenance import Identity, Plan
from .forward import Forward, arithmetic
from .loader import LoadedClip
from .models.encoder import Encoder
from .models.tap import tap
from .summarise import counted_frames


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The frames of a clip in one layer."""

    spans: NDArray[np.float64]
    """t0, t1 (s), f0, f1 (Hz) (frame, 4), NaN times of special frames."""
    values: NDArray[np.float32]
    """Activation (frame, neuron)."""
    counted: NDArray[np.bool_]
    """Frames of which the stored mean is the mean (frame)."""
    seconds: float
    """The clip's own length, without the zeros that it is brought to its input's length with."""
    input_seconds: float
    """Length of that input."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the counted frames (neuron)."""
        return np.asarray(self.values[self.counted].mean(axis=0, dtype=np.float64))

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return self.values.nbytes + self.spans.nbytes + self.counted.nbytes


class Tracer:
    """Makes traces as a task's clips were extracted: identity and plan are the task's, the encoder is its own.

    One pass at a time, by one thread, and never on a module that somebody edits meanwhile.
    """

    def __init__(self, encoder: Encoder, identity: Identity, plan: Plan) -> None:
        self.forward, self.identity, self.plan = Forward(encoder, identity, plan), identity, plan

    def trace(self, clip: LoadedClip, layer: int) -> Trace:
        """The frames of a decoded clip. layer: its place among the sites, from 0.

        Raises ValueError where the site shows other frames than the encoder's spans.
        """
        forward, encoder = self.forward, self.forward.encoder
        site = forward.sites[layer].name
        n_samples, seconds = forward.longest([clip]), forward.seconds([clip])
        parts: list[Tensor] = []

        def read(_site: str, output: Any) -> None:
            parts.append(encoder.neurons(output)[0].to("cpu", torch.float32, copy=True))

        with arithmetic(self.plan.threads), torch.no_grad():
            spans = encoder.spans(n_samples, clip.prompt)
            with (
                encoder.counted(n_samples, seconds, self.identity.frames, clip.prompt),
                tap(encoder.module, [site], read=read),
            ):
                encoder.run(forward.prepare([clip]))
        values = torch.cat(parts).numpy()
        if len(values) != len(spans):
            raise ValueError(
                f"site {site} shows {len(values)} frames where the encoder's spans are {len(spans)}; expected one each"
            )
        counted = counted_frames(spans, seconds, self.identity.frames, prompted=encoder.prompted)[0] > 0
        return Trace(
            spans=spans,
            values=np.array(values, np.float32),
            counted=counted,
            seconds=float(seconds[0]),
            input_seconds=n_samples / encoder.sample_rate,
        )
