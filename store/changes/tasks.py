"""Create a store, add tasks, clips and labels: everything about a store that is no block. FORMAT.md is the norm.

Goal: whatever happens, and whoever else does the same or something else at the same instant, a task exists whole or
not at all, under one plan.
Conventions: a root exists if and only if it has an identity, a task if and only if its group has a plan, which is
therefore written last. A change is drafted in memory (draft.py), claimed (claims.py), then written.
Contents: `create`, `add_task`, `add_labels`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from ..clips import ClipTable
from ..group import (
    KEY,
    array_documents,
    array_of,
    arrays_of,
    copies_of,
    document_at,
    nothing_at,
    open_root,
    open_task,
    plan_of,
    read_identity,
    refuse_name,
    task_documents,
    task_names,
    values_of,
)
from ..labels import LABEL_PREFIX
from ..location import put_all, put_new, zarr_store
from ..provenance import Identity, Plan, digest_of
from ..schema import FORMAT_VERSION, PENDING
from .lock import claim, release, sweep, tidy
from .staged import Draft, draft_labels, draft_task, root_document, state_of
from .undo import columns_of, keep_columns, read_column

Document = dict[str, Any] | None  # a task's zarr.json


def create(url: str, identity: Identity) -> None:
    """Make the store, or check that an existing one has this identity.

    Of several that make it at the same instant one does, and the others check.
    Raises ValueError naming the fields that differ, or when something else lies at the url.
    """
    if nothing_at(url):
        about = {
            "format": FORMAT_VERSION,
            "identity": identity.to_json(),
            "identity_digest": digest_of(identity.to_json()),
        }
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
    refuse_name(task)
    root = open_root(url)
    identity = read_identity(root)

    def change(document: Document) -> Change | None:
        stored = plan_of(task, document)
        if stored is None:
            return Change(draft=draft_task(task, identity, plan, clips))
        group, _ = open_task(root, task)
        _refuse_other_plan(url, root, task, stored, plan)
        _refuse_other_clips(url, root, task, stored, clips)
        columns = _refuse_other_labels(url, task, group, state_of(document), clips.head(stored.n_clips))
        if len(clips) == stored.n_clips:
            return None
        unlabelled = [""] * len(clips)
        labels = {
            name: [*column, *clips.labels.get(name, unlabelled)[stored.n_clips :]] for name, column in columns.items()
        }
        draft = draft_task(task, identity, plan, replace(clips, labels=labels))
        return Change(draft=draft, stored=stored, rewritten=columns)

    if replan and plan_of(task, document_at(root.store, f"{task}/zarr.json")) != plan and not _has_commits(root, task):
        sweep(root.store, task)
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
        there = [name for name in columns if LABEL_PREFIX + name in arrays_of(group)]
        stored = columns_of(group, state_of(document), there)
        other = {name: column for name, column in columns.items() if stored.get(name) != list(column)}
        taken = [name for name in other if name in stored]
        if taken and not overwrite:
            raise ValueError(
                f"{url} task {task} has a label column {taken[0]!r} with other values; expected a new name, "
                "or --replace to overwrite it"
            )
        draft = draft_labels(task, identity, plan, copies_of(document) or array_documents(group), other)
        rewritten = {name: column for name, column in stored.items() if name in other and column is not None}
        return Change(draft=draft, stored=plan, rewritten=rewritten) if other else None

    _carry_out(root, task, change)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to become of a task: its new documents and values, and the plan that it has, if any."""

    draft: Draft
    stored: Plan | None = None
    rewritten: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Label columns that there are, as they are."""

    @property
    def digest(self) -> str:
        """SHA-256 over all that is written."""
        return digest_of({key: hashlib.sha256(data).hexdigest() for key, data in self.draft.items()})


def _carry_out(root: zarr.Group, task: str, change: Callable[[Document], Change | None]) -> None:
    """Change a task, by one claim, until nothing is left to change; then refresh the root's copy of its metadata."""
    store, own = root.store, f"{task}/zarr.json"
    while True:
        document = document_at(store, own)
        state = state_of(document)
        try:
            wanted = change(document)
        except (ValueError, LookupError):
            if state_of(document_at(store, own)) != state:
                continue  # another run changed the task while it was looked at
            raise
        if wanted is None:
            tidy(store, task, state)
            break
        if claim(store, task, state, wanted.digest):
            if state_of(document_at(store, own)) == state:
                _publish(root, task, state, wanted)
                _refresh(root)  # under the claim, so that a writer killed in between leaves a sign of it
            release(store, task, state)
    _refresh(root)


def _publish(root: zarr.Group, task: str, state: str, change: Change) -> None:
    """Write a draft; the task's own document last, before it the length of the status."""
    store, draft = root.store, dict(change.draft)
    own, length = f"{task}/zarr.json", f"{task}/status/zarr.json"
    decisive = {own: draft.pop(own)}
    if change.stored is None:
        other = _unlike(store, task, draft)
        if other:
            release(store, task, state)  # nothing was done under it, and it would be in the way of the right command
            raise ValueError(
                f"{other} in {store} is of a task that was begun otherwise; expected the same command, with the same "
                "options, as then, or --replan to begin anew where nothing of it is committed, if no other run is at "
                "work on it"
            )
        # Nothing is replaced, so that one who comes late changes nothing that has become of the task in the meantime.
        with ThreadPoolExecutor(8) as pool:
            for key, is_ours in pool.map(lambda item: (item[0], _put_same(store, *item)), draft.items()):
                if not is_ours:
                    raise ValueError(
                        f"{key} in {store} was written by another run at this moment; run the command again"
                    )
    else:
        if change.rewritten:
            keep_columns(store, task, state, change.rewritten)
        partial = change.stored.n_clips % change.stored.block if length in draft else 0
        if partial:
            array_of(open_task(root, task)[0], "status")[-partial:] = PENDING
        put_all(store, {key: data for key, data in draft.items() if key != length})
        put_all(store, {key: data for key, data in draft.items() if key == length})
    if state_of(document_at(store, own)) == state:
        put_all(store, decisive)


def _unlike(store: Store, task: str, draft: Draft) -> str:
    """The first object of a draft that is there with other bytes, "" for none; one listing where nothing is there."""

    async def there() -> list[str]:
        return [name async for name in store.list_dir(task) if not name.startswith("claim.")]

    if not sync(there()):
        return ""

    def differs(key: str) -> bool:
        found = sync(store.get(key, default_buffer_prototype()))
        return found is not None and found.to_bytes() != draft[key]

    with ThreadPoolExecutor(8) as pool:
        return next((key for key, other in zip(draft, pool.map(differs, draft), strict=True) if other), "")


def _put_same(store: Store, key: str, data: bytes) -> bool:
    """Write an object where there is none; whether it now holds these bytes."""
    if put_new(store, key, data):
        return True
    there = sync(store.get(key, default_buffer_prototype()))
    return there is not None and there.to_bytes() == data


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
    if plan_of(task, document_at(root.store, f"{task}/zarr.json")) is None:

        async def written() -> bool:  # its own document was lost, what was committed may be there
            async for _ in root.store.list_dir(f"{task}/status/c"):
                return True
            return False

        return bool(sync(written()))
    return bool((values_of(open_task(root, task)[0], "status") != PENDING).any())


def _remedy(root: zarr.Group, task: str, otherwise: str) -> str:
    if _has_commits(root, task):
        return otherwise
    return f"{otherwise}; or, as nothing is committed yet, begin anew by --replan if no other run is at work on it"


def _refuse_other_plan(url: str, root: zarr.Group, task: str, stored: Plan, plan: Plan) -> None:
    differences = replace(plan, n_clips=stored.n_clips, names=stored.names).differences(stored)
    if differences:
        raise ValueError(
            f"{url} task {task} was planned otherwise ({'; '.join(differences)}); "
            "expected the same options as at its first extraction: "
            + _remedy(root, task, "leave them out, or choose another task name")
        )


def _refuse_other_clips(url: str, root: zarr.Group, task: str, stored: Plan, clips: ClipTable) -> None:
    if len(clips) < stored.n_clips or clips.head(stored.n_clips).digest != stored.names:
        raise ValueError(
            f"{url} task {task} holds {stored.n_clips} clips that the manifest does not begin with "
            f"(it has {len(clips)}, the first {clips.name[0]!r}); to append, list the stored clips first, in the same "
            "order and from the same audio root; " + _remedy(root, task, "for other clips choose another task name")
        )


def _refuse_other_labels(url: str, task: str, group: zarr.Group, state: str, clips: ClipTable) -> dict[str, list[str]]:
    names = sorted(name.removeprefix(LABEL_PREFIX) for name in arrays_of(group) if name.startswith(LABEL_PREFIX))
    found = columns_of(group, state, names)
    columns = {name: read_column(group, name) if column is None else column for name, column in found.items()}
    for name, column in clips.labels.items():
        if columns.get(name) != list(column):
            what = "has other values for" if name in columns else "lacks"
            raise ValueError(
                f"{url} task {task} {what} the manifest's label column {name!r}; "
                f"expected the labels of its first extraction: change them with `otoscope label {url} --task {task}`"
            )
    return columns
