"""Staged changes: a task's group made in memory, every metadata document and every value that belongs to no block.

Goal: what creating, appending and labelling write is known, to the byte, before anything is written, so that it can be
written by several at once, or by one that was killed and begins again, and be the same.
Conventions: a staged change maps keys of the store to bytes; the task's own document, TASK/zarr.json, is the one that
decides.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from ..group import KEY, about_in
from ..labels import LABEL_PREFIX, encode
from ..provenance import Identity, Plan, digest_of
from ..schema import STRING, ArraySpec, template

NEW = "new"  # the state of a task without a plan
Staged = dict[str, bytes]
Documents = Mapping[str, Mapping[str, Any]]  # metadata of arrays, by name


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
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """One string per clip and column, "" where it has no label."""

    def __len__(self) -> int:
        return len(self.name)

    @property
    def digest(self) -> str:
        """SHA-256 over names and sources, in order."""
        times = [np.nan_to_num(seconds, nan=-1).tolist() for seconds in (self.start, self.stop)]
        return digest_of([list(self.name), list(self.path), *times])

    def head(self, n: int) -> "ClipTable":
        """The first n clips."""
        sources = {name: getattr(self, name)[:n] for name in ("name", "path", "start", "stop")}
        return ClipTable(**sources, labels={name: column[:n] for name, column in self.labels.items()})


def stage_task(task: str, identity: Identity, plan: Plan, clips: ClipTable) -> Staged:
    """A whole task without its blocks."""
    widths = np.array([width for _, width in identity.sites])
    values = {
        "layer": np.arange(len(widths)),
        "site": [name for name, _ in identity.sites],
        "neuron": np.arange(identity.n_neurons),
        "neuron_valid": np.arange(identity.n_neurons) < widths[:, None],
        "clip": clips.name,
        "path": clips.path,
        "start": clips.start,
        "stop": clips.stop,
    }
    return _stage(task, identity, plan, clips.labels, values, {})


def stage_labels(
    task: str, identity: Identity, plan: Plan, columns: Mapping[str, Sequence[str]], documents: Documents
) -> Staged:
    """Label columns for an existing task whose arrays are described by `documents`, and the documents that change."""
    return _stage(task, identity, plan, columns, {}, documents)


def _stage(
    task: str, identity: Identity, plan: Plan, columns: Mapping[str, Sequence[str]], values: Mapping[str, Any],
    documents: Documents,
) -> Staged:  # fmt: skip
    """All arrays, with these values and label columns; only these columns beside the arrays of `documents`, if any."""
    coded = {name: encode(column) for name, column in columns.items()}
    values = {**values, **{LABEL_PREFIX + name: codes for name, (codes, _) in coded.items()}}
    specs = template(identity, plan, {name: categories for name, (_, categories) in coded.items()})
    if documents:
        specs = {name: specs[name] for name in values}
    kept = {name: document for name, document in documents.items() if name not in specs}
    memory: dict[str, Buffer] = {
        f"{task}/{name}/zarr.json": CpuBuffer.from_bytes(json.dumps(document).encode())
        for name, document in kept.items()
    }
    store = MemoryStore(memory)
    group = zarr.create_group(store, path=task, zarr_format=3)
    for name, spec in specs.items():
        array = _create_array(group, name, spec)
        if name in values:
            array[...] = np.asarray(values[name], dtype=array.dtype)
    metadata = {name: json.loads(memory[f"{task}/{name}/zarr.json"].to_bytes()) for name in {*kept, *specs}}
    fields = plan.to_json()
    about: dict[str, Any] = {"plan": fields, "plan_digest": digest_of(fields), "metadata_digest": digest_of(metadata)}
    group.attrs.put({KEY: about})
    _consolidate(store, task)
    ours = {key for key in memory if key.startswith(f"{task}/") and key.split("/")[1] not in kept}
    return {key: memory[key].to_bytes() for key in sorted(ours)}


def _create_array(group: zarr.Group, name: str, spec: ArraySpec) -> zarr.Array[Any]:
    packing = [ZstdCodec(level=1)] if spec.compressed else []
    return group.create_array(
        name,
        shape=spec.shape,
        dtype=np.dtypes.StringDType() if spec.dtype == STRING else spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        compressors=[*packing, Crc32cCodec()],
        serializer="auto"
        if spec.dtype == STRING or np.dtype(spec.dtype).itemsize == 1
        else BytesCodec(endian="little"),
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes=dict(spec.attrs),
        config={"write_empty_chunks": True},
    )


def root_document(about: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The root's zarr.json: our attributes, and a copy of the metadata of tasks, given by their documents."""
    memory: dict[str, Buffer] = {}
    store = MemoryStore(memory)
    zarr.create_group(store, zarr_format=3, attributes={KEY: dict(about)})
    for task, document in tasks.items():
        copies = document.get("consolidated_metadata", {}).get("metadata", {})
        for key, value in {"": document, **{f"/{name}": copy for name, copy in copies.items()}}.items():
            memory[f"{task}{key}/zarr.json"] = CpuBuffer.from_bytes(json.dumps(value).encode())
    _consolidate(store, "")
    return memory["zarr.json"].to_bytes()


def state_of(document: dict[str, Any] | None) -> str:
    """What a task's document says of its plan and arrays, as a digest in hex; "new" where there is no plan yet."""
    about = about_in(document)
    return digest_of(about) if "plan" in about else NEW


def _consolidate(store: MemoryStore, path: str) -> None:
    with warnings.catch_warnings():  # plain xarray wants consolidated metadata; zarr warns that v3 has no word on it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store, path=path)
