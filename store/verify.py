"""How a store stands: what is committed, and whether all of it can be read back.

Goal: completeness is read from the status, never inferred; damage is found by reading everything.
Conventions: damage is reported, not raised, one line for each thing found, so that one flipped byte does not hide
another.
Contents: `TaskStatus`, `task_status`, `store_status`, `describe`, `clip_names`, `failed_clips`, `heard_audio`,
`Damage`, `remedies`, `verify`.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync

from ..messages import one_line
from .blocks import Block, blocks
from .changes.lock import has_claims, is_begun
from .changes.staged import root_document, state_of
from .group import (  # fmt: skip
    about_in,
    array_of,
    arrays_of,
    copies_of,
    digested_in,
    dims_of,
    document_at,
    metadata_digest,
    object_keys,
    open_root,
    open_task,
    read_identity,
    task_documents,
    task_names,
    values_of,
)
from .labels import LABEL_PREFIX
from .location import Unreachable
from .provenance import Plan
from .schema import FAILED, OK, PENDING, sizes
from .writer import digest_values


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """How far a task has come."""

    task: str
    plan: Plan
    status: np.ndarray
    """uint8 (clip): 0 pending, 1 ok, 2 failed."""

    @property
    def committed(self) -> np.ndarray:
        """bool (clip): the clip's block is committed."""
        committed: np.ndarray = self.status != PENDING
        return committed

    @property
    def n_ok(self) -> int:
        """Clips extracted."""
        return int((self.status == OK).sum())

    @property
    def n_failed(self) -> int:
        """Clips recorded as failed."""
        return int((self.status == FAILED).sum())

    @property
    def n_pending(self) -> int:
        """Clips still to be extracted."""
        return int((self.status == PENDING).sum())

    def blocks(self) -> list[Block]:
        """The committed blocks."""
        every = blocks(self.task, self.plan.n_clips, self.plan.block)
        return [block for block in every if self.committed[block.clips].all()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One thing that is not as it was written."""

    task: str
    array: str
    """Array, or "zarr.json" for metadata."""
    block: Block | None
    """The block whose clips are affected, where it is one block's."""
    what: str
    remedy: str = ""
    """What mends it, where that is neither a reset of its block nor new labels."""

    @property
    def of_labels(self) -> bool:
        """A label column is damaged: it can be written anew from a manifest."""
        return self.array.startswith(LABEL_PREFIX)

    def __str__(self) -> str:
        where = f" block {self.block.index} (clips {self.block.start} to {self.block.stop - 1})" if self.block else ""
        return f"{self.task}/{self.array}{where}: {self.what}".removeprefix("/")


def remedies(found: list[Damage]) -> list[str]:
    """What to do about damage, one sentence for each kind."""
    labels = {f"`otoscope label STORE --task {d.task} MANIFEST --replace`" for d in found if d.of_labels}
    rest = any(not d.block and not d.of_labels and not d.remedy for d in found)
    return [
        *(
            ["put damaged blocks back by `otoscope verify --reset`, then extract again"]
            if any(d.block for d in found)
            else []
        ),
        *([f"write damaged labels anew by {' and '.join(sorted(labels))}"] if labels else []),
        *dict.fromkeys(d.remedy for d in found if d.remedy),
        *(["extract into a new store what is damaged but belongs to no block"] if rest else []),
    ]


def task_status(url: str, task: str) -> TaskStatus:
    """How a task stands. Raises LookupError where there is none of this name."""
    group, plan = open_task(open_root(url, mode="r"), task)
    return TaskStatus(task=task, plan=plan, status=values_of(group, "status", slice(plan.n_clips)))


def store_status(url: str) -> list[TaskStatus]:
    """How every task stands."""
    return [task_status(url, task) for task in task_names(open_root(url, mode="r"))]


def clip_names(url: str, task: str) -> list[str]:
    """Names of a task's clips, committed or not."""
    group, plan = open_task(open_root(url, mode="r"), task)
    return [str(name) for name in values_of(group, "clip", slice(plan.n_clips))]


def failed_clips(url: str, task: str) -> list[tuple[str, str]]:
    """(name, reason) of every clip that failed."""
    failed = np.flatnonzero(task_status(url, task).status == FAILED)
    group, _ = open_task(open_root(url, mode="r"), task)
    names, reasons = (values_of(group, name)[failed] for name in ("clip", "reason"))
    return [(str(name), str(reason)) for name, reason in zip(names, reasons, strict=True)]


def heard_audio(url: str, task: str) -> Iterator[tuple[Block, str, int, str]]:
    """(block, path, digest of the file, why it failed) of every committed clip; digest 0 where none was read."""
    status = task_status(url, task)
    group, _ = open_task(open_root(url, mode="r"), task)
    columns = [values_of(group, name) for name in ("path", "audio_digest", "reason")]
    for block in status.blocks():
        for path, digest, reason in zip(*(column[block.clips] for column in columns), strict=True):
            yield block, str(path), int(digest), str(reason)


def describe(url: str) -> dict[str, Any]:
    """Format, identity, and per task its plan, state and label columns, as JSON values."""
    root = open_root(url, mode="r")
    tasks = {}
    for status in store_status(url):
        group, plan = open_task(root, status.task)
        labels = {
            name.removeprefix(LABEL_PREFIX): array.attrs["categories"]
            for name, array in arrays_of(group).items()
            if name.startswith(LABEL_PREFIX)
        }
        bytes_kept = sizes(read_identity(root), plan)
        tasks[status.task] = {
            "plan": plan.to_json(), "ok": status.n_ok, "failed": status.n_failed, "pending": status.n_pending,
            "bytes": bytes_kept, "labels": labels,
        }  # fmt: skip
    stored_format = about_in(document_at(root.store, "zarr.json")).get("format")
    return {"format": stored_format, "identity": read_identity(root).to_json(), "tasks": tasks}


def verify(url: str) -> Iterator[Damage]:
    """Read everything back and yield what is damaged: metadata, checksums, missing objects, blocks mixed of two writes.

    Raises as `open_root` does for a store that cannot be opened at all; OSError where it cannot be reached, which says
    nothing about what is stored.
    """
    root = open_root(url, mode="r")
    read_identity(root)
    yield from _verify_root(root)
    for task in task_names(root):
        try:
            group, plan = open_task(root, task)
            damaged = list(_verify_metadata(task, group))
        except (ValueError, LookupError, TypeError) as e:
            damaged = [Damage(task=task, array="zarr.json", block=None, what=one_line(e))]
        if damaged:  # what the arrays hold cannot be told without knowing how they are stored
            yield from damaged
            continue
        yield from _verify_shared(task, group)
        for block in blocks(task, plan.n_clips, plan.block):
            try:
                status = values_of(group, "status", block.clips)
            except ValueError as e:
                yield Damage(task=task, array="status", block=block, what=one_line(e))
                continue
            if not np.isin(status, (PENDING, OK, FAILED)).all():
                yield Damage(task=task, array="status", block=block, what="values other than 0, 1 and 2")
            elif (status != PENDING).all():
                yield from _verify_block(task, group, block)


def _verify_root(root: zarr.Group) -> Iterator[Damage]:
    """The root's copy of the tasks' metadata, and tasks that only it knows, where no change is under way."""
    document = document_at(root.store, "zarr.json")
    known = ((document or {}).get("consolidated_metadata") or {}).get("metadata") or {}
    tasks = {name: task for name, task in task_documents(root).items() if "plan" in about_in(task)}
    again = "run the same `otoscope extract` again, with the options that each task was begun with"
    changing = {name for name in {*tasks, *(key.split("/")[0] for key in known)} if has_claims(root.store, name)}
    lost = sorted({key for key in known if "/" not in key} - set(tasks) - changing)
    for name in lost:
        what = "the task's own document is gone, which says what its plan is and that there is a task"
        yield Damage(task=name, array="zarr.json", block=None, what=what, remedy=again)
    if lost or changing or any(copies_of(task) is None for task in tasks.values()):
        return  # a copy of what is damaged is not what is to be compared with
    if document != json.loads(root_document(about_in(document), tasks)):
        what = "the root's copy of the tasks' metadata, from which xarray opens them, is not theirs"
        yield Damage(task="", array="zarr.json", block=None, what=what, remedy=again)


def _verify_metadata(task: str, group: zarr.Group) -> Iterator[Damage]:
    document = document_at(group.store, f"{task}/zarr.json")
    if metadata_digest(group) != about_in(document).get("metadata_digest"):
        begun = is_begun(group.store, task, state_of(document))
        problem = (
            "a change of the task was begun and not completed: run the same command again"
            if begun
            else "the arrays' metadata do not match their digest"
        )
        yield Damage(task=task, array="zarr.json", block=None, what=problem)
    if copies_of(document) is None:
        what = "the consolidated metadata do not match their digest"
        yield Damage(task=task, array="zarr.json", block=None, what=what)


def _verify_shared(task: str, group: zarr.Group) -> Iterator[Damage]:
    """Arrays that belong to no block: coordinates, names, sources, labels."""
    block_wise = {"digest", "version", "status", *digested_in(group)}
    for name, array in arrays_of(group).items():
        if name in block_wise:
            continue
        missing = _missing(array, None)
        if missing:
            yield Damage(task=task, array=name, block=None, what=missing)
            continue
        try:
            array[...]
        except Unreachable:
            raise
        except (ValueError, RuntimeError, OSError) as e:
            yield Damage(task=task, array=name, block=None, what=one_line(e))


def _verify_block(task: str, group: zarr.Group, block: Block) -> Iterator[Damage]:
    names = digested_in(group)
    recorded = {}
    for name in ("digest", "version", "status"):
        array = array_of(group, name)
        where = block.clips if name == "status" else block.index
        try:
            recorded[name] = np.asarray(array[where])
            problem = _missing(array, block)
        except Unreachable:
            raise
        except (ValueError, RuntimeError, OSError) as e:
            problem = one_line(e)
        if problem:
            yield Damage(task=task, array=name, block=block, what=problem)
    for position, name in enumerate(names):
        array = array_of(group, name)
        problem = _missing(array, block)
        if not problem:
            try:
                values = np.asarray(array[tuple(block.clips if d == "clip" else slice(None) for d in dims_of(array))])
                if "digest" in recorded and digest_values(values) != recorded["digest"][position]:
                    problem = "values do not match the block's digest: a mixture of two writes"
            except Unreachable:
                raise
            except (ValueError, RuntimeError, OSError) as e:
                problem = one_line(e)
        if problem:
            yield Damage(task=task, array=name, block=block, what=problem)


def _missing(array: zarr.Array, block: Block | None) -> str:  # type: ignore[type-arg]
    """What is wrong with the objects of a block, or of the whole array, before reading them; "" if nothing."""
    store, keys = array.store_path.store, object_keys(array, block)

    async def present() -> list[bool]:
        return await asyncio.gather(*(store.exists(key) for key in keys))

    absent = [key for key, there in zip(keys, sync(present()), strict=True) if not there]
    return f"{len(absent)} stored objects are missing, the first {absent[0]}" if absent else ""
