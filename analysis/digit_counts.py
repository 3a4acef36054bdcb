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
DIGIT = 11  # bits: three of them hold any float32, two a float16 that was made one
SHORT_DIGIT = 8  # of a float16


@compiled
def add_digits(bits: Any, clips: Any, low: Any, above: int, last: int, known: Any, counts: Any, largest: Any) -> Any:
    """Add to counts (neuron, digit) the bits from `last` up to `above`, of values whose bits from there on are known.

    bits: int16, int32 or int64 (clip, neuron), of floats; clips: those that count. low: all bits but the sign. known:
    the integer of the bits from `above` on (neuron); for the highest digit all values count, and largest (neuron)
    becomes that of their bits but the sign, which of NaN is beyond infinity's. Gives the bits set in any of the values.
    """
    found = low & 0
    mask = (1 << (above - last)) - 1
    sign = above - 1
    highest = low >> sign == 0
    flip = (mask + 1) >> 1  # so that negative values come first
    for start in range(0, bits.shape[1], TILE):
        stop = min(start + TILE, bits.shape[1])
        own, top, prefix = counts[start:stop], largest[start:stop], known[start:stop]
        for i in range(len(clips)):
            row = bits[clips[i]][start:stop]
            for neuron in range(len(row)):  # by itself, so that it is done for many neurons at once
                found |= row[neuron]
            if highest:
                for neuron in range(len(row)):
                    top[neuron] = max(top[neuron], row[neuron] & low)
                for neuron in range(len(row)):
                    key = row[neuron] ^ ((row[neuron] >> sign) & low)
                    own[neuron, ((key >> last) & mask) ^ flip] += 1
            else:
                for neuron in range(len(row)):
                    value = np.int64(row[neuron])  # so that the sign fills what is above
                    key = value ^ ((value >> 63) & low)
                    if key >> above == prefix[neuron]:
                        own[neuron, (key >> last) & mask] += 1
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
