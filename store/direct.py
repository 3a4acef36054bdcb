"""Read shards and strings straight from their bytes: the same values as through zarr, several times faster.

Goal: counting and looking up single neurons at the speed of the disk; zarr's machinery (an event loop, a task per
inner chunk) costs more than the arithmetic. Anything else than what our writer makes is left to zarr.
Conventions: a shard is inner chunks, each uncompressed little-endian values and their CRC-32C, and at its end the
index: offset and length of each inner chunk in C order as uint64, and their CRC-32C (Zarr's `sharding_indexed`). It
lies in a local file, of which only what is wanted is read, or was fetched whole.
"""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import zarr
from numcodecs import VLenUTF8
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from .objects import MAX_REQUESTS, get, get_buffer

CRC_BYTES = 4
COUNT_BYTES = 4  # of the number of strings before them
MAX_RUNS = 128  # of a chunk, that are read apart: the system takes 1,024 buffers at once
INDEX_BYTES = 16  # of an inner chunk in a shard's index
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FREE_BYTES, STRING_BYTES, MAX_RATIO = 2**27, 64, 64  # of strings; in all, for each, and for each byte stored
FREE_NAMES, NAMES_PER_BYTE = 2**20, 16  # of clips, in all and for each byte stored: none is like another
RESIDUE = 0x48674BC7  # the CRC-32C of any bytes followed by their own CRC-32C
Buffer = np.ndarray | bytearray  # of bytes
Runs = list[tuple[int, int]]  # first and end of each
Index = int | slice | np.ndarray  # along one axis
Part = tuple[int, np.ndarray, np.ndarray]  # number of a piece of an axis, positions in the piece, and in the result
ChunkPart = tuple[int, slice | np.ndarray, slice | np.ndarray]  # the same of a chunk


def max_string_bytes(n: int, stored: int) -> int:
    """Most bytes that n strings which are stored in so many may take: what is larger was made to fill memory."""
    return FREE_BYTES + STRING_BYTES * n + MAX_RATIO * stored


def check_strings(name: str, column: Sequence[str], size: int, stored: Sequence[int]) -> None:
    """Raise ValueError for strings that no reader would take. stored: bytes of objects of `size` strings."""
    n_bytes, limit = 0, max_string_bytes(len(column), sum(stored))
    for i, n_stored in enumerate(stored):
        part = column[i * size : (i + 1) * size]
        own, of_object = _plain_bytes(part) + COUNT_BYTES * (size - len(part)), max_string_bytes(size, n_stored)
        n_bytes += own if n_bytes + own <= FREE_BYTES else _plain_bytes({*part, ""})
        for found, expected, n in ((own, of_object, len(part)), (n_bytes, limit, len(column))):
            if found > expected:
                raise ValueError(f"{name} holds {found} bytes in {n} clips; expected at most {expected}: shorten them")


def check_names(array: zarr.Array[Any], n: int, stored: int) -> None:
    """Raise ValueError for more names of clips than so many stored bytes can hold."""
    if n > FREE_NAMES + NAMES_PER_BYTE * stored:
        raise ValueError(f"{array.path} has {stored} bytes for {n} names, which cannot all differ")


def _plain_bytes(column: Iterable[str]) -> int:
    return sum(len(text.encode()) + COUNT_BYTES for text in column)


def decoded_bytes(frame: bytes) -> int:
    """How many bytes a zstd frame says that it holds (RFC 8878, 3.1.1.1). Raises ValueError where it does not say."""
    if frame[:4] == ZSTD_MAGIC and len(frame) > 4:
        flags = frame[4]
        alone = flags >> 5 & 1
        start = 5 + (1 - alone) + (0, 1, 2, 4)[flags & 3]
        size = (alone, 2, 4, 8)[flags >> 6]
        if size and len(frame) >= start + size:
            return int.from_bytes(frame[start : start + size], "little") + (256 if size == 2 else 0)
    raise ValueError("it is not a zstd frame that says its size")


def decoded(data: bytes, n_bytes: int) -> bytes:
    """What zstd frames hold, which is so many bytes. Raises OSError where it is not: no more is decoded.

    Not by numcodecs, which takes as much memory as all frames ask for.
    """
    return bytes(pa.decompress(data, n_bytes, "zstd", asbytes=True))


def is_packed(array: zarr.Array[Any]) -> bool:
    """Whether the objects of an array are zstd frames, with a checksum after them."""
    return any(isinstance(codec, ZstdCodec) for codec in array.metadata.codecs)  # type: ignore[union-attr]


def max_object_bytes(array: zarr.Array[Any]) -> int:
    """Most bytes of a stored object of an array."""
    if array.dtype.kind == "T":
        return max_string_bytes(array.chunks[0], 0)
    inner = int(np.prod(array.chunks)) * array.dtype.itemsize + CRC_BYTES
    if array.shards is None:
        return inner + inner // 128 + 512  # where it is compressed, and was not compressible
    count = int(np.prod([s // c for s, c in zip(array.shards, array.chunks, strict=True)]))
    return count * (inner + INDEX_BYTES) + CRC_BYTES


def read_strings(array: zarr.Array[Any], where: Index = slice(None)) -> list[str]:
    """Values of a selection of an array of strings (clip or block), all of them in order by default.

    Raises FileNotFoundError for an absent object, ValueError or RuntimeError for a damaged one, ValueError for strings
    that are longer than any reader takes.
    """
    (n,), (size,) = array.shape, array.chunks
    whole = isinstance(where, slice) and where == slice(None)
    wanted = [] if whole else list(parts(np.atleast_1d(np.arange(n)[where]), size))
    numbers = range(-(-n // size)) if whole else [number for number, _, _ in wanted]
    column = list(itertools.chain.from_iterable(string_objects(array, numbers)))
    if whole:
        return column[:n]
    selected = np.empty(sum(len(at) for _, _, at in wanted), object)
    for i, (_, inside, at) in enumerate(wanted):
        selected[at] = np.array(column[i * size : (i + 1) * size], object)[inside]
    return list(selected)


def string_objects(array: zarr.Array[Any], numbers: Sequence[int]) -> Iterator[list[str]]:
    """The strings of each of these objects of an array, decoded one after the other. Raises as `read_strings`."""
    (n,), (size,) = array.shape, array.chunks
    keys = [f"{array.path}/{array.metadata.encode_chunk_key((i,))}" for i in numbers]
    limit = max_object_bytes(array)
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        found = list(pool.map(lambda key: get(array.store_path.store, key, limit), keys))
    n_bytes, stored = 0, sum(len(data or b"") for data in found)
    max_bytes = max_string_bytes(min(n, size * len(keys)), stored)
    if array.basename == "clip":
        check_names(array, min(n, size * len(keys)), stored)
    for key, data in zip(keys, found, strict=True):
        if data is None:
            raise FileNotFoundError(f"{key} is missing")
        if google_crc32c.value(data) != RESIDUE:
            raise ValueError(f"{key} does not match its checksum")
        plain = data[:-CRC_BYTES]
        own = decoded_bytes(plain) if is_packed(array) else len(plain)
        if own > max_string_bytes(size, len(data)):
            raise ValueError(f"{key} holds {own} bytes, more than any names or labels")
        plain = decoded(plain, own) if is_packed(array) else plain
        if int.from_bytes(plain[:COUNT_BYTES], "little") != size:  # before memory is taken for as many
            raise ValueError(f"{key} does not hold {size} strings")
        strings = VLenUTF8().decode(plain).tolist()
        if n_bytes + own > FREE_BYTES:  # equal ones are kept once: a prompt of millions of clips is an honest column
            once: dict[str, str] = {}
            strings = [once.setdefault(text, text) for text in strings]
            own = _plain_bytes(once)
        n_bytes += own
        if n_bytes > max_bytes:
            raise ValueError(f"{key} and those before it hold {n_bytes} bytes, more than any names or labels")
        yield strings


class ShardFile:
    """A shard in a local file."""

    def __init__(self, array: zarr.Array[Any], key: str):
        """key: relative to the array, which lies in a `Folder`. Raises FileNotFoundError, ValueError as that does."""
        folder, path = array.store_path.store, (array.store_path / key).path
        size = folder.size_of(path)  # type: ignore[attr-defined]
        if size is None:
            raise FileNotFoundError(path)
        self.file, self.size = os.open(folder.root / path, os.O_RDONLY), size  # type: ignore[attr-defined]

    def fill(self, buffers: Sequence[Buffer], offset: int) -> int:
        """Fill one after the other, from `offset` on; how many bytes there were for them."""
        return os.preadv(self.file, buffers, offset)  # type: ignore[arg-type]  # arrays are buffers, stubs lag

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


class ShardBytes:
    """A shard that is fetched whole, by one request."""

    def __init__(self, array: zarr.Array[Any], key: str):
        """key: relative to the array. Raises FileNotFoundError, or what the array's store does."""
        found = get_buffer(array.store_path.store, (array.store_path / key).path, max_object_bytes(array))
        if found is None:
            raise FileNotFoundError(f"{array.path}/{key}")
        self.data = np.asarray(found.as_numpy_array())
        self.size = len(self.data)

    def fill(self, buffers: Sequence[Buffer], offset: int) -> int:
        """As of `ShardFile`."""
        begin = offset
        for buffer in buffers:
            there = self.data[offset : offset + len(buffer)]
            np.frombuffer(buffer, np.uint8)[: len(there)] = there
            offset += len(there)
        return offset - begin

    def close(self) -> None:
        """Nothing is held."""


Shard = ShardFile | ShardBytes


def can_read(array: zarr.Array[Any]) -> bool:
    """Whether the array is encoded as described above."""
    sharding = array.metadata.codecs[0]  # type: ignore[union-attr]
    return (
        isinstance(sharding, ShardingCodec)
        and [type(codec) for codec in sharding.codecs] == [BytesCodec, Crc32cCodec]
        and [type(codec) for codec in sharding.index_codecs] == [BytesCodec, Crc32cCodec]
        and sharding.index_location.value == "end"
        and hasattr(os, "preadv")
    )


def read_shards(
    array: zarr.Array[Any],
    selection: Sequence[Index],
    kind: type[Shard] = ShardFile,
    at_once: int = 1,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Values of an outer selection in disk order, an axis selected by an int left out.

    kind: how shards are opened. at_once: how many of them at a time. out: memory for the values, contiguous, in which
    no axis is left out [new].
    Raises what they do as they are opened, ValueError for one whose checksums do not agree.
    """
    shards, chunks = array.shards or array.chunks, array.chunks
    wanted = _positions(array, selection)
    values = np.empty([len(axis) for axis in wanted], array.dtype) if out is None else out

    def read(shard: tuple[Part, ...]) -> None:
        # One buffer for all inner chunks that are wanted in part: it stays in the processor's cache until it is copied.
        buffer = np.empty(chunk_bytes(array), np.uint8)
        stored = buffer.view(array.dtype.newbyteorder("<")).reshape(chunks)
        key = array.metadata.encode_chunk_key(tuple(number for number, _, _ in shard))
        with closing(kind(array, key)) as source:
            try:
                index = read_index(source, [s // c for s, c in zip(shards, chunks, strict=True)])
                within = within_chunks(shard, chunks)
                rows = rows_axis(chunks)
                together = lies_together(within, values.shape, chunks)
                runs = {number: runs_of(*at) if together else None for number, *at in within[rows]}
                for chunk in itertools.product(*within):
                    numbers, *both = zip(*chunk, strict=True)
                    (offset, n_bytes), (inner, target) = map(int, index[numbers]), map(outer, both)
                    wanted_rows = runs[numbers[rows]]
                    if wanted_rows is None:
                        read_checked(source, offset, n_bytes, [buffer])
                        copy(stored, inner, values, target)
                    else:
                        result = values[target].reshape(-1).view(np.uint8)
                        read_checked(source, offset, n_bytes, pieces(result, wanted_rows, buffer, chunks[rows]))
            except ValueError as e:
                raise ValueError(f"{key}: {e}") from e

    every = list(itertools.product(*map(parts, wanted, shards)))
    if min(at_once, len(every)) > 1:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(read, every))
    else:
        for shard in every:
            read(shard)
    return np.asarray(values[tuple(0 if isinstance(axis, int | np.integer) else slice(None) for axis in selection)])


def chunks_in(
    array: zarr.Array[Any], shard: Sequence[Part], buffer: np.ndarray
) -> Iterator[tuple[tuple[ChunkPart, ...], np.ndarray]]:
    """Each inner chunk of a local shard of which something is wanted, one after the other, all in one buffer.

    buffer: uint8, `chunk_bytes` long. Gives per axis number, positions in the chunk and in the result, and the values
    of the chunk, which are there until the next is asked for.
    Raises FileNotFoundError for an absent shard, ValueError for one whose checksums do not agree.
    """
    shards, chunks = array.shards or array.chunks, array.chunks
    stored = buffer.view(array.dtype.newbyteorder("<")).reshape(chunks)
    key = array.metadata.encode_chunk_key(tuple(number for number, _, _ in shard))
    with closing(ShardFile(array, key)) as source:
        try:
            index = read_index(source, [s // c for s, c in zip(shards, chunks, strict=True)])
            for chunk in itertools.product(*within_chunks(shard, chunks)):
                offset, n_bytes = map(int, index[tuple(number for number, _, _ in chunk)])
                read_checked(source, offset, n_bytes, [buffer])
                yield chunk, stored
        except ValueError as e:
            raise ValueError(f"{key}: {e}") from e


def chunk_bytes(array: zarr.Array[Any]) -> int:
    """Bytes of the values of an inner chunk."""
    return int(np.prod(array.chunks)) * array.dtype.itemsize


def within_chunks(shard: Sequence[Part], chunks: Sequence[int]) -> list[list[ChunkPart]]:
    """Along each axis of a shard: number of a chunk, where in it is what is wanted, and where in the result."""
    return [
        [(number, as_run(inner), as_run(at[to])) for number, inner, to in parts(inside, size)]
        for (_, inside, at), size in zip(shard, chunks, strict=True)
    ]


def share_of_chunks(array: zarr.Array[Any], selection: Sequence[Index]) -> float:
    """How many of the inner chunks of the shards that an outer selection touches it touches too, in [0, 1]."""
    share = 1.0
    for axis, shard, chunk in zip(
        _positions(array, selection), array.shards or array.chunks, array.chunks, strict=True
    ):
        touched = len(np.unique(axis // chunk)), len(np.unique(axis // shard)) * (shard // chunk)
        share *= touched[0] / touched[1] if touched[1] else 0.0
    return share


def _positions(array: zarr.Array[Any], selection: Sequence[Index]) -> list[np.ndarray]:
    """The positions that are selected, along each axis."""
    return [np.atleast_1d(np.arange(n)[axis]) for n, axis in zip(array.shape, selection, strict=True)]


def parts(wanted: np.ndarray, size: int) -> Iterator[Part]:
    """Along one axis: each piece of `size` that is touched, the positions wanted in it, and theirs in `wanted`."""
    piece = wanted // size
    order = np.argsort(piece, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(piece[order])) + 1):
        if len(at):
            number = int(piece[at[0]])
            yield number, wanted[at] - number * size, at


def as_run(positions: np.ndarray) -> slice | np.ndarray:
    """Positions along one axis as a slice, which copies fastest, where they are a run."""
    first = int(positions[0])
    return slice(first, first + len(positions)) if bool((np.diff(positions) == 1).all()) else positions


def outer(axes: Sequence[slice | np.ndarray]) -> tuple[Any, ...]:
    """An index of the outer product of positions along each axis; of one axis that is no run whole rows are copied."""
    if sum(not isinstance(axis, slice) for axis in axes) <= 1:
        return tuple(axes)
    return np.ix_(*(np.arange(axis.start, axis.stop) if isinstance(axis, slice) else axis for axis in axes))


def copy(stored: np.ndarray, inner: tuple[Any, ...], values: np.ndarray, target: tuple[Any, ...]) -> None:
    """values[target] = stored[inner], in half the time where one axis is no run: clips of which few are hidden."""
    scattered = [i for i, axis in enumerate(inner) if not isinstance(axis, slice)]
    if len(scattered) == 1 and all(isinstance(axis, slice) for axis in target):
        (i,) = scattered
        runs = tuple(slice(None) if axis is inner[i] else axis for axis in inner)
        np.take(stored[runs], inner[i], axis=i, out=values[target], mode="clip")  # otherwise by way of a buffer
    else:
        values[target] = stored[inner]


def rows_axis(chunks: Sequence[int]) -> int:
    """The first axis along which a chunk has several values: single steps along it, its rows, lie side by side."""
    return next((i for i, size in enumerate(chunks) if size > 1), len(chunks) - 1)


def lies_together(
    within: Sequence[Sequence[tuple[int, Any, Any]]], shape: Sequence[int], chunks: Sequence[int]
) -> bool:
    """Whether whole rows of each chunk are wanted and lie side by side in the result, in the processor's byte order."""
    rows = rows_axis(chunks)
    return (
        sys.byteorder == "little"
        and all(isinstance(inner, slice) for axis in within[:rows] for _, inner, _ in axis)
        and list(shape[rows + 1 :]) == list(chunks[rows + 1 :])
        and all(isinstance(axis[0][1], slice) for axis in within[rows + 1 :])
    )


def runs_of(inner: slice | np.ndarray, target: slice | np.ndarray) -> Runs | None:
    """The runs of a chunk's rows that follow one another in the result; None where they do not, or are too many."""
    if not isinstance(target, slice):
        return None
    if isinstance(inner, slice):
        return [(inner.start, inner.stop)]
    steps = np.diff(inner)
    ends = np.flatnonzero(steps != 1) + 1
    if (steps < 1).any() or len(ends) >= MAX_RUNS:
        return None
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(inner, ends)]


def pieces(result: np.ndarray, runs: Runs, buffer: np.ndarray, n_rows: int) -> list[Buffer]:
    """Where the bytes of a chunk go, in their order: its runs into the result, what is not wanted into the buffer.

    Clips of which few are hidden are read without a copy.
    """
    size = len(buffer) // n_rows
    found: list[Buffer] = []
    at = done = 0
    for first, end in runs:
        found += [buffer[at * size : first * size], result[done : (n := done + (end - first) * size)]]
        at, done = end, n
    return [piece for piece in (*found, buffer[at * size :]) if len(piece)]


def read_index(shard: Shard, grid: Sequence[int]) -> np.ndarray:
    """Offset and length of each inner chunk: uint64 (*grid, 2)."""
    buffer = np.empty(16 * int(np.prod(grid)), np.uint8)
    n_bytes = len(buffer) + CRC_BYTES
    read_checked(shard, max(0, shard.size - n_bytes), n_bytes, [buffer])
    return buffer.view("<u8").reshape(*grid, 2)


def read_checked(shard: Shard, offset: int, n_bytes: int, buffers: Sequence[Buffer]) -> None:
    """Fill the buffers; a checksum follows them. Raises ValueError where that or the length is another."""
    checksum = bytearray(CRC_BYTES)
    expected = sum(map(len, buffers)) + CRC_BYTES
    if n_bytes != expected or shard.fill([*buffers, checksum], offset) != expected:
        raise ValueError(f"{n_bytes} bytes at {offset} are not all there; expected {expected}")
    found = 0
    for buffer in (*buffers, bytes(checksum)):
        found = google_crc32c.extend(found, buffer)
    if found != RESIDUE:
        raise ValueError(f"the checksum of {n_bytes} bytes at {offset} does not agree")
