"""Open the groups of a store and read their metadata: what writer, reader and verify share.

Goal: few requests, since on an object store each costs a round trip: one document for the root, one for a task, which
describes all its arrays.
Conventions: our attributes lie under one key, "otoscope", of the root group and of each task's group. A document is a
group's or an array's zarr.json.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.storage import LocalStore, StorePath, WrapperStore

from ..documents import MAX_BYTES, check_size, parse_json
from ..messages import CONTROLS, one_line
from .arrays import metadata_of
from .blocks import Block
from .direct import (
    CRC_BYTES,
    FREE_NAMES,
    check_names,
    decoded,
    is_packed,
    max_object_bytes,
    read_strings,
    string_objects,
)
from .labels import LABEL_PREFIX, encode
from .location import Unreachable, zarr_store
from .objects import get, get_bounded, names_in
from .provenance import Plan, TaskRecord, differences, digest_of, digest_of_parts
from .schema import FORMAT_VERSION, MAX_NAME_BYTES, PENDING, check_label_name

KEY = "otoscope"
TASK_NAME = re.compile(rf"(?!__)[^/\\:\s.{CONTROLS}][^/\\:\t\n{CONTROLS}]*")
MAX_ASKED = 256  # blocks up to which each is asked for its status; of more, those that there are, are listed first
MAX_TASK_BYTES = 2**22  # of a document but the root's, which holds the others' metadata, and a lock

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
    except (LookupError, ValueError, TypeError, AssertionError, AttributeError) as e:
        raise ValueError(
            f"{url} is not an otoscope store, or its zarr.json is damaged ({one_line(e)}); "
            "expected a folder made by `otoscope extract`: choose another path"
        ) from e
    if not isinstance(about, dict) or "format" not in about:
        raise ValueError(
            f"{url} is a Zarr group without otoscope's attributes; expected a store made by `otoscope extract`"
        )
    version, ours = str(about["format"])[:40], FORMAT_VERSION
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
    """Names of the tasks, sorted; a group that is none of ours is none."""
    return [name for name, document in task_documents(root) if about_in(document)]


def task_documents(root: zarr.Group) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and own document of everything in a root that has one, sorted by name."""
    for name in names_in(root.store, ""):
        document = task_document(root.store, name) if name != "zarr.json" else None
        if document is not None:
            yield name, document


def check_task_name(task: str) -> None:
    """Raise ValueError for a name that no task can have."""
    if not TASK_NAME.fullmatch(task) or len(task.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"{task!r} cannot name a task; expected at most 200 bytes without '/', '\\' and ':', and no dot first"
        )


def read_record(root: zarr.Group, task: str) -> TaskRecord | None:
    """What a task's document says of it; None where the task does not exist.

    Raises ValueError for a name that no task can have, and for a document that does not match its digests.
    """
    check_task_name(task)
    return record_in(task, task_document(root.store, task))


def record_in(task: str, document: dict[str, Any] | None) -> TaskRecord | None:
    """What a task's document says of it, None where there is none. Raises ValueError where it is damaged."""
    about = about_in(document)
    if document is None or not about:
        return None
    try:
        record = TaskRecord.from_json(about)
        for name, label in record.labels.items():
            check_label_name(name)
            if not re.fullmatch(re.escape(LABEL_PREFIX + name) + r"(\.\d+)?", label.array):
                raise ValueError(f"its label column {name!r} is said to be in {label.array!r}")
        if not {label.array for label in record.labels.values()} <= set(copies_in(document) or ()):
            raise ValueError("its document names label columns that it does not describe")
        if digest_of(copies_in(document)) != record.metadata:
            raise ValueError("the arrays' metadata in it do not match their digest; its zarr.json is damaged")
        expected = metadata_of(record.identity, record.plan, [label.array for label in record.labels.values()])
        if copies_in(document) != expected:
            raise ValueError(f"its arrays are not those of its plan: {differences(copies_in(document), expected)[0]}")
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise ValueError(f"task {task} is damaged: {one_line(e)}; `otoscope verify` says what to do") from e
    return record


def open_task(root: zarr.Group, task: str) -> tuple[zarr.Group, TaskRecord]:
    """A task's group and what its document says, as they were at one moment.

    Raises LookupError naming the tasks that exist, ValueError as `read_record`. Both come from one document, whose copy
    of the arrays' metadata changes together with the plan.
    """
    check_task_name(task)
    found = task_at(root.store, task)
    if found is None:
        names = ", ".join(task_names(root)) or "none yet"
        raise LookupError(f"no task {task!r} in {root.store_path}; it holds {names}")
    return found


def task_at(store: Store, task: str) -> tuple[zarr.Group, TaskRecord] | None:
    """A task's group and record as in `open_task`, by one request; None where there is no such task."""
    document = task_document(store, task)
    record = record_in(task, document)
    if document is None or record is None:
        return None
    about = {"attributes": {KEY: about_in(document)}, "zarr_format": 3, "node_type": "group"}
    copies = {"kind": "inline", "must_understand": False, "metadata": copies_in(document)}
    return _group(store, task, {**about, "consolidated_metadata": copies}), record


class Bounded(WrapperStore[Store]):
    """A store from which one array is read: no object of it is larger than the array's can be, and all are there.

    An absent one would read as fill values, which would be inactive neurons that nobody measured.
    """

    def __init__(self, store: Store, max_bytes: int = 0, plain_bytes: int = 0, absent: bool = False) -> None:
        """max_bytes: of an object. plain_bytes: of what it decodes to, where it is compressed.

        absent: whether objects may be absent.
        """
        super().__init__(store)
        self.max_bytes, self.plain_bytes, self.absent = max_bytes, plain_bytes, absent

    def _with_store(self, store: Store) -> "Bounded":
        return Bounded(store, self.max_bytes, self.plain_bytes, self.absent)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of an object. Raises FileNotFoundError where there is none, ValueError for one that is too large."""
        if byte_range is None:
            found = await get_bounded(self._store, key, prototype, self.max_bytes)
        else:
            if isinstance(byte_range, RangeByteRequest):
                check_size(byte_range.end - byte_range.start, self.max_bytes)
            found = await super().get(key, prototype, byte_range)
        if found is None and not self.absent:
            raise FileNotFoundError(
                f"{key} is missing from {self._store}; expected every committed object: `otoscope verify` lists what "
                "is missing and says what to do"
            )
        if found is not None and self.plain_bytes:
            decoded(found.to_bytes()[:-CRC_BYTES], self.plain_bytes)
        return found

    def __str__(self) -> str:
        return str(self._store)


def bounded(array: zarr.Array[Any], absent: bool = False) -> zarr.Array[Any]:
    """The same array to be read: an object that is too large, or absent where that is not allowed, is an error."""
    metadata: Any = array.metadata
    plain_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize if is_packed(array) else 0
    store = Bounded(array.store_path.store, max_object_bytes(array), plain_bytes, absent)
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(store, array.path)))


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group that the format says is there. Raises ValueError where it is not, or is damaged."""
    try:
        array = group[name]
    except (ValueError, LookupError, TypeError) as e:
        raise ValueError(f"{group.path}/{name} is missing or damaged ({one_line(e)}); run `otoscope verify`") from e
    assert isinstance(array, zarr.Array)
    return array.with_config({"write_empty_chunks": True})  # an absent object is damage, so none may be left out


def values_of(group: zarr.Group, name: str, where: Any = ..., absent: bool = False) -> np.ndarray:
    """Values of an array, or of a selection of it. Raises as `array_of` and `reading` do.

    absent: whether objects may be missing, as those of pending blocks are; they read as fill values.
    """
    array = array_of(group, name)
    with reading(f"{group.path}/{name}"):
        if array.dtype.kind == "T":
            return np.array(read_strings(array, slice(None) if where is ... else where), dtype=object)
        return np.asarray(bounded(array, absent)[where])


def status_of(group: zarr.Group, plan: Plan) -> np.ndarray:
    """Status uint8 (clip), pending where no object is. Raises as `values_of`.

    Of many blocks only the objects that there are, are read: a plan may name any number.
    """
    n_blocks = -(-plan.n_clips // plan.block)
    if n_blocks <= MAX_ASKED:
        return values_of(group, "status", slice(plan.n_clips), absent=True)
    status = np.full(plan.n_clips, PENDING, "uint8")
    found = np.array(sorted(blocks_in(group, "status", plan)), np.int64)
    for run in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1) if len(found) else ():
        where = slice(int(run[0]) * plan.block, min((int(run[-1]) + 1) * plan.block, plan.n_clips))
        status[where] = values_of(group, "status", where, absent=True)
    return status


def blocks_in(group: zarr.Group, name: str, plan: Plan) -> set[int]:
    """Numbers of the blocks of which an array whose first axis they are has an object."""
    numbers = (int(n) for n in names_in(group.store, f"{group.path}/{name}/c") if n.isascii() and n.isdecimal())
    return {n for n in numbers if n < -(-plan.n_clips // plan.block)}


def column_of(group: zarr.Group, name: str, digest: str) -> list[str]:
    """Names or labels, whole. Raises as `values_of`, and ValueError where they do not match a digest."""
    array = array_of(group, name)
    with reading(f"{group.path}/{name}"):
        column = read_strings(array)
    _check_digest(group, name, digest_of(column), digest)
    return column


def check_named(group: zarr.Group, plan: Plan) -> None:
    """Raise ValueError where a plan names more clips than the names' stored bytes can, before as much is read."""
    if plan.n_clips > FREE_NAMES:
        with reading(f"{group.path}/clip"):
            check_names(array_of(group, "clip"), plan.n_clips, array_of(group, "clip").nbytes_stored())


def categories_of(group: zarr.Group, name: str, digest: str) -> list[str]:
    """Categories of a column of labels, which is never in memory whole: a plan may name any number of clips.

    Raises as `column_of`.
    """
    array, found = array_of(group, name), dict[str, None]()
    (n,), (size,) = array.shape, array.chunks

    def parts() -> Iterator[list[str]]:
        for start, strings in zip(range(0, n, size), string_objects(array, range(-(-n // size))), strict=True):
            found.update(dict.fromkeys(strings[: n - start]))
            yield strings[: n - start]

    with reading(f"{group.path}/{name}"):
        own = digest_of_parts(parts())
    _check_digest(group, name, own, digest)
    return encode(list(found))[1]


def _check_digest(group: zarr.Group, name: str, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"{group.path}/{name} is damaged (its values are others than those that were written); expected those of "
            "the digest in the task's zarr.json: `otoscope verify` says what to do"
        )


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise ValueError naming what is damaged for all that zarr and its codecs raise; absent and unreachable stay."""
    try:
        yield
    except (FileNotFoundError, Unreachable):
        raise
    except (ValueError, RuntimeError, OSError, MemoryError) as e:
        raise ValueError(
            f"{what} is damaged ({one_line(e)}); expected intact checksums: `otoscope verify` says what is damaged and "
            "what to do"
        ) from e


def arrays_of(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """All arrays that a task's document names, by name. Raises ValueError where their metadata are damaged."""
    copies = group.metadata.consolidated_metadata
    assert copies is not None  # `record_in` has looked
    # One by one: zarr's own listing leaves unfinished tasks behind where one of them cannot be read.
    return {name: array_of(group, name) for name in sorted(copies.metadata)}


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


def copies_in(document: dict[str, Any]) -> Any:
    """The metadata of a task's arrays as its own document has them, by name."""
    found = document.get("consolidated_metadata")
    return found.get("metadata") if isinstance(found, dict) else None


def about_in(document: dict[str, Any] | None) -> dict[str, Any]:
    """Our attributes in a document, empty where there are none."""
    attributes = (document or {}).get("attributes")
    about = attributes.get(KEY) if isinstance(attributes, dict) else None
    return about if isinstance(about, dict) else {}


def task_document(store: Store, task: str) -> dict[str, Any] | None:
    """A task's own document, as `document_at`."""
    return document_at(store, f"{task}/zarr.json")


def document_at(store: Store, key: str) -> dict[str, Any] | None:
    """A JSON object as it is written, None where there is none. Raises ValueError where it is damaged."""
    try:
        large = key == "zarr.json" or "/lock." in key
        data = get(store, key, MAX_BYTES if large else MAX_TASK_BYTES)
        if data is None:
            return None
        document = parse_json(data, finite=True)
    except ValueError as e:
        raise ValueError(
            f"{key} is damaged ({one_line(e)}); expected JSON as it was written: `otoscope verify` says what to do"
        ) from e
    if not isinstance(document, dict):
        raise ValueError(f"{key} is damaged; expected a JSON object: `otoscope verify` says what to do")
    return document
