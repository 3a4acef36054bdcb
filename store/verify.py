"""Whether all that is committed can be read back as it was written.

Goal: damage is found by reading everything.
Conventions: damage is reported, not raised, one line for each thing found, so that one flipped byte does not hide
another.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from ..messages import one_line, visible
from .blocks import Block, blocks
from .changes.lock import describe, locks_on
from .changes.staged import ClipTable, root_document, stage_documents
from .direct import FREE_NAMES, can_read, read_shards, read_strings
from .folder import Folder
from .group import (
    about_in,
    array_of,
    arrays_of,
    blocks_in,
    bounded,
    copies_in,
    digested_in,
    dims_of,
    document_at,
    object_keys,
    open_root,
    open_task,
    record_in,
    task_document,
    task_documents,
    task_names,
    values_of,
)
from .labels import LABEL_PREFIX
from .location import Unreachable
from .objects import exist, names_in
from .provenance import TaskRecord, digest_of
from .schema import FAILED, FORMAT_VERSION, OK, PENDING, anatomy_values
from .writer import digest_block, digest_values

RESTORE = "put the task's documents back by `otoscope verify --reset`, if no other run is at work on it"
OTHERS = "values are others than those that were written"


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One thing that is not as it was written."""

    task: str
    array: str
    """Array, or "zarr.json" for metadata."""
    block: Block | None = None
    """The block whose clips are affected, where it is one block's."""
    what: str
    remedy: str = ""
    """What mends it, where that is neither a reset of its block nor new labels."""
    restorable: bool = False
    """The task's documents, put back as its own one has them, mend it."""
    pending: bool = False
    """The block counts as not extracted, so that nothing wrong is shown: the next run extracts it."""

    @property
    def of_labels(self) -> bool:
        """A label column is damaged: it can be written anew from a manifest."""
        return self.array.startswith(LABEL_PREFIX)

    def __str__(self) -> str:
        where = f" block {self.block.index} (clips {self.block.start} to {self.block.stop - 1})" if self.block else ""
        return visible(f"{self.task}/{self.array}{where}: {self.what}".removeprefix("/"))


def remedies(found: list[Damage]) -> list[str]:
    """What to do about damage, one sentence for each kind."""
    todo = []
    if any(d.block for d in found):
        reset = "put damaged blocks back by `otoscope verify --reset`, then extract again"
        todo.append(f"{reset} (latents of stored states: encode again)")
    if labels := {f"`otoscope label STORE --task {d.task} MANIFEST --replace`" for d in found if d.of_labels}:
        todo.append(f"write damaged labels anew by {' and '.join(sorted(labels))}")
    todo += dict.fromkeys(d.remedy for d in found if d.remedy)
    if any(not d.block and not d.of_labels and not d.remedy for d in found):
        todo.append("extract into a new store what is damaged but belongs to no block")
    return todo


def verify(url: str) -> Iterator[Damage]:
    """Read everything back and yield what is damaged: documents, checksums, missing objects, names and labels that are
    not those written, blocks mixed of two writes or in another one's place, changes that were not completed.

    Not found: the complete earlier state of a block or of a task, put back.
    Raises as `open_root` does for a store that cannot be opened at all; OSError where it cannot be reached, which says
    nothing about what is stored.
    """
    root = open_root(url, mode="r")
    unfinished = dict(_unfinished(root))
    yield from _verify_root(root, set(unfinished))
    yield from unfinished.values()
    for task in task_names(root):
        try:
            group, record = open_task(root, task)
            damaged = list(_verify_documents(task, group, record, changing=task in unfinished))
        except (ValueError, LookupError, TypeError) as e:
            damaged = [Damage(task=task, array="zarr.json", what=one_line(e))]
        if damaged:  # what the arrays hold cannot be told without knowing how they are stored
            yield from damaged
            continue
        yield from _verify_shared(task, group, record)
        begun = blocks_in(group, "status", record.plan) | blocks_in(group, "digest", record.plan)
        for block in blocks(task, record.plan.n_clips, record.plan.block):
            if block.index not in begun:
                continue
            try:
                status = values_of(group, "status", block.clips, absent=True)
            except ValueError as e:
                yield Damage(task=task, array="status", block=block, what=one_line(e))
                continue
            if not np.isin(status, (PENDING, OK, FAILED)).all():
                what = f"status {sorted(set(status.tolist()))}; expected {PENDING}, {OK} or {FAILED}"
                yield Damage(task=task, array="status", block=block, what=what)
            elif (status == PENDING).any():
                yield from _verify_pending(task, group, block)
            else:
                yield from _verify_block(task, group, block)


def _unfinished(root: zarr.Group) -> Iterator[tuple[str, Damage]]:
    """Changes of tasks that were begun and not completed, or are under way, by task."""
    for task in (name for name in names_in(root.store, "") if name != "zarr.json"):
        for lock in locks_on(root.store, task):
            what = f"a change was begun and not completed: the task {describe(lock)}"
            begun = _has_document(root, task)  # there is a former state
            remedy = f"run it again: {lock.get('command', 'by what command is not known')}" + (
                f"; or {RESTORE}" if begun else ""
            )
            yield task, Damage(task=task, array="zarr.json", what=what, remedy=remedy, restorable=begun)


def _has_document(root: zarr.Group, task: str) -> bool:
    try:
        return bool(about_in(task_document(root.store, task)))
    except ValueError:
        return False


def _verify_root(root: zarr.Group, changing: set[str]) -> Iterator[Damage]:
    """The root's copy of the tasks' metadata, and tasks that only it knows, where no change is under way."""
    document = document_at(root.store, "zarr.json")
    stored_format = str(about_in(document).get("format"))[:40]
    if stored_format != FORMAT_VERSION:
        what = f"format {stored_format}; expected {FORMAT_VERSION}, or another version verifies it"
        yield Damage(task="", array="zarr.json", what=what, remedy="run the otoscope that wrote it")
        return
    known = copies_in(document or {})
    known = known if isinstance(known, dict) else {}
    tasks = {name: task if _is_intact(name, task) else None for name, task in task_documents(root) if about_in(task)}
    again = "run the same `otoscope extract` again, with the options that each task was begun with"
    lost = sorted({key for key in known if "/" not in key} - set(tasks) - changing)
    for name in lost:
        what = "the task's own document is gone, which says what its plan is and that there is a task"
        yield Damage(task=name, array="zarr.json", what=what, remedy=again)
    intact = {name: task for name, task in tasks.items() if task is not None}
    if lost or changing or len(intact) < len(tasks):
        return  # a copy of what is damaged is not what is to be compared with
    if document != json.loads(root_document(intact)):
        what = "the root's copy of the tasks' metadata, from which xarray opens them, is not theirs"
        yield Damage(task="", array="zarr.json", what=what, remedy=again)


def _is_intact(task: str, document: dict[str, Any]) -> bool:
    try:
        return record_in(task, document) is not None
    except ValueError:
        return False


def _verify_documents(task: str, group: zarr.Group, record: TaskRecord, changing: bool) -> Iterator[Damage]:
    """Whether documents are those of the identity, the plan and the labels; of arrays not while they are changed."""
    for key, staged in stage_documents(task, record).items():
        own, expected = key == f"{task}/zarr.json", json.loads(staged)
        try:
            found = document_at(group.store, key)
        except ValueError as e:
            found = {"damaged": one_line(e)}
        if found != expected and (own or not changing):
            what = "its document is missing" if found is None else "its document is not that of the plan"
            array = "zarr.json" if own else key.split("/")[1]
            remedy = "" if own or array.startswith(LABEL_PREFIX) else RESTORE
            yield Damage(task=task, array=array, what=what, remedy=remedy, restorable=not own)


def _verify_shared(task: str, group: zarr.Group, record: TaskRecord) -> Iterator[Damage]:
    """Arrays that belong to no block: coordinates, names, sources, labels."""
    anatomy, labels = anatomy_values(record.identity), {label.array: label for label in record.labels.values()}
    columns: dict[str, np.ndarray] = {}
    for name, array in arrays_of(group).items():
        if name in {"digest", *digested_in(group)}:
            continue
        values, problem = _read(array, None, ...)
        if values is None:
            yield Damage(task=task, array=name, what=problem)
            if name == "clip" and record.plan.n_clips > FREE_NAMES:
                return  # a plan may name more clips than there are, and the rest is as long
            continue
        columns[name] = values
        if name in anatomy and not np.array_equal(values.astype(anatomy[name].dtype), anatomy[name]):
            yield Damage(task=task, array=name, what="values are not those of the identity")
        if name == "check" and digest_values(values) != record.check:
            yield Damage(task=task, array=name, what=OTHERS)
        if name in labels and digest_of(values.tolist()) != labels[name].digest:
            yield Damage(task=task, array=name, what=OTHERS)
    if {"clip", "path", "start", "stop"} <= set(columns) and (record.plan.prompts is None or "prompt" in columns):
        prompt = columns["prompt"].tolist() if "prompt" in columns else None
        clips = ClipTable(
            name=columns["clip"].tolist(), path=columns["path"].tolist(), start=columns["start"], stop=columns["stop"],
            prompt=prompt,
        )  # fmt: skip
        for field, digest in clips.digests.items():
            if digest != getattr(record.plan, field):
                of = {"names": "clip", "sources": "path", "prompts": "prompt"}[field]
                yield Damage(task=task, array=of, what=f"{field} are not those of the plan")


def _verify_pending(task: str, group: zarr.Group, block: Block) -> Iterator[Damage]:
    digests, problem = _read(array_of(group, "digest"), block, slice(block.index, block.index + 1), absent=True)
    if problem or (digests is not None and digests.any()):
        what = problem or "interrupted, or its status was removed (the two cannot be told apart): extract again"
        yield Damage(task=task, array="status", block=block, what=what, pending=not problem)


def _verify_block(task: str, group: zarr.Group, block: Block) -> Iterator[Damage]:
    digested, expected = digested_in(group), dict[str, int]()
    ranges = {"clip": block.clips, "block": slice(block.index, block.index + 1)}
    for name in ("digest", *digested):
        array = array_of(group, name)
        values, problem = _read(array, block, tuple(ranges.get(dim, slice(None)) for dim in dims_of(array)))
        if name == "digest" and values is not None:
            expected = dict(zip(digested, values[0].tolist(), strict=True))
        elif values is not None and name in expected and digest_block(block, name, values) != expected[name]:
            problem = "values do not match the block's digest: a mixture of two writes, or another block's or array's"
        if problem:
            yield Damage(task=task, array=name, block=block, what=problem)


def _read(
    array: zarr.Array[Any], block: Block | None, where: Any, absent: bool = False
) -> tuple[np.ndarray | None, str]:
    """Values of a block, or of the whole array, and what is wrong with them; "" if nothing.

    absent: whether objects may be missing.
    """
    keys = object_keys(array, block)
    missing = [key for key, there in zip(keys, exist(array.store_path.store, keys), strict=True) if not there]
    if missing:
        return None, "" if absent else f"{len(missing)} stored objects are missing, the first {missing[0]}"
    try:
        if array.dtype.kind == "T":
            return np.array(read_strings(array, slice(None) if where is ... else where[0]), dtype=object), ""
        if can_read(array) and isinstance(array.store_path.store, Folder):
            return read_shards(array, where), ""
        return np.asarray(bounded(array, absent)[where]), ""
    except Unreachable:
        raise
    except (ValueError, RuntimeError, OSError, MemoryError) as e:
        return None, one_line(e)
