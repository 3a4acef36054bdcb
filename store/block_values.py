"""The values of one block: what batches of its clips gave, packed as the store holds them.

Goal: bits, padding, rounding and what the store's types cannot hold are known here and nowhere else.
Conventions: arrays are in disk order (see schema.py), without the chunks' padding; a clip that was not put is failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..messages import visible
from .bits import pack
from .provenance import Identity, Plan
from .schema import FAILED, OK, RECORDS, STRING, template

MAX_REASON = 500  # characters
MAX_FRAMES = np.iinfo(np.uint16).max
MAX_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Summary:
    """What each clip of a batch gave."""

    embedding: np.ndarray
    """(clip, embedding)"""
    frames: np.ndarray
    """Counted frames (clip), whole numbers in float32."""
    means: list[np.ndarray]
    """Mean activation (clip, neuron), of each layer."""
    positive: list[np.ndarray]
    """Counted frames with positive activation (clip, neuron), of each layer; empty where they are not kept."""
    hidden: np.ndarray
    """Mean hidden states (state, clip, width); no states where they are not kept."""

    @property
    def largest_means(self) -> np.ndarray:
        """Largest mean activation of each clip, by magnitude, over all layers (clip)."""
        largest: np.ndarray = np.max([np.abs(mean).max(axis=1, initial=0) for mean in self.means], axis=0)
        return largest


class BlockValues:
    """Arrays of a block by name, as `write_block` takes them, and its clips' status; at first all fill values."""

    def __init__(self, identity: Identity, plan: Plan, n_clips: int):
        specs, self._neurons = template(identity, plan), identity.n_neurons
        self.status = np.full(n_clips, FAILED, dtype="uint8")
        self.arrays: dict[str, np.ndarray] = {}
        for name in (*plan.variables, *RECORDS):
            spec = specs[name]
            shape = [n_clips if dim == "clip" else n for dim, n in zip(spec.dims, spec.shape, strict=True)]
            self.arrays[name] = np.full(shape, spec.fill, dtype=object if spec.dtype == STRING else spec.dtype)

    def put(self, at: np.ndarray, digests: Sequence[int], reasons: Sequence[str], summary: Summary | None) -> None:
        """Put what a batch gave at its clips' positions in the block.

        digests: of the audio, 0 where it was not read. reasons: why a clip failed before, "" where it did not. summary:
        None where all of them did. A clip whose values the store cannot hold fails too, with the reason.
        """
        why = np.array(reasons, dtype=object)
        self.arrays["audio_digest"][at] = digests
        if summary is not None:
            self._check(summary, why)
            good = np.flatnonzero(why == "")
            self._pack(at[good], good, summary)
        self.arrays["reason"][at] = [visible(reason)[:MAX_REASON] for reason in why]
        self.status[at[why == ""]] = OK

    def _check(self, summary: Summary, reasons: np.ndarray) -> None:
        """Give a reason to each clip without one whose values cannot be stored."""
        every = (summary.embedding, *summary.means, *summary.hidden)
        finite = np.all([np.isfinite(x).all(axis=1) for x in every], axis=0)
        reasons[~finite & (reasons == "")] = "the encoder gives activations that are not finite"
        reasons[(summary.frames > MAX_FRAMES) & (reasons == "")] = (
            f"longer than {MAX_FRAMES} frames: cut it by start, stop"
        )
        if "mean" in self.arrays and self.arrays["mean"].dtype == np.float16:
            largest = summary.largest_means
            for i in np.flatnonzero((largest > MAX_FLOAT16) & (reasons == "")):
                reasons[i] = f"a mean activation of {largest[i]:g}: float16 holds up to {MAX_FLOAT16:g}, keep float32"

    def _pack(self, at: np.ndarray, rows: np.ndarray, summary: Summary) -> None:
        """Put rows of a batch at their positions in the block. `active` is taken before `mean` is rounded."""
        values = self.arrays
        values["frame_count"][at] = summary.frames[rows]
        if "embedding" in values:
            values["embedding"][at] = summary.embedding[rows]
        if "hidden" in values:
            values["hidden"][:, at] = summary.hidden[:, rows]
        for layer, every in enumerate(summary.means):
            mean = every[rows]
            width = mean.shape[1]
            active = np.zeros((len(rows), self._neurons), dtype=bool)
            active[:, :width] = mean > 0
            values["active_bits"][layer, at] = pack(active)
            if "mean" in values:
                values["mean"][layer, at, :width] = mean
            if "positive_frames" in values:
                values["positive_frames"][layer, at, :width] = summary.positive[layer][rows]
