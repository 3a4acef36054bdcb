"""Active bits: pack and unpack eight neurons per byte, and count them per category while they stay packed.

Goal: the counts behind every activation probability, straight from the bytes on disk.
Conventions: eight neurons per byte, least significant bit first (neuron n is bit n % 8 of byte n // 8), the
last byte padded with zeros; packed arrays are uint8 (layer, clip, byte). Pure numpy.
Contents: `pack`, `unpack`, `count_by_category`, `clips_by_category`.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Codes = NDArray[np.integer]

MOST_ROWS = 255  # counts of so many clips fit eight bit planes and one byte
BATCH_BYTES = 2**20  # gathered at a time: stays in a core's cache, and is enough to be worth numpy's calls
ADDER_ROWS = 12  # from so many rows on, adding bit planes beats unpacking; measured, and flat around it


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
    The workspace is a few times 1 MiB, or a few clips if those are larger, whatever the number of clips.
    Raises ValueError for codes that do not fit the clips or the categories.
    """
    n_layers, n_clips, n_bytes = bits.shape
    if codes.shape != (n_clips,):
        raise ValueError(f"codes of shape {codes.shape} for {n_clips} clips; expected one code per clip")
    if n_clips and codes.max() >= n_categories:
        raise ValueError(f"category code {codes.max()} found; expected codes below {n_categories}")
    counts = np.zeros((n_categories, n_layers, 8 * n_bytes), np.int32) if add_to is None else add_to
    for clips, lengths, categories in _batches(codes, n_categories, n_layers * n_bytes):
        # Indexed so, numpy lays each gathered clip out in one piece: the reshape copies nothing.
        rows = bits[:, clips].transpose(1, 2, 0, 3)
        for column, length in enumerate(lengths):
            rows[length:, column] = 0
        rows = rows.reshape(len(clips), -1)
        count = _sum_planes(_bit_planes(rows)) if len(rows) >= ADDER_ROWS else _sum_rows(rows)
        by_column = count.reshape(len(categories), n_layers, 8 * n_bytes)[..., : counts.shape[2]]
        for column, category in enumerate(categories):
            counts[category] += by_column[column]
    return counts


def clips_by_category(codes: Codes, n_categories: int, most: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(category, clips) for every category that has clips, at most `most` ascending clips at a time."""
    by_category = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[by_category], np.arange(n_categories + 1))
    for category in np.flatnonzero(np.diff(edges)):
        clips = by_category[edges[category] : edges[category + 1]]
        for part in np.array_split(clips, -(-len(clips) // most)):
            yield int(category), part


def _batches(
    codes: Codes, n_categories: int, row_bytes: int
) -> Iterator[tuple[NDArray[np.intp], list[int], list[int]]]:
    """Batches of several categories side by side: clips (row, column), and the length and category of each column.

    Columns of about the same length go together; below its length a column holds clip 0, which does not count.
    """
    most = min(MOST_ROWS, max(1, BATCH_BYTES // max(1, row_bytes)))
    parts = sorted(clips_by_category(codes, n_categories, most), key=lambda part: len(part[1]), reverse=True)
    while parts:
        longest = len(parts[0][1])
        n_columns = max(1, BATCH_BYTES // max(1, longest * row_bytes))
        batch, parts = parts[:n_columns], parts[n_columns:]
        clips = np.zeros((longest, len(batch)), np.intp)
        for column, (_, part) in enumerate(batch):
            clips[: len(part), column] = part
        yield clips, [len(part) for _, part in batch], [category for category, _ in batch]


def _sum_rows(rows: Bytes) -> Bytes:
    """Count of each bit over at most 255 rows by unpacking them: (row, byte) -> (neuron)."""
    total: Bytes = np.unpackbits(rows, axis=-1, bitorder="little").sum(axis=0, dtype=np.uint8)
    return total


def _sum_planes(planes: list[Bytes]) -> Bytes:
    """Sum of unpack(planes[i]) * 2^i, for at most eight planes: each (byte) -> (neuron)."""
    total = np.unpackbits(planes[0], bitorder="little")
    for i, plane in enumerate(planes[1:], start=1):
        bits = np.unpackbits(plane, bitorder="little")
        bits *= np.uint8(1 << i)  # a multiplication by numpy is six times faster than its shift of bytes
        total |= bits
    return total


def _bit_planes(rows: Bytes) -> list[Bytes]:
    """Binary digits of the count of each bit over rows, lowest first: (row, byte) -> planes (byte).

    A full adder turns three rows of weight w into one of weight w (a ^ b ^ c) and one of weight 2w (their
    majority), for all neurons at once: n rows cost about n adders, and only the log2(n) planes that remain
    need unpacking. Overwrites rows.
    """
    planes = []
    spare = np.empty((len(rows) // 3 + 1, rows.shape[1]), np.uint8)
    while len(rows):
        carries = np.empty((len(rows) // 2, rows.shape[1]), np.uint8)
        n_carries = 0
        while (third := len(rows) // 3) > 0:
            a, b, c = rows[:third], rows[third : 2 * third], rows[2 * third : 3 * third]
            differ, carry = spare[:third], carries[n_carries : n_carries + third]
            np.bitwise_xor(a, b, out=differ)
            np.bitwise_and(a, b, out=carry)
            np.bitwise_and(differ, c, out=a)
            np.bitwise_or(carry, a, out=carry)
            np.bitwise_xor(differ, c, out=c)  # the sums stay in place of c, beside the rows not yet added
            rows, n_carries = rows[2 * third :], n_carries + third
        if len(rows) == 2:
            np.bitwise_and(rows[0], rows[1], out=carries[n_carries])
            n_carries += 1
            planes.append(rows[0] ^ rows[1])
        else:
            planes.append(rows[0])
        rows = carries[:n_carries]
    return planes
