"""Does the ablation service stand 32 clients with mixed requests while one of two processes is killed?

Two processes share a state folder. Each client asks, follows, fetches, cancels and lists at random; what it fetches is
compared with what others fetched and with what the study gives without a service. After a third of the time one process
is killed.
"""

import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from otoscope.ablate.request import Request
from otoscope.analysis.selection.selection import Selection
from otoscope.serve.client import Client

from . import harness
from .harness import Figure, Measured

REQUESTS = 24  # different ones


@dataclass(frozen=True, kw_only=True)
class Size:
    clients: int
    seconds: float
    notes_per_octave: int
    controls: int
    lease: float
    """Seconds after which the job of a killed process is another's."""


FULL = Size(clients=32, seconds=90.0, notes_per_octave=20, controls=20, lease=20.0)
SMALL = Size(clients=2, seconds=2.0, notes_per_octave=2, controls=1, lease=2.0)


@dataclass(kw_only=True)
class Load:
    """What clients saw."""

    results: int = 0
    """Results that were fetched."""
    wrong: int = 0
    """Results unlike others of the same request."""
    lost: int = 0
    """Jobs that were there once and ended as neither done nor cancelled, or were not there in the end."""
    errors: list[str] = field(default_factory=list)
    """What no client should see."""
    seconds: list[float] = field(default_factory=list)
    """Each call that was answered, retries included."""
    by_request: dict[str, Any] = field(default_factory=dict)
    """One result of each request, by its JSON."""


def load(urls: Sequence[str], asked: Request, *, clients: int, seconds: float, seed: int) -> Load:
    """Have clients do as they like for some seconds, then see that every job ended; all URLs but one may die."""
    found, lock = Load(), threading.Lock()
    known: dict[str, Request] = {}
    deadline = time.monotonic() + seconds

    def alive() -> list[str]:
        """URLs at which something listens."""
        found = []
        for url in urls:
            with suppress(OSError), socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 5):
                found.append(url)
        return found

    def timed(call: Any, *arguments: Any) -> Any:
        began = time.perf_counter()
        answer = call(*arguments)
        with lock:
            found.seconds.append(time.perf_counter() - began)
        return answer

    def one(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        ours = [Client(url, "", timeout=60.0 if len(urls) == 1 else 15.0) for url in urls]
        while time.monotonic() < deadline:
            client = dice.choice(ours)
            try:
                act(client, dice)
            except OSError as error:
                with lock:
                    if len(ours) > 1 and client.url not in alive():
                        ours.remove(client)  # it was killed: the others go on
                    else:
                        found.errors.append(repr(error))
            except Exception as error:
                with lock:
                    found.errors.append(repr(error))

    def act(client: Client, dice: random.Random) -> None:
        request = replace(asked, seed=dice.randrange(REQUESTS))
        what = dice.choices(("fetch", "cancel", "list", "look"), (6, 1, 2, 2))[0]
        if what == "list":
            timed(client.jobs)
        elif what == "look":
            timed(client.categories, request.task, request.label)
        else:
            job = timed(client.submit, request)
            with lock:
                known[job] = request
            if what == "cancel":
                try:
                    timed(client.cancel, job)
                except ValueError as done:
                    if "the job is done" not in str(done):
                        raise
                return
            state = client.wait(job, 120)["state"]
            if state == "done":
                compare(request, timed(client.result, job))
            elif state != "cancelled":
                raise AssertionError(f"{job} {state}")

    def compare(request: Request, result: Any) -> None:
        key = json.dumps(request.to_json(), sort_keys=True)
        with lock:
            found.results += 1
            found.wrong += not found.by_request.setdefault(key, result).identical(result)

    with ThreadPoolExecutor(clients) as pool:
        for task in [pool.submit(one, number) for number in range(clients)]:
            task.result()
    last = Client(alive()[-1], "")
    for job, request in known.items():
        try:
            state = last.wait(job, 120)["state"]
            if state == "done":
                compare(request, last.result(job))
            found.lost += state not in ("done", "cancelled")
        except (LookupError, TimeoutError):
            found.lost += 1
    return found


SERVE = """
import json, sys
from otoscope.serve.app import Settings, run_process
run_process(Settings(**json.loads(sys.argv[1])), "127.0.0.1", 0, lambda url: print(url, flush=True))
"""


def start(store: str, manifest: str, state: Path, lease: float) -> tuple["subprocess.Popen[str]", str]:
    """A service on a free port of loopback, and its URL."""
    settings = {
        "store": store, "encoder": "tiny-ssl", "corpora": {"additive": [manifest, None]}, "state": str(state),
        "device": "cpu", "lease": lease,
    }  # fmt: skip
    command = [sys.executable, "-c", SERVE, json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def measure(scratch: Path, size: Size) -> Measured:
    from otoscope.ablate.result import read_result, write_result
    from otoscope.ablate.study import look_up, run_study
    from otoscope.extract.audio.corpora.synth import synthesise
    from otoscope.extract.audio.manifest import read_manifest
    from otoscope.extract.capture import capture
    from otoscope.extract.models.registry import load_encoder

    manifest = synthesise(scratch / "audio", notes_per_octave=size.notes_per_octave, events_per_category=0)["additive"]
    url, state = str(scratch / "store.zarr"), scratch / "state"
    capture("tiny-ssl", str(manifest), url, task="additive", threads=1)
    asked = Request(
        task="additive", label="octave", set="(1,5) (2,7) (3,9)", controls=size.controls,
        selection=Selection(percentile=5.0),
    )  # fmt: skip
    (first, one), (second, two) = (start(url, str(manifest), state, size.lease) for _ in range(2))
    killer = threading.Timer(size.seconds / 3, first.kill)
    try:
        killer.start()
        found = load([one, two], asked, clients=size.clients, seconds=size.seconds, seed=0)
    finally:
        killer.join()
        for process in (first, second):
            process.kill()
            process.communicate()
    encoder, corpus = load_encoder("tiny-ssl"), read_manifest(manifest)
    for key, result in list(found.by_request.items())[:3]:
        whole = run_study(look_up(Request.from_json(json.loads(key)), url), encoder, corpus, device="cpu")
        write_result(whole, scratch / "whole.parquet")
        found.wrong += not read_result(scratch / "whole.parquet").identical(result)
    how = f"{size.clients} clients for {size.seconds:g} s, 2 processes, one killed after a third"
    calls = sorted(found.seconds)
    figures = [
        Figure(name=name, value=value, unit=unit, bound=bound, at_least=False, how=how)
        for name, value, unit, bound in (
            ("service under load, wrong results", found.wrong, "results", 1),
            ("service under load, lost jobs", found.lost, "jobs", 1),
            ("service under load, errors at clients", len(found.errors), "errors", 1),
        )
    ]
    raw = {
        "results": found.results, "calls": len(calls), "calls_per_second": len(calls) / size.seconds,
        "median_call_seconds": statistics.median(calls), "p99_call_seconds": calls[int(0.99 * (len(calls) - 1))],
        "errors": found.errors[:10],
    }  # fmt: skip
    return Measured(figures=figures, raw=raw)


def main() -> None:
    harness.main("service")


if __name__ == "__main__":
    main()
