"""How a store stands: what is committed, what failed, and what is in it.

Goal: completeness is read from the status, never inferred.
Conventions: every task is read as it was at one moment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from .blocks import Block, blocks
from .group import about_in, arrays_of, document_at, open_root, open_task, read_identity, task_names, values_of
from .labels import LABEL_PREFIX, label_columns
from .provenance import Plan
from .schema import FAILED, OK, PENDING, sizes


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


def _open(url: str, task: str) -> tuple[zarr.Group, Plan]:
    return open_task(open_root(url, mode="r"), task)


def task_status(url: str, task: str) -> TaskStatus:
    """How a task stands. Raises LookupError where there is none of this name."""
    group, plan = _open(url, task)
    return TaskStatus(task=task, plan=plan, status=values_of(group, "status", slice(plan.n_clips)))


def store_status(url: str) -> list[TaskStatus]:
    """How every task stands."""
    return [task_status(url, task) for task in task_names(open_root(url, mode="r"))]


def clip_names(url: str, task: str) -> list[str]:
    """Names of a task's clips, committed or not."""
    group, plan = _open(url, task)
    return [str(name) for name in values_of(group, "clip", slice(plan.n_clips))]


def failed_clips(url: str, task: str) -> list[tuple[str, str]]:
    """(name, reason) of every clip that failed."""
    failed = np.flatnonzero(task_status(url, task).status == FAILED)
    group, _ = _open(url, task)
    names, reasons = (values_of(group, name)[failed] for name in ("clip", "reason"))
    return [(str(name), str(reason)) for name, reason in zip(names, reasons, strict=True)]


def audio_digests(url: str, task: str) -> Iterator[tuple[Block, str, int, str]]:
    """(block, path, digest of the file, why it failed) of every committed clip; digest 0 where none was read."""
    status = task_status(url, task)
    group, _ = _open(url, task)
    columns = [values_of(group, name) for name in ("path", "audio_digest", "reason")]
    for block in status.blocks():
        for path, digest, reason in zip(*(column[block.clips] for column in columns), strict=True):
            yield block, str(path), int(digest), str(reason)


def describe(url: str) -> dict[str, Any]:
    """Format, identity, and per task its plan, state and label columns, as JSON values."""
    root = open_root(url, mode="r")
    identity, tasks = read_identity(root), {}
    for status in store_status(url):
        arrays = arrays_of(open_task(root, status.task)[0])
        tasks[status.task] = {
            "plan": status.plan.to_json(),
            "ok": status.n_ok,
            "failed": status.n_failed,
            "pending": status.n_pending,
            "bytes": sizes(identity, status.plan),
            "labels": {name: arrays[LABEL_PREFIX + name].attrs["categories"] for name in label_columns(arrays)},
        }
    stored_format = about_in(document_at(root.store, "zarr.json")).get("format")
    return {"format": stored_format, "identity": identity.to_json(), "tasks": tasks}
