"""Create a store, add tasks, clips and labels: all that is written but blocks. FORMAT.md is the norm.

Goal: whatever happens, and whoever else does the same or something else at the same instant, a task exists whole or
not at all, under one plan.
Conventions: a root exists if and only if it has an identity, a task if and only if its group has a plan, which is
therefore written last. A change is staged in memory (staged.py), locked (lock.py), then written.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import zarr
from zarr.abc.store import Store

from ..group import (
    KEY,
    array_documents,
    array_of,
    arrays_of,
    check_task_name,
    copies_of,
    document_at,
    nothing_at,
    open_root,
    open_task,
    plan_of,
    read_identity,
    read_plan,
    task_document,
    task_documents,
    task_names,
    values_of,
)
from ..labels import label_columns
from ..location import zarr_store
from ..objects import MAX_REQUESTS, get, names_in, put_all, put_new
from ..provenance import Identity, Plan, digest_of
from ..schema import FORMAT_VERSION, PENDING
from .lock import acquire, delete_past, delete_task, release
from .staged import ClipTable, Staged, root_document, stage_labels, stage_task, state_of
from .undo import read_column, read_columns, write_undo_log

Document = dict[str, Any] | None  # a task's zarr.json


def create(url: str, identity: Identity) -> None:
    """Make the store, or check that an existing one has this identity.

    Of several that make it at the same instant one does, and the others check.
    Raises ValueError naming the fields that differ, or when something else lies at the url.
    """
    if nothing_at(url):
        fields = identity.to_json()
        about = {"format": FORMAT_VERSION, "identity": fields, "identity_digest": digest_of(fields)}
        put_new(zarr_store(url).with_read_only(False), "zarr.json", root_document(about, {}))
    root = open_root(url)
    differences = identity.differences(read_identity(root))
    if differences:
        empty = not any(_has_commits(root, task) for task in task_names(root))
        raise ValueError(
            f"{url} holds activations of another identity ({'; '.join(differences)}); "
            "expected the same encoder and options: choose another store"
            + (", or delete this one, in which nothing is committed" if empty else "")
        )


def add_task(url: str, task: str, plan: Plan, clips: ClipTable, *, replan: bool = False) -> None:
    """Make a task's arrays, or append clips to an existing task, or check that nothing is to be added.

    Appending: the stored clips come first, in the same order. A partial last block goes back to pending, so that a
    grown store equals one built at once.
    replan: begin anew a task in which nothing is committed, whatever its plan; only while no other run is at work.
    Raises ValueError where the stored plan, clips or labels differ, or another run changes the task otherwise.
    """
    check_task_name(task)
    root = open_root(url)
    identity = read_identity(root)

    def change(document: Document) -> Change | None:
        stored = plan_of(task, document)
        if stored is None:
            return Change(staged=stage_task(task, identity, plan, clips))
        group, _ = open_task(root, task)
        _check_plan(url, root, task, stored, plan)
        _check_clips(url, root, task, stored, clips)
        columns = _check_labels(url, task, group, state_of(document), clips.head(stored.n_clips))
        if len(clips) == stored.n_clips:
            return None
        unlabelled = [""] * len(clips)
        labels = {
            name: [*column, *clips.labels.get(name, unlabelled)[stored.n_clips :]] for name, column in columns.items()
        }
        staged = stage_task(task, identity, plan, replace(clips, labels=labels))
        return Change(staged=staged, stored=stored, rewritten=columns)

    if replan and read_plan(root, task) != plan and not _has_commits(root, task):
        delete_task(root.store, task)
    _carry_out(root, task, change)


def add_labels(url: str, task: str, columns: Mapping[str, Sequence[str]], *, overwrite: bool = False) -> None:
    """Add label columns (one string per clip, "" for none) to a task, while a run extracts it or not.

    Raises ValueError for a column that exists with other values, unless `overwrite`.
    """
    root = open_root(url)
    identity = read_identity(root)

    def change(document: Document) -> Change | None:
        group, plan = open_task(root, task)
        for name, column in columns.items():
            if len(column) != plan.n_clips:
                raise ValueError(
                    f"{url} task {task} has {plan.n_clips} clips, label column {name!r} {len(column)}; expected one "
                    "label per clip, empty for none: run the command again if clips were appended meanwhile"
                )
        there = [name for name in label_columns(arrays_of(group)) if name in columns]
        stored = read_columns(group, state_of(document), there)
        other = {name: column for name, column in columns.items() if stored.get(name) != list(column)}
        taken = [name for name in other if name in stored]
        if taken and not overwrite:
            raise ValueError(
                f"{url} task {task} has a label column {taken[0]!r} with other values; expected a new name, "
                "or --replace to overwrite it"
            )
        staged = stage_labels(task, identity, plan, other, copies_of(document) or array_documents(group))
        rewritten = {name: column for name, column in stored.items() if name in other and column is not None}
        return Change(staged=staged, stored=plan, rewritten=rewritten) if other else None

    _carry_out(root, task, change)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to become of a task: its new documents and values, and the plan that it has, if any."""

    staged: Staged
    stored: Plan | None = None
    rewritten: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Label columns that there are, as they are."""

    @property
    def digest(self) -> str:
        """SHA-256 over all that is written."""
        return digest_of({key: hashlib.sha256(data).hexdigest() for key, data in self.staged.items()})


def _carry_out(root: zarr.Group, task: str, change: Callable[[Document], Change | None]) -> None:
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
            delete_past(store, task, state)
            break
        if acquire(store, task, state, wanted.digest):
            if state_of(task_document(store, task)) == state:
                _publish(root, task, state, wanted)
                _refresh(root)  # under the lock, so that a writer killed in between leaves a sign of it
            release(store, task, state)
    _refresh(root)


def _publish(root: zarr.Group, task: str, state: str, change: Change) -> None:
    """Write a staged change; the task's own document last, before it the length of the status."""
    store, staged = root.store, dict(change.staged)
    own, length = f"{task}/zarr.json", f"{task}/status/zarr.json"
    decisive = {own: staged.pop(own)}
    if change.stored is None:
        if other := _other_object(store, task, staged):
            release(store, task, state)  # nothing was done under it, and it would be in the way of the right command
            raise ValueError(
                f"{other} in {store} is of a task that was begun otherwise; expected the same command, with the same "
                "options, as then, or --replan to begin anew where nothing of it is committed, if no other run is at "
                "work on it"
            )

        # Nothing is replaced, so that one who comes late changes nothing that has become of the task in the meantime.
        def is_ours(key: str) -> bool:
            return put_new(store, key, staged[key]) or get(store, key) == staged[key]

        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            for key, ours in zip(staged, pool.map(is_ours, staged), strict=True):
                if not ours:
                    raise ValueError(
                        f"{key} in {store} was written by another run at this moment; run the command again"
                    )
    else:
        if change.rewritten:
            write_undo_log(store, task, state, change.rewritten)
        partial = change.stored.n_clips % change.stored.block if length in staged else 0
        if partial:
            array_of(open_task(root, task)[0], "status")[-partial:] = PENDING
        put_all(store, {key: data for key, data in staged.items() if key != length})
        put_all(store, {key: data for key, data in staged.items() if key == length})
    if state_of(task_document(store, task)) == state:
        put_all(store, decisive)


def _other_object(store: Store, task: str, staged: Staged) -> str:
    """The first staged object that is there with other bytes, "" for none; one listing where nothing is there."""
    if all(name.startswith("lock.") for name in names_in(store, task)):
        return ""
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        found = zip(staged.items(), pool.map(lambda key: get(store, key), staged), strict=True)
        return next((key for (key, data), there in found if there not in (None, data)), "")


def _refresh(root: zarr.Group) -> None:
    """Make the root's copy of the tasks' metadata anew until it is current, others writing it too."""
    document = document_at(root.store, "zarr.json")
    while document is not None:
        tasks = {name: task for name, task in task_documents(root).items() if plan_of(name, task)}
        current = root_document(document["attributes"][KEY], tasks)
        if document == json.loads(current):
            return
        put_all(root.store, {"zarr.json": current})
        document = document_at(root.store, "zarr.json")


def _has_commits(root: zarr.Group, task: str) -> bool:
    """Whether a task has a committed block: one without may be planned anew."""
    if read_plan(root, task) is None:  # its own document was lost, what was committed may be there
        return bool(names_in(root.store, f"{task}/status/c"))
    return bool((values_of(open_task(root, task)[0], "status") != PENDING).any())


def _remedy(root: zarr.Group, task: str, otherwise: str) -> str:
    if _has_commits(root, task):
        return otherwise
    return f"{otherwise}; or, as nothing is committed yet, begin anew by --replan if no other run is at work on it"


def _check_plan(url: str, root: zarr.Group, task: str, stored: Plan, plan: Plan) -> None:
    differences = replace(plan, n_clips=stored.n_clips, names=stored.names).differences(stored)
    if differences:
        raise ValueError(
            f"{url} task {task} was planned otherwise ({'; '.join(differences)}); "
            "expected the same options as at its first extraction: "
            + _remedy(root, task, "leave them out, or choose another task name")
        )


def _check_clips(url: str, root: zarr.Group, task: str, stored: Plan, clips: ClipTable) -> None:
    if len(clips) < stored.n_clips or clips.head(stored.n_clips).digest != stored.names:
        raise ValueError(
            f"{url} task {task} holds {stored.n_clips} clips that the manifest does not begin with "
            f"(it has {len(clips)}, the first {clips.name[0]!r}); to append, list the stored clips first, in the same "
            "order and from the same audio root; " + _remedy(root, task, "for other clips choose another task name")
        )


def _check_labels(url: str, task: str, group: zarr.Group, state: str, clips: ClipTable) -> dict[str, list[str]]:
    """The label columns that are stored, where those of the clips are among them. Raises ValueError otherwise."""
    found = read_columns(group, state, label_columns(arrays_of(group)))
    columns = {name: read_column(group, name) if column is None else column for name, column in found.items()}
    for name, column in clips.labels.items():
        if columns.get(name) != list(column):
            what = "has other values for" if name in columns else "lacks"
            raise ValueError(
                f"{url} task {task} {what} the manifest's label column {name!r}; "
                f"expected the labels of its first extraction: change them with `otoscope label {url} --task {task}`"
            )
    return columns
