"""From a URL or path to a store: local files, a bucket, or whatever fsspec knows.

Goal: one way to open all of them, with time limits: a request that fails for a moment is repeated, one that keeps
failing ends as an OSError of one line. Credentials come from the environment (AWS_*, GOOGLE_*, AZURE_*) and are kept
nowhere else.
Conventions: s3, gs, az and their synonyms, http and https go through obstore (the extra `s3`), other schemes through
fsspec.
"""

import os
import pickle
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import FsspecStore, ObjectStore

from ..documents import check_size
from ..messages import QUERY, USER, clean, one_line
from .folder import Folder

LOCAL = ("file", "local")
BUCKETS = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https")
# `read_timeout` ends what stalls; it also bounds the sending of a part, so that parts are small enough for slow lines.
CLIENT_OPTIONS: dict[str, Any] = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
RETRY_CONFIG: dict[str, Any] = {  # waits of 0.2, 0.4, ... 10 s: a failure that lasts is reported after half a minute
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10), "base": 2},
}
PART_BYTES = 8 * 2**20  # of one part of a large object
MAX_PARTS = 2  # under way of each of three objects: 50 MB in a minute, a line of 7 Mbit/s, is enough
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Unreachable(OSError):
    """Storage that did not do what it was asked, after retries: says nothing about what is stored there."""


def is_url(location: object) -> bool:
    """Whether a location is named by a URL; anything else is a local path."""
    return bool(URL.match(str(location)))


def path_of(location: str) -> str:
    """One spelling of a location: a local path from the root on, links resolved; a URL without slashes at its end."""
    scheme, _, rest = location.partition("://")
    if is_url(location) and scheme not in LOCAL:
        return location.rstrip("/")
    return os.path.realpath(rest if is_url(location) else location)


def absolute(location: str) -> str:
    """A local path from the root on, which names the same from every folder; a URL as it is."""
    return location if is_url(location) else os.path.abspath(location)


def check_no_secrets(url: str) -> None:
    """Raise ValueError for a URL with a user, a query or a fragment, without repeating them."""
    user, query = USER.search(url), QUERY.search(url)
    if is_url(url) and (user or (query and query[2])):
        what = "a user name or password" if user else "a part after '?' or '#'"
        raise ValueError(
            f"{clean(url)} was given with {what}; expected a URL without: put credentials into the environment, "
            "as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def zarr_store(url: str) -> Store:
    """The Zarr store at a URL or local path, read only; nothing is looked up yet.

    Raises ValueError for a URL that carries secrets or that nothing here can open, ImportError without obstore.
    """
    if not is_url(url):
        return Folder(url, read_only=True)
    check_no_secrets(url)
    scheme, _, rest = url.partition("://")
    if scheme in LOCAL:
        return Folder(rest, read_only=True)
    if scheme in BUCKETS:
        return Bucket(connect(url), url=url, read_only=True)
    with opening_by_fsspec(url):
        return FsspecStore.from_url(url, read_only=True)


@contextmanager
def opening_by_fsspec(url: str) -> Iterator[None]:
    """Raise ValueError of one line where fsspec does not know the scheme or lacks its driver."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise ValueError(
            f"{url} cannot be opened ({one_line(error)}); expected a local path, s3://, gs://, az:// or a scheme that "
            "an installed fsspec driver knows"
        ) from error


def connect(url: str) -> Any:
    """The obstore store at a URL; the same object again while URL and environment stay the same.

    Raises ImportError without obstore, ValueError for a URL or an environment that cannot be used.
    """
    check_no_secrets(url)
    settings = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))}
    return _connect(url, tuple(sorted(settings.items())))


@lru_cache(maxsize=32)
def _connect(url: str, settings: tuple[tuple[str, str], ...]) -> Any:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise ImportError(
            f"{url} needs obstore ({error}); install it in otoscope's checkout: pip install -e '.[s3]'"
        ) from error
    environment = dict(settings)
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL", "")
    plain = any(
        environment.get(f"{name}_ALLOW_HTTP", "").lower() in ("1", "true") for name in ("AWS", "AZURE", "GOOGLE")
    )
    if url.startswith("s3") and endpoint.startswith("http://") and not plain:
        raise ValueError(
            "AWS_ENDPOINT_URL begins with http://; expected https, so that nothing is sent in the clear: set "
            "AWS_ALLOW_HTTP=true to allow it"
        )
    try:
        options: Any = {**CLIENT_OPTIONS, "allow_http": plain or url.startswith("http://")}
        return from_url(url, client_options=options, retry_config=RETRY_CONFIG)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        raise ValueError(
            f"{url} cannot be opened ({one_line(error)}); expected s3://BUCKET/PATH, gs://BUCKET/PATH or "
            "az://CONTAINER/PATH, and the account in the environment"
        ) from error


@contextmanager
def reaching(url: str, *passed: type[Exception]) -> Iterator[None]:
    """Errors of an object store as `Unreachable`, in one line that names the URL; those of the types `passed` stay."""
    from obstore.exceptions import BaseError

    try:
        yield
    except passed:
        raise
    except (BaseError, FileNotFoundError) as error:
        reason = one_line(error).removeprefix("Generic S3 error: ")
        if "169.254.169.254" in reason or "metadata.google" in reason:
            reason = "there are no credentials in the environment, and no machine that gives any"
        elif type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
            reason += "; see that the credentials in the environment permit it"
        raise Unreachable(f"{url}: {reason}") from error


class Bucket(ObjectStore[Any]):
    """A store in a bucket. Errors of the object store become `Unreachable`; whole objects go in parts."""

    def __init__(self, store: Any, *, url: str, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.url = url.rstrip("/")

    def with_read_only(self, read_only: bool = False) -> "Bucket":
        """The same bucket and path, to be written or only read."""
        return type(self)(self.store, url=self.url, read_only=read_only)

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[Any, Any]:
        return {**self.__dict__, "store": pickle.dumps(self.store)}  # without credentials: they are found anew

    def _reaching(self, key: str, *passed: type[Exception]) -> AbstractContextManager[None]:
        return reaching(f"{self.url}/{key}", *passed)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of an object, None where there is none."""
        with self._reaching(key):
            return await super().get(key, prototype, byte_range)

    async def get_bounded(self, key: str, prototype: BufferPrototype, max_bytes: int) -> Buffer | None:
        """The same, whole. Raises ValueError for a larger object, before it is fetched."""
        import obstore

        try:
            with self._reaching(key, FileNotFoundError):
                found = await obstore.get_async(self.store, key)
                check_size(found.meta["size"], max_bytes)
                return prototype.buffer.from_bytes(await found.bytes_async())  # type: ignore[arg-type]
        except FileNotFoundError:
            return None

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        with self._reaching(key):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object at once: until the last part has arrived, the former one stays."""
        import obstore

        self._check_writable()
        with self._reaching(key):
            await obstore.put_async(
                self.store, key, value.as_buffer_like(), chunk_size=PART_BYTES, max_concurrency=MAX_PARTS,
                use_multipart=len(value) > PART_BYTES,
            )  # fmt: skip

    async def put_new(self, key: str, value: Buffer) -> bool:
        """Write an object where there is none, by If-None-Match; False where there is one."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        self._check_writable()
        try:
            with self._reaching(key, AlreadyExistsError):
                await obstore.put_async(self.store, key, value.as_buffer_like(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    async def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        with self._reaching(key):
            await super().delete(key)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys of all objects below a prefix."""
        with self._reaching(prefix):
            async for key in super().list_prefix(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names of what lies directly below a prefix."""
        with self._reaching(prefix):
            async for name in super().list_dir(prefix):
                yield name
