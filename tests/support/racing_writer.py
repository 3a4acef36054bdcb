"""What one of several processes does to a store, at an instant that is given to all: `python -c` runs `main`.

Argument: a JSON object with `url`, `role` and what the role takes. It prints "ready", reads the instant (seconds since
1970), and prints "done" or the error.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from zarr.storage import LocalStore

from otoscope.store.blocks import Block
from otoscope.store.changes.tasks import add_labels, add_task, create
from otoscope.store.location import Bucket, zarr_store
from otoscope.store.objects import put_new
from otoscope.store.writer import pending_blocks, write_block

from .known_store import Known, make_known


def planned(known: Known, given: dict[str, Any]) -> Known:
    """The known store, by another plan, or the beginning of it, or louder."""
    known = known.head(given["clips"]) if "clips" in given else known
    known = replace(known, plan=replace(known.plan, **given.get("plan", {})))
    known = replace(known, identity=replace(known.identity, **given.get("identity", {})))
    louder = given.get("louder", 0)
    return replace(known, mean=known.mean + louder, positive=known.positive + louder)


def stop_after(writes: int) -> None:
    """Let this process be stopped (SIGSTOP) after so many further objects, as a machine that hangs."""
    left = iter(range(writes))
    for store in (LocalStore, Bucket):

        async def stopping(self: Any, key: str, value: Any, put: Any = store.set) -> None:
            if next(left, None) is None:
                for kind, whole in originals.items():
                    kind.set = whole  # type: ignore[method-assign]
                # To this thread, which goes no further then: a signal to the process may reach another thread first.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            await put(self, key, value)

        originals[store] = store.set
        store.set = stopping  # type: ignore[method-assign, assignment]


originals: dict[Any, Any] = {}


def extract(url: str, known: Known) -> None:
    """Begin or resume, as a run does."""
    known.begin(url)
    for block in pending_blocks(url, "t"):
        known_write(url, known, block)


def known_write(url: str, known: Known, block: Block) -> None:
    write_block(url, block, known.values(block), known.status[block.clips], "code 1", plan=known.plan)


def act(given: dict[str, Any]) -> None:
    known, url = planned(make_known(), given), given["url"]
    if given["role"] != "take":
        create(url)
    time.sleep(max(0.0, given["at"] - time.time()))
    match given["role"]:
        case "plan":
            add_task(
                url, given.get("task", "t"), known.origin, known.plan, known.clips, replan=given.get("replan", False)
            )
        case "extract":
            extract(url, known)
        case "label":
            name = given["name"]
            add_labels(url, "t", {name: [name] * given.get("n", len(known.clips))})
        case "block":
            if "stop_after" in given:
                stop_after(given["stop_after"])
            known_write(url, known, known.blocks()[given["block"]])
        case "take":
            store, took = zarr_store(url).with_read_only(False), []
            for i in range(given["n"]):
                time.sleep(max(0.0, given["at"] + given["apart"] * i - time.time()))  # all at the same instants
                took.append(put_new(store, f"taken/{i}", str(os.getpid()).encode()))
            report(json.dumps(took))


def main() -> None:
    """Do it once or, given `rounds`, once per store URL-ROUND, half a second apart."""
    given = json.loads(sys.argv[1])
    report("ready")
    at = float(sys.stdin.readline())
    for i in range(given.get("rounds", 1)):
        url = given["url"] + (f"-{i}" if "rounds" in given else "")
        try:
            act({**given, "url": url, "at": at + given.get("apart", 0.5) * i})
        except Exception as error:
            report(f"{type(error).__name__}: {error}")
        else:
            report("done")


def report(line: str) -> None:
    """A line that arrives at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
