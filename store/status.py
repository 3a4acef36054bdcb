"""How a store stands: what is committed, what failed, and what is in it.

Goal: completeness is read from the status, never inferred.
Conventions: every task is read as it was at one moment.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from .blocks import Block, blocks
from .group import (
    about_in,
    categories_of,
    check_named,
    column_of,
    document_at,
    open_root,
    open_task,
    status_of,
    task_names,
    values_of,
)
from .provenance import Plan, TaskRecord
from .schema import FAILED, OK, PENDING, sizes


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """How far a task has come."""

    task: str
    record: TaskRecord
    status: np.ndarray
    """uint8 (clip): 0 pending, 1 ok, 2 failed."""

    @property
    def plan(self) -> Plan:
        """What was to be done."""
        return self.record.plan

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
        every, committed = blocks(self.task, self.plan.n_clips, self.plan.block), self.committed
        return [block for block in every if committed[block.clips].all()]


def _open(url: str, task: str) -> tuple[zarr.Group, TaskRecord]:
    return open_task(open_root(url, mode="r"), task)


def task_status(url: str, task: str) -> TaskStatus:
    """How a task stands. Raises LookupError where there is none of this name."""
    group, record = _open(url, task)
    return TaskStatus(task=task, record=record, status=status_of(group, record.plan))


def store_status(url: str) -> list[TaskStatus]:
    """How every task stands."""
    return [task_status(url, task) for task in task_names(open_root(url, mode="r"))]


def block_versions(url: str, task: str) -> Counter[str]:
    """What wrote the committed blocks of a task, and how many of them."""
    group, _ = _open(url, task)
    written = [block.index for block in task_status(url, task).blocks()]
    return Counter(map(str, values_of(group, "version", np.array(written)))) if written else Counter()


def clip_names(url: str, task: str) -> list[str]:
    """Names of a task's clips, committed or not."""
    group, record = _open(url, task)
    return column_of(group, "clip", record.plan.names)


def failed_clips(url: str, task: str) -> list[tuple[str, str]]:
    """(name, reason) of every clip that failed."""
    failed = np.flatnonzero(task_status(url, task).status == FAILED)
    names = clip_names(url, task)
    reasons = values_of(_open(url, task)[0], "reason", failed) if failed.size else failed
    return [(names[i], str(reason)) for i, reason in zip(failed, reasons, strict=True)]


def audio_digests(url: str, task: str) -> Iterator[tuple[Block, str, int, str]]:
    """(block, path, digest of the file, why it failed) of every committed clip; digest 0 where none was read."""
    status = task_status(url, task)
    group, _ = _open(url, task)
    paths = values_of(group, "path")
    for block in status.blocks():
        digests, reasons = (values_of(group, name, block.clips) for name in ("audio_digest", "reason"))
        for path, digest, reason in zip(paths[block.clips], digests, reasons, strict=True):
            yield block, str(path), int(digest), str(reason)


def describe(url: str) -> dict[str, Any]:
    """Format, and per task its identity, plan, state, label columns and what wrote its blocks, as JSON values."""
    root, tasks = open_root(url, mode="r"), {}
    for status in store_status(url):
        group, record = open_task(root, status.task)
        check_named(group, record.plan)
        categories = {name: categories_of(group, label.array, label.digest) for name, label in record.labels.items()}
        tasks[status.task] = {
            "identity": record.identity.to_json(),
            "source": record.source,
            "plan": record.plan.to_json(),
            "ok": status.n_ok,
            "failed": status.n_failed,
            "pending": status.n_pending,
            "bytes": sizes(record.identity, record.plan),
            "labels": categories,
            "versions": dict(block_versions(url, status.task)),
        }
    stored_format = about_in(document_at(root.store, "zarr.json")).get("format")
    return {"format": stored_format, "tasks": tasks}
