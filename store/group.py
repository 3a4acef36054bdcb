"""Open the groups of a store and read their metadata: what writer, reader and verify share.

Conventions: our attributes lie under one key, "otoscope", of the root group and of each task's group.
Contents: `open_root`, `open_task`, `array_of`, `task_names`, `read_identity`, `read_plan`, `object_keys`,
`metadata_digest`.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from .blocks import Block
from .provenance import Identity, Plan, digest_of
from .schema import FORMAT_VERSION

KEY = "otoscope"
TASK_NAME = re.compile(r"(?!__)[^/:\s.][^/:]*")

Mode = Literal["r", "r+"]


def open_root(url: str, mode: Mode = "r+") -> zarr.Group:
    """Root group of an existing store.

    Raises FileNotFoundError where nothing is, ValueError for something else, a damaged one or another major version.
    """
    if nothing_at(url):
        raise FileNotFoundError(f"no store at {url}; expected one made by `otoscope extract {url} ...`")
    try:
        root = zarr.open_group(url, mode=mode, use_consolidated=False)
        about = root.attrs.get(KEY)
    except (LookupError, ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError) as e:
        raise ValueError(
            f"{url} is not an otoscope store, or its zarr.json is damaged ({one_line(e)}); "
            "expected a folder made by `otoscope extract`: choose another path"
        ) from e
    if not isinstance(about, dict) or "format" not in about or "identity" not in about:
        raise ValueError(
            f"{url} is a Zarr group without otoscope's attributes; expected a store made by `otoscope extract`"
        )
    version, ours = str(about["format"]), FORMAT_VERSION
    if version.split(".")[0] != ours.split(".")[0]:
        raise ValueError(
            f"{url} has format {version}; expected {ours.split('.')[0]}.x: read it with the otoscope that wrote it"
        )
    return root


def nothing_at(url: str) -> bool:
    """Whether a store may be made at the url. Object stores have no folders: there, no zarr.json is nothing."""
    if "://" not in url:
        path = Path(url)
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))
    try:
        zarr.open_group(url, mode="r", use_consolidated=False)
    except FileNotFoundError:
        return True
    return False


def task_names(root: zarr.Group) -> list[str]:
    """Names of the tasks, sorted; a group without a plan is none."""
    return [name for name in names_in(root) if "plan" in _about(root, name)]


def read_identity(root: zarr.Group) -> Identity:
    """The store's identity. Raises ValueError where it does not match its digest."""
    about = _about(root, "")
    if digest_of(about["identity"]) != about.get("identity_digest"):
        raise ValueError(f"the identity of {root.store_path} does not match its digest; its zarr.json is damaged")
    return Identity.from_json(about["identity"])


def refuse_name(task: str) -> None:
    """Raise ValueError for a name that no task can have."""
    if not TASK_NAME.fullmatch(task):
        raise ValueError(f"{task!r} cannot name a task; expected a word without '/' and ':' that starts with no dot")


def read_plan(root: zarr.Group, task: str) -> Plan | None:
    """A task's plan; None where the task does not exist.

    Raises ValueError for a name that no task can have, and for a plan that does not match its digest.
    """
    refuse_name(task)
    about = _about(root, task)
    if "plan" not in about:
        return None
    if digest_of(about["plan"]) != about.get("plan_digest"):
        raise ValueError(f"the plan of task {task} does not match its digest; its zarr.json is damaged")
    return Plan.from_json(about["plan"])


def open_task(root: zarr.Group, task: str) -> tuple[zarr.Group, Plan]:
    """A task's group and plan. Raises LookupError naming the tasks that exist."""
    plan = read_plan(root, task)
    if plan is None:
        names = ", ".join(task_names(root)) or "none yet"
        raise LookupError(f"no task {task!r} in {root.store_path}; it holds {names}")
    # Not root[task]: that would read the consolidated copy, which is stale while a task is being changed.
    mode: Mode = "r" if root.read_only else "r+"
    return zarr.open_group(root.store, path=task, mode=mode, use_consolidated=False), plan


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group that the format says is there. Raises ValueError where it is not, or is damaged."""
    try:
        array = group[name]
    except (ValueError, LookupError, TypeError) as e:
        raise ValueError(f"{group.path}/{name} is missing or damaged ({one_line(e)}); run `otoscope verify`") from e
    assert isinstance(array, zarr.Array)
    return array.with_config({"write_empty_chunks": True})  # an absent object is damage, so none may be left out


def values_of(group: zarr.Group, name: str, where: Any = ...) -> np.ndarray:
    """Values of an array, or of a selection of it. Raises ValueError naming the array where they are damaged."""
    try:
        return np.asarray(array_of(group, name)[where])
    except (ValueError, RuntimeError) as e:
        raise ValueError(
            f"{group.path}/{name} is damaged ({one_line(e)}); expected intact checksums: `otoscope verify` says what "
            "is damaged and what to do"
        ) from e


def arrays_of(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """All arrays of a group, by name. Raises ValueError where their metadata are damaged."""
    # One by one: zarr's own listing leaves unfinished tasks behind where one of them cannot be read.
    names = [name for name in names_in(group) if _document(group, f"{name}/zarr.json") is not None]
    return {name: array_of(group, name) for name in names}


def digested_in(group: zarr.Group) -> list[str]:
    """Names of a task's arrays that a block's digests cover, in their order."""
    names = array_of(group, "digest").attrs["digested"]
    if not isinstance(names, list):
        raise ValueError(f"{group.path}/digest names no arrays; its zarr.json is damaged")
    return [str(name) for name in names]


def dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Names of an array's dimensions, in disk order."""
    return tuple(array.metadata.dimension_names)  # type: ignore[union-attr, arg-type]


def object_keys(array: zarr.Array[Any], block: Block | None = None) -> list[str]:
    """Keys, relative to the store, of the objects of an array that hold a block, or of all of them."""
    grid = []
    for name, n, size in zip(dims_of(array), array.shape, array.shards or array.chunks, strict=True):
        if block is not None and name == "clip":
            grid.append(range(block.start // size, (block.stop - 1) // size + 1))
        elif block is not None and name == "block":
            grid.append(range(block.index, block.index + 1))
        else:
            grid.append(range(-(-n // size)))
    return [f"{array.path}/{array.metadata.encode_chunk_key(at)}" for at in itertools.product(*grid)]


def metadata_digest(group: zarr.Group) -> str:
    """SHA-256 over the metadata of all arrays of a task, as written: a changed byte in one of their files shows."""
    found = {name: _document(group, f"{name}/zarr.json") for name in names_in(group)}
    return digest_of({name: document for name, document in found.items() if document is not None})


def consolidated_digest(group: zarr.Group) -> str:
    """The same over the consolidated copy in the group's own metadata."""
    document = _document(group, "zarr.json") or {}
    return digest_of(document.get("consolidated_metadata", {}).get("metadata"))


def root_copy_is_current(root: zarr.Group, task: str) -> bool:
    """Whether the root's consolidated copy tells of a task what its own group does."""
    copies = (_document(root, "zarr.json") or {}).get("consolidated_metadata", {}).get("metadata", {})
    own = _document(root, f"{task}/zarr.json") or {}
    return bool(copies.get(task, {}).get("attributes") == own.get("attributes"))


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _about(root: zarr.Group, name: str) -> dict[str, Any]:
    """Our attributes of the root ("") or of a task, read from the file itself: consolidated copies may be stale."""
    document = _document(root, f"{name}/zarr.json".lstrip("/")) or {}
    about = document.get("attributes", {}).get(KEY)
    return about if isinstance(about, dict) else {}


def names_in(group: zarr.Group) -> list[str]:
    """What lies in a group, sorted, read or not: arrays, groups, its own zarr.json, debris."""

    async def collect() -> list[str]:
        return [name async for name in group.store.list_dir(group.path)]

    return sorted(sync(collect()))


def _document(group: zarr.Group, name: str) -> dict[str, Any] | None:
    """A JSON file of a group as it is written, None where there is none."""
    key = f"{group.path}/{name}".lstrip("/")
    buffer = sync(group.store.get(key, default_buffer_prototype()))
    if buffer is None:
        return None
    try:
        document = json.loads(buffer.to_bytes())
    except ValueError as e:
        raise ValueError(f"{key} is damaged ({one_line(e)}); expected JSON as it was written") from e
    if not isinstance(document, dict):
        raise ValueError(f"{key} is damaged; expected a JSON object")
    return document
