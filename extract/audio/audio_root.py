"""AudioRoot: where a corpus' audio lies, a local folder or a URL.

Goal: whoever reads audio asks for bytes by a clip's path, wherever they come from.
Conventions: paths are relative to the root, "/" between folders.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...store.location import is_url
from ...store.remote import Remote


class AudioRoot(Protocol):
    """Where audio lies; as text, its path or URL."""

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError, or OSError where it cannot be read."""
        ...

    def stamp(self, path: str) -> tuple[Any, ...]:
        """What differs from file to file, and once a file is changed. Raises as `read`."""
        ...

    def absent(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths that have no file."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, path: str) -> bytes:
        """A file's bytes, in one attempt."""
        return (self.path / path).read_bytes()

    def stamp(self, path: str) -> tuple[Any, ...]:
        """Path, inode, size and time of change."""
        stat = (self.path / path).stat()
        return (str(self.path / path), stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def absent(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths that have no file."""
        with ThreadPoolExecutor(16) as pool:  # on a network file system the time goes into waiting
            slices = [paths[i::16] for i in range(16)]
            gone = pool.map(lambda part: [p for p in part if not os.path.isfile(f"{self.path}/{p}")], slices)
            return [path for part in gone for path in part]


@dataclass(frozen=True)
class Bucket(Remote):
    """Objects below a URL; a file in use is taken to stay as it is, since to ask would cost a request per clip."""

    def stamp(self, path: str) -> tuple[Any, ...]:
        """The file's URL."""
        return (f"{self.url}/{path}",)


def root_at(location: "str | Path | AudioRoot") -> AudioRoot:
    """The audio root at a path or URL. Raises ValueError for a URL that carries secrets."""
    if not isinstance(location, str | Path):
        return location
    path = str(location).removeprefix("file://")
    return Bucket(path) if is_url(path) else Folder(Path(os.path.abspath(path)))
