"""AudioRoot: where a corpus' audio lies, a local folder or a URL.

Goal: whoever reads audio asks for bytes by a clip's path, wherever they come from, and gets no others.
Conventions: paths are relative to the root, "/" between folders. Links and ".." may lead anywhere below the root, which
may be a link itself.
"""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ...store.location import is_url
from ...store.remote import Remote, UnfitFile, check_file_size

OUTSIDE = (
    "outside the audio root, by a link or ..; expected a file below it: give a folder that holds all of them as "
    "--audio-root, and paths from there"
)
NOT_REGULAR = "no regular file but a device, FIFO or socket; expected a file with the audio in it"


class AudioRoot(Protocol):
    """Where audio lies; as text, its path or URL."""

    def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """A file's bytes.

        Raises FileNotFoundError, OSError where it cannot be read, and UnfitFile for what lies elsewhere, is no regular
        file, or is larger.
        """
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

    def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """A file's bytes, in one attempt."""
        root, real = _real(str(self.path)), os.path.realpath(self.path / path)
        if not real.startswith(root.rstrip("/") + "/"):
            raise UnfitFile(OUTSIDE)
        found = os.stat(real)  # before it is opened: to open a device may change something
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(real)
        if not stat.S_ISREG(found.st_mode):
            raise UnfitFile(NOT_REGULAR)
        check_file_size(found.st_size, max_bytes)
        return Path(real).read_bytes()

    def stamp(self, path: str) -> tuple[Any, ...]:
        """Path, inode, size and time of change."""
        found = (self.path / path).stat()
        return (str(self.path / path), found.st_ino, found.st_size, found.st_mtime_ns)

    def absent(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths that have no file."""
        with ThreadPoolExecutor(16) as pool:  # on a network file system the time goes into waiting
            slices = [paths[i::16] for i in range(16)]
            gone = pool.map(lambda part: [p for p in part if not _is_there(f"{self.path}/{p}")], slices)
            return [path for part in gone for path in part]


@lru_cache(16)
def _real(path: str) -> str:
    """A root without links, resolved once per process."""
    return os.path.realpath(path)


def _is_there(path: str) -> bool:
    """Whether there is something that is no folder; what is no file either fails alone, when it is read."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):  # the latter for a zero byte
        return False


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
