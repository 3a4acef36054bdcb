"""Count values by their digits, and add them up, in machine code: what thresholds of the neuron's own are made of.

Goal: the value of any rank without sorting, and without holding the values: a pass counts how often each digit follows
the digits that are known already, and the count says which is next.
Conventions: values are (clip, neuron), as on disk; what is counted is changed in place and has a row per neuron. The
bits of a float, those below the sign flipped where it is negative, are an integer in the order of the floats; a digit
is `DIGIT` bits of it, the highest first. NaN lies beyond the infinities.
"""

from typing import Any

import numpy as np

from .adders import compiled

TILE = 128  # neurons at a time, so that their counts stay in a core's own cache
DIGIT = 11  # bits: two of them hold all that differs in stored float16, three any float32


@compiled
def add_digits(
    bits: Any, clips: Any, low: int, infinity: int, above: int, last: int, known: Any, counts: Any, missing: Any
) -> Any:
    """Add to counts (neuron, digit) the bits from `last` up to `above`, of values whose bits from there on are known.

    bits: int32 or int64 (clip, neuron), of floats; clips: those that count. low: all bits but the sign. known: the
    integer of the bits from `above` on (neuron); for the highest digit all values count, and in missing (neuron) is set
    where one is NaN. infinity: its bits. Gives the bits that are set in any of the values.
    """
    found = np.int64(0)
    mask = (1 << (above - last)) - 1
    highest = low >> (above - 1) == 0
    flip = (mask + 1) >> 1 if highest else 0  # so that negative values come first
    for start in range(0, bits.shape[1], TILE):
        for i in range(len(clips)):
            row = bits[clips[i]]
            for neuron in range(start, min(start + TILE, len(row))):
                value = np.int64(row[neuron])  # so that the sign fills what is above
                found |= value
                if highest and value & low > infinity:
                    missing[neuron] = True
                key = value ^ ((value >> 63) & low)
                if highest or key >> above == known[neuron]:
                    counts[neuron, ((key >> last) & mask) ^ flip] += 1
    return found


@compiled
def add_powers(values: Any, clips: Any, center: Any, sums: Any, squares: Any) -> None:
    """Add to sums and squares (neuron) the distances of values from a center (neuron), and their squares."""
    for i in range(len(clips)):
        row = values[clips[i]]
        for neuron in range(len(row)):
            distance = row[neuron] - center[neuron]
            sums[neuron] += distance
            squares[neuron] += distance * distance
