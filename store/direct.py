"""Read shards of a local store straight from their files: the same values as through zarr, several times faster.

Goal: counting and looking up single neurons at the speed of the disk; zarr's machinery (an event loop, a task per
inner chunk) costs more than the arithmetic. Anything else than what our writer makes on a local disk is left to zarr.
Conventions: a shard is inner chunks, each uncompressed little-endian values and their CRC-32C, and at its end the
index: offset and length of each inner chunk in C order as uint64, and their CRC-32C (Zarr's `sharding_indexed`).
Contents: `can_read`, `read_shards`.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import LocalStore

CRC_BYTES = 4
RESIDUE = 0x48674BC7  # the CRC-32C of any bytes followed by their own CRC-32C
Selection = int | slice | np.ndarray  # along one axis
Part = tuple[int, np.ndarray, np.ndarray]


def can_read(array: zarr.Array[Any]) -> bool:
    """Whether the array lies in local files and is encoded as described above."""
    codecs = array.metadata.codecs  # type: ignore[union-attr]
    sharding = codecs[0]
    local = isinstance(array.store_path.store, LocalStore) and hasattr(os, "preadv")
    if not local or not isinstance(sharding, ShardingCodec):
        return False
    return (
        [type(codec) for codec in sharding.codecs] == [BytesCodec, Crc32cCodec]
        and [type(codec) for codec in sharding.index_codecs] == [BytesCodec, Crc32cCodec]
        and sharding.index_location.value == "end"
    )


def read_shards(array: zarr.Array[Any], selection: Sequence[Selection]) -> np.ndarray:
    """Values of an outer selection in disk order, an axis selected by an int left out.

    Raises FileNotFoundError for a shard that is not there, ValueError for one whose checksums do not agree.
    """
    shards, chunks = array.shards or array.chunks, array.chunks
    wanted = [np.atleast_1d(np.arange(n)[axis]) for n, axis in zip(array.shape, selection, strict=True)]
    values = np.empty([len(axis) for axis in wanted], array.dtype)
    # One buffer for all inner chunks that are wanted in part: it stays in the processor's cache until it is copied.
    buffer = np.empty(int(np.prod(chunks)) * array.dtype.itemsize, np.uint8)
    stored = buffer.view(array.dtype.newbyteorder("<")).reshape(chunks)
    for shard in itertools.product(*map(parts, wanted, shards)):
        key = array.metadata.encode_chunk_key(tuple(number for number, _, _ in shard))
        path = Path(array.store_path.store.root) / array.path / key  # type: ignore[attr-defined]
        file = os.open(path, os.O_RDONLY)
        try:
            index = read_index(file, [s // c for s, c in zip(shards, chunks, strict=True)])
            within = [list(parts(inside, size)) for (_, inside, _), size in zip(shard, chunks, strict=True)]
            for chunk in itertools.product(*within):
                where = index[tuple(number for number, _, _ in chunk)]
                # Positions along each axis: of the chunk's values in the chunk, and of the same in the result.
                source = outer([inside for _, inside, _ in chunk])
                target = outer([at[to] for (_, _, at), (_, _, to) in zip(shard, chunk, strict=True)])
                place = in_one_piece(values, source, target, chunks)
                read_checked(file, int(where[0]), int(where[1]), buffer if place is None else place)
                if place is None:
                    values[target] = stored[source]
        except ValueError as e:
            raise ValueError(f"{key}: {e}") from e
        finally:
            os.close(file)
    return np.asarray(values[tuple(0 if isinstance(axis, int | np.integer) else slice(None) for axis in selection)])


def parts(wanted: np.ndarray, size: int) -> Iterator[Part]:
    """Along one axis: each piece of `size` that is touched, the places wanted in it, and their places in `wanted`."""
    piece = wanted // size
    order = np.argsort(piece, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(piece[order])) + 1):
        if len(at):
            number = int(piece[at[0]])
            yield number, wanted[at] - number * size, at


def outer(places: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """An index of the outer product of places along each axis; by slices, which copy fastest, where they are runs."""
    runs = [len(axis) == 1 or bool((np.diff(axis) == 1).all()) for axis in places]
    if all(runs):
        return tuple(slice(int(axis[0]), int(axis[0]) + len(axis)) for axis in places)
    return np.ix_(*places)


def in_one_piece(
    values: np.ndarray, source: tuple[Any, ...], target: tuple[Any, ...], chunks: Sequence[int]
) -> np.ndarray | None:
    """The bytes of the result that a whole chunk fills in its own order, if they lie together: it is read into them."""
    if sys.byteorder != "little" or not all(isinstance(axis, slice) for axis in (*source, *target)):
        return None
    place = values[target]
    whole = place.shape == tuple(chunks) and place.flags.c_contiguous
    return place.reshape(-1).view(np.uint8) if whole else None


def read_index(file: int, grid: Sequence[int]) -> np.ndarray:
    """Offset and length of each inner chunk: uint64 (*grid, 2)."""
    buffer = np.empty(16 * int(np.prod(grid)), np.uint8)
    n_bytes = len(buffer) + CRC_BYTES
    read_checked(file, max(0, os.fstat(file).st_size - n_bytes), n_bytes, buffer)
    return buffer.view("<u8").reshape(*grid, 2)


def read_checked(file: int, offset: int, n_bytes: int, buffer: np.ndarray) -> None:
    """Fill the buffer; a checksum follows it. Raises ValueError where that or the length is another."""
    checksum = bytearray(CRC_BYTES)
    expected = len(buffer) + CRC_BYTES
    if n_bytes != expected or os.preadv(file, [buffer.data, checksum], offset) != expected:
        raise ValueError(f"{n_bytes} bytes at {offset} are not all there; expected {expected}")
    if google_crc32c.extend(google_crc32c.value(buffer), bytes(checksum)) != RESIDUE:
        raise ValueError(f"the checksum of {n_bytes} bytes at {offset} does not agree")
