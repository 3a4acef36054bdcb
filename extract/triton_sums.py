"""Sum and count of a layer's frames in one pass over its activations: a Triton kernel, and what starts it.

Goal: each activation is read once, in the type that the model computed it in, and nothing but a sum and a count per
clip and neuron is written.
Conventions: activations (clip, frame, neuron) in any memory layout, nothing is copied; sums and counts float32. One
program takes `NEURONS` neurons of one clip, so results do not depend on which clips share a batch, and are the same
each time. Frame f goes to partial sum f % `FRAMES`, and those are added up in the end: no value goes through more than
ceil(frames / FRAMES) + log2(FRAMES) + 1 roundings, and counts up to 2^24 are exact.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

FRAMES, NEURONS = 32, 128  # of a tile: 64 registers a thread for its sums and counts


class ByTriton:
    """Adds runs of frames by the kernel."""

    name = f"triton {triton.__version__}"

    def add(self, frames: Tensor, weights: Tensor, total: Tensor, positive: Tensor | None) -> None:
        """As `ByTorch.add`."""
        n_clips, n_frames, width = frames.shape
        with torch.cuda.device_of(frames):  # type: ignore[no-untyped-call]
            _add[(n_clips, triton.cdiv(width, NEURONS))](
                frames, weights, total, positive, n_frames, width, *frames.stride(), *weights.stride(),
                FRAMES=FRAMES, NEURONS=NEURONS,
            )  # fmt: skip


@triton.jit(do_not_specialize=["n_frames", "weights_clip"])  # type: ignore[untyped-decorator]
def _add(  # type: ignore[no-untyped-def]
    frames, weights, total, positive, n_frames, width, clip_step, frame_step, neuron_step, weights_clip, weights_frame,
    FRAMES: tl.constexpr, NEURONS: tl.constexpr,
):  # fmt: skip
    clip = tl.program_id(0).to(tl.int64)  # a batch may hold more values than 32 bits count
    neuron = tl.program_id(1) * NEURONS + tl.arange(0, NEURONS)
    inside = neuron < width
    frames += clip * clip_step + neuron.to(tl.int64)[None, :] * neuron_step
    weights += clip * weights_clip
    sums = tl.zeros((FRAMES, NEURONS), tl.float32)
    counts = tl.zeros((FRAMES, NEURONS), tl.float32)
    for first in range(0, n_frames, FRAMES):
        frame = (first + tl.arange(0, FRAMES)).to(tl.int64)
        there = frame < n_frames
        # In one dimension first: of two, each thread would load a frame's weight once for each of its neurons.
        weight = tl.load(weights + frame * weights_frame, there, 0.0)[:, None]
        value = tl.load(frames + frame[:, None] * frame_step, there[:, None] & inside[None, :], 0.0)
        sums += value.to(tl.float32) * weight  # by multiplying, as torch does: a NaN shows, also in a frame left out
        if positive is not None:
            counts += tl.where(value > 0, weight, 0.0)
    at = clip * width + neuron
    tl.store(total + at, tl.load(total + at, inside, 0.0) + tl.sum(sums, 0), inside)
    if positive is not None:
        tl.store(positive + at, tl.load(positive + at, inside, 0.0) + tl.sum(counts, 0), inside)
