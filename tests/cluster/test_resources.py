"""What is needed against what there is: numbers by hand, and refusals in one line."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.cluster.resources import Machine, this_machine

ROOM = Machine(disk=10_000_000_000, memory=8_000_000_000, cores=4)


@pytest.mark.parametrize(
    ("disk", "memory", "workers"),
    [(10_000_000_000, 2_000_000_000, 4), (0, 9_000_000_000, 0)],  # the latter run elsewhere
)
def test_what_just_fits_is_let_through(disk: int, memory: int, workers: int) -> None:
    ROOM.check_fits("s task t", disk=disk, memory=memory, workers=workers)


def test_what_is_not_known_refuses_nothing() -> None:
    Machine(disk=None, memory=None, cores=1).check_fits("s task t", disk=10**18, memory=10**18, workers=1)


def test_a_disk_that_is_too_full() -> None:
    with pytest.raises(
        OSError,
        match=r"^s task t needs 10 GB more on disk and 10 GB are free there; expected room.*: make room, choose",
    ):
        ROOM.check_fits("s task t", disk=10_000_000_001, memory=0, workers=1)


def test_workers_that_memory_cannot_hold() -> None:
    with pytest.raises(
        ValueError, match=r"^s task t takes about 2.7 GB of memory for each of 3 workers and this machine has 8 GB; exp"
    ):
        ROOM.check_fits("s task t", disk=0, memory=2_700_000_000, workers=3)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 64))
def test_it_is_refused_if_and_only_if_it_does_not_fit(disk: int, memory: int, workers: int) -> None:
    assert ROOM.disk is not None
    assert ROOM.memory is not None
    fits = disk <= ROOM.disk and memory * workers <= ROOM.memory
    with contextlib.nullcontext() if fits else pytest.raises((OSError, ValueError), match=r"^[^\n]*expected[^\n]*$"):
        ROOM.check_fits("s", disk=disk, memory=memory, workers=workers)


def test_this_machine(tmp_path: Path) -> None:
    """As the system itself says it; a path that does not exist yet lies on its folder's disk."""
    machine = this_machine(str(tmp_path / "not/yet/there"))
    stat = os.statvfs(tmp_path)
    assert machine.disk == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.2)
    lines = Path("/proc/meminfo").read_text().splitlines()
    whole = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    assert machine.memory is not None
    assert 0 < machine.memory <= whole
    assert machine.cores == len(os.sched_getaffinity(0))
    assert this_machine(None).disk is None
    assert this_machine("/proc/otoscope").disk is None  # no disk at all
