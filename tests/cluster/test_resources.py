"""What is needed against what there is: numbers by hand, and refusals in one line."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.cluster.resources import Machine, Needs, duration, refuse_what_cannot_fit, this_machine, worker_memory

ROOM = Machine(disk=10_000_000_000, memory=8_000_000_000, cores=4)


@pytest.mark.parametrize(
    "needs",
    [
        Needs(disk=10_000_000_000, memory=2_000_000_000, workers=4),
        Needs(disk=0, memory=9_000_000_000, workers=0),  # they run elsewhere
    ],
)
def test_what_just_fits_is_let_through(needs: Needs) -> None:
    refuse_what_cannot_fit(needs, ROOM, "s task t")


def test_what_is_not_known_refuses_nothing() -> None:
    refuse_what_cannot_fit(Needs(disk=10**18, memory=10**18), Machine(disk=None, memory=None, cores=1), "s task t")


def test_a_disk_that_is_too_full() -> None:
    with pytest.raises(
        OSError,
        match=r"^s task t needs 10 GB more on disk and 10 GB are free there; expected room.*: make room, choose",
    ):
        refuse_what_cannot_fit(Needs(disk=10_000_000_001, memory=0), ROOM, "s task t")


def test_workers_that_memory_cannot_hold() -> None:
    with pytest.raises(
        ValueError, match=r"^s task t takes about 2.7 GB of memory for each of 3 workers and this machine has 8 GB; exp"
    ):
        refuse_what_cannot_fit(Needs(disk=0, memory=2_700_000_000, workers=3), ROOM, "s task t")


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 64))
def test_it_is_refused_if_and_only_if_it_does_not_fit(disk: int, memory: int, workers: int) -> None:
    assert ROOM.disk is not None
    assert ROOM.memory is not None
    fits = disk <= ROOM.disk and memory * workers <= ROOM.memory
    with contextlib.nullcontext() if fits else pytest.raises((OSError, ValueError), match=r"^[^\n]*expected[^\n]*$"):
        refuse_what_cannot_fit(Needs(disk=disk, memory=memory, workers=workers), ROOM, "s")


def test_this_machine(tmp_path: Path) -> None:
    """As the system itself says it; a place that does not exist yet lies on its folder's disk."""
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


def test_memory_and_time_by_hand() -> None:
    assert worker_memory(at_rest=500, piece=100, in_flight=2, largest_object=30, queued=7) == 500 + 200 + 60 + 7
    assert duration(1000, 0.5, 4) == 125
