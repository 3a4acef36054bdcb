"""Claims: who may change a task's metadata, when several processes would at the same instant.

Goal: from each state of a task exactly one successor is chosen, by an object that only one of them can create; whoever
wants the same successor helps (all write the same bytes), whoever wants another is refused, or waits until it is done.
Conventions: a claim is TASK/claim.STATE, where STATE is what the change starts from (`state_of`), so that a claim on a
state that is past means nothing. It is deleted when the change is complete, and stays behind a writer that was killed:
the same command, run again, finishes what was begun.
Contents: `claim`, `release`, `tidy`, `is_begun`, `has_claims`, `sweep`.
"""

import json
import os
import platform
import shutil
import time
from datetime import UTC, datetime

from zarr.abc.store import Store
from zarr.core.buffer.cpu import Buffer as CpuBuffer
from zarr.core.sync import sync
from zarr.storage import LocalStore

from ..group import document_at
from ..location import put_new
from .staged import NEW

WAIT = 20.0  # seconds for a change by another run to be completed; none takes longer, but for millions of clips
LOOK = 0.2  # seconds between looks


def claim(store: Store, task: str, state: str, successor: str) -> bool:
    """Claim the change of a task from a state to a successor (a digest of all that the change writes).

    True: the claim is held, by this process or by another one that does the same. False: it was held for something
    else and is released by now: look at the task again.
    Raises ValueError where it stays held for something else: who holds it, since when, and what to do.
    """
    key = claim_key(task, state)
    deadline = time.monotonic() + WAIT
    while not put_new(store, key, _claim(successor)):
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
        time.sleep(LOOK)
    return True


def sweep(store: Store, task: str) -> None:
    """Delete all of a task, its own document first, so that it can be begun anew.

    If this is killed, the claim on a task without a plan stays, and refuses others until it is swept again.
    """
    own, key = f"{task}/zarr.json", claim_key(task, NEW)
    sync(store.set(key, CpuBuffer.from_bytes(_claim("sweep"))))
    sync(store.delete(own))

    async def rest() -> list[str]:
        return [found async for found in store.list_prefix(f"{task}/") if found != key]

    for found in sync(rest()):
        sync(store.delete(found))
    if isinstance(store, LocalStore):
        for folder in (store.root / task).iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
    release(store, task, NEW)


def release(store: Store, task: str, state: str) -> None:
    """Delete the claim on a change that is complete or was not begun."""
    sync(store.delete(kept_key(task, state)))
    sync(store.delete(claim_key(task, state)))


def tidy(store: Store, task: str, state: str) -> None:
    """Delete what belongs to changes from other states than the present one: their writers were killed at the end."""

    async def stale() -> list[str]:
        present = {claim_key(task, state), kept_key(task, state)}
        found = [f"{task}/{name}" async for name in store.list_dir(task) if name.startswith(("claim.", "labels."))]
        return [key for key in found if key not in present and not key.endswith(".partial")]

    for key in sync(stale()):
        sync(store.delete(key))


def is_begun(store: Store, task: str, state: str) -> bool:
    """Whether a change from this state was begun and is not complete."""
    return bool(sync(store.exists(claim_key(task, state))))


def has_claims(store: Store, task: str) -> bool:
    """Whether a change of the task is under way, or was left by a writer that was killed."""

    async def found() -> bool:
        async for name in store.list_dir(task):
            if name.startswith("claim."):
                return True
        return False

    return bool(sync(found()))


def claim_key(task: str, state: str) -> str:
    """Where the claim on a change from a state lies."""
    return f"{task}/claim.{state[:16]}"


def kept_key(task: str, state: str) -> str:
    """Where label columns are kept while a change from a state rewrites them."""
    return f"{task}/labels.{state[:16]}"


def _claim(successor: str) -> bytes:
    by, since = f"process {os.getpid()} on {platform.node()}", datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"successor": successor, "by": by, "since": since}).encode()
