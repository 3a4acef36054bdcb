"""A store in a local folder, whose objects are regular files in that folder and nothing else.

Goal: a pipe, a device or a link in a store of somebody else's is refused before it is opened, so that nothing hangs,
fills memory, is read from elsewhere, or is written there.
Conventions: keys have "/" between parts; links that stay in the folder are followed.
"""

import asyncio
import os
import stat
from typing import Any

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore


class Folder(LocalStore):
    """Raises ValueError for what is not a regular file, and for a path that leads out of the folder."""

    def path_within(self, key: str) -> str:
        """The path of a key, its links resolved."""
        top = os.path.realpath(self.root)
        path = os.path.realpath(os.path.join(top, key))
        if os.path.commonpath([top, path]) != top:
            raise ValueError(f"{key} is a link that leads out of the store; expected a file in it")
        return path

    def size_of(self, key: str) -> int | None:
        """Bytes of an object, None where nothing is."""
        try:
            found = os.stat(self.path_within(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{key} is not a regular file; expected an object of the store")
        return found.st_size

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of an object, None where there is none."""

        def read() -> Buffer | None:
            found: BufferPrototype = prototype or default_buffer_prototype()
            return None if self.size_of(key) is None else self.get_sync(key, prototype=found, byte_range=byte_range)

        return await asyncio.to_thread(read)

    async def exists(self, key: str) -> bool:
        """Whether anything is there: what is not an object is an error once it is read."""
        return await asyncio.to_thread(os.path.lexists, os.path.join(self.root, key))

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self.path_within(os.path.dirname(key))
        await super()._set(key, value, exclusive)

    async def delete(self, key: str) -> None:
        """Delete an object, if there is one; of a link that itself."""
        self.path_within(os.path.dirname(key))
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete a folder and all that is in it."""
        self.path_within(prefix)
        await super().delete_dir(prefix)

    async def list_dir(self, prefix: str) -> Any:
        """Names of what lies directly in a folder."""
        self.path_within(prefix)
        async for name in super().list_dir(prefix):
            yield name
