"""In what a manifest and options differ from what a task holds, and what to do about it.

Goal: a run goes on from what is stored, or ends with a sentence that says what differs, and what would do.
Conventions: nothing is written here. A difference is a ValueError.
"""

from collections.abc import Sequence

import numpy as np
import zarr

from ...messages import quoted
from ..group import column_of, open_root, open_task, read_record, status_of, values_of
from ..objects import names_in
from ..provenance import Plan, TaskRecord, digest_of
from ..schema import PENDING
from .staged import ClipTable, Origin


def check_origin(url: str, task: str, stored: Origin, origin: Origin) -> None:
    """Raise ValueError where numbers of an origin may not enter a task of another one."""
    if differences := origin.differences(stored):
        raise ValueError(
            f"{url} task {task} holds activations of another identity ({'; '.join(differences)}); expected the same "
            "encoder and options: choose another task name, or --replan where nothing is committed"
        )


def check_task(url: str, task: str, plan: Plan, clips: ClipTable) -> None:
    """Raise ValueError, naming what differs, for a plan, clips or labels that do not go on from those of a task."""
    root = open_root(url)
    check_record(url, root, task, open_task(root, task)[1], plan, clips)


def check_record(url: str, root: zarr.Group, task: str, stored: TaskRecord, plan: Plan, clips: ClipTable) -> None:
    """`check_task` of a record that was read."""
    _check_plan(url, root, task, stored.plan, plan)
    _check_clips(url, root, task, stored.plan, clips)
    _check_labels(url, root, task, stored, clips.head(stored.plan.n_clips))


def _check_plan(url: str, root: zarr.Group, task: str, stored: Plan, plan: Plan) -> None:
    differences = plan.with_clips_of(stored).differences(stored)
    if differences:
        raise ValueError(
            f"{url} task {task} was planned otherwise ({'; '.join(differences)}); "
            "expected the same options as at its first extraction: "
            + _remedy(root, task, "leave them out, or choose another task name")
        )


def _check_clips(url: str, root: zarr.Group, task: str, stored: Plan, clips: ClipTable) -> None:
    n = stored.n_clips
    if len(clips) < n or not clips.head(n).match(stored):
        raise ValueError(
            f"{url} task {task} holds {n} clips, and the manifest {_how_clips_differ(root, task, stored, clips)}; "
            "expected all of them at its beginning: to append, list the stored clips first, in the same order, from "
            "the same audio root and with the same prompts; "
            + _remedy(root, task, "for other clips choose another task name")
        )


def _how_clips_differ(root: zarr.Group, task: str, stored: Plan, clips: ClipTable) -> str:
    """In what the clips of a manifest are not those of a task: which there are, their order, their files, prompts."""
    group, n = open_task(root, task)[0], stored.n_clips
    names = column_of(group, "clip", stored.names)
    lacking = set(names).difference(clips.name)
    at = next((i for i, (ours, theirs) in enumerate(zip(clips.name, names, strict=False)) if ours != theirs), None)
    if at is None and len(clips) < n:
        return f"lists only the first {len(clips)}"
    if lacking:
        first = next(name for name in names if name in lacking)
        return f"lacks {len(lacking)} of them, the first {quoted(first)} (its own first is {quoted(clips.name[0])})"
    if at is not None:
        return f"lists them in another order (number {at + 1} is {quoted(clips.name[at])}, not {quoted(names[at])})"
    theirs = zip(*(values_of(group, column) for column in ("path", "start", "stop")), strict=True)
    own = zip(clips.path, clips.start, clips.stop, strict=True)
    for name, there, here in zip(names, theirs, own, strict=False):
        if there[0] != here[0] or not np.array_equal(there[1:], here[1:], equal_nan=True):
            return f"gives {quoted(name)} another source ({_source(*here)}, not {_source(*there)})"
    if (clips.prompt is None) != (stored.prompts is None):
        return "has prompts, which they have not" if stored.prompts is None else "has no prompts, which they have"
    return "has other prompts"


def _source(path: str, start: float, stop: float) -> str:
    """A file, and what part of it."""
    end = "its end" if np.isnan(stop) else f"{stop:g} s"
    return quoted(str(path)) + ("" if np.isnan([start, stop]).all() else f" from {np.nan_to_num(start):g} s to {end}")


def _check_labels(url: str, root: zarr.Group, task: str, stored: TaskRecord, clips: ClipTable) -> None:
    """Raise ValueError where labels of the clips are not those that are stored."""
    for name, column in clips.labels.items():
        if is_stored(stored, name, column):
            continue
        command, what = f"`otoscope label {url} --task {task} TABLE`", f"lacks the manifest's label column {name!r}"
        if name in stored.labels:
            there = column_of(open_task(root, task)[0], stored.labels[name].array, stored.labels[name].digest)
            i = next(i for i, (a, b) in enumerate(zip(there, column, strict=True)) if a != b)
            what = (
                f"has other values for the manifest's label column {name!r} (of {quoted(clips.name[i])} "
                f"{quoted(there[i])}, not {quoted(column[i])})"
            )
            command = f"{command[:-1]} --replace`"
        raise ValueError(
            f"{url} task {task} {what}; expected the labels of its first extraction: change them with {command}"
        )


def _remedy(root: zarr.Group, task: str, otherwise: str) -> str:
    if has_commits(root, task):
        return otherwise
    return f"{otherwise}; or, as nothing is committed yet, begin anew by --replan if no other run is at work on it"


def has_commits(root: zarr.Group, task: str) -> bool:
    """Whether a task has a committed block: one without may be planned anew."""
    if read_record(root, task) is None:  # its own document was lost, what was committed may be there
        return bool(names_in(root.store, f"{task}/status/c"))
    group, record = open_task(root, task)
    return bool((status_of(group, record.plan) != PENDING).any())


def is_stored(record: TaskRecord, name: str, column: Sequence[str]) -> bool:
    """Whether a label column of a task has these values."""
    return name in record.labels and record.labels[name].digest == digest_of(list(column))
