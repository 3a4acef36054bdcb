"""Keep the highest values of each neuron in machine code, clip after clip, as they lie on disk.

Goal: the speed of memory. Of many clips few are among the highest so far of any neuron, and whether one is, is asked of
many neurons at once.
Conventions: values are floats by their bits, integers of their size (clip, neuron). The key of a float is its size as
an integer, with its sign: in the order of the floats, equal for 0 and -0, and beyond infinity's for NaN. What is kept
is a key and the position of its clip in one int64, so that no two are equal: higher key first, then earlier clip.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .adders import compiled

Kept = NDArray[np.int64]
"""(..., neuron, rank): of each neuron a heap whose first is the lowest."""

NOTHING = np.iinfo(np.int64).min
LOW_WORD = (1 << 32) - 1
TILE = 64  # neurons at a time, of which few clips hold one of the highest


def keep_highest(
    kept: Kept, values: NDArray[np.floating], clips: NDArray[np.intp], positions: NDArray[np.intp], lowest: bool,
    later: bool,
) -> None:  # fmt: skip
    """Keep in a heap (neuron, rank), in place, the highest, or lowest, of it and of values (clip, neuron).

    values: float16 or float32, C-contiguous. clips: those that count; positions: theirs, as they rank among equals;
    later: whether all of these come after those that are kept.
    """
    bits = values.view(f"i{values.itemsize}")
    infinity = bits.dtype.type(np.array(np.inf, values.dtype).view(bits.dtype))
    flip = bits.dtype.type(-1 if lowest else 0)
    _keep(kept, bits, clips, positions, infinity, flip, 0 if later else 1)


def ranked(kept: Kept, floats: np.dtype[Any]) -> Kept:
    """What heaps of values of a type hold, highest first, by the keys of the same values as float32."""
    there = kept != NOTHING
    key = np.where(there, kept >> 32, 0)
    size = np.abs(key).astype(f"i{floats.itemsize}").view(floats).astype(np.float32).view(np.int32)
    wide = (np.sign(key) * size) << 32 | kept & LOW_WORD
    return np.sort(np.where(there, wide, NOTHING), axis=-1)[..., ::-1]


def position_of(kept: Kept) -> NDArray[np.int64]:
    """Positions of the clips, -1 where there is none."""
    return np.where(kept == NOTHING, -1, LOW_WORD - (kept & LOW_WORD))


def value_of(kept: Kept, lowest: bool) -> NDArray[np.float32]:
    """Values by keys of float32, NaN where there is none."""
    key = np.where(kept == NOTHING, 0, kept >> 32)
    size = np.abs(key).astype(np.int32).view(np.float32)
    return np.where(kept == NOTHING, np.float32(np.nan), np.where((key < 0) != lowest, -size, size))


@compiled
def _keep(kept: Any, bits: Any, clips: Any, positions: Any, infinity: Any, flip: Any, slack: int) -> None:
    n_neurons, n_ranks = kept.shape
    number = bits.dtype.type  # narrow integers: many are compared at once
    low = number((1 << (8 * bits.itemsize - 1)) - 1)
    floors = np.empty(TILE, bits.dtype)  # what a key must exceed
    for start in range(0, n_neurons, TILE):
        stop = min(start + TILE, n_neurons)
        for j in range(stop - start):
            first = kept[start + j, 0]
            floors[j] = number(-infinity - 1) if first == NOTHING else number(max(first >> 32, 1 - infinity) - slack)
        for i in range(len(clips)):
            row = bits[clips[i]][start:stop]
            exceeding = number(0)
            for j in range(len(row)):
                negative = number(-number(row[j] < 0) ^ flip)
                key = number(number(number(row[j] & low) ^ negative) - negative)
                exceeding += number((key > floors[j]) & (key <= infinity))
            if exceeding:
                low_word = LOW_WORD - positions[i]
                for j in range(len(row)):
                    negative = number(-number(row[j] < 0) ^ flip)
                    key = number(number(number(row[j] & low) ^ negative) - negative)
                    if key > floors[j] and key <= infinity:
                        whole = np.int64(key) << 32 | low_word
                        heap = kept[start + j]
                        if whole > heap[0]:
                            at = 0
                            while 2 * at + 1 < n_ranks:
                                child = 2 * at + 1
                                if child + 1 < n_ranks and heap[child + 1] < heap[child]:
                                    child += 1
                                if heap[child] >= whole:
                                    break
                                heap[at] = heap[child]
                                at = child
                            heap[at] = whole
                            if heap[0] != NOTHING:
                                floors[j] = number(max(heap[0] >> 32, 1 - infinity) - slack)
