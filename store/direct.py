"""Read shards and strings straight from their bytes: the same values as through zarr, several times faster.

Goal: counting and looking up single neurons at the speed of the disk; zarr's machinery (an event loop, a task per
inner chunk) costs more than the arithmetic. Anything else than what our writer makes is left to zarr.
Conventions: a shard is inner chunks, each uncompressed little-endian values and their CRC-32C, and at its end the
index: offset and length of each inner chunk in C order as uint64, and their CRC-32C (Zarr's `sharding_indexed`). It
lies in a local file, of which only what is wanted is read, or is fetched (`fetched.py`).
"""

import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Protocol

import google_crc32c
import numpy as np
import pyarrow as pa
import zarr
from numcodecs import VLenUTF8
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from .objects import MAX_REQUESTS, get

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
Wanted = Sequence[Part]  # of a shard, along each axis
ChunkAt = tuple[
    tuple[ChunkPart, ...], int, int
]  # of an inner chunk: what of it is wanted, its offset in the shard, length


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


class Shard(Protocol):
    """Bytes of a shard, or of a part of it."""

    size: int
    """Bytes of the whole shard."""

    def fill(self, buffers: Sequence[Buffer], offset: int) -> int:
        """Fill one after the other, from `offset` of the shard on; how many bytes there were for them."""


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
        """As of `Shard`."""
        return os.preadv(self.file, buffers, offset)  # type: ignore[arg-type]  # arrays are buffers, stubs lag

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


Found = Generator[tuple[int, Shard, Sequence[ChunkAt]], None, None]
Opening = Callable[[zarr.Array[Any], Sequence[Wanted]], Found]
"""Of an array, shards of which something is wanted: gives which of them, its bytes, and what is wanted where in them.

One shard after the other, each at once or in several parts. Raises FileNotFoundError for an absent shard, ValueError
for one whose index does not agree with its checksum, and what the array's store does.
"""


def opened(
    array: zarr.Array[Any], wanted: Sequence[Wanted]
) -> Generator[tuple[int, Shard, Sequence[ChunkAt]], None, None]:
    """Local files, one open at a time."""
    for number, shard in enumerate(wanted):
        key = key_of(array, shard)
        with closing(ShardFile(array, key)) as source:
            with naming(key):
                index = read_index(source, chunk_grid(array))
            yield number, source, chunks_at(array, shard, index)


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
    array: zarr.Array[Any], selection: Sequence[Index], opening: Opening = opened, out: np.ndarray | None = None
) -> np.ndarray:
    """Values of an outer selection in disk order, an axis selected by an int left out.

    out: memory for the values, contiguous, of which no axis is selected by an int.
    Raises as `opening` does, ValueError for a shard whose checksums do not agree.
    """
    shards, chunks = array.shards or array.chunks, array.chunks
    wanted = _positions(array, selection)
    values = np.empty([len(axis) for axis in wanted], array.dtype) if out is None else out
    # One buffer for all inner chunks that are wanted in part: it stays in the processor's cache until it is copied.
    buffer = np.empty(chunk_bytes(array), np.uint8)
    stored = buffer.view(array.dtype.newbyteorder("<")).reshape(chunks)
    every = list(itertools.product(*map(parts, wanted, shards)))
    rows, runs, runs_are_of = rows_axis(chunks), dict[int, Runs | None](), -1
    with closing(opening(array, every)) as found:
        for number, source, in_source in found:
            if number != runs_are_of:
                within, runs_are_of = within_chunks(every[number], chunks), number
                together = lies_together(within, values.shape, chunks)
                runs = {n: runs_of(*at) if together else None for n, *at in within[rows]}
            with naming(key_of(array, every[number])):
                for chunk, offset, n_bytes in in_source:
                    numbers, *both = zip(*chunk, strict=True)
                    inner, target = map(outer, both)
                    wanted_rows = runs[numbers[rows]]
                    if wanted_rows is None:
                        read_checked(source, offset, n_bytes, [buffer])
                        copy(stored, inner, values, target)
                    else:
                        result = values[target].reshape(-1).view(np.uint8)
                        read_checked(source, offset, n_bytes, pieces(result, wanted_rows, buffer, chunks[rows]))
    return np.asarray(values[tuple(0 if isinstance(axis, int | np.integer) else slice(None) for axis in selection)])


def chunks_in(
    array: zarr.Array[Any], wanted: Sequence[Wanted], opening: Opening = opened
) -> Iterator[tuple[int, tuple[ChunkPart, ...], np.ndarray]]:
    """Each inner chunk of shards of which something is wanted, one after the other, all in one buffer.

    Gives which of the shards, per axis number, positions in the chunk and in the result, and the values of the chunk,
    which are there until the next is asked for. Raises as `read_shards`.
    """
    buffer = np.empty(chunk_bytes(array), np.uint8)
    stored = buffer.view(array.dtype.newbyteorder("<")).reshape(array.chunks)
    with closing(opening(array, wanted)) as found:
        for number, source, in_source in found:
            with naming(key_of(array, wanted[number])):
                for chunk, offset, n_bytes in in_source:
                    read_checked(source, offset, n_bytes, [buffer])
                    yield number, chunk, stored


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Inside, a ValueError says of which object."""
    try:
        yield
    except ValueError as e:
        raise ValueError(f"{key}: {e}") from e


def key_of(array: zarr.Array[Any], shard: Wanted) -> str:
    """The key of a shard, relative to the array."""
    return array.metadata.encode_chunk_key(tuple(number for number, _, _ in shard))


def chunk_grid(array: zarr.Array[Any]) -> list[int]:
    """How many inner chunks a shard has along each axis."""
    return [s // c for s, c in zip(array.shards or array.chunks, array.chunks, strict=True)]


def chunks_at(array: zarr.Array[Any], shard: Wanted, index: np.ndarray) -> list[ChunkAt]:
    """The inner chunks of a shard of which something is wanted."""
    every = itertools.product(*within_chunks(shard, array.chunks))
    return [(chunk, *map(int, index[tuple(number for number, _, _ in chunk)])) for chunk in every]  # type: ignore[misc]


def chunk_bytes(array: zarr.Array[Any]) -> int:
    """Bytes of the values of an inner chunk."""
    return int(np.prod(array.chunks)) * array.dtype.itemsize


def within_chunks(shard: Sequence[Part], chunks: Sequence[int]) -> list[list[ChunkPart]]:
    """Along each axis of a shard: number of a chunk, where in it is what is wanted, and where in the result."""
    return [
        [(number, as_run(inner), as_run(at[to])) for number, inner, to in parts(inside, size)]
        for (_, inside, at), size in zip(shard, chunks, strict=True)
    ]


def _positions(array: zarr.Array[Any], selection: Sequence[Index]) -> list[np.ndarray]:
    """The positions that are selected, along each axis."""
    return [np.atleast_1d(np.arange(n)[axis]) for n, axis in zip(array.shape, selection, strict=True)]


def parts(wanted: np.ndarray, size: int) -> Iterator[Part]:
    """Along one axis: each piece of `size` that is touched, the positions wanted in it, and theirs in `wanted`."""
    piece = wanted // size
    if len(piece) and piece[0] == piece[-1] == piece.min() == piece.max():
        number = int(piece[0])
        yield number, wanted - number * size, np.arange(len(piece))
        return
    order = np.argsort(piece, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(piece[order])) + 1):
        if len(at):
            number = int(piece[at[0]])
            yield number, wanted[at] - number * size, at


def as_run(positions: np.ndarray) -> slice | np.ndarray:
    """Positions along one axis as a slice, which copies fastest, where they are a run."""
    first, n = int(positions[0]), len(positions)
    return slice(first, first + n) if n == 1 or bool((positions[1:] - positions[:-1] == 1).all()) else positions


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
