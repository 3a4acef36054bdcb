"""Folders of jobs: each job has one row of states, on which all processes agree at any moment."""

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otoscope.serve.jobs import STATES, Job, JobFolder
from otoscope.store.provenance import digest_of


def job_id(i: int) -> str:
    return digest_of(i)


class JobStates(RuleBasedStateMachine):
    """Several processes, each with views that may be out of date, against a dictionary of what happened."""

    jobs = st.sampled_from([job_id(i) for i in range(3)])
    folders = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.folders_ = [JobFolder(self.scratch.name) for _ in range(2)]
        self.views: dict[str, list[Job]] = {}
        self.truth: dict[str, list[str]] = {}

    @rule(job=jobs, by=folders)
    def create(self, job: str, by: int) -> None:
        made = self.folders_[by].create(job, {"of": job})
        assert (made is None) == (job in self.truth)
        if made is not None:
            self.truth[job] = ["queued"]
            self.views[job] = [made]

    @rule(job=jobs, by=folders, old=st.integers(0, 3), state=st.sampled_from(STATES))
    def advance(self, job: str, by: int, old: int, state: Any) -> None:
        if job not in self.views:
            return
        view = self.views[job][max(0, len(self.views[job]) - 1 - old)]
        again = state == "queued" and not view.unfinished
        advanced = self.folders_[by].advance(view, state, again=again)
        assert (advanced is None) == (view.number != len(self.truth[job]) - 1)  # only from how it is now
        if advanced is not None:
            self.truth[job].append(state)
            self.views[job].append(advanced)

    @invariant()
    def all_agree(self) -> None:
        for folder in (*self.folders_, JobFolder(self.scratch.name)):
            for job, states in self.truth.items():
                found = folder.get(job)
                assert found == self.views[job][-1]
                assert found.state == states[-1]
                assert folder.request(job) == {"of": job}
            unfinished = {job for job, states in self.truth.items() if states[-1] in ("queued", "running")}
            assert {job.id for job in folder.waiting()} == unfinished
            assert {job.id for job in folder.latest(10)} == set(self.truth)

    def teardown(self) -> None:
        self.scratch.cleanup()


TestJobStates = JobStates.TestCase
TestJobStates.settings = settings(max_examples=10, stateful_step_count=15, deadline=None)


def _start(root: str, job: Job, start: Any, won: Any) -> None:
    folder = JobFolder(root)
    start.wait()
    won.put(folder.advance(job, "running", by=str(os.getpid())) is not None)


def test_of_many_processes_one_gets_the_job(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "s").create(job_id(0), {})
    spawn = multiprocessing.get_context("spawn")
    start, won = spawn.Barrier(3), spawn.Queue()
    many = [spawn.Process(target=_start, args=(str(tmp_path / "s"), job, start, won)) for _ in range(3)]
    for process in many:
        process.start()
    assert sorted(won.get(timeout=300) for _ in many) == [False, False, True]
    for process in many:
        process.join()


def test_hints_that_are_gone_are_put_back(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "s")
    job = folder.create(job_id(0), {})
    for hint in (tmp_path / "s" / "queue").iterdir():
        hint.unlink()
    assert not folder.waiting()
    assert JobFolder(tmp_path / "s").waiting() == [job]


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", f"{'a' * 62}/a"])
def test_only_digests_are_ids(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        JobFolder(tmp_path / "s").get(name)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OSError, match="holds other files"):
        JobFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
