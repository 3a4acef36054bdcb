"""Locks: who may change a task, when several processes would at the same instant.

Goal: from each state of a task exactly one successor is chosen, by an object that only one of them can create. Whoever
wants the same successor waits, and goes on where that one was killed; whoever wants another waits, and is refused.
Conventions: a lock is TASK/lock.STATE, where STATE is what the change starts from (`state_of`), so that a lock on a
state that is past means nothing. It is deleted when the change is complete.
"""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from ..group import document_at
from ..objects import delete, keys_below, names_in, put_all, put_new
from .staged import NEW

TIMEOUT_SECONDS = 15.0  # for a change by another run to be completed; none takes longer, but for millions of clips
POLL_SECONDS = 0.2
STATE_DIGITS = 16  # of the state in a lock's name
FIELDS: dict[str, Any] = {"process": int} | dict.fromkeys(
    ("successor", "command", "machine", "since", "source", "check"), str
)
MAX_PROCESS = 2**31 - 1
AT_WORK: set[str] = set()  # locks under which this process is at work


class Held(ValueError):
    """A task is locked for another change."""


@contextmanager
def acquired(store: Store, url: str, task: str, state: str, lock: dict[str, Any]) -> Iterator[bool]:
    """Lock a task in a state for a change, for the length of a `with` statement; whoever completes it releases it.

    lock: `successor`, a digest of all that the change writes; `command`, what ends it, for whoever finds the lock after
        we were killed; and what else they need for that.
    True: the lock is held, by this process or by one that would do the same and is gone. False: it was held by another
    one and is released by now: look at the task again.
    Raises `Held` where it stays held for something else: who holds it, since when, and what to do.
    """
    key = lock_key(task, state)
    here = f"{store}/{key}"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not put_new(store, key, _content(lock)):
        theirs = lock_at(store, key)
        if theirs is None:
            yield False
            return
        damaged = not {"successor", "process", "machine"} <= set(theirs)
        if damaged or _is_gone(theirs, here) or time.monotonic() > deadline:
            if theirs.get("successor") == lock["successor"]:
                break
            raise Held(
                f"{url} task {task} {describe(theirs)}; expected one change at a time: end that one by the same "
                f"command as then, {theirs.get('command')}; a task without a committed block can be begun anew by "
                "--replan"
            )
        time.sleep(POLL_SECONDS)
    AT_WORK.add(here)
    try:
        yield True
    finally:
        AT_WORK.discard(here)


def describe(lock: dict[str, Any]) -> str:
    """Who holds a lock, and since when."""
    return (
        f"is being changed, or was when that was killed, by process {lock.get('process')} on {lock.get('machine')} "
        f"since {lock.get('since')}"
    )


def _is_gone(lock: dict[str, Any], here: str) -> bool:
    """Whether the process that holds a lock has ended for certain, or is this one, which has left it behind."""
    process = lock.get("process")
    if lock.get("machine") != platform.node() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return process == os.getpid() and here not in AT_WORK


def release(store: Store, task: str, state: str) -> None:
    """Delete the lock of a change that is complete or was not begun."""
    delete(store, [lock_key(task, state)])


def delete_past(store: Store, task: str, state: str) -> None:
    """Delete locks on other states than the present one: their writers were killed at the end."""
    found = [f"{task}/{name}" for name in names_in(store, task) if name.startswith("lock.")]
    delete(store, [key for key in found if key != lock_key(task, state) and not key.endswith(".partial")])


def delete_task(store: Store, task: str) -> None:
    """Delete all of a task, its own document first, so that it can be begun anew.

    If this is killed, the lock on a task without a plan stays, and refuses others until all is deleted.
    """
    key = lock_key(task, NEW)
    put_all(store, {key: _content({"successor": "delete", "command": "`otoscope extract ... --replan`"})})
    delete(store, [f"{task}/zarr.json"])
    delete(store, [found for found in keys_below(store, f"{task}/") if found != key])
    if isinstance(store, LocalStore):
        for folder in (store.root / task).iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
    release(store, task, NEW)


def locks_on(store: Store, task: str) -> list[dict[str, Any]]:
    """The locks on a task: of a change that is under way, or was left by a writer that was killed; {} for a damaged."""
    found = []
    for name in names_in(store, task):
        if name.startswith("lock.") and not name.endswith(".partial"):
            try:
                found.append(lock_at(store, f"{task}/{name}"))
            except ValueError:
                found.append({})
    return [lock for lock in found if lock is not None]


def lock_at(store: Store, key: str) -> dict[str, Any] | None:
    """What a lock says, without what is not of the type that it must have; None where there is none."""
    found = document_at(store, key)
    if found is None:
        return None
    known: dict[str, Any] = {name: value for name, value in found.items() if isinstance(value, FIELDS.get(name, ()))}
    return {name: value for name, value in known.items() if name != "process" or 0 < value <= MAX_PROCESS}


def lock_key(task: str, state: str) -> str:
    """Key of the lock on a task in a state."""
    return f"{task}/lock.{state[:STATE_DIGITS]}"


def _content(lock: dict[str, Any]) -> bytes:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({**lock, "process": os.getpid(), "machine": platform.node(), "since": since}).encode()
