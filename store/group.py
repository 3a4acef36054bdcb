"""Open the groups of a store and read their metadata: what writer, reader and verify share.

Goal: few requests, since on an object store each costs a round trip: one document for the root, one for a task, which
describes all its arrays.
Conventions: our attributes lie under one key, "otoscope", of the root group and of each task's group. A document is a
group's or an array's zarr.json.
"""

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, StorePath

from ..messages import one_line
from .blocks import Block
from .location import Unreachable, zarr_store
from .objects import get, names_in
from .provenance import Identity, Plan, digest_of
from .schema import FORMAT_VERSION

KEY = "otoscope"
TASK_NAME = re.compile(r"(?!__)[^/:\s.][^/:]*")

Mode = Literal["r", "r+"]


def open_root(url: str, mode: Mode = "r+") -> zarr.Group:
    """Root group of an existing store.

    Raises FileNotFoundError where nothing is, ValueError for something else, a damaged one or another major version,
    OSError where it cannot be reached.
    """
    store = zarr_store(url)
    try:
        document = document_at(store, "zarr.json")
        if document is None and nothing_at(url):
            raise FileNotFoundError(f"no store at {url}; expected one made by `otoscope extract {url} ...`")
        if document is None:
            raise ValueError("it holds other things and no zarr.json")
        root = _group(store.with_read_only(mode == "r"), "", {**document, "consolidated_metadata": None})
        about = root.attrs.get(KEY)
    except (LookupError, ValueError, TypeError, AssertionError) as e:
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
    """Whether a store may be made at the url: nothing lies there but what a writer left that was killed."""
    store = zarr_store(url)
    if isinstance(store, LocalStore):
        path = Path(store.root)
        return not path.exists() or (path.is_dir() and all(found.suffix == ".partial" for found in path.iterdir()))
    return not names_in(store, "")


def _group(store: Store, path: str, document: dict[str, Any]) -> zarr.Group:
    """A group as a document describes it, nothing more being read."""
    return zarr.Group(zarr.AsyncGroup.from_dict(StorePath(store, path), dict(document)))


def task_names(root: zarr.Group) -> list[str]:
    """Names of the tasks, sorted; a group without a plan is none."""
    return [name for name, document in task_documents(root).items() if "plan" in about_in(document)]


def task_documents(root: zarr.Group) -> dict[str, dict[str, Any]]:
    """The own document of everything in a root, by name, sorted."""
    return _documents_in(root.store, "")


def read_identity(root: zarr.Group) -> Identity:
    """The store's identity. Raises ValueError where it does not match its digest."""
    about: Any = root.attrs[KEY]
    if digest_of(about["identity"]) != about.get("identity_digest"):
        raise ValueError(f"the identity of {root.store_path} does not match its digest; its zarr.json is damaged")
    return Identity.from_json(about["identity"])


def check_task_name(task: str) -> None:
    """Raise ValueError for a name that no task can have."""
    if not TASK_NAME.fullmatch(task):
        raise ValueError(f"{task!r} cannot name a task; expected a word without '/' and ':' that starts with no dot")


def read_plan(root: zarr.Group, task: str) -> Plan | None:
    """A task's plan; None where the task does not exist.

    Raises ValueError for a name that no task can have, and for a plan that does not match its digest.
    """
    check_task_name(task)
    return plan_of(task, task_document(root.store, task))


def plan_of(task: str, document: dict[str, Any] | None) -> Plan | None:
    """The plan in a task's document, None where there is none. Raises ValueError where it is damaged."""
    about = about_in(document)
    if "plan" not in about:
        return None
    if digest_of(about["plan"]) != about.get("plan_digest"):
        raise ValueError(f"the plan of task {task} does not match its digest; its zarr.json is damaged")
    return Plan.from_json(about["plan"])


def open_task(root: zarr.Group, task: str) -> tuple[zarr.Group, Plan]:
    """A task's group and plan, as they were at one moment. Raises LookupError naming the tasks that exist.

    Both come from one document, whose copy of the arrays' metadata changes together with the plan; where the copy
    is damaged, the arrays' own documents are read as they are asked for.
    """
    check_task_name(task)
    found = task_at(root.store, task)
    if found is None:
        names = ", ".join(task_names(root)) or "none yet"
        raise LookupError(f"no task {task!r} in {root.store_path}; it holds {names}")
    return found


def task_at(store: Store, task: str) -> tuple[zarr.Group, Plan] | None:
    """A task's group and plan as in `open_task`, by one request; None where there is no such task."""
    document = task_document(store, task)
    plan = plan_of(task, document)
    if document is None or plan is None:
        return None
    if copies_of(document) is None:
        document = {**document, "consolidated_metadata": None}
    return _group(store, task, document), plan


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group that the format says is there. Raises ValueError where it is not, or is damaged."""
    try:
        array = group[name]
    except (ValueError, LookupError, TypeError) as e:
        raise ValueError(f"{group.path}/{name} is missing or damaged ({one_line(e)}); run `otoscope verify`") from e
    assert isinstance(array, zarr.Array)
    return array.with_config({"write_empty_chunks": True})  # an absent object is damage, so none may be left out


def values_of(group: zarr.Group, name: str, where: Any = ...) -> np.ndarray:
    """Values of an array, or of a selection of it. Raises as `array_of` and `reading` do."""
    array = array_of(group, name)
    with reading(f"{group.path}/{name}"):
        return np.asarray(array[where])


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise ValueError naming what is damaged for all that zarr and its codecs raise; absent and unreachable stay."""
    try:
        yield
    except (FileNotFoundError, Unreachable):
        raise
    except (ValueError, RuntimeError, OSError) as e:
        raise ValueError(
            f"{what} is damaged ({one_line(e)}); expected intact checksums: `otoscope verify` says what is damaged and "
            "what to do"
        ) from e


def arrays_of(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """All arrays of a group, by name. Raises ValueError where their metadata are damaged."""
    copies = group.metadata.consolidated_metadata
    # One by one: zarr's own listing leaves unfinished tasks behind where one of them cannot be read.
    names = sorted(copies.metadata) if copies else list(array_documents(group))
    return {name: array_of(group, name) for name in names}


def array_documents(group: zarr.Group) -> dict[str, dict[str, Any]]:
    """Metadata of all arrays of a group as they are written, by name, sorted."""
    return _documents_in(group.store, f"{group.path}/")


def _documents_in(store: Store, prefix: str) -> dict[str, dict[str, Any]]:
    names = [name for name in names_in(store, prefix.rstrip("/")) if name != "zarr.json"]
    found = {name: document_at(store, f"{prefix}{name}/zarr.json") for name in names}
    return {name: document for name, document in found.items() if document is not None}


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


def copies_of(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The metadata of a task's arrays as its own document has them; None where they do not match their digest."""
    copies = ((document or {}).get("consolidated_metadata") or {}).get("metadata")
    return (
        copies if isinstance(copies, dict) and digest_of(copies) == about_in(document).get("metadata_digest") else None
    )


def about_in(document: dict[str, Any] | None) -> dict[str, Any]:
    """Our attributes in a document, empty where there are none."""
    about = ((document or {}).get("attributes") or {}).get(KEY)
    return about if isinstance(about, dict) else {}


def task_document(store: Store, task: str) -> dict[str, Any] | None:
    """A task's own document, as `document_at`."""
    return document_at(store, f"{task}/zarr.json")


def document_at(store: Store, key: str) -> dict[str, Any] | None:
    """A JSON object as it is written, None where there is none. Raises ValueError where it is damaged."""
    data = get(store, key)
    if data is None:
        return None
    try:
        document = json.loads(data)
    except ValueError as e:
        raise ValueError(f"{key} is damaged ({one_line(e)}); expected JSON as it was written") from e
    if not isinstance(document, dict):
        raise ValueError(f"{key} is damaged; expected a JSON object")
    return document
