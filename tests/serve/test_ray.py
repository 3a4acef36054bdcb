"""Replicas: many clients at once, one replica killed midway; nothing wrong, nothing lost, no error left over."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import xarray as xr
from benchmarks.service import load

from otoscope.ablate.request import Request
from otoscope.ablate.result import read_result, write_result
from otoscope.ablate.study import look_up, run_study
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.registry import load_encoder
from otoscope.serve.client import Client
from otoscope.serve.jobs import JobFolder

from ..support.running_service import ENCODER, Served, ServedStore, asked

pytestmark = pytest.mark.slow
CLIENTS, SECONDS = 32, 25.0
LONG = asked(controls=10_000, match=("rate",))


def under_load(stored: ServedStore, urls: list[str], state: Path, kill: Callable[[int], None]) -> None:
    """Load on a service, of which `kill` ends the process that has a long job, two seconds after it began."""
    folder = JobFolder(state)
    long = Client(urls[0], "").submit(LONG)

    def later() -> None:
        while (job := folder.get(long)) is None or job.state == "queued":
            time.sleep(0.05)
        time.sleep(2)
        kill(int(job.by.split("-")[-2]))

    killer = threading.Thread(target=later)
    killer.start()
    try:
        found = load(urls, asked(), clients=CLIENTS, seconds=SECONDS, seed=0)
    finally:
        killer.join()
    deadline = time.monotonic() + 300
    while (job := folder.get(long)) is None or job.losses != 1:  # it was taken over
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found.errors == []
    assert found.wrong == 0
    assert found.lost == 0
    assert found.results > 0
    assert not folder.latest(1000, "failed")
    key, result = next(iter(found.by_request.items()))
    study = look_up(Request.from_json(json.loads(key)), stored.url)
    whole = run_study(study, load_encoder(ENCODER), read_manifest(stored.manifest), device="cpu")
    write_result(whole, state / "whole.parquet")
    xr.testing.assert_identical(read_result(state / "whole.parquet"), result)


def test_two_processes_on_one_folder_of_which_one_is_killed(stored: ServedStore, tmp_path: Path) -> None:
    state = tmp_path / "s"
    with Served(stored, state) as first, Served(stored, state) as second:
        by_pid = {served.process.pid: served for served in (first, second)}
        under_load(stored, [first.url, second.url], state, lambda pid: by_pid[pid].kill())


def test_ray_serve_with_a_replica_killed(stored: ServedStore, tmp_path: Path) -> None:
    state = tmp_path / "s"
    with Served(stored, state, "--ray", "--replicas", 2, "--port", free_port()) as served:
        port = int(served.url.rpartition(":")[2])
        bound = {found.laddr.ip for found in psutil.net_connections() if found.laddr and found.laddr.port == port}
        under_load(stored, [served.url], state, lambda pid: os.kill(pid, signal.SIGKILL))
    assert served.process.returncode == 0
    assert bound == {"127.0.0.1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as port:
        return int(port.getsockname()[1])
