"""Whole runs on a cluster, killed: actors, nodes and the command itself.

Laws: after whatever happened, the same command ends with the store that an undisturbed serial run makes, byte for byte,
and nothing more was done twice than what was in flight where something died.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from otoscope.store.verify import verify

from ..support.amounts import some
from ..support.marking_workers import alive, wait_for
from ..support.ray_cluster import Job, end_commands, job, machines, uninterrupted, worker_hosts
from ..support.stored_files import tree_of

output = logging.getLogger(__name__)
pytestmark = pytest.mark.slow
KILLS = some(10, of=30)
BLOCKS = some(30, of=72)  # the last one of 3 clips
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # they do no work, and go a minute after their raylet


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    yield
    end_commands()


def until_at_work(work: Job, process: "subprocess.Popen[str]") -> None:
    """Until another block begins, or the command ends."""
    before = sum(work.runs_of_blocks().values())
    wait_for(lambda: sum(work.runs_of_blocks().values()) > before or process.poll() is not None)


def test_killed_again_and_again_at_random_nothing_is_lost_or_done_for_nothing(tmp_path: Path) -> None:
    """Actors, nodes and the command itself, by kill -9 at random moments; the command is run again where it died."""
    seed = int(os.environ.get("OTOSCOPE_SEED", time.time_ns() % 10**9))
    output.warning("seed %d: OTOSCOPE_SEED repeats it", seed)
    rng = np.random.default_rng(seed)
    work = job(tmp_path / "job", 4 * BLOCKS - 1, seconds=2.5)
    others = [*["node"] * (KILLS // 5), *["driver"] * (KILLS // 10)]
    kinds = [*map(str, rng.permutation(["actor"] * (KILLS - 1 - len(others)) + others)), "actor"]
    kills: list[str] = []
    bound = 0  # blocks in flight on what was killed
    with machines(tmp_path, 2) as nodes:
        process = work.start(nodes)
        while len(kills) < KILLS:
            if not kills or rng.random() < 0.7:  # blocks are under way; else whatever there is, such as mere starts
                until_at_work(work, process)
            time.sleep(rng.uniform(0.0, 1.5))
            if process.poll() is not None:  # the look at the encoder was struck again and again
                assert process.returncode == 2, work.errors()
                process = work.start(nodes)
            wait_for(nodes.worker_hosts)
            there, kind = nodes.worker_hosts(), kinds[len(kills)]
            if kind == "driver":
                process.kill()
                process.communicate()
                process = work.start(nodes)
                bound += 2 * len(there)
            elif kind == "node":
                node = nodes.nodes[rng.integers(len(nodes.nodes))]
                bound += 2 * len(worker_hosts(nodes.raylet(node)))
                nodes.strike(node)
                nodes.add()
            else:
                os.kill(there[rng.integers(len(there))].pid, signal.SIGKILL)
                bound += 2
            kills.append(kind)
            output.warning("kill %d: %s, of %d actors; %d blocks", len(kills), kind, len(there), work.committed())
        assert 0 < work.committed() < BLOCKS  # it was in the midst of it
        work.take(0.1)
        process.communicate(timeout=300)
        assert process.returncode == 0, work.errors()
    assert tree_of(work.url) == uninterrupted(tmp_path / "twin", work)
    assert list(verify(str(work.url))) == []
    runs = work.runs_of_blocks()
    assert sorted(runs) == list(range(1, BLOCKS))
    repeated = sum(runs.values()) - (BLOCKS - 1)
    output.warning("%d blocks begun again, of %d that were in flight at most", repeated, bound)
    assert repeated <= bound
    assert len(work.workers()) >= 2


def test_the_command_killed_on_a_machine_of_its_own_leaves_nothing_behind(tmp_path: Path) -> None:
    """Without --address: the cluster it started goes with it."""
    work = job(tmp_path / "job", 47, seconds=0.3)
    process = work.start(None, "--actors", 2)
    wait_for(lambda: work.committed() >= 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len([child for child in children if child.cmdline()[0].startswith("ray::WorkerHost")]) == 2
    left = [child.pid for child in children if not child.cmdline()[0].startswith(AGENTS)]
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, left)))
    assert list(verify(str(work.url))) == []
    work.take(1.0)
    work.run(None, "--actors", 2)
    assert tree_of(work.url) == uninterrupted(tmp_path / "twin", work)
    assert len(work.workers()) == 2
