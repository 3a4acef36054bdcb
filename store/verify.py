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

from ..messages import one_line
from .blocks import Block, blocks
from .changes.lock import STATE_DIGITS, locked_states
from .changes.staged import root_document, state_of
from .group import (
    about_in,
    array_documents,
    array_of,
    arrays_of,
    copies_of,
    digested_in,
    dims_of,
    document_at,
    object_keys,
    open_root,
    open_task,
    read_identity,
    task_document,
    task_documents,
    task_names,
    values_of,
)
from .labels import LABEL_PREFIX
from .location import Unreachable
from .objects import exist
from .provenance import digest_of
from .schema import FAILED, OK, PENDING
from .writer import digest_values


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

    @property
    def of_labels(self) -> bool:
        """A label column is damaged: it can be written anew from a manifest."""
        return self.array.startswith(LABEL_PREFIX)

    def __str__(self) -> str:
        where = f" block {self.block.index} (clips {self.block.start} to {self.block.stop - 1})" if self.block else ""
        return f"{self.task}/{self.array}{where}: {self.what}".removeprefix("/")


def remedies(found: list[Damage]) -> list[str]:
    """What to do about damage, one sentence for each kind."""
    todo = []
    if any(d.block for d in found):
        todo.append("put damaged blocks back by `otoscope verify --reset`, then extract again")
    if labels := {f"`otoscope label STORE --task {d.task} MANIFEST --replace`" for d in found if d.of_labels}:
        todo.append(f"write damaged labels anew by {' and '.join(sorted(labels))}")
    todo += dict.fromkeys(d.remedy for d in found if d.remedy)
    if any(not d.block and not d.of_labels and not d.remedy for d in found):
        todo.append("extract into a new store what is damaged but belongs to no block")
    return todo


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
            damaged = [Damage(task=task, array="zarr.json", what=one_line(e))]
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
    changing = {name for name in {*tasks, *(key.split("/")[0] for key in known)} if locked_states(root.store, name)}
    lost = sorted({key for key in known if "/" not in key} - set(tasks) - changing)
    for name in lost:
        what = "the task's own document is gone, which says what its plan is and that there is a task"
        yield Damage(task=name, array="zarr.json", what=what, remedy=again)
    if lost or changing or any(copies_of(task) is None for task in tasks.values()):
        return  # a copy of what is damaged is not what is to be compared with
    if document != json.loads(root_document(about_in(document), tasks)):
        what = "the root's copy of the tasks' metadata, from which xarray opens them, is not theirs"
        yield Damage(task="", array="zarr.json", what=what, remedy=again)


def _verify_metadata(task: str, group: zarr.Group) -> Iterator[Damage]:
    document = task_document(group.store, task)
    if digest_of(array_documents(group)) != about_in(document).get("metadata_digest"):
        what = "the arrays' metadata do not match their digest"
        if state_of(document)[:STATE_DIGITS] in locked_states(group.store, task):
            what = "a change of the task was begun and not completed: run the same command again"
        yield Damage(task=task, array="zarr.json", what=what)
    if copies_of(document) is None:
        yield Damage(task=task, array="zarr.json", what="the consolidated metadata do not match their digest")


def _verify_shared(task: str, group: zarr.Group) -> Iterator[Damage]:
    """Arrays that belong to no block: coordinates, names, sources, labels."""
    block_wise = {"digest", "version", "status", *digested_in(group)}
    for name, array in arrays_of(group).items():
        if name not in block_wise:
            _, problem = _read(array, None, ...)
            if problem:
                yield Damage(task=task, array=name, what=problem)


def _verify_block(task: str, group: zarr.Group, block: Block) -> Iterator[Damage]:
    digested, expected = digested_in(group), dict[str, int]()
    ranges = {"clip": block.clips, "block": slice(block.index, block.index + 1)}
    for name in ("digest", "version", "status", *digested):
        array = array_of(group, name)
        values, problem = _read(array, block, tuple(ranges.get(dim, slice(None)) for dim in dims_of(array)))
        if name == "digest" and values is not None:
            expected = dict(zip(digested, values[0].tolist(), strict=True))
        elif values is not None and name in expected and digest_values(values) != expected[name]:
            problem = "values do not match the block's digest: a mixture of two writes"
        if problem:
            yield Damage(task=task, array=name, block=block, what=problem)


def _read(array: zarr.Array[Any], block: Block | None, where: Any) -> tuple[np.ndarray | None, str]:
    """Values of a block, or of the whole array, and what is wrong with them; "" if nothing."""
    keys = object_keys(array, block)
    absent = [key for key, there in zip(keys, exist(array.store_path.store, keys), strict=True) if not there]
    if absent:
        return None, f"{len(absent)} stored objects are missing, the first {absent[0]}"
    try:
        return np.asarray(array[where]), ""
    except Unreachable:
        raise
    except (ValueError, RuntimeError, OSError) as e:
        return None, one_line(e)
