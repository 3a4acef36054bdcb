"""Locks: who may change a task's metadata, when several processes would at the same instant.

Goal: from each state of a task exactly one successor is chosen, by an object that only one of them can create; whoever
wants the same successor helps (all write the same bytes), whoever wants another is refused, or waits until it is done.
Conventions: a lock is TASK/lock.STATE, where STATE is what the change starts from (`state_of`), so that a lock on a
state that is past means nothing. It is deleted when the change is complete, and stays behind a writer that was killed:
the same command, run again, finishes what was begun. Beside it lies the undo log, TASK/undo.STATE (see undo.py).
"""

import json
import os
import platform
import shutil
import time
from datetime import UTC, datetime

from zarr.abc.store import Store
from zarr.storage import LocalStore

from ..group import document_at
from ..objects import delete, keys_below, names_in, put_all, put_new
from .staged import NEW

TIMEOUT_SECONDS = 20.0  # for a change by another run to be completed; none takes longer, but for millions of clips
POLL_SECONDS = 0.2
STATE_DIGITS = 16  # of the state in a lock's name


def acquire(store: Store, task: str, state: str, successor: str) -> bool:
    """Lock a task in a state for the change to a successor (a digest of all that the change writes).

    True: the lock is held, by this process or by another one that does the same. False: it was held for something
    else and is released by now: look at the task again.
    Raises ValueError where it stays held for something else: who holds it, since when, and what to do.
    """
    key = lock_key(task, state)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not put_new(store, key, _content(successor)):
        theirs = document_at(store, key)
        if theirs is None:
            return False
        if theirs.get("successor") == successor:
            return True
        if time.monotonic() > deadline:
            raise ValueError(
                f"{store} task {task} is being changed otherwise, since {theirs.get('since')} by {theirs.get('by')}, "
                "or that was killed; expected one change at a time: wait, or finish it by the same command as then; "
                "a task without a committed block can be begun anew by --replan"
            )
        time.sleep(POLL_SECONDS)
    return True


def release(store: Store, task: str, state: str) -> None:
    """Delete the lock and the undo log of a change that is complete or was not begun."""
    delete(store, (undo_key(task, state), lock_key(task, state)))


def delete_past(store: Store, task: str, state: str) -> None:
    """Delete locks and undo logs of other states than the present one: their writers were killed at the end."""
    present = {lock_key(task, state), undo_key(task, state)}
    found = (f"{task}/{name}" for name in names_in(store, task) if name.startswith(("lock.", "undo.")))
    delete(store, [key for key in found if key not in present and not key.endswith(".partial")])


def delete_task(store: Store, task: str) -> None:
    """Delete all of a task, its own document first, so that it can be begun anew.

    If this is killed, the lock on a task without a plan stays, and refuses others until all is deleted.
    """
    key = lock_key(task, NEW)
    put_all(store, {key: _content("delete")})
    delete(store, [f"{task}/zarr.json"])
    delete(store, [found for found in keys_below(store, f"{task}/") if found != key])
    if isinstance(store, LocalStore):
        for folder in (store.root / task).iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
    release(store, task, NEW)


def locked_states(store: Store, task: str) -> list[str]:
    """First digits of the states from which a change is under way, or was left by a writer that was killed."""
    return [name.removeprefix("lock.") for name in names_in(store, task) if name.startswith("lock.")]


def lock_key(task: str, state: str) -> str:
    """Key of the lock on a task in a state."""
    return f"{task}/lock.{state[:STATE_DIGITS]}"


def undo_key(task: str, state: str) -> str:
    """Key of the undo log of a change from a state."""
    return f"{task}/undo.{state[:STATE_DIGITS]}"


def _content(successor: str) -> bytes:
    by, since = f"process {os.getpid()} on {platform.node()}", datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"successor": successor, "by": by, "since": since}).encode()
