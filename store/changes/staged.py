"""Staged changes: a task's group made in memory, every metadata document and every value that belongs to no block.

Goal: what creating, appending and labelling write is known, to the byte, before anything is written, so that one who
was killed and begins again writes the same.
Conventions: a staged change maps keys of the store to bytes; the task's own document, TASK/zarr.json, is the one that
decides.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.storage import MemoryStore

from ..arrays import check_sizes, create_array
from ..direct import check_strings
from ..group import KEY, MAX_TASK_BYTES, about_in
from ..provenance import Identity, Plan, StoredLabel, TaskRecord, digest_of, tolerance
from ..schema import FORMAT_VERSION, STRING, anatomy_values, template
from ..writer import digest_values

NEW = "new"  # the state of a task without a plan
Staged = dict[str, bytes]
CHECK_TOLERANCE = 1e-3  # of the largest value: devices and libraries move float32 by a hundredth of that
FLOOR = 1e-6  # below it values are rounding alone


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """What the numbers of a task come from."""

    identity: Identity
    source: str = ""
    """Digest of the file that the encoder was made by, "" where it is none of the user's."""
    check: np.ndarray
    """Embedding of a fixed sound, then the mean over its frames of each site, float32 (check_value)."""

    def differences(self, other: "Origin") -> list[str]:
        """What differs, as `Identity.differences`; of a fixed sound what rounding does not explain."""
        found = self.identity.differences(other.identity)
        if found:
            return found
        return list(filter(None, [self.moved(other.check, tolerance(self.identity.precision, CHECK_TOLERANCE))]))

    def moved(self, check: np.ndarray, max_off: float) -> str:
        """What of a fixed sound is off from another `check` by more than `max_off` of its largest value, or ""."""
        names = ["the embedding", *(f"site {name}" for name, _ in self.identity.sites)]
        edges = np.cumsum([self.identity.embedding, *(width for _, width in self.identity.sites)])[:-1]
        for name, ours, theirs in zip(names, np.split(self.check, edges), np.split(check, edges), strict=True):
            largest = max(float(np.nanmax(np.abs(theirs), initial=0.0)), FLOOR)
            off = np.where(np.isnan(ours) & np.isnan(theirs), 0, np.abs(ours - theirs)).max(initial=0.0) / largest
            if not off <= max_off:  # a value beside NaN moves by NaN
                return f"{name} of a fixed sound differs by {off:.2g} of its largest value, beyond {max_off:.2g}"
        return ""


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """The clips of a task as the store records them: names, sources and label columns, one row per clip in order.

    Without the audio root, which may differ from machine to machine.
    """

    name: Sequence[str]
    path: Sequence[str]
    """Relative to the audio root, "/" between parts."""
    start: np.ndarray
    """Seconds into the file, NaN where the clip begins with it."""
    stop: np.ndarray
    """Seconds into the file, NaN where the clip ends with it."""
    prompt: Sequence[str] | None = None
    """What a model is asked about each clip, where it is asked anything."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """One string per clip and column, "" where it has no label."""

    def __len__(self) -> int:
        return len(self.name)

    @property
    def digests(self) -> dict[str, str | None]:
        """The plan's digests of the clips: `names`, `sources` and `prompts`."""
        times = [np.nan_to_num(seconds, nan=-1).tolist() for seconds in (self.start, self.stop)]
        prompts = None if self.prompt is None else digest_of(list(self.prompt))
        return {
            "names": digest_of(list(self.name)), "sources": digest_of([list(self.path), *times]), "prompts": prompts,
        }  # fmt: skip

    def match(self, plan: Plan) -> bool:
        """Whether these are the clips of a plan."""
        return self.digests == {"names": plan.names, "sources": plan.sources, "prompts": plan.prompts}

    def head(self, n: int) -> "ClipTable":
        """The first n clips."""
        columns = {name: getattr(self, name)[:n] for name in ("name", "path", "start", "stop")}
        prompt = None if self.prompt is None else self.prompt[:n]
        labels = {name: column[:n] for name, column in self.labels.items()}
        return ClipTable(**columns, prompt=prompt, labels=labels)


def stage_task(task: str, origin: Origin, plan: Plan, clips: ClipTable, arrays: Mapping[str, str]) -> Staged:
    """A whole task without its blocks. arrays: names of the arrays of its label columns."""
    identity, check = origin.identity, np.asarray(origin.check, "f4")
    values: dict[str, Any] = {**anatomy_values(identity), "check": check}
    values |= {"clip": clips.name, "path": clips.path, "start": clips.start, "stop": clips.stop}
    values |= {} if clips.prompt is None else {"prompt": clips.prompt}
    record = TaskRecord(
        identity=identity, plan=plan, source=origin.source, check=digest_values(check), labels={}, metadata="",
    )  # fmt: skip
    record = replace(record, labels=described(clips.labels, arrays))
    return _stage(task, record, values | {arrays[name]: column for name, column in clips.labels.items()})


def stage_labels(
    task: str, record: TaskRecord, columns: Mapping[str, Sequence[str]], arrays: Mapping[str, str]
) -> Staged:
    """Label columns for an existing task, and its document. arrays: names of the arrays that the columns get."""
    labels = dict(sorted({**record.labels, **described(columns, arrays)}.items()))
    staged = _stage(task, replace(record, labels=labels), {arrays[name]: column for name, column in columns.items()})
    wanted = {f"{task}/{arrays[name]}/" for name in columns}
    return {key: data for key, data in staged.items() if key == f"{task}/zarr.json" or key.startswith(tuple(wanted))}


def stage_documents(task: str, record: TaskRecord) -> Staged:
    """Every metadata document of a task as it must be."""
    return {key: data for key, data in _stage(task, record, {}).items() if key.endswith("zarr.json")}


def described(columns: Mapping[str, Sequence[str]], arrays: Mapping[str, str]) -> dict[str, StoredLabel]:
    """What a task's document says of label columns."""
    return {name: StoredLabel(array=arrays[name], digest=digest_of(list(c))) for name, c in sorted(columns.items())}


def _stage(task: str, record: TaskRecord, values: Mapping[str, Any]) -> Staged:
    """The documents of all arrays and of the group, and the objects of those arrays whose values are given."""
    memory: dict[str, Buffer] = {}
    store = MemoryStore(memory)
    group = zarr.create_group(store, path=task, zarr_format=3)
    specs = template(record.identity, record.plan, (label.array for label in record.labels.values()))
    check_sizes(specs, record.plan.block)
    for name, spec in specs.items():
        array = create_array(group, name, spec)
        if name in values:
            array[...] = np.asarray(values[name], dtype=array.dtype)
            if spec.dtype == STRING:
                (size,) = spec.chunks
                keys = (f"{task}/{name}/c/{i}" for i in range(-(-len(values[name]) // size)))
                check_strings(name, values[name], size, [len(memory[key]) for key in keys])
    metadata = {name: json.loads(memory[f"{task}/{name}/zarr.json"].to_bytes()) for name in specs}
    group.attrs.put({KEY: replace(record, metadata=digest_of(metadata)).to_json()})
    _consolidate(store, task)
    if (n_bytes := len(memory[f"{task}/zarr.json"])) > MAX_TASK_BYTES:
        raise ValueError(
            f"the document of task {task} would have {n_bytes} bytes; expected at most {MAX_TASK_BYTES}: take fewer "
            "label columns, or shorter names of them"
        )
    return {key: memory[key].to_bytes() for key in sorted(memory) if key.startswith(f"{task}/")}


def root_document(tasks: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The root's zarr.json: the format, and a copy of the metadata of tasks, given by their documents."""
    memory: dict[str, Buffer] = {}
    store = MemoryStore(memory)
    zarr.create_group(store, zarr_format=3, attributes={KEY: {"format": FORMAT_VERSION}})
    for task, document in tasks.items():
        copies = document.get("consolidated_metadata", {}).get("metadata", {})
        for key, value in {"": document, **{f"/{name}": copy for name, copy in copies.items()}}.items():
            memory[f"{task}{key}/zarr.json"] = CpuBuffer.from_bytes(json.dumps(value).encode())
    _consolidate(store, "")
    return memory["zarr.json"].to_bytes()


def state_of(document: dict[str, Any] | None) -> str:
    """Digest, in hex, of what a task's document says of it; "new" where there is no task yet."""
    return str(about_in(document).get("digest", NEW))


def _consolidate(store: MemoryStore, path: str) -> None:
    with warnings.catch_warnings():  # plain xarray wants consolidated metadata; zarr warns that v3 has no word on it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store, path=path)
