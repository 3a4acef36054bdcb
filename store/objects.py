"""A block's values as stored objects: whole ones, encoded here and put into their place without reading it.

Goal: zarr reads a shard before it replaces all of it, which on an object store costs a download for each upload, and
fails where the old one is damaged; so the array's own codecs are asked for the bytes and these are written.
Conventions: values in disk order, restricted to the block; an object that they do not fill is padded with fill values.
Contents: `put_values`.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from .blocks import Block
from .group import array_of, dims_of

UPLOADS = 3  # objects on their way to an object store at a time; large ones, and so memory, are few per block


def put_values(group: zarr.Group, block: Block, values: Mapping[str, np.ndarray]) -> None:
    """Write values of a block, by array, each object at once; several at a time where that saves waiting.

    Raises the first error once nothing is under way any more, so that nothing arrives after the call.
    """
    arrays = {name: array_of(group, name) for name in values}
    objects = [(arrays[name], *piece) for name in values for piece in pieces(arrays[name], block, values[name])]

    async def every() -> None:
        slots = asyncio.Semaphore(1 if isinstance(group.store, LocalStore) else UPLOADS)
        encoding, errors = asyncio.Lock(), list[BaseException]()

        async def one(array: zarr.Array[Any], key: str, part: np.ndarray) -> None:
            async with slots:
                if errors:
                    return
                try:
                    async with encoding:
                        encoded = await encode(array, part)
                    await group.store.set(key, encoded)
                except BaseException as error:
                    errors.append(error)

        await asyncio.gather(*(one(*what) for what in objects))
        if errors:
            raise errors[0]

    sync(every())


def pieces(array: zarr.Array[Any], block: Block, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(key, values) of each object of an array that a block fills."""
    size = array.shards or array.chunks
    where = {"clip": block.start, "block": block.index}
    first = [where.get(dim, 0) // n for dim, n in zip(dims_of(array), size, strict=True)]
    for at in np.ndindex(*(-(-n // s) for n, s in zip(values.shape, size, strict=True))):
        part = values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, size, strict=True))]
        key = array.metadata.encode_chunk_key(tuple(a + b for a, b in zip(first, at, strict=True)))
        yield f"{array.path}/{key}", part


async def encode(array: zarr.Array[Any], part: np.ndarray) -> Buffer:
    """The bytes of one stored object: what zarr writes for the same values."""
    shape = array.shards or array.chunks
    if part.shape == shape and part.dtype == array.dtype:
        whole = np.ascontiguousarray(part)
    else:
        fill = "" if array.dtype.kind == "T" else array.fill_value
        whole = np.full(shape, fill, array.dtype)
        whole[tuple(map(slice, part.shape))] = part
    prototype, codes = default_buffer_prototype(), array.async_array
    spec = codes.metadata.get_chunk_spec((0,) * len(shape), codes.config, prototype)
    (encoded,) = await codes.codec_pipeline.encode([(prototype.nd_buffer.from_numpy_array(whole), spec)])
    assert encoded is not None  # only empty chunks that need not be written are
    return encoded
