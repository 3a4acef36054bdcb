"""Objects below a URL, to be read: audio and manifests that lie in a bucket or behind another file system's URL.

Goal: the same few verbs for every scheme, with the retries and time limits of `location`.
Conventions: paths are relative to the URL, "/" between parts; an object is read whole. Only the URL is kept, so that a
`Remote` can be sent to other processes: they find the credentials in their own environment.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..messages import one_line
from .location import BUCKETS, Unreachable, check_no_secrets, connect, opening_by_fsspec, reaching

MAX_REQUESTS = 32  # for the existence of single objects, at a time
MAX_SINGLE = 200  # paths up to which each is asked for; more are looked up in a listing of a thousand per request
MAX_LISTED = 20  # listed objects per path sought at which a listing is given up: the rest is asked for one by one
NO_OBJECT = (FileNotFoundError, ValueError)  # the latter from obstore for "..", which names no object


class UnfitFile(ValueError):
    """A file that is there and must not be read; its text says why, without a path."""


def check_file_size(n_bytes: int, max_bytes: int | None) -> None:
    """Raise UnfitFile for more bytes than there may be."""
    if max_bytes is not None and n_bytes > max_bytes:
        raise UnfitFile(
            f"too large: {n_bytes / 1e6:.0f} MB; expected at most {max_bytes / 1e6:.0f}: cut it, or raise --max-file-mb"
        )


@dataclass(frozen=True)
class Remote:
    """All that lies below a URL."""

    url: str

    def __post_init__(self) -> None:
        check_no_secrets(self.url)
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """An object's bytes.

        Raises FileNotFoundError, OSError where it could not be read after retries, and UnfitFile where it is larger.
        """
        return _files(self.url).read(path, max_bytes)

    def absent(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths where nothing is, in their order. Raises OSError where that could not be found out."""
        sought, files = dict.fromkeys(paths), _files(self.url)
        if len(sought) > MAX_SINGLE:
            for n, found in enumerate(files.listed(_common_folder(list(sought)))):
                sought.pop(found, None)
                if not sought or n > MAX_LISTED * len(paths):
                    break
            else:
                return list(sought)
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            there = pool.map(files.exists, sought)
            return [path for path, is_there in zip(sought, there, strict=True) if not is_there]


def read_url(url: str) -> bytes:
    """The bytes that a URL names. Raises as `Remote.read`."""
    folder, _, name = url.rpartition("/")
    return Remote(folder).read(name)


def _common_folder(paths: list[str]) -> str:
    """The deepest folder, ending in "/", or "", that all paths begin with."""
    first, last = min(paths), max(paths)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, same) + 1]


def _files(url: str) -> "_Objects | _Files":
    return _Objects(url) if url.partition("://")[0] in BUCKETS else _Files(url)


class _Objects:
    """By obstore."""

    def __init__(self, url: str) -> None:
        self.url, self.store = url, connect(url)

    def read(self, path: str, max_bytes: int | None) -> bytes:
        import obstore

        try:
            with reaching(f"{self.url}/{path}", *NO_OBJECT):
                found = obstore.get(self.store, path)
                check_file_size(found.meta["size"], max_bytes)
                return found.bytes().to_bytes()
        except UnfitFile:
            raise
        except NO_OBJECT as error:
            raise FileNotFoundError(f"nothing at {self.url}/{path}; expected an object there") from error

    def exists(self, path: str) -> bool:
        import obstore

        try:
            with reaching(f"{self.url}/{path}", *NO_OBJECT):
                obstore.head(self.store, path)
        except NO_OBJECT:
            return False
        return True

    def listed(self, prefix: str) -> Iterator[str]:
        import obstore

        with reaching(f"{self.url}/{prefix}"):
            for batch in obstore.list(self.store, prefix=prefix or None):
                yield from (found["path"] for found in batch)


class _Files:
    """By fsspec."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        with opening_by_fsspec(url):
            self.files, self.root = fsspec.core.url_to_fs(url)

    def read(self, path: str, max_bytes: int | None) -> bytes:
        try:
            if ".." in path.split("/"):  # some servers would resolve it
                raise FileNotFoundError(path)
            if max_bytes is not None:
                check_file_size(self.files.size(f"{self.root}/{path}") or 0, max_bytes)
            return bytes(self.files.cat_file(f"{self.root}/{path}"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"nothing at {self.url}/{path}; expected an object there") from error
        except OSError as error:
            raise Unreachable(f"{self.url}/{path}: {one_line(error)}") from error

    def exists(self, path: str) -> bool:
        return bool(self.files.isfile(f"{self.root}/{path}"))

    def listed(self, prefix: str) -> Iterator[str]:
        found: Any = self.files.find(f"{self.root}/{prefix}")
        yield from (str(path).removeprefix(f"{self.root}/") for path in found)
