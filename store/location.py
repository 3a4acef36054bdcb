"""From a URL to the place where a store lies: local files, a bucket, or whatever fsspec knows.

Goal: one door for all of them, with bounded patience: a request that fails for a moment is repeated, one that keeps
failing ends as an OSError of one line. Credentials come from the environment (AWS_*, GOOGLE_*, AZURE_*) and stay there.
Conventions: s3, gs, az and their synonyms, http and https go through obstore (`otoscope[s3]`), other schemes through
fsspec. An object is written at once or not at all.
Contents: `zarr_store`, `connect`, `Bucket`, `Unreachable`, `unreachable`, `put_new`.
"""

import asyncio
import errno
import os
import pickle
import re
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.cpu import Buffer as CpuBuffer
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from ..messages import QUERY, USER, clean, one_line

BUCKETS = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https")
# `read_timeout` ends what stalls; it also bounds the sending of a part, so that parts are small enough for slow lines.
CLIENT: dict[str, Any] = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
RETRY: dict[str, Any] = {  # waits of 0.2, 0.4, ... 10 s: a failure that lasts is reported after half a minute
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10), "base": 2},
}
PART = 8 * 2**20  # bytes of one part of a large object
PARTS_AT_ONCE = 2  # of each of three objects: 50 MB in a minute, a line of 7 Mbit/s, is enough
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Unreachable(OSError):
    """A place that did not do what it was asked, after retries: says nothing about what is stored there."""


def is_url(location: object) -> bool:
    """Whether a location is named by a URL; anything else is a local path."""
    return bool(URL.match(str(location)))


def check_no_secrets(url: str) -> None:
    """Raise ValueError for a URL with a user, a query or a fragment, without repeating them."""
    user, query = USER.search(url), QUERY.search(url)
    if is_url(url) and (user or query):
        what = "a user name or password" if user else "a part after '?' or '#'"
        raise ValueError(
            f"{clean(url)} was given with {what}; expected a URL without: put credentials into the environment, "
            "as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def zarr_store(url: str) -> Store:
    """The Zarr store at a URL or local path, read only; nothing is looked up yet.

    Raises ValueError for a URL that carries secrets or that nothing here can open, ImportError without `otoscope[s3]`.
    """
    if not is_url(url):
        return LocalStore(url, read_only=True)
    check_no_secrets(url)
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return LocalStore(rest, read_only=True)
    if scheme in BUCKETS:
        return Bucket(connect(url), url=url, read_only=True)
    try:
        return FsspecStore.from_url(url, read_only=True)
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
        raise ImportError(f"{url} needs obstore ({error}); install it with: pip install 'otoscope[s3]'") from error
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
        options: Any = {**CLIENT, "allow_http": plain or url.startswith("http://")}
        return from_url(url, client_options=options, retry_config=RETRY)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        raise ValueError(
            f"{url} cannot be opened ({one_line(error)}); expected s3://BUCKET/PATH, gs://BUCKET/PATH or "
            "az://CONTAINER/PATH, and the account in the environment"
        ) from error


def unreachable(what: str, error: Exception) -> Unreachable:
    """The error of an object store as one line."""
    said = one_line(error).removeprefix("Generic S3 error: ")
    if "169.254.169.254" in said or "metadata.google" in said:
        said = "there are no credentials in the environment, and no machine that gives any"
    elif type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        said += "; see that the credentials in the environment permit it"
    return Unreachable(f"{what}: {said}")


class Bucket(ObjectStore[Any]):
    """A store in a bucket. Errors of the object store become `Unreachable`; whole objects go in parts of `PART`."""

    def __init__(self, store: Any, *, url: str, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.url = url.rstrip("/")

    def with_read_only(self, read_only: bool = False) -> "Bucket":
        """The same place, to be written or only read."""
        return type(self)(self.store, url=self.url, read_only=read_only)

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[Any, Any]:
        return {**self.__dict__, "store": pickle.dumps(self.store)}  # without credentials: they are found anew

    @contextmanager
    def _plainly(self, key: str, *absent: type[Exception]) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except absent:
            raise
        except (BaseError, FileNotFoundError) as error:
            raise unreachable(f"{self.url}/{key}", error) from error

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of an object, None where there is none."""
        with self._plainly(key):
            return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        with self._plainly(key):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object at once: until the last part has arrived, the former one stays."""
        import obstore

        self._check_writable()
        with self._plainly(key):
            await obstore.put_async(
                self.store, key, value.as_buffer_like(), chunk_size=PART, max_concurrency=PARTS_AT_ONCE,
                use_multipart=len(value) > PART,
            )  # fmt: skip

    async def put_new(self, key: str, value: Buffer) -> bool:
        """Write an object where there is none, by If-None-Match; False where there is one."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        self._check_writable()
        try:
            with self._plainly(key, AlreadyExistsError):
                await obstore.put_async(self.store, key, value.as_buffer_like(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    async def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        with self._plainly(key):
            await super().delete(key)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys of all objects below a prefix."""
        with self._plainly(prefix):
            async for key in super().list_prefix(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names of what lies directly below a prefix."""
        with self._plainly(prefix):
            async for name in super().list_dir(prefix):
                yield name


def put_new(store: Store, key: str, data: bytes) -> bool:
    """Write an object only where there is none; whether it was written.

    Of several writers at the same instant exactly one succeeds: on local file systems that have hard links, and in
    buckets that honour If-None-Match. Elsewhere (other fsspec schemes) two may, and the last one stays.
    """
    if isinstance(store, LocalStore):
        return _link_new(store.root / key, data)
    if isinstance(store, Bucket):
        return bool(sync(store.put_new(key, CpuBuffer.from_bytes(data))))
    if sync(store.exists(key)):
        return False
    sync(store.set(key, CpuBuffer.from_bytes(data)))
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
        if error.errno not in NO_LINKS:
            raise
        whole.replace(path)  # no hard links here: not exclusive, and FORMAT.md says so
    finally:
        whole.unlink(missing_ok=True)
    return True


def put_all(store: Store, objects: dict[str, bytes], at_once: int = 8) -> None:
    """Write objects, several at a time, each at once. Raises the first error, when none is under way any more."""

    async def every() -> None:
        slots = asyncio.Semaphore(at_once)

        async def one(key: str) -> None:
            async with slots:
                await store.set(key, CpuBuffer.from_bytes(objects[key]))

        for result in await asyncio.gather(*map(one, objects), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    sync(every())
