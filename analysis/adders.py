"""Add up per category in machine code, bits above all: the inner loop behind every activation probability.

Goal: the speed of memory, and no hold on the interpreter, so that every thread of a scheduler counts at once.
Conventions: words are uint64 (clip, word), 64 neurons each, least significant bit first; counts are int32 (category,
layer, neuron).
A full adder turns three words of weight w into one of weight w (a ^ b ^ c) and one of weight 2w (their majority), for
64 neurons at once: n clips cost about n adders, and only the log2(n) bit planes that remain need unpacking.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.extending import intrinsic

MAX_CLIPS = 255  # counts of so many fit eight bit planes, and a byte each; and sums of 16 bits fit 32
TILE = 64  # words at a time, so that the planes stay in a core's nearest cache
SPREAD = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.uint8).view("<u8")[:, 0].astype(np.uint64)
"""A byte's eight bits as eight bytes of 0 or 1."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in machine code, kept on disk where there is a place for it."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return njit(nogil=True)(function)


@njit(inline="always")
def _full_adder(a: Any, b: Any, c: Any) -> Any:
    differ = a ^ b
    return differ ^ c, (a & b) | (differ & c)


@compiled
def add_words(words: Any, clips: Any, edges: Any, planes: Any) -> None:
    """Add to bit planes (category, plane, word), in place, how many clips of each category have each bit set.

    All arrays are C-contiguous, so that there is one machine code, with adjacent words side by side in its registers.
    clips: intp, those of category c from edges[c] to edges[c + 1]. Plane p holds the digits of weight 2 ** p; there are
    enough of them for all clips that are ever added.
    """
    n_words, n_planes = words.shape[1], planes.shape[1]
    own = np.zeros((8, TILE), np.uint64)  # of up to `MAX_CLIPS` clips, before they are added to the planes
    lowest, second, third = own[0], own[1], own[2]
    for first_word in range(0, n_words, TILE):
        last_word = min(first_word + TILE, n_words)
        n = last_word - first_word
        for category in range(len(edges) - 1):
            total = planes[category, :, first_word:last_word]
            for start in range(edges[category], edges[category + 1], MAX_CLIPS):
                stop = min(start + MAX_CLIPS, edges[category + 1])
                own[:] = 0
                i = start
                while i + 8 <= stop:
                    a = words[clips[i]][first_word:last_word]
                    b = words[clips[i + 1]][first_word:last_word]
                    c = words[clips[i + 2]][first_word:last_word]
                    d = words[clips[i + 3]][first_word:last_word]
                    e = words[clips[i + 4]][first_word:last_word]
                    f = words[clips[i + 5]][first_word:last_word]
                    g = words[clips[i + 6]][first_word:last_word]
                    h = words[clips[i + 7]][first_word:last_word]
                    for w in range(n):
                        one, two_a = _full_adder(lowest[w], a[w], b[w])
                        one, two_b = _full_adder(one, c[w], d[w])
                        one, two_c = _full_adder(one, e[w], f[w])
                        lowest[w], two_d = _full_adder(one, g[w], h[w])
                        two, four_a = _full_adder(second[w], two_a, two_b)
                        second[w], four_b = _full_adder(two, two_c, two_d)
                        third[w], carry = _full_adder(third[w], four_a, four_b)
                        for plane in range(3, 8):
                            both = own[plane, w] & carry
                            own[plane, w] ^= carry
                            carry = both
                    i += 8
                while i < stop:
                    a = words[clips[i]][first_word:last_word]
                    for w in range(n):
                        carry = a[w]
                        for plane in range(8):
                            both = own[plane, w] & carry
                            own[plane, w] ^= carry
                            carry = both
                    i += 1
                last = np.zeros(n, np.uint64)  # carry from plane to plane
                for plane in range(n_planes):
                    row = total[plane]
                    if plane < 8:
                        digits = own[plane]
                        for w in range(n):
                            row[w], last[w] = _full_adder(row[w], digits[w], last[w])
                    else:
                        for w in range(n):
                            carry = row[w] & last[w]
                            row[w] ^= last[w]
                            last[w] = carry


@compiled
def add_planes(planes: Any, spread: Any, counts: Any) -> None:
    """Add to counts (category, neuron), in place, what bit planes (category, plane, word) hold.

    spread: `SPREAD` (numba freezes no global array as fast). The neurons may end before those of the last word do.
    """
    n_bytes = 8 * planes.shape[2]
    n_neurons = min(counts.shape[1], 8 * n_bytes)
    sums = np.zeros(n_bytes, np.uint64)
    count_of = sums.view(np.uint8)
    for category in range(len(planes)):
        row = counts[category]
        for first in range(0, planes.shape[1], 8):
            sums[:] = 0
            for plane in range(first, min(first + 8, planes.shape[1])):
                digits, weight = planes[category, plane].view(np.uint8), np.uint64(plane - first)
                for k in range(n_bytes):
                    sums[k] += spread[digits[k]] << weight
            for neuron in range(n_neurons):
                row[neuron] += np.int32(count_of[neuron]) << first


@njit(inline="always")
def _single_by_digits(bits: Any) -> Any:
    """float32 of the bits of a float16, anywhere."""
    half = np.uint32(bits)
    exponent = half & np.uint32(0x7C00)
    normal = ((half & np.uint32(0x7FFF)) << np.uint32(13)) + np.uint32(0x38000000)  # another bias, by 112
    normal += np.uint32(0x38000000) if exponent == np.uint32(0x7C00) else np.uint32(0)  # infinity and NaN
    small = np.float32(np.int32(half & np.uint32(0x3FF))) * np.float32(2**-24)  # no first bit is implied
    size = np.float32(small).view(np.uint32) if exponent == np.uint32(0) else normal
    return np.uint32(size | ((half & np.uint32(0x8000)) << np.uint32(16))).view(np.float32)


@intrinsic
def _single_by_processor(_: Any, bits: Any) -> Any:
    """The same by the processor's own instruction."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), code


# Without the instruction, the library that would be called instead is not there.
CHOSEN_PROCESSOR = {"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"} & set(os.environ)
_single: Any = (
    _single_by_processor if get_host_cpu_features().get("f16c") and not CHOSEN_PROCESSOR else _single_by_digits
)


@compiled
def add_rows(values: Any, clips: Any, edges: Any, sums: Any, totals: Any, layer: int, neuron: int) -> None:
    """Add to totals (category, layer, neuron), from a layer and a neuron on, the values (clip, neuron) of a layer.

    clips and edges as of `add_words`. sums: zeros (neuron), of a type that holds the sum of `MAX_CLIPS` values.
    """
    n = values.shape[1]
    for category in range(len(edges) - 1):
        for start in range(edges[category], edges[category + 1], MAX_CLIPS):
            sums[:] = 0
            for i in range(start, min(start + MAX_CLIPS, edges[category + 1])):
                row = values[clips[i]]
                for k in range(n):
                    sums[k] += row[k]
            own = totals[category, layer, neuron : neuron + n]
            for k in range(n):
                own[k] += sums[k]


@compiled
def add_halves(bits: Any, clips: Any, edges: Any, sums: Any, totals: Any, layer: int, neuron: int) -> None:
    """The same of float16 by their bits, uint16 (clip, neuron)."""
    n = bits.shape[1]
    for category in range(len(edges) - 1):
        for start in range(edges[category], edges[category + 1], MAX_CLIPS):
            sums[:] = 0
            for i in range(start, min(start + MAX_CLIPS, edges[category + 1])):
                row = bits[clips[i]]
                for k in range(n):
                    sums[k] += _single(row[k])
            own = totals[category, layer, neuron : neuron + n]
            for k in range(n):
                own[k] += sums[k]


@compiled
def add_above(values: Any, clips: Any, edges: Any, floors: Any, totals: Any, layer: int, neuron: int) -> None:
    """The same of how many values are above floors (neuron)."""
    n = values.shape[1]
    for category in range(len(edges) - 1):
        for start in range(edges[category], edges[category + 1], MAX_CLIPS):
            sums = np.zeros(n, np.int32)
            for i in range(start, min(start + MAX_CLIPS, edges[category + 1])):
                row = values[clips[i]]
                for k in range(n):
                    sums[k] += row[k] > floors[k]
            own = totals[category, layer, neuron : neuron + n]
            for k in range(n):
                own[k] += sums[k]


@compiled
def add_keys_above(bits: Any, clips: Any, edges: Any, floors: Any, totals: Any, layer: int, neuron: int) -> None:
    """The same of the bits of float16, int16 (clip, neuron), and the keys of floors: see `keys_of`."""
    n = bits.shape[1]
    low, infinity, sign = np.int16(0x7FFF), np.int16(0x7C00), np.int16(15)
    for category in range(len(edges) - 1):
        for start in range(edges[category], edges[category + 1], MAX_CLIPS):
            sums = np.zeros(n, np.int16)
            for i in range(start, min(start + MAX_CLIPS, edges[category + 1])):
                row = bits[clips[i]]
                for k in range(n):
                    key = np.int16(row[k] ^ (np.int16(row[k] >> sign) & low))
                    sums[k] += np.int16((key > floors[k]) & (key <= infinity))  # beyond it is NaN
            own = totals[category, layer, neuron : neuron + n]
            for k in range(n):
                own[k] += sums[k]


def keys_of(floors: Any) -> Any:
    """Keys of the largest float16 at or below floors, int16 in the order of the floats; of NaN above all others."""
    with np.errstate(over="ignore"):
        near = np.asarray(floors).astype(np.float16)
        near = np.where(near > floors, np.nextafter(near, np.float16(-np.inf)), near) + np.float16(0)  # + 0: of -0, 0
    bits = near.view(np.int16)
    return np.where(np.isnan(near), np.int16(0x7FFF), bits ^ (bits >> 15 & 0x7FFF)).astype(np.int16)


def widened(values: Any) -> Any:
    """float16 as float32, in a seventh of numpy's time."""
    wide = np.empty(values.shape, np.float32)
    _widen(np.ascontiguousarray(values).view(np.uint16).reshape(-1), wide.reshape(-1))
    return wide


@compiled
def _widen(bits: Any, wide: Any) -> None:
    for i in range(len(bits)):
        wide[i] = _single(bits[i])
