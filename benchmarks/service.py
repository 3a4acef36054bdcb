"""Does the server stand 32 clients while it is killed twice, and a silent crowd; do two actors halve a study?

Each client asks, follows, fetches, cancels and lists at random; what it fetches is compared with what others fetched
and with what the study gives without a server. After a third and after two thirds of the time the server is killed by
-9 and started again. Beside 1,000 connections that are silent or drip, it is asked whether it lives, and with its token
for its tasks. Then studies with many controls are done in turn by a server with one Ray actor and by one with two, on a
machine that does nothing else: by the server's own clock, from being asked for to being done.
"""

import json
import os
import random
import secrets
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from otoscope.ablate.request import Request
from otoscope.analysis.selection.selection import Selection
from otoscope.serve.client import Client
from otoscope.serve.settings import TOKEN

from . import harness
from .harness import Figure, Measured

REQUESTS = 24  # different ones
COMMAND = (sys.executable, "-c", "from otoscope.cli.main import main; main()", "serve")
WAIT_SECONDS = 300.0  # seconds that a client waits for a server to come back, and for a job
HEAD = b"GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nX: "
BODY = b"POST /api/ablations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
BEGINNINGS = (b"", b"G", HEAD, BODY)  # of requests that never end


@dataclass(frozen=True, kw_only=True)
class Size:
    clients: int
    seconds: float
    notes_per_octave: int
    controls: int
    scaled_notes: int
    """Notes per octave of the study that two actors share."""
    scaled_controls: int
    rounds: int
    """Studies on each number of actors."""
    crowd: int
    """Connections that say nothing, or not all."""


FULL = Size(
    clients=32, seconds=90.0, notes_per_octave=20, controls=20, scaled_notes=100, scaled_controls=200, rounds=3,
    crowd=1000,
)  # fmt: skip
SMALL = Size(
    clients=4, seconds=6.0, notes_per_octave=2, controls=1, scaled_notes=2, scaled_controls=1, rounds=1, crowd=10
)


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


def load(url: str, asked: Request, *, clients: int, seconds: float, seed: int) -> Load:
    """Have clients do as they like for some seconds, then see that every job ended; the server may come and go."""
    found, lock = Load(), threading.Lock()
    known: dict[str, Request] = {}
    deadline = time.monotonic() + seconds

    def timed(call: Any, *arguments: Any) -> Any:
        began = time.perf_counter()
        answer = call(*arguments)
        with lock:
            found.seconds.append(time.perf_counter() - began)
        return answer

    def one(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        client = Client(url, timeout=WAIT_SECONDS)
        while time.monotonic() < deadline:
            try:
                act(client, dice)
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
            state = client.wait(job, WAIT_SECONDS)["state"]
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
    last = Client(url, timeout=WAIT_SECONDS)
    for job, request in known.items():
        try:
            state = last.wait(job, WAIT_SECONDS)["state"]
            if state == "done":
                compare(request, last.result(job))
            found.lost += state not in ("done", "cancelled")
        except (LookupError, TimeoutError):
            found.lost += 1
    return found


def seconds_beside_a_crowd(url: str, n: int, rounds: int = 10) -> list[float]:
    """Until a health check and an authorised request were answered, each time, while so many connections drip."""
    parts, client = urlsplit(url), Client(url)
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection((parts.hostname, parts.port), 60)) for _ in range(n)]

        def ask() -> None:
            assert httpx.get(f"{client.url}/api/health/ready", timeout=60, trust_env=False).is_success
            assert client.tasks()

        for i, connection in enumerate(crowd):
            with suppress(OSError):  # it was closed, as one that waits for longest
                connection.sendall(BEGINNINGS[i % len(BEGINNINGS)])
        took = []
        for _ in range(rounds):
            for connection in crowd:
                with suppress(OSError):
                    connection.sendall(b"x")
            took.append(harness.seconds_of(ask))
        return took


class Server:
    """The real command on one port of loopback, which can be killed and started again."""

    def __init__(self, store: str, manifest: Path, state: Path, *more: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        given = (store, "--encoder", "tiny-ssl", "--corpus", manifest, "--state", state, "--device", "cpu")
        self.command, token = [*COMMAND, *map(str, (*given, "--port", port, *more))], secrets.token_hex(32)
        self.environment, self.url = {**os.environ, TOKEN: token}, f"http://127.0.0.1:{port}/?token={token}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.environment
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("serving at ")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """Tell it to end."""
        self.process.terminate()
        self.process.communicate()


def kill_twice(server: Any, seconds: float) -> threading.Thread:
    """After a third and after two thirds of the time, kill a server and start it again."""

    def run() -> None:
        for _ in range(2):
            time.sleep(seconds / 3)
            server.kill()
            server.start()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def store_of(folder: Path, notes_per_octave: int) -> tuple[str, Path]:
    """A store of additive tones, and its manifest."""
    from otoscope.extract.audio.corpora.synth import synthesise
    from otoscope.extract.capture import capture

    manifest = synthesise(folder / "audio", notes_per_octave=notes_per_octave, events_per_category=0)["additive"]
    capture("tiny-ssl", str(manifest), str(folder / "store.zarr"), task="additive", threads=1)
    return str(folder / "store.zarr"), manifest


def seconds_on_actors(store: str, manifest: Path, scratch: Path, asked: Request, rounds: int) -> dict[int, list[float]]:
    """That studies take on one actor and on two, in turn, once the servers have done another one."""
    took: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        clients = {}
        for n in took:
            server = Server(store, manifest, scratch / f"actors-{n}", "--executor", "ray", "--actors", n)
            stack.callback(server.stop)
            clients[n] = Client(server.url)
            clients[n].run(replace(asked, controls=1, seed=rounds), WAIT_SECONDS)
        for seed in range(rounds):
            for n, client in clients.items():
                job = client.wait(client.submit(replace(asked, seed=seed)), WAIT_SECONDS)
                assert job["state"] == "done", job
                took[n].append(job["changed"] - job["submitted"])
    return took


def measure(scratch: Path, size: Size) -> Measured:
    from otoscope.ablate.result import read_result, write_result
    from otoscope.ablate.study import look_up, run_study
    from otoscope.extract.audio.manifest import read_manifest
    from otoscope.extract.models.registry import load_encoder

    url, manifest = store_of(scratch / "load", size.notes_per_octave)
    asked = Request(
        task="additive", label="octave", set="(1,5) (2,7) (3,9)", controls=size.controls,
        selection=Selection(percentile=5.0),
    )  # fmt: skip
    server = Server(url, manifest, scratch / "state")
    killer = kill_twice(server, size.seconds)
    try:
        found = load(server.url, asked, clients=size.clients, seconds=size.seconds, seed=0)
        killer.join()
        beside = seconds_beside_a_crowd(server.url, size.crowd)
    finally:
        killer.join()
        server.stop()
    encoder, corpus = load_encoder("tiny-ssl"), read_manifest(manifest)
    for key, result in list(found.by_request.items())[:3]:
        whole = run_study(look_up(Request.from_json(json.loads(key)), url), encoder, corpus, device="cpu")
        write_result(whole, scratch / "whole.parquet")
        found.wrong += not read_result(scratch / "whole.parquet").identical(result)
    url, manifest = store_of(scratch / "scaled", size.scaled_notes)
    asked = replace(asked, controls=size.scaled_controls)
    took = seconds_on_actors(url, manifest, scratch, asked, size.rounds)
    how = f"{size.clients} clients for {size.seconds:g} s, killed by -9 twice and started again"
    calls = sorted(found.seconds)
    figures = [
        Figure(name=name, value=value, unit=unit, bound=bound, at_least=False, how=how)
        for name, value, unit, bound in (
            ("server under load, wrong results", found.wrong, "results", 1),
            ("server under load, lost jobs", found.lost, "jobs", 1),
            ("server under load, errors at clients", len(found.errors), "errors", 1),
        )
    ]
    silent = Figure(
        name="health and an authorised request beside silent connections", value=max(beside), unit="s", bound=5.0,
        at_least=False, how=f"{size.crowd} connections that say nothing or drip; slowest of {len(beside)}",
    )  # fmt: skip
    how = f"{size.scaled_controls} controls, {len(read_manifest(manifest))} clips, by a server with 1 and 2 Ray actors"
    shared = Figure(
        name="a study on two actors", value=harness.median_ratio(took[1], took[2]) / 2, unit="of linear", bound=0.8,
        at_least=True, how=f"{how}, in turn; median of {size.rounds}",
    )  # fmt: skip
    figures += [silent, shared]
    raw = {
        "results": found.results, "calls": len(calls), "calls_per_second": len(calls) / size.seconds,
        "median_call_seconds": statistics.median(calls), "p99_call_seconds": calls[int(0.99 * (len(calls) - 1))],
        "errors": found.errors[:10], "seconds_beside_a_crowd": beside,
        "study_seconds": {str(n): seconds for n, seconds in took.items()},
    }  # fmt: skip
    return Measured(figures=figures, raw=raw)


def main() -> None:
    harness.main("service")


if __name__ == "__main__":
    main()
