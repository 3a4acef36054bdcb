"""The worker loop: each job ends once and one way, whatever happens to who works on it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otoscope.ablate.jobs.process import JobProcess, Outcome, Progress
from otoscope.serve.jobs import Job
from otoscope.serve.settings import Settings
from otoscope.serve.worker_loop import MAX_LOSSES, QueueFull, WorkerLoop
from otoscope.store.provenance import digest_of


class Work(JobProcess):
    """A stand-in for the process of jobs: takes as long as it is told, and ends a job as its request says."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def run(self, job: str, asked: Mapping[str, Any], progress: Progress, cancelled: threading.Event) -> Outcome:
        self.began.append(asked["i"])
        progress(1, 10)
        while not self.may_go_on.wait(0.005):
            if cancelled.is_set():
                return asked.get("told", "cancelled"), ""
        return asked.get("outcome", "done"), asked.get("error", "")

    def stop(self) -> None:
        pass


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def loops(tmp_path: Path, work: Work) -> Iterator[Callable[..., WorkerLoop]]:
    """Makes loops, one after the other, on one file; all are stopped in the end."""
    made: list[WorkerLoop] = []

    def make(start: bool = True, max_queued: int = 64) -> WorkerLoop:
        settings = Settings(stores=("/stores/s.zarr",), state=tmp_path, workers=nullcontext, max_queued=max_queued)
        loop = WorkerLoop(settings, work, lambda: work.began.append(-1))
        made.append(loop)
        if start:
            loop.start()
        return loop

    yield make
    for loop in made:
        work.may_go_on.set()
        if loop._thread.is_alive():
            loop.stop()
        loop.table.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(loop: WorkerLoop, i: int, **more: Any) -> Job:
    return loop.submit(digest_of(i), {"i": i, **more})[0]


def now(loop: WorkerLoop, i: int) -> Job:
    return loop.job(digest_of(i))


def ended(loop: WorkerLoop, i: int, how: str = "done") -> Job:
    until(lambda: not now(loop, i).unfinished)
    assert now(loop, i).state == how
    return now(loop, i)


def test_the_same_request_is_queued_once_however_many_ask(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    loop = loops()
    with ThreadPoolExecutor(16) as pool:
        news = list(pool.map(lambda _: loop.submit(digest_of(7), {"i": 7})[1], range(64)))
    assert sum(news) == 1
    work.may_go_on.set()
    ended(loop, 7)
    assert work.began == [7]


def test_jobs_are_done_in_the_order_in_which_they_came(loops: Callable[..., WorkerLoop], work: Work) -> None:
    loop = loops(start=False)
    for i in (3, 1, 2):
        ask(loop, i)
    loop.start()
    ended(loop, 2)
    assert work.began == [3, 1, 2]


def test_a_full_queue_refuses_until_there_is_room(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    loop = loops(max_queued=2)
    ask(loop, 0)
    until(lambda: now(loop, 0).state == "running")  # what runs does not wait
    ask(loop, 1), ask(loop, 2)
    with pytest.raises(QueueFull, match="2 jobs are waiting") as refused:
        ask(loop, 3)
    assert refused.value.retry_after >= 1
    loop.cancel(digest_of(1))
    assert ask(loop, 3).state == "queued"


def test_progress_is_shown_and_cancelling_ends_the_work(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    loop = loops()
    ask(loop, 0), ask(loop, 1)
    until(lambda: now(loop, 0).total == 10)
    assert (now(loop, 0).state, now(loop, 0).done, now(loop, 1).total) == ("running", 1, 0)
    assert loop.cancel(digest_of(0)).state == "cancelled"
    until(lambda: work.began == [0, 1])  # it was left, though it may not go on
    assert now(loop, 0).state == "cancelled"
    assert ask(loop, 0).state == "queued"  # asked for again
    work.may_go_on.set()
    ended(loop, 0)
    assert work.began == [0, 1, 0]


def test_a_job_that_fails_says_why_and_the_next_one_is_done(loops: Callable[..., WorkerLoop], work: Work) -> None:
    loop = loops()
    ask(loop, 0, outcome="failed", error="no /stores/s.zarr/zarr.json")
    ask(loop, 1, outcome="stale", error="changed")
    ask(loop, 2)
    ended(loop, 2)
    assert ended(loop, 0, "failed").error == "no the store/zarr.json"  # redacted
    assert ended(loop, 1, "failed").error == "changed"
    assert work.began == [0, 1, -1, 2]


def test_a_job_under_which_every_process_dies_fails(loops: Callable[..., WorkerLoop], work: Work) -> None:
    loop = loops()
    ask(loop, 0, outcome="lost")
    job = ended(loop, 0, "failed")
    assert work.began == [0] * MAX_LOSSES
    assert job.error.startswith("3 processes that worked on it died")


def test_what_was_running_is_queued_again_at_the_start(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    first = loops()
    ask(first, 0, told="lost"), ask(first, 1)  # whoever ends the server ends its process, too
    until(lambda: now(first, 0).state == "running")
    first.stop()  # told to end: no loss
    left = loops(start=False)
    assert [(job.state, job.losses) for job in left.table.unfinished()] == [("queued", 0), ("queued", 0)]
    left.put(now(left, 0), "running")  # as a process that was killed leaves it
    left.table.close()
    second = loops()
    work.may_go_on.set()
    assert ended(second, 0).losses == 1
    ended(second, 1)


@pytest.mark.parametrize("kept", [False, True])
def test_a_loop_that_cannot_use_its_disk_says_so_and_goes_on(
    loops: Callable[..., WorkerLoop], work: Work, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """What became of a job is written later: done, if its result is there, else it is tried again."""
    work.may_go_on.clear()
    loop = loops()
    ask(loop, 0), ask(loop, 1)
    until(lambda: now(loop, 0).state == "running")

    def full(job: Job) -> None:
        raise OSError("disk full")

    result = replace(now(loop, 0), state="done", done=3, total=3) if kept else None
    monkeypatch.setattr("otoscope.serve.worker_loop.job_of", lambda _, id_: result if id_ == digest_of(0) else None)
    with monkeypatch.context() as broken:
        broken.setattr(loop.table, "put", full)
        work.may_go_on.set()
        until(lambda: loop.problem == "disk full")
    assert (ended(loop, 0).losses, ended(loop, 0).total) == (1, 3 if kept else 10)
    ended(loop, 1)
    assert work.began == ([0, 1] if kept else [0, 0, 1])
    until(lambda: not loop.problem)
