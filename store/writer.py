"""Create a store, add tasks and clips, write blocks, commit. FORMAT.md is the norm; this is the only file that writes.

Goal: whatever happens, a store holds whole committed blocks and nothing else that counts.
Conventions: values are in disk order (see schema.py), without padding. A root exists if and only if it has an
identity, a task if and only if its group has a plan, a block if and only if its status is written; each is therefore
written last.
Contents: `ClipTable`, `create`, `add_task`, `add_labels`, `pending_blocks`, `reset_block`, `write_block`,
`digest_values`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.sync import sync

from .blocks import Block, blocks
from .group import (
    KEY,
    array_of,
    digested_in,
    dims_of,
    metadata_digest,
    names_in,
    nothing_at,
    object_keys,
    open_root,
    open_task,
    read_identity,
    read_plan,
    root_copy_is_current,
    values_of,
)  # fmt: skip
from .labels import LABEL_PREFIX, decode, encode
from .provenance import Identity, Plan, digest_of
from .schema import FORMAT_VERSION, PENDING, STRING, ArraySpec, template


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """The clips of a task: their names, where they come from, their label columns."""

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
        return digest_of(
            [list(self.name), list(self.path), np.nan_to_num(self.start, nan=-1).tolist(),
             np.nan_to_num(self.stop, nan=-1).tolist()]
        )  # fmt: skip

    def head(self, n: int) -> "ClipTable":
        """The first n clips."""
        return ClipTable(
            name=self.name[:n], path=self.path[:n], start=self.start[:n], stop=self.stop[:n],
            labels={k: v[:n] for k, v in self.labels.items()},
        )  # fmt: skip


def create(url: str, identity: Identity) -> None:
    """Make the store, or check that an existing one has this identity.

    Raises ValueError naming the fields that differ, or when something else lies at the url.
    """
    if nothing_at(url):
        about = {"format": FORMAT_VERSION, "identity": identity.to_json()}
        about["identity_digest"] = digest_of(about["identity"])
        _consolidate(zarr.create_group(url, zarr_format=3, attributes={KEY: about}))
        return
    differences = identity.differences(read_identity(open_root(url)))
    if differences:
        raise ValueError(
            f"{url} holds activations of another identity ({'; '.join(differences)}); "
            "expected the same encoder and options: choose another store"
        )


def add_task(url: str, task: str, plan: Plan, clips: ClipTable) -> None:
    """Make a task's arrays, or append clips to an existing task, or check that nothing is to be added.

    Appending: the stored clips come first, in the same order. A partial last block goes back to pending, so that a
    grown store equals one built at once.
    Raises ValueError where the stored plan, clips or labels differ.
    """
    root = open_root(url)
    stored = read_plan(root, task)
    if stored is None or (stored != plan and not _has_commits(root, task)):
        _make_task(root, task, plan, clips)
        return
    group, _ = open_task(root, task)
    _refuse_other_plan(url, task, stored, plan)
    _refuse_other_clips(url, task, stored, clips)
    columns = _refuse_other_labels(url, task, group, clips.head(stored.n_clips))
    if len(clips) > stored.n_clips:
        _grow_task(root, group, stored, plan, clips, columns)
    elif not root_copy_is_current(root, task):  # the writer of the plan was killed before it came to that
        _consolidate(root)


def _has_commits(root: zarr.Group, task: str) -> bool:
    """Whether a task has a committed block: one without may be planned anew."""
    group, _ = open_task(root, task)
    return bool((values_of(group, "status") != PENDING).any())


def _make_task(root: zarr.Group, task: str, plan: Plan, clips: ClipTable) -> None:
    if task in root:
        del root[task]  # begun and never finished, or planned and nothing committed
    group = root.create_group(task)
    identity = read_identity(root)
    coded = {name: encode(column) for name, column in clips.labels.items()}
    specs = template(identity, plan, {name: categories for name, (_, categories) in coded.items()})
    for name, spec in specs.items():
        _create_array(group, name, spec)
    widths = np.array([width for _, width in identity.sites])
    _write(group, "layer", np.arange(len(widths)))
    _write(group, "site", [name for name, _ in identity.sites])
    _write(group, "neuron", np.arange(identity.n_neurons))
    _write(group, "neuron_valid", np.arange(identity.n_neurons) < widths[:, None])
    _write_clips(group, clips)
    for name, (codes, _) in coded.items():
        _write(group, LABEL_PREFIX + name, codes)
    _finish(root, group, plan)


def _grow_task(
    root: zarr.Group,
    group: zarr.Group,
    stored: Plan,
    plan: Plan,
    clips: ClipTable,
    columns: Mapping[str, list[str]],
) -> None:
    whole = stored.n_clips // stored.block * stored.block
    if whole < stored.n_clips:
        array_of(group, "status")[whole:] = PENDING
    added = slice(stored.n_clips, None)
    coded = {
        name: encode([*column, *clips.labels.get(name, [""] * len(clips))[added]]) for name, column in columns.items()
    }
    specs = template(read_identity(root), plan, {name: categories for name, (_, categories) in coded.items()})
    for name, spec in sorted(specs.items(), key=lambda item: item[0] == "status"):  # status last
        array_of(group, name).resize(spec.shape)
    _write_clips(group, clips)
    for name, (codes, categories) in coded.items():
        _write_label(group, name, codes, categories)
    _finish(root, group, plan)


def add_labels(url: str, task: str, columns: Mapping[str, Sequence[str]], *, overwrite: bool = False) -> None:
    """Add label columns (one string per clip, "" for none) to a task.

    Raises ValueError for a column that exists with other values, unless `overwrite`.
    """
    root = open_root(url)
    group, plan = open_task(root, task)
    for name, column in columns.items():
        if LABEL_PREFIX + name in names_in(group) and not overwrite and _read_label(group, name) != list(column):
            raise ValueError(
                f"{url} task {task} has a label column {name!r} with other values; expected a new name, "
                "or --replace to overwrite it"
            )
    for name, column in columns.items():
        codes, categories = encode(column)
        if LABEL_PREFIX + name not in names_in(group):
            specs = template(read_identity(root), plan, {name: categories})
            _create_array(group, LABEL_PREFIX + name, specs[LABEL_PREFIX + name])
        _write_label(group, name, codes, categories)
    _finish(root, group, plan)


def pending_blocks(url: str, task: str) -> list[Block]:
    """Blocks that are not committed, in order."""
    group, plan = open_task(open_root(url), task)
    status = values_of(group, "status")
    return [b for b in blocks(task, plan.n_clips, plan.block) if (status[b.clips] == PENDING).any()]


def reset_block(url: str, block: Block) -> None:
    """Put a block back to pending, so that the next run extracts it again."""
    group, _ = open_task(open_root(url), block.task)
    array_of(group, "status")[block.clips] = PENDING


def write_block(url: str, block: Block, values: Mapping[str, np.ndarray], status: np.ndarray, version: str) -> None:
    """Write a block's values and commit it: objects, then their digests, then the status.

    values: every kept variable, `reason` and `audio_digest`, in disk order, restricted to the block's clips.
    status: uint8 (clip), `OK` or `FAILED`. Writing the same block again gives the same bytes.
    """
    group, _ = open_task(open_root(url), block.task)
    digested = digested_in(group)
    if set(digested) != set(values):
        raise ValueError(f"block {block.index} brings {sorted(values)}; the plan keeps {sorted(digested)}")
    if status.shape != (len(block),) or (status == PENDING).any():
        raise ValueError(f"block {block.index} brings no final status for each of its {len(block)} clips")
    for name in digested:
        array = array_of(group, name)
        region = tuple(block.clips if dim == "clip" else slice(None) for dim in dims_of(array))
        try:
            array[region] = values[name]
        except (ValueError, RuntimeError):
            # zarr reads a shard before it replaces it, and a damaged one cannot be read
            for key in object_keys(array, block):
                sync(array.store_path.store.delete(key))
            array[region] = values[name]
    array_of(group, "digest")[block.index] = np.array(
        [digest_values(values[name]) for name in digested], dtype="uint32"
    )
    array_of(group, "version")[block.index] = version
    array_of(group, "status")[block.clips] = status


def digest_values(values: np.ndarray) -> int:
    """CRC-32C of an array's values: little-endian, C order; strings as UTF-8 joined by NUL."""
    if values.dtype.kind in "TOU":
        return int(google_crc32c.value("\0".join(map(str, values)).encode()))
    crc = 0
    for part in values if values.ndim > 1 else [values]:
        little = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
        crc = google_crc32c.extend(crc, little.tobytes())
    return int(crc)


def _create_array(group: zarr.Group, name: str, spec: ArraySpec) -> None:
    packing = [ZstdCodec(level=1)] if spec.compressed else []
    group.create_array(
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


def _write(group: zarr.Group, name: str, values: Any) -> None:
    array = array_of(group, name)
    array[:] = np.asarray(values, dtype=array.dtype)


def _write_clips(group: zarr.Group, clips: ClipTable) -> None:
    _write(group, "clip", clips.name)
    _write(group, "path", clips.path)
    _write(group, "start", clips.start)
    _write(group, "stop", clips.stop)


def _write_label(group: zarr.Group, name: str, codes: np.ndarray, categories: list[str]) -> None:
    array_of(group, LABEL_PREFIX + name).attrs.put({"categories": categories})
    _write(group, LABEL_PREFIX + name, codes)


def _read_label(group: zarr.Group, name: str) -> list[str]:
    categories = array_of(group, LABEL_PREFIX + name).attrs["categories"]
    return list(decode(values_of(group, LABEL_PREFIX + name), categories))  # type: ignore[arg-type]


def _finish(root: zarr.Group, group: zarr.Group, plan: Plan) -> None:
    """Seal a task's metadata, the plan last, and refresh the copies that plain xarray reads."""
    about: dict[str, Any] = {
        "plan": plan.to_json(),
        "plan_digest": digest_of(plan.to_json()),
        "metadata_digest": metadata_digest(group),
    }
    _consolidate(group)
    # Opened with its consolidated copy, so that plan and copy are written at once, never one without the other.
    zarr.open_group(group.store, path=group.path, mode="r+", use_consolidated=True).attrs.put({KEY: about})
    _consolidate(root)


def _consolidate(group: zarr.Group) -> None:
    with warnings.catch_warnings():  # plain xarray wants consolidated metadata; zarr warns that v3 has no word on it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(group.store, path=group.path)


def _refuse_other_plan(url: str, task: str, stored: Plan, plan: Plan) -> None:
    differences = replace(plan, n_clips=stored.n_clips, names=stored.names).differences(stored)
    if differences:
        raise ValueError(
            f"{url} task {task} was planned otherwise ({'; '.join(differences)}); "
            "expected the same options as at its first extraction: leave them out, or choose another task name"
        )


def _refuse_other_clips(url: str, task: str, stored: Plan, clips: ClipTable) -> None:
    if len(clips) < stored.n_clips or clips.head(stored.n_clips).digest != stored.names:
        raise ValueError(
            f"{url} task {task} holds {stored.n_clips} clips that the manifest does not begin with "
            f"(it has {len(clips)}, the first {clips.name[0]!r}); to append, list the stored clips first, in the same "
            "order and from the same audio root; for other clips choose another task name"
        )


def _refuse_other_labels(url: str, task: str, group: zarr.Group, clips: ClipTable) -> dict[str, list[str]]:
    stored = {n.removeprefix(LABEL_PREFIX): n for n in names_in(group) if n.startswith(LABEL_PREFIX)}
    columns = {name: _read_label(group, name) for name in sorted(stored)}
    for name, column in clips.labels.items():
        if columns.get(name) != list(column):
            what = "has other values for" if name in columns else "lacks"
            raise ValueError(
                f"{url} task {task} {what} the manifest's label column {name!r}; "
                f"expected the labels of its first extraction: change them with `otoscope label {url} --task {task}`"
            )
    return columns
