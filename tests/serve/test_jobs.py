"""The table of jobs: what was written is read, or nothing, whatever became of the file."""

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.serve.jobs import Job, JobTable
from otoscope.store.provenance import digest_of

from ..support.amounts import some

STATES = ("queued", "running", "done", "failed", "cancelled")


def a_job(i: int, **more: object) -> Job:
    made = {"state": STATES[i % 5], "request": {"set": f"only(Ünï {i})", "gain": 0.1 * i}, "changed": 2.0 * i}
    return Job(**{"id": digest_of(i), "submitted": float(i), "error": "\x1b]0;é" * (i % 2), **made, **more})


def nothing() -> Iterator[Job]:
    """No results on disk."""
    return iter(())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(STATES), st.integers(0, 2**40)), max_size=12))
def test_a_table_is_a_dictionary(changes: list[tuple[int, str, int]]) -> None:
    table, truth = JobTable(Path(":memory:"), nothing), dict[str, Job]()
    for i, state, done in changes:
        job = a_job(i, state=state, done=done, changed=float(len(truth)), submitted=float(-i))
        table.put(job)
        truth[job.id] = job
    assert all(table.get(digest_of(i)) == truth.get(digest_of(i)) for i in range(10))
    oldest = sorted(truth.values(), key=lambda job: job.submitted)
    assert table.unfinished() == [job for job in oldest if job.state in ("queued", "running")]
    for asked in (None, *STATES):
        listed = table.latest(3, asked)
        of_it = [job for job in truth.values() if asked in (None, job.state)]
        assert [job.changed for job in listed] == sorted((job.changed for job in of_it), reverse=True)[:3]
        assert all(truth[job.id] == job for job in listed)
    table.close()


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Job]]:
    """A file of 40 jobs, of several pages."""
    jobs = {job.id: job for job in map(a_job, range(40))}
    table = JobTable(tmp_path / "jobs.sqlite", nothing)
    for job in jobs.values():
        table.put(job)
    table.close()
    return tmp_path / "jobs.sqlite", jobs


def damaged(content: bytes, dice: random.Random) -> bytes:
    """With a bit flipped, or an end cut off."""
    spoilt = bytearray(content)
    if dice.random() < 0.3:
        return bytes(spoilt[: dice.randrange(len(spoilt))])
    spoilt[dice.randrange(len(spoilt))] ^= 1 << dice.randrange(8)
    return bytes(spoilt)


def check_damage(path: Path, jobs: dict[str, Job], rounds: int, seed: int) -> None:
    """Whatever is damaged: a table opens, shows nothing that was not written, and takes jobs; results come back."""
    content, dice, on_disk = (
        path.read_bytes(),
        random.Random(seed),
        [job for job in jobs.values() if job.state == "done"],
    )
    set_aside = 0
    for _ in range(rounds):
        path.write_bytes(damaged(content, dice))
        table = JobTable(path, lambda: iter(on_disk))
        shown = table.latest(1000)
        assert all(jobs[job.id] == job for job in shown)
        for id_, job in jobs.items():
            assert table.get(id_) in (None, job)
        if aside := list(path.parent.glob("jobs.sqlite.damaged-*")):
            set_aside += 1
            assert {job.id for job in on_disk} <= {job.id for job in shown}
        table.put(a_job(100))
        assert table.get(digest_of(100)) == a_job(100)
        table.close()
        for left in [*aside, *path.parent.glob("jobs.sqlite*")]:
            left.unlink(missing_ok=True)
    assert set_aside > rounds / 4


def test_damage_is_set_aside_and_never_shown(written: tuple[Path, dict[str, Job]]) -> None:
    check_damage(*written, rounds=6, seed=0)


def test_no_bit_of_the_head_keeps_the_table_from_its_work(tmp_path: Path) -> None:
    """Of the bytes that say what the file is; a bit in the 19th makes it one that is only to be read."""
    path, job = tmp_path / "jobs.sqlite", a_job(0)
    table = JobTable(path, nothing)
    table.put(job)
    table.close()
    content = path.read_bytes()
    for byte in (*range(0, 16, 5), *range(16, 24), *range(24, 100, 15)):
        spoilt = bytearray(content)
        spoilt[byte] ^= 1 << 3
        path.write_bytes(spoilt)
        table = JobTable(path, nothing)
        assert table.latest(10) in ([], [job])
        table.put(a_job(1))
        assert table.get(digest_of(1)) == a_job(1)
        table.close()
        for left in path.parent.glob("jobs.sqlite*"):
            left.unlink()


@pytest.mark.slow
def test_many_damaged_files(written: tuple[Path, dict[str, Job]]) -> None:
    check_damage(*written, rounds=some(50, of=150), seed=1)


def test_damage_under_a_running_server_keeps_what_can_be_read(written: tuple[Path, dict[str, Job]]) -> None:
    path, jobs = written
    table = JobTable(path, nothing)
    with sqlite3.connect(path) as other:  # behind its back, but for the digest
        other.execute("UPDATE jobs SET state = 'done' WHERE id = ?", (digest_of(0),))
    other.close()
    assert table.get(digest_of(0)) is None
    assert {job.id for job in table.latest(1000)} == set(jobs) - {digest_of(0)}
    table.put(replace(a_job(0), error="again"))
    table.close()
    again = JobTable(path, nothing)
    assert again.get(digest_of(0)) == replace(a_job(0), error="again")
    again.close()


def test_results_are_found_where_there_is_no_file(tmp_path: Path) -> None:
    table = JobTable(tmp_path / "jobs.sqlite", lambda: [a_job(2), a_job(7)])
    assert {job.id: job for job in table.latest(10)} == {digest_of(2): a_job(2), digest_of(7): a_job(7)}
    table.close()


def test_what_is_no_damage_sets_nothing_aside(written: tuple[Path, dict[str, Job]]) -> None:
    """A disk that is full, a file that was closed under a request, a folder in its place."""
    path, jobs = written
    table = JobTable(path, nothing)
    table._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OSError, match="full"):
        table.put(a_job(200, error="x" * 100_000))
    assert len(table.latest(1000)) == len(jobs)
    table.close()
    with pytest.raises(OSError, match="closed"):
        table.put(a_job(0))
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"jobs\.sqlite cannot be used"):
        JobTable(path, nothing)
    assert not list(path.parent.glob("*.damaged-*"))
