"""Shards that do not lie in a local folder: fetched by several requests at a time.

Goal: that going through many objects takes the time of their bytes, not that of an answer from afar for each.
Conventions: what is fetched is given in the order in which it is wanted; meanwhile the next requests are under way,
bounded in number and bytes. An object is fetched whole where that is worth it, else its index and then the inner chunks
that are wanted. A request is repeated, and fails, as any other of the array's store.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest

from .direct import (
    CRC_BYTES,
    INDEX_BYTES,
    Buffer,
    ChunkAt,
    Found,
    Wanted,
    chunk_grid,
    chunks_at,
    key_of,
    max_object_bytes,
    naming,
    read_index,
    within_chunks,
)
from .objects import get_buffer

MAX_UNDER_WAY = 16  # requests, for each reading thread
MAX_BYTES = 1 << 27  # of them, where they are more than two
MAX_WHOLE_BYTES = 1 << 28  # of an object that is fetched whole
MIN_WHOLE_SHARE = 0.5  # share of an object's inner chunks from which on one request for all of it beats one for each
SMALL_BYTES = 1 << 20  # of an object that is fetched whole for any part of it: it takes no longer than another answer

T = TypeVar("T")


class ShardBytes:
    """Bytes of a shard from an offset on, that were fetched."""

    def __init__(self, data: np.ndarray, offset: int = 0):
        self.data, self.offset, self.size = data, offset, offset + len(data)

    def fill(self, buffers: Sequence[Buffer], offset: int) -> int:
        """As of `Shard`."""
        begin = at = offset - self.offset
        for buffer in buffers:
            there = self.data[at : at + len(buffer)]
            np.frombuffer(buffer, np.uint8)[: len(there)] = there
            at += len(there)
        return at - begin


class Fetching:
    """The `Opening` of an array. Indexes of its shards are kept: whatever is asked of them next needs no second one."""

    def __init__(self) -> None:
        self.indexes: dict[str, np.ndarray] = {}

    def __call__(self, array: zarr.Array[Any], wanted: Sequence[Wanted]) -> Found:
        """As `Opening` says."""
        grid = chunk_grid(array)
        index_bytes = INDEX_BYTES * prod(grid) + CRC_BYTES
        in_parts = [not worth_whole(array, shard) for shard in wanted]
        keys = [key_of(array, shard) for shard in wanted]
        unknown = [key for key, apart in zip(keys, in_parts, strict=True) if apart and key not in self.indexes]
        asked = [(index_bytes, partial(fetch, array, key, SuffixByteRequest(index_bytes))) for key in unknown]
        with closing(in_order(asked)) as found:
            for key, data in zip(unknown, found, strict=True):
                with naming(key):
                    self.indexes[key] = read_index(ShardBytes(data), grid)

        of: deque[tuple[int, int, list[ChunkAt]]] = deque()

        def requests() -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
            for number, (key, shard) in enumerate(zip(keys, wanted, strict=True)):
                if not in_parts[number]:
                    of.append((number, 0, []))
                    yield max_object_bytes(array), partial(fetch, array, key)
                    continue
                for found_at in chunks_at(array, shard, self.indexes[key]):
                    _, offset, n_bytes = found_at
                    of.append((number, offset, [found_at]))
                    yield n_bytes, partial(fetch, array, key, RangeByteRequest(offset, offset + n_bytes))

        with closing(in_order(requests())) as found:
            for data in found:
                number, offset, in_source = of.popleft()
                source = ShardBytes(data, offset)
                if not in_source:
                    with naming(keys[number]):
                        in_source = chunks_at(array, wanted[number], read_index(source, grid))
                yield number, source, in_source


def worth_whole(array: zarr.Array[Any], shard: Wanted) -> bool:
    """Whether a shard of which this is wanted is fetched whole."""
    n_bytes = max_object_bytes(array)
    share = prod(map(len, within_chunks(shard, array.chunks))) / prod(chunk_grid(array))
    return n_bytes <= SMALL_BYTES or (n_bytes <= MAX_WHOLE_BYTES and share >= MIN_WHOLE_SHARE)


def fetch(array: zarr.Array[Any], key: str, part: ByteRequest | None = None) -> np.ndarray:
    """Bytes of an object of an array. Raises FileNotFoundError where there is none, and what the array's store does."""
    path = (array.store_path / key).path
    found = get_buffer(array.store_path.store, path, max_object_bytes(array), part)
    if found is None:
        raise FileNotFoundError(path)
    return np.asarray(found.as_numpy_array())


def in_order(requests: Iterable[tuple[int, Callable[[], T]]]) -> Generator[T, None, None]:
    """What each request gives, in their order, the next ones under way meanwhile. Each says how many bytes it is for.

    Raises what the first that fails does; then, and where no more is asked for, nothing is under way any more.
    """
    under_way: deque[tuple[int, Future[T]]] = deque()
    n_bytes = 0
    with ThreadPoolExecutor(MAX_UNDER_WAY) as pool:
        try:
            for size, ask in requests:
                while len(under_way) == MAX_UNDER_WAY or (len(under_way) > 1 and n_bytes + size > MAX_BYTES):
                    done, future = under_way.popleft()
                    yield future.result()
                    n_bytes -= done
                under_way.append((size, pool.submit(ask)))
                n_bytes += size
            while under_way:
                yield under_way.popleft()[1].result()
        finally:
            for _, future in under_way:
                future.cancel()
