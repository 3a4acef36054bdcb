"""What is in a store, file by file or object by object."""

from pathlib import Path
from typing import Any

import pytest
from zarr.storage import LocalStore

from otoscope.store import objects
from otoscope.store.verify import verify

from .s3_server import BUCKET, ObjectServer


def files(folder: str | Path) -> dict[str, bytes]:
    """Every file under a folder by its relative path."""
    found = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def tree_of(folder: str | Path) -> dict[str, bytes]:
    """The same without temporary files, which mean nothing."""
    return {name: data for name, data in files(folder).items() if not name.endswith(".partial")}


def stored(url: str, server: ObjectServer) -> dict[str, bytes]:
    """Every object of a store, local or not, but for what killed writers leave."""
    if "://" not in url:
        return tree_of(url)
    found = server.objects(url.removeprefix(f"s3://{BUCKET}/"))
    return {name: data for name, data in found.items() if not name.endswith(".partial")}


def damage(url: str) -> list[str]:
    """What `verify` finds, but for what was interrupted and the same command ends."""
    return [str(d) for d in verify(url) if not d.pending and "was begun and not completed" not in d.what]


def stop_after(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every change of a file fail, after the first n: what is on disk is what a killed writer leaves."""
    done = iter(range(n))

    def allow() -> None:
        if next(done, None) is None:
            raise OSError("killed")

    def stopping(original: Any) -> Any:
        async def wrapped(*given: Any) -> None:
            allow()
            await original(*given)

        return wrapped

    def link(path: Path, data: bytes, original: Any = objects._link_new) -> bool:
        allow()
        return bool(original(path, data))

    for name in ("set", "delete"):
        monkeypatch.setattr(LocalStore, name, stopping(getattr(LocalStore, name)))
    monkeypatch.setattr(objects, "_link_new", link)
