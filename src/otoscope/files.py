"""Files and folders that appear whole or not at all, under names that are checked before the work is done."""

import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


def check_target(path: str | os.PathLike[str], endings: Collection[str] = ()) -> Path:
    """The path, if a file may be written there by its name: better known before the work than after.

    endings: in lower case, such as ".csv"; any will do where none is given.
    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    target = Path(path)
    if endings and target.suffix.lower() not in endings:
        raise ValueError(f"cannot write to {target.name!r}; expected a name ending in {', '.join(endings)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent}; expected it for {target.name}: create it")
    return target


def partial_path(target: Path) -> Path:
    """Where a file is written before it takes its name: a path of one process alone, also among containers."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.partial")


@contextmanager
def whole_file(path: str | os.PathLike[str], endings: Collection[str] = ()) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends without an exception.

    Raises as `check_target`.
    """
    target = check_target(path, endings)
    partial = partial_path(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside `path` to write into; it becomes `path` when the block ends without an exception.

    Raises as `check_target`, and FileExistsError where something other than an empty folder is at `path`.
    """
    target = check_target(Path(path).absolute())
    if os.path.lexists(target) and not (target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
        raise FileExistsError(f"{path} is there already; expected a new folder: give another name, or remove it")
    partial = partial_path(target)
    try:
        partial.mkdir()
        yield partial
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
