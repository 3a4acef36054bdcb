"""Whole runs on a cluster of several nodes that lack the package, whose processes are killed.

Laws: after whatever happened, the same command ends with the store that an undisturbed serial run makes, byte for byte,
and nothing more was done twice than what was in flight where something died.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr

from otoscope.store.status import failed_clips
from otoscope.store.verify import verify

from ..support.faulty_encoder import CRASH
from ..support.marking_workers import alive, wait_for
from ..support.ray_cluster import Job, Machines, end_commands, job, machines, uninterrupted, worker_hosts
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_wav_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Two nodes of one CPU."""
    with machines(tmp_path_factory.mktemp("machines"), 2, cpus=1) as built:
        yield built


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    yield
    end_commands()


PLAIN_CONNECTION = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
from otoscope.cluster.ray import RayExecutor
try:
    list(RayExecutor().run(lambda: abs, [1]))
except OSError as error:
    print(error)
"""


def test_a_connection_of_ones_own_that_brings_no_package_is_an_error_that_says_so(
    nodes: Machines, tmp_path: Path
) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PLAIN_CONNECTION, nodes.address],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert finished.stdout.startswith("workers could not be started 3 times in a row (")
    assert "No module named 'otoscope'" in finished.stdout
    assert len(finished.stdout.splitlines()) == 1


def test_a_clip_that_crashes_and_one_that_is_corrupt_fail_alone(nodes: Machines, tmp_path: Path) -> None:
    work = job(tmp_path / "job", 47)
    work.sounds[22][0] = CRASH * 32768
    write_wav_file(work.folder / "audio/022.wav", work.sounds[22], 1000)
    (work.folder / "audio/030.wav").write_bytes(b"words")
    output = work.run(nodes, "--max-failures", 0.5)
    assert output == f"{work.url} task t: 47 clips, 45 ok, 2 failed\n"
    reasons = dict(failed_clips(str(work.url), "t"))
    assert sorted(reasons) == ["audio/022.wav", "audio/030.wav"]
    assert reasons["audio/022.wav"].startswith("killed its worker 3 times (its process died)")
    assert list(verify(str(work.url))) == []
    assert len(work.workers()) >= 2
    whole = uninterrupted(tmp_path / "twin", job(tmp_path / "healthy", 47))
    assert set(whole) == set(tree_of(work.url))
    made, twin = (xr.open_zarr(url / "t", consolidated=True).load() for url in (work.url, tmp_path / "twin" / "s"))
    others = np.flatnonzero(made["status"] == 1)
    for name in twin.data_vars:
        if "clip" in twin[name].dims and name != "audio_digest":
            mine, theirs = (ds[name].isel(clip=others).values for ds in (made, twin))
            np.testing.assert_array_equal(mine, theirs, err_msg=str(name))


def stopped(work: Job, nodes: Machines, stop: signal.Signals, n_busy: int) -> None:
    """Run the command and stop it once so many processes, those of former runs included, have committed a block."""
    process = work.start(nodes)
    wait_for(lambda: len(work.busy()) >= n_busy)
    workers = [host.pid for host in nodes.worker_hosts()]
    assert workers
    process.send_signal(stop)
    process.communicate(timeout=600)
    assert process.returncode not in (0, -stop), work.errors()
    assert "Traceback" not in work.errors()
    wait_for(lambda: not any(map(alive, workers)))
    assert n_busy <= work.committed() < 24
    assert len(work.workers()) >= 2
    assert list(verify(str(work.url))) == []
    assert json.loads(work.report.read_text())["state"] == "stopped"


def test_told_to_stop_it_drops_what_is_under_way_and_goes_on_from_there(nodes: Machines, tmp_path: Path) -> None:
    """By each signal in turn; the command then says the same on standard output as a serial one, and nothing else."""
    work = job(tmp_path / "job", 95, seconds=0.5)
    stopped(work, nodes, signal.SIGTERM, 2)
    work.take(3.0)  # nobody waits for the second worker of a second run, which is to find something left
    stopped(work, nodes, signal.SIGINT, 4)
    work.take(0.05)
    assert work.run(nodes) == f"{work.url} task t: 95 clips, 95 ok, 0 failed\n"
    assert tree_of(work.url) == uninterrupted(tmp_path / "twin", work)


def test_told_to_stop_while_ray_starts_it_ends_and_says_so(tmp_path: Path) -> None:
    work = job(tmp_path / "job", 47)
    process = work.start(None, "--actors", 2)
    command = psutil.Process(process.pid)
    wait_for(lambda: any("gcs_server" in child.name() for child in command.children(recursive=True)))
    process.terminate()
    process.communicate(timeout=600)
    assert process.returncode == 130, work.errors()
    assert work.errors().splitlines()[-1].startswith("Error: interrupted; whatever is committed is kept")


def test_a_node_that_is_added_gets_workers(nodes: Machines, tmp_path: Path) -> None:
    """And one that is lost loses no block."""
    work = job(tmp_path / "job", 199, seconds=1.0)
    process = work.start(nodes)
    wait_for(lambda: work.committed() >= 1)
    work.take(3600)  # nobody goes on until the newcomer is there, however long that takes it
    added = nodes.add(cpus=1)
    wait_for(lambda: worker_hosts(nodes.raylet(added)))
    (newcomer,) = (host.pid for host in worker_hosts(nodes.raylet(added)))

    def begun() -> int:
        return sum(pid == newcomer for _, pid in work.batches())

    wait_for(begun)
    work.take(1.0)
    wait_for(lambda: begun() > 2)
    work.take(3600)  # a worker outlives its node for a moment, in which it must not end the run
    nodes.strike(added)
    wait_for(lambda: not alive(newcomer))
    work.take(0.05)
    process.communicate(timeout=300)
    assert process.returncode == 0, work.errors()
    report = json.loads(work.report.read_text())
    assert [worker["pid"] for worker in report["workers"] if worker["phase"] == "lost"] == [newcomer]
    assert sum(work.runs_of_blocks().values()) - 49 <= report["retries"] <= 2
    assert tree_of(work.url) == uninterrupted(tmp_path / "twin", work)
    assert list(verify(str(work.url))) == []
    assert len(work.workers()) >= 2  # and the newcomer, if a block of its own came through
