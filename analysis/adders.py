"""Add up packed bits per category in machine code: the inner loop behind every activation probability.

Goal: the speed of memory, and no hold on the interpreter, so that every thread of a scheduler counts at once.
Conventions: words are uint64 (clip, word), 64 neurons each, least significant bit first; counts are int32 (category,
layer, neuron).
A full adder turns three words of weight w into one of weight w (a ^ b ^ c) and one of weight 2w (their majority), for
64 neurons at once: n clips cost about n adders, and only the log2(n) bit planes that remain need unpacking.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

MAX_CLIPS = 255  # counts of so many fit eight bit planes, and a byte each
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
def add_words(words: Any, clips: Any, edges: Any, spread: Any, counts: Any, layer: int) -> None:
    """Add to a layer of the counts, in place, how many clips of each category have each bit set.

    All arrays are C-contiguous, so that there is one machine code, with adjacent words side by side in its registers.
    clips: intp, those of category c from edges[c] to edges[c + 1]. spread: `SPREAD` (numba freezes no global array
    as fast). The neurons of the counts may end before those of the last word do.
    """
    n_words, n_neurons = words.shape[1], counts.shape[2]
    planes = np.zeros((8, TILE), np.uint64)
    lowest, second, plane_bytes = planes[0], planes[1], planes.view(np.uint8)
    sums = np.zeros(8 * TILE, np.uint64)
    count_of = sums.view(np.uint8)
    for first_word in range(0, n_words, TILE):
        last_word = min(first_word + TILE, n_words)
        n = last_word - first_word
        for category in range(len(edges) - 1):
            row = counts[category, layer][64 * first_word : min(64 * last_word, n_neurons)]
            for start in range(edges[category], edges[category + 1], MAX_CLIPS):
                stop = min(start + MAX_CLIPS, edges[category + 1])
                n_planes = 0
                while (stop - start) >> n_planes:
                    n_planes += 1
                planes[:n_planes] = 0
                i = start
                while i + 4 <= stop:
                    a = words[clips[i]][first_word:last_word]
                    b = words[clips[i + 1]][first_word:last_word]
                    c = words[clips[i + 2]][first_word:last_word]
                    d = words[clips[i + 3]][first_word:last_word]
                    for w in range(n):
                        total, twos = _full_adder(lowest[w], a[w], b[w])
                        lowest[w], more_twos = _full_adder(total, c[w], d[w])
                        second[w], carry = _full_adder(second[w], twos, more_twos)
                        for plane in range(2, 8):
                            both = planes[plane, w] & carry
                            planes[plane, w] ^= carry
                            carry = both
                    i += 4
                while i < stop:
                    a = words[clips[i]][first_word:last_word]
                    for w in range(n):
                        carry = a[w]
                        for plane in range(8):
                            both = planes[plane, w] & carry
                            planes[plane, w] ^= carry
                            carry = both
                    i += 1
                sums[: 8 * n] = 0
                for plane in range(n_planes):
                    digits, weight = plane_bytes[plane], np.uint64(plane)
                    for k in range(8 * n):
                        sums[k] += spread[digits[k]] << weight
                for neuron in range(len(row)):
                    row[neuron] += count_of[neuron]
