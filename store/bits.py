"""Active bits: pack and unpack eight neurons per byte, and count them per category while they stay packed.

Goal: the counts behind every activation probability, straight from the bytes on disk.
Conventions: eight neurons per byte, least significant bit first (neuron n is bit n % 8 of byte n // 8), the
last byte padded with zeros; packed arrays are uint8 (layer, clip, byte). Pure.
Contents: `pack`, `unpack`, `count_by_category`, `clips_by_category`.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Codes = NDArray[np.integer]

MOST_ROWS = 255  # bools of so many clips sum to a byte


def pack(active: NDArray[np.bool_]) -> Bytes:
    """Bools to bits: (..., neuron) -> uint8 (..., byte), byte = ceil(neuron / 8)."""
    return np.packbits(active, axis=-1, bitorder="little")


def unpack(bits: Bytes, n_neurons: int) -> NDArray[np.bool_]:
    """Bits to bools: uint8 (..., byte) -> (..., neuron); `unpack(pack(x), x.shape[-1])` is x."""
    return np.unpackbits(bits, axis=-1, count=n_neurons, bitorder="little").view(bool)


def count_by_category(
    bits: Bytes, codes: Codes, n_categories: int, *, add_to: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Clips of each category that have each bit set: (layer, clip, byte) -> int32 (category, layer, neuron).

    codes: category of each clip (clip), 0 to n_categories - 1; clips with a negative code count nowhere.
    add_to: counts so far, which are then added to in place and returned; its neurons may end before those of
        the last byte do. Without it the neurons returned are the eight of every byte, padding included.
    The workspace is a few KiB and the order of the clips; a layer whose bytes do not fill words of eight is copied.
    Raises ValueError for codes that do not fit the clips or the categories.
    """
    from . import adders  # machine code that takes half a second to load: who only opens a store never waits for it

    n_layers, n_clips, n_bytes = bits.shape
    if codes.shape != (n_clips,):
        raise ValueError(f"codes of shape {codes.shape} for {n_clips} clips; expected one code per clip")
    if n_clips and codes.max() >= n_categories:
        raise ValueError(f"category code {codes.max()} found; expected codes below {n_categories}")
    shape = (n_categories, n_layers, 8 * n_bytes if add_to is None else add_to.shape[2])
    in_place = add_to is not None and add_to.flags.c_contiguous
    counts = add_to if add_to is not None and in_place else np.zeros(shape, np.int32)
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(n_categories + 1))
    for layer in range(n_layers):
        adders.add_words(_words(bits[layer]), order, edges, adders.SPREAD, counts, layer)
    if add_to is None or in_place:
        return counts
    add_to += counts
    return add_to


def clips_by_category(codes: Codes, n_categories: int, most: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(category, clips) for every category that has clips, at most `most` ascending clips at a time."""
    by_category = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[by_category], np.arange(n_categories + 1))
    for category in np.flatnonzero(np.diff(edges)):
        clips = by_category[edges[category] : edges[category + 1]]
        for part in np.array_split(clips, -(-len(clips) // most)):
            yield int(category), part


def _words(rows: Bytes) -> NDArray[np.uint64]:
    """Rows (clip, byte) as words of eight bytes (clip, word), copied only where their layout asks for it."""
    n_bytes = rows.shape[1]
    if n_bytes % 8:
        rows = np.pad(rows, ((0, 0), (0, -n_bytes % 8)))
    return np.ascontiguousarray(rows).view("<u8").astype(np.uint64, copy=False)
