"""Create a store, add tasks, clips and labels: all that is written but blocks. FORMAT.md is the norm.

Goal: whatever happens, and whoever else does the same or something else at the same instant, a task exists whole or
not at all, and every reader sees its former state or the next one.
Conventions: what decides is the task's own document, which is written last. A change is staged in memory (staged.py),
locked (lock.py), then written.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store

from ...documents import MAX_BYTES
from ..blocks import Block
from ..group import (
    MAX_TASK_BYTES,
    about_in,
    check_task_name,
    column_of,
    document_at,
    nothing_at,
    open_root,
    open_task,
    read_record,
    record_in,
    task_document,
    task_documents,
    values_of,
)
from ..labels import LABEL_PREFIX, next_arrays
from ..location import zarr_store
from ..objects import MAX_REQUESTS, delete_folder, get, names_in, put_all, put_new
from ..provenance import Plan, TaskRecord, digest_of
from ..schema import check_label_name
from ..writer import put_pending
from .differences import check_origin, check_record, has_commits, is_stored
from .lock import Held, acquired, delete_past, delete_task, lock_at, lock_key, release
from .staged import NEW, ClipTable, Origin, Staged, root_document, stage_documents, stage_labels, stage_task, state_of

Document = dict[str, Any] | None  # a task's zarr.json
MAX_CHECK = MAX_BYTES - MAX_TASK_BYTES  # characters of a check in a lock: 2.3 million neurons


def create(url: str) -> None:
    """Make the store, or look that there is one.

    Of several that make it at the same instant one does. Raises ValueError when something else lies at the url.
    """
    if nothing_at(url):
        put_new(zarr_store(url).with_read_only(False), "zarr.json", root_document({}))
    open_root(url)


def add_task(
    url: str, task: str, origin: Origin, plan: Plan, clips: ClipTable, *, replan: bool = False, command: str = ""
) -> None:
    """Make a task's arrays, or append clips to an existing task, or check that nothing is to be added.

    Appending: the stored clips come first, in the same order. A partial last block goes back to pending, so that a
    grown task equals one built at once. The origin of a task that is there stays the one that it was begun with.
    replan: begin anew a task in which nothing is committed, whatever its plan; only while no other run is at work.
    command: what goes on with this where it is killed [`otoscope extract`].
    Raises ValueError where the stored identity, plan, clips or labels differ, or another run changes the task
    otherwise.
    """
    check_task_name(task)
    root = open_root(url)
    for name in clips.labels:
        check_label_name(name)
    command = (
        command or f"`otoscope extract {url} --task {task} ...` with {len(clips)} clips, the first {clips.name[0]!r}"
    )

    def change(document: Document) -> Change | None:
        stored = record_in(task, document)
        if stored is None:
            begun = _begun_origin(root.store, task, origin)
            staged = stage_task(task, begun, plan, clips, next_arrays(clips.labels, {}))
            return Change(staged=staged, command=command, origin=begun)
        check_origin(url, task, stored_origin(url, task), origin)
        check_record(url, root, task, stored, plan, clips)
        n = stored.plan.n_clips
        if len(clips) == n:
            return None
        group, unlabelled = open_task(root, task)[0], [""] * len(clips)
        labels = {
            name: [*column_of(group, label.array, label.digest), *clips.labels.get(name, unlabelled)[n:]]
            for name, label in stored.labels.items()
        }
        arrays = {name: label.array for name, label in stored.labels.items()}
        staged = stage_task(task, stored_origin(url, task), plan, replace(clips, labels=labels), arrays)
        return Change(staged=staged, stored=stored, command=command)

    if replan and not has_commits(root, task):
        stored = read_record(root, task)
        if stored is None or (stored.plan, stored.identity) != (plan, origin.identity):
            delete_task(root.store, task)
    _carry_out(root, url, task, change)


def _begun_origin(store: Store, task: str, origin: Origin) -> Origin:
    """That under which a task is being created already, where only rounding or a source differs; else the one given."""
    lock = lock_at(store, lock_key(task, NEW)) or {}
    check = np.frombuffer(base64.b64decode(lock.get("check", "")), "<f4")
    if len(check) != len(origin.check):
        return origin
    begun = replace(origin, source=lock.get("source", ""), check=check)
    return origin if origin.differences(begun) else begun


def stored_origin(url: str, task: str) -> Origin:
    """What the numbers of a task come from. Raises as `open_task`."""
    group, record = open_task(open_root(url), task)
    return Origin(identity=record.identity, source=record.source, check=values_of(group, "check"))


def add_labels(url: str, task: str, columns: Mapping[str, Sequence[str]], *, overwrite: bool = False) -> None:
    """Add label columns (one string per clip, "" for none) to a task, while a run extracts it or not.

    Raises ValueError for a column that exists with other values, unless `overwrite`, which also mends damaged ones.
    """
    root = open_root(url)
    for name in columns:
        check_label_name(name)
    more = " --replace" if overwrite else ""
    command = f"`otoscope label {url} --task {task} TABLE{more}` with the table of {', '.join(sorted(columns))}"

    def change(document: Document) -> Change | None:
        group, stored = open_task(root, task)
        for name, column in columns.items():
            if len(column) != stored.plan.n_clips:
                raise ValueError(
                    f"{url} task {task} has {stored.plan.n_clips} clips, label column {name!r} {len(column)}; expected "
                    "one label per clip, empty for none: run the command again if clips were appended meanwhile"
                )
        damaged = [
            name for name in columns if overwrite and name in stored.labels and not _is_intact(group, stored, name)
        ]
        other = {name: c for name, c in columns.items() if name in damaged or not is_stored(stored, name, c)}
        taken = [name for name in other if name in stored.labels]
        if taken and not overwrite:
            raise ValueError(
                f"{url} task {task} has a label column {taken[0]!r} with other values; expected a new name, "
                "or --replace to overwrite it"
            )
        arrays = next_arrays(other, {name: label.array for name, label in stored.labels.items()})
        staged = stage_labels(task, stored, other, arrays)
        return Change(staged=staged, stored=stored, command=command) if other else None

    _carry_out(root, url, task, change)


def restore_documents(url: str, task: str) -> None:
    """Write the arrays' documents of a task as its own one has them, and delete its locks, which undoes a change that
    was begun and not completed; only while no other run is at work on it.

    A task that was never created whole has no document, and is left as it is.
    """
    root = open_root(url)
    record = read_record(root, task)
    if record is None:
        return
    documents = stage_documents(task, record)
    put_all(root.store, {key: data for key, data in documents.items() if key != f"{task}/zarr.json"})
    _refresh(root)
    delete_past(root.store, task, "")


def _is_intact(group: zarr.Group, record: TaskRecord, name: str) -> bool:
    """Whether a label column and its document are as they were written."""
    label = record.labels[name]
    key = f"{group.path}/{label.array}/zarr.json"
    try:
        column_of(group, label.array, label.digest)
        return get(group.store, key) == stage_documents(group.path, record)[key]
    except (ValueError, FileNotFoundError):
        return False


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to become of a task: its new documents and values, and what there is, if anything."""

    staged: Staged
    stored: TaskRecord | None = None
    command: str
    """What ends it, where it was killed."""
    origin: Origin | None = None
    """Of a new task: its check and source, which another device or comment would give otherwise."""

    @property
    def lock(self) -> dict[str, Any]:
        """What a lock for it says: a digest over all that is written, and what is needed to write the same."""
        successor = digest_of({key: hashlib.sha256(data).hexdigest() for key, data in self.staged.items()})
        lock = {"successor": successor, "command": self.command}
        if self.origin is not None:
            check = base64.b64encode(np.asarray(self.origin.check, "<f4").tobytes()).decode()
            lock |= {"source": self.origin.source}
            lock |= {"check": check} if len(check) <= MAX_CHECK else {}
        return lock


def _carry_out(root: zarr.Group, url: str, task: str, change: Callable[[Document], Change | None]) -> None:
    """Change a task, under one lock, until nothing is left to change; then refresh the root's copy of its metadata."""
    store = root.store
    while True:
        document = task_document(store, task)
        state = state_of(document)
        try:
            wanted = change(document)
        except (ValueError, LookupError):
            if state_of(task_document(store, task)) != state:
                continue  # another run changed the task while it was looked at
            raise
        if wanted is None:
            _refresh(root)
            delete_past(store, task, state)
            return
        _check_root(root, task, wanted.staged)
        try:
            with acquired(store, url, task, state, wanted.lock) as locked:
                if locked:
                    _publish(root, url, task, state, wanted)
                    _refresh(root)  # under the lock, so that a writer killed in between leaves a sign of it
                    release(store, task, state)
        except Held:
            again = change(document)  # by what the lock says, which was not there at first
            if again is None or again.lock == wanted.lock:
                raise


def _check_root(root: zarr.Group, task: str, staged: Staged) -> None:
    """Raise ValueError where the root's copy of all tasks' metadata would be larger than any reader takes."""
    own = staged[f"{task}/zarr.json"]
    if len(get(root.store, "zarr.json") or b"") + len(own) <= MAX_BYTES // 2:
        return
    tasks = {name: found for name, found in task_documents(root) if about_in(found)} | {task: json.loads(own)}
    if (n_bytes := len(root_document(tasks))) > MAX_BYTES:
        raise ValueError(
            f"the root's zarr.json of {root.store_path} would have {n_bytes} bytes with this change; expected at most "
            f"{MAX_BYTES}: take fewer label columns, or another store for task {task}"
        )


def _publish(root: zarr.Group, url: str, task: str, state: str, change: Change) -> None:
    """Write a staged change, the task's own document last, as long as the task is in the state that it starts from.

    That is asked before each object: a writer that slept, and whose change others have completed, changes no more.
    """
    store, staged = root.store, dict(change.staged)
    own = f"{task}/zarr.json"
    decisive = staged.pop(own)

    def is_due() -> bool:
        return state_of(task_document(store, task)) == state

    if not is_due():
        return
    if change.stored is None:
        if other := _other_object(store, task, staged):
            release(store, task, state)  # nothing was done under it, and it would be in the way of the right command
            raise ValueError(
                f"{other} in {url} is of a task that was begun otherwise; expected the same command, with the same "
                "options, as then, or --replan to begin anew where nothing of it is committed, if no other run is at "
                "work on it"
            )

        # Nothing is replaced, so that one who comes late changes nothing that has become of the task in the meantime.
        def is_ours(key: str) -> bool:
            return put_new(store, key, staged[key]) or get(store, key) == staged[key]

        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            for key, ours in zip(staged, pool.map(is_ours, staged), strict=True):
                if not ours and is_due():
                    raise ValueError(f"{key} in {url} was written by another run at this moment; run the command again")
        put_new(store, own, decisive)
        return
    _delete_former(store, task, change, is_due)
    if f"{task}/status/zarr.json" in staged and is_due():
        _reset_partial(root, task, change.stored.plan)

    def put(key: str) -> None:
        if is_due():
            put_all(store, {key: staged[key]})

    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        list(pool.map(put, staged))
    if is_due():
        put_all(store, {own: decisive})


def _delete_former(store: Store, task: str, change: Change, is_due: Callable[[], bool]) -> None:
    """Delete the generations of label columns that the change before replaced; its readers were given until now."""
    assert change.stored is not None
    current = {f"{task}/{label.array}" for label in change.stored.labels.values()}
    current |= {key.rpartition("/zarr.json")[0] for key in change.staged}
    for name in names_in(store, task):
        if name.startswith(LABEL_PREFIX) and f"{task}/{name}" not in current and is_due():
            delete_folder(store, f"{task}/{name}")


def _reset_partial(root: zarr.Group, task: str, plan: Plan) -> None:
    """Put the last block back to pending if it is partial: it is to hold more clips."""
    start = plan.n_clips // plan.block * plan.block
    if start < plan.n_clips:
        put_pending(
            open_task(root, task)[0], Block(task=task, index=start // plan.block, start=start, stop=plan.n_clips)
        )


def _other_object(store: Store, task: str, staged: Staged) -> str:
    """The first staged object that is there with other bytes, "" for none; one listing where nothing is there."""
    if all(name.startswith("lock.") for name in names_in(store, task)):
        return ""
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        found = zip(staged.items(), pool.map(lambda key: get(store, key), staged), strict=True)
        return next((key for (key, data), there in found if there not in (None, data)), "")


def _refresh(root: zarr.Group) -> None:
    """Make the root's copy of the tasks' metadata anew until it is current, others writing it too."""
    while True:
        tasks = {name: task for name, task in task_documents(root) if about_in(task)}
        current = root_document(tasks)
        if document_at(root.store, "zarr.json") in (None, json.loads(current)):
            return
        put_all(root.store, {"zarr.json": current})
