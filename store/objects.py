"""Objects of a Zarr store by key: read, listed, deleted, written whole, created only where there is none.

Goal: the one file that uses private parts of zarr. Its stores are asynchronous, on the event loop that arrays and the
drivers of fsspec share, and only `zarr.core.sync.sync` waits for that loop; nor is there a public way from an array's
values to the bytes of an object. So pyproject.toml allows no other minor series of zarr than the one that was tested.
Conventions: keys have "/" between parts. An object appears at once or not at all.
"""

import asyncio
import errno
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.buffer import default_buffer_prototype
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from ..documents import MAX_BYTES, check_size
from .folder import Folder
from .location import Bucket

MAX_REQUESTS = 8  # small objects under way at a time
MAX_UPLOADS = 3  # objects of arrays under way to an object store; large ones, and so memory, are few per block
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


async def get_bounded(store: Store, key: str, prototype: BufferPrototype, max_bytes: int) -> Buffer | None:
    """An object whole, None where there is none. Raises ValueError for a larger one, of which little is read."""
    if isinstance(store, Bucket):
        return await store.get_bounded(key, prototype, max_bytes)
    if isinstance(store, WrapperStore):  # which bounds what it gets
        return await store.get(key, prototype)
    if isinstance(store, Folder):
        check_size(store.size_of(key) or 0, max_bytes)
        return await store.get(key, prototype)
    found = await store.get(key, prototype, RangeByteRequest(0, max_bytes + 1))
    check_size(0 if found is None else len(found), max_bytes)
    return found


def get_buffer(store: Store, key: str, max_bytes: int = MAX_BYTES, part: ByteRequest | None = None) -> Buffer | None:
    """An object as zarr holds it, or a part of it, None where there is none. Raises ValueError for a larger one."""
    if isinstance(store, LocalStore) and not store.root.is_dir():
        return None  # zarr would make the folder, or raise
    if part is not None:
        return sync(store.get(key, default_buffer_prototype(), part))
    return sync(get_bounded(store, key, default_buffer_prototype(), max_bytes))


def get(store: Store, key: str, max_bytes: int = MAX_BYTES) -> bytes | None:
    """The bytes of an object, None where there is none. Raises ValueError for a larger one."""
    found = get_buffer(store, key, max_bytes)
    return None if found is None else found.to_bytes()


def exist(store: Store, keys: Iterable[str]) -> list[bool]:
    """Whether there is an object, for each key."""

    async def every() -> list[bool]:
        return await asyncio.gather(*map(store.exists, keys))

    return sync(every())


def names_in(store: Store, folder: str) -> list[str]:
    """What lies directly in a folder, sorted: objects, folders, debris; [] where there is no such folder."""
    return sync(_sorted(store.list_dir(folder)))


def keys_below(store: Store, prefix: str) -> list[str]:
    """Keys of all objects that begin with a prefix, a folder with its "/", sorted."""
    return sync(_sorted(store.list_prefix(prefix)))


async def _sorted(found: AsyncIterator[str]) -> list[str]:
    return sorted([name async for name in found])


def delete(store: Store, keys: Iterable[str]) -> None:
    """Delete objects, one after the other, where they are."""
    for key in keys:
        sync(store.delete(key))


def delete_folder(store: Store, folder: str) -> None:
    """Delete all that lies in a folder, and the folder."""
    sync(store.delete_dir(folder))


def put_new(store: Store, key: str, data: bytes) -> bool:
    """Write an object only where there is none; whether it was written.

    Of several writers at the same instant exactly one succeeds: on local file systems that have hard links, and in
    buckets that honour If-None-Match. Elsewhere (other fsspec schemes) two may, and the last one stays.
    """
    if isinstance(store, Folder):
        store.path_within(os.path.dirname(key))
        return _link_new(store.root / key, data)
    if isinstance(store, Bucket):
        return bool(sync(store.put_new(key, CpuBuffer.from_bytes(data))))
    if sync(store.exists(key)):
        return False
    put_all(store, {key: data})
    return True


def _link_new(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return False
    whole = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        whole.write_bytes(data)
        os.link(whole, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        whole.replace(path)  # no hard links here: not exclusive, and FORMAT.md says so
    finally:
        whole.unlink(missing_ok=True)
    return True


def put_all(store: Store, objects: Mapping[str, bytes]) -> None:
    """Write objects, several at a time, each at once.

    Raises the first error once nothing is under way any more, so that nothing arrives after the call.
    """

    async def buffer(data: bytes) -> Buffer:
        return CpuBuffer.from_bytes(data)

    _put(store, [(key, partial(buffer, data)) for key, data in objects.items()], MAX_REQUESTS)


def put_parts(store: Store, parts: Iterable[tuple[str, zarr.Array[Any], np.ndarray]]) -> None:
    """Write objects of arrays: (key, array, values), padded with fill values where these do not fill the object.

    zarr reads a shard before it replaces all of it, which on an object store costs a download for each upload, and
    fails where the old one is damaged; so the array's codecs are asked for the bytes and these are written.
    Raises as `put_all`.
    """
    at_once = 1 if isinstance(store, LocalStore) else MAX_UPLOADS
    _put(store, [(key, partial(_encode, array, values)) for key, array, values in parts], at_once)


def _put(store: Store, objects: Iterable[tuple[str, Callable[[], Awaitable[Buffer]]]], at_once: int) -> None:
    async def every() -> None:
        slots, encoding, errors = asyncio.Semaphore(at_once), asyncio.Lock(), list[BaseException]()

        async def one(key: str, encode: Callable[[], Awaitable[Buffer]]) -> None:
            async with slots:
                if errors:
                    return
                try:
                    async with encoding:
                        encoded = await encode()
                    await store.set(key, encoded)
                except BaseException as error:
                    errors.append(error)

        await asyncio.gather(*(one(*what) for what in objects))
        if errors:
            raise errors[0]

    sync(every())


async def _encode(array: zarr.Array[Any], part: np.ndarray) -> Buffer:
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
