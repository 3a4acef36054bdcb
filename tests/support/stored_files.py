"""What is in a store, file by file or object by object."""

from pathlib import Path

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
