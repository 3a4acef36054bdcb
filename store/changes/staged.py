"""A task's group drafted in memory: every metadata document and every value that belongs to no block.

Goal: what creating, appending and labelling write is known, to the byte, before anything is written, so that it can be
written by several at once, or by one that was killed and begins again, and be the same.
Conventions: a draft maps keys of the store to bytes; the task's own document, TASK/zarr.json, is the one that decides.
Contents: `Draft`, `draft_task`, `draft_labels`, `root_document`, `state_of`.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.core.buffer.cpu import Buffer as CpuBuffer
from zarr.storage import MemoryStore

from ..clips import ClipTable
from ..group import KEY
from ..labels import LABEL_PREFIX, encode
from ..provenance import Identity, Plan, digest_of
from ..schema import STRING, ArraySpec, template

NEW = "new"  # the state of a task without a plan
Draft = dict[str, bytes]
Documents = Mapping[str, Mapping[str, Any]]  # metadata of arrays, by name


def draft_task(task: str, identity: Identity, plan: Plan, clips: ClipTable) -> Draft:
    """A whole task without its blocks."""
    coded = {name: encode(column) for name, column in clips.labels.items()}
    specs = template(identity, plan, {name: categories for name, (_, categories) in coded.items()})
    widths = np.array([width for _, width in identity.sites])
    values: dict[str, Any] = {
        "layer": np.arange(len(widths)),
        "site": [name for name, _ in identity.sites],
        "neuron": np.arange(identity.n_neurons),
        "neuron_valid": np.arange(identity.n_neurons) < widths[:, None],
        "clip": clips.name, "path": clips.path, "start": clips.start, "stop": clips.stop,
        **{LABEL_PREFIX + name: codes for name, (codes, _) in coded.items()},
    }  # fmt: skip
    return _drafted(task, plan, {}, specs, values)


def draft_labels(
    task: str, identity: Identity, plan: Plan, documents: Documents, columns: Mapping[str, Sequence[str]]
) -> Draft:
    """Label columns for an existing task whose arrays are described by `documents`, and the documents that change."""
    coded = {name: encode(column) for name, column in columns.items()}
    specs = template(identity, plan, {name: categories for name, (_, categories) in coded.items()})
    names = [LABEL_PREFIX + name for name in coded]
    values = {LABEL_PREFIX + name: codes for name, (codes, _) in coded.items()}
    return _drafted(task, plan, documents, {name: specs[name] for name in names}, values)


def _drafted(
    task: str, plan: Plan, documents: Documents, specs: Mapping[str, ArraySpec], values: Mapping[str, Any]
) -> Draft:
    """New arrays of `specs` with their `values`, beside arrays of `documents`; the latter are not in the draft."""
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
    about: dict[str, Any] = {
        "plan": plan.to_json(),
        "plan_digest": digest_of(plan.to_json()),
        "metadata_digest": digest_of(metadata),
    }
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


def state_of(document: Mapping[str, Any] | None) -> str:
    """What a task's document says of its plan and arrays, as a digest in hex; "new" where there is no plan yet."""
    about = ((document or {}).get("attributes") or {}).get(KEY)
    return digest_of(about) if isinstance(about, dict) and "plan" in about else NEW


def _consolidate(store: MemoryStore, path: str) -> None:
    with warnings.catch_warnings():  # plain xarray wants consolidated metadata; zarr warns that v3 has no word on it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store, path=path)
