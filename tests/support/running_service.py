"""A small store, its sounds, and services on it: in this process, or as the real command in another one."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from otoscope.ablate.jobs.process import JobProcess, Outcome, Progress, outcome_of
from otoscope.ablate.jobs.results import Results
from otoscope.ablate.jobs.runner import JobRunner
from otoscope.ablate.request import Request
from otoscope.analysis.selection.selection import Selection
from otoscope.cli.options import executor_of
from otoscope.cluster.executor import SerialExecutor
from otoscope.extract.capture import capture
from otoscope.serve.connections import BoundedProtocol
from otoscope.serve.routes import make_app
from otoscope.serve.settings import Settings

from . import planted_encoder as planted
from .commands import command
from .planted_corpus import write_sounds

ENCODER = f"module:{planted.__file__}:planted"
SELECTION = Selection(percentile=4.0, clips="all")
ASKED: dict[str, Any] = {
    "task": "t", "label": "letter", "set": "only(d)", "selection": SELECTION.to_json(), "controls": 5,
}  # fmt: skip
NOBODY = "0" * 64  # no job has this id


@dataclass(frozen=True, kw_only=True)
class ServedStore:
    """A store of the planted encoder with one task, "t"."""

    url: str
    manifest: Path

    def settings(self, state: Path, **more: Any) -> Settings:
        """Of a service on it."""
        state.mkdir(parents=True, exist_ok=True)
        given = {"corpora": {"t": (str(self.manifest), None)}, "encoder": ENCODER, "device": "cpu", **more}
        workers, hosts = partial(executor_of, "serial"), ("testserver", "localhost", "127.0.0.1")
        return Settings(stores=(self.url,), state=state, workers=workers, hosts=hosts, **given)


def made(folder: Path, per_category: int = 15) -> ServedStore:
    """Sounds and store under a folder."""
    manifest, url = write_sounds(folder, per_category), str(folder / "store.zarr")
    capture(ENCODER, manifest, url, task="t", threads=1, batch=8)
    return ServedStore(url=url, manifest=manifest)


RUNNERS: dict[str, JobRunner] = {}
"""By what they were made of, since loading and comparing an encoder takes longer than most jobs here."""


def runner_of(settings: Settings) -> JobRunner:
    """One for a service, which shares encoder and corpora with those of other services."""
    made_of = repr((settings.stores, settings.encoder, settings.corpora, settings.device))
    if made_of not in RUNNERS:
        RUNNERS[made_of] = JobRunner(settings, SerialExecutor())
    runner = copy(RUNNERS[made_of])
    runner.setup, runner.results = settings, Results(settings.state / "results")
    return runner


class HereProcess(JobProcess):
    """Does jobs in a thread of this process, which starts at once; they cannot be cancelled while they run."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.runner = runner_of(settings)
        self.may_begin = threading.Event()
        self.may_begin.set()

    def run(self, job: str, asked: Mapping[str, Any], progress: Progress, cancelled: threading.Event) -> Outcome:
        """Do a job."""
        self.may_begin.wait(300)
        return outcome_of(self.runner, job, asked, progress)


@contextmanager
def client_of(app: FastAPI, **options: Any) -> Iterator[TestClient]:
    """An application with its worker loop running."""
    with TestClient(app, base_url="http://testserver/api", raise_server_exceptions=False, **options) as client:
        yield client


@contextmanager
def serving(stored: ServedStore, state: Path, **more: Any) -> Iterator[TestClient]:
    """A service in this process, its jobs too."""
    settings = stored.settings(state, **more)
    with client_of(make_app(settings, HereProcess(settings))) as client:
        yield client


def asked(**more: Any) -> Request:
    """The request of ASKED, or one like it."""
    return Request(**{**ASKED, "selection": SELECTION, **more})


def ended(client: TestClient, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (found := client.get(f"/ablations/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def done(client: TestClient, **asked: Any) -> str:
    """Id of a job that was asked for and is done."""
    answer = client.post("/ablations", json=asked)
    assert answer.status_code in (200, 202), answer.text
    found = ended(client, answer.json()["id"])
    assert found["state"] == "done", found
    return str(found["id"])


class Served:
    """The real command in a process of its own, on a free port of loopback."""

    def __init__(self, stored: ServedStore, state: Path, *more: object, env: dict[str, str] | None = None) -> None:
        given = (stored.url, "--encoder", ENCODER, "--corpus", stored.manifest, "--state", state, "--device", "cpu")
        port = () if "--port" in more else ("--port", 0)
        self.command, self.env = command("serve", *given, *port, *more), {**os.environ, **(env or {})}
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(self.command, env=self.env, text=True, **pipes)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("serving at "):
            raise OSError(f"it did not start: {self.stop()}")
        self.link = line.split()[-1]
        self.url = urlunsplit((*urlsplit(self.link)[:2], "", "", ""))

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> str:
        """End it by SIGTERM, if it still runs; what it wrote to standard error."""
        self.process.terminate()
        return self.process.communicate(timeout=300)[1]

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """An application on a free port of loopback, in a thread of this process: its URL."""
    config = uvicorn.Config(app, http=BoundedProtocol, log_config=None, access_log=False, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as port:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [port]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(120)
