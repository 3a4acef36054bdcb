"""The worker loop: each job ends once and one way, whatever happens to those who work on it."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from otoscope.serve.jobs import Job, JobFolder
from otoscope.serve.worker_loop import QueueFull, RunningJob, WorkerLoop

from .test_jobs import job_id

LEASE = 2.0  # seconds


class Work:
    """A stand-in for ablations: takes as long as it is told, and leaves what it was asked as its result."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, job: str, request: Mapping[str, Any], target: Path, running: RunningJob) -> None:
        self.began.append(request["i"])
        running.progress(0, 10)
        while not self.may_go_on.wait(0.005):
            running.progress(1, 10)
        if "raises" in request:
            raise {"value": ValueError, "fault": RuntimeError}[request["raises"]]("first line\nsecond line")
        target.write_bytes(json.dumps(request).encode())
        running.progress(10, 10)
        self.ended.append(request["i"])


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def loops(tmp_path: Path, work: Work) -> Iterator[Callable[..., WorkerLoop]]:
    """Makes loops on one folder; all are stopped in the end."""
    made: list[WorkerLoop] = []

    def make(start: bool = True, runner: Any = work, **options: Any) -> WorkerLoop:
        loop = WorkerLoop(JobFolder(tmp_path / "state"), runner, **{"lease": LEASE, **options})
        made.append(loop)
        if start:
            loop.start()
        return loop

    yield make
    work.may_go_on.set()
    for loop in made:
        loop.stop()


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(loop: WorkerLoop, i: int, **more: Any) -> Job:
    return loop.submit(job_id(i), {"i": i, **more})[0]


def state(loop: WorkerLoop, i: int) -> str:
    job = loop.folder.get(job_id(i))
    assert job is not None
    return job.state


def ended(loop: WorkerLoop, i: int, how: str = "done") -> Job:
    until(lambda: state(loop, i) not in ("queued", "running"))
    job = loop.folder.get(job_id(i))
    assert job is not None
    assert job.state == how, job
    return job


def test_the_same_request_is_done_once_however_many_ask(loops: Callable[..., WorkerLoop], work: Work) -> None:
    some = [loops(), loops()]
    with ThreadPoolExecutor(32) as pool:
        news = list(pool.map(lambda i: some[i % 2].submit(job_id(7), {"i": 7})[1], range(64)))
    assert sum(news) == 1
    ended(some[0], 7)
    assert not some[0].submit(job_id(7), {"i": 7})[1]
    assert work.began == [7]


def test_jobs_are_done_in_the_order_in_which_they_came(loops: Callable[..., WorkerLoop], work: Work) -> None:
    loop = loops(start=False)
    for i in (3, 1, 2):
        ask(loop, i)
    loop.start()
    ended(loop, 2)
    assert work.ended == [3, 1, 2]


def test_a_full_queue_refuses_until_there_is_room(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    loop = loops(max_queued=2)
    ask(loop, 0)
    until(lambda: state(loop, 0) == "running")  # what runs does not wait
    ask(loop, 1), ask(loop, 2)
    with pytest.raises(QueueFull, match="2 jobs are waiting") as refused:
        ask(loop, 3)
    assert refused.value.retry_after >= 1
    assert loop.folder.get(job_id(3)) is None
    assert not loop.submit(job_id(2), {"i": 2})[1]  # known ones are answered all the same
    work.may_go_on.set()
    ended(loop, 2)
    ask(loop, 3)
    ended(loop, 3)


def test_a_queued_job_that_is_cancelled_never_begins(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    loop = loops()
    ask(loop, 0)
    cancelled = loop.cancel(ask(loop, 1))
    assert cancelled.state == "cancelled"
    work.may_go_on.set()
    ended(loop, 0)
    time.sleep(0.4)
    assert work.began == [0]
    assert state(loop, 1) == "cancelled"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_running_job_that_is_cancelled_ends_soon_and_leaves_nothing(
    loops: Callable[..., WorkerLoop], work: Work, elsewhere: bool
) -> None:
    work.may_go_on.clear()
    loop = loops()
    other = loops(start=False) if elsewhere else loop  # another replica may be asked
    job = ask(loop, 0)
    until(lambda: state(loop, 0) == "running")
    assert other.cancel(job).state == "cancelled"
    until(lambda: loop._running is None)
    assert state(loop, 0) == "cancelled"
    assert not work.ended
    work.may_go_on.set()
    assert loop.submit(job_id(0), {"i": 0})[1]  # asked again, it is done after all
    job = ended(loop, 0)
    assert loop.folder.result(job).read_bytes() == b'{"i": 0}'
    assert loop.cancel(job) == job  # what is done stays


def test_stopping_puts_the_job_back_and_the_next_loop_does_it(loops: Callable[..., WorkerLoop], work: Work) -> None:
    work.may_go_on.clear()
    first = loops()
    ask(first, 0), ask(first, 1)
    until(lambda: state(first, 0) == "running")
    first.stop()
    assert not first.alive
    assert [state(first, i) for i in (0, 1)] == ["queued", "queued"]
    work.may_go_on.set()
    second = loops()
    job = ended(second, 0)
    ended(second, 1)
    assert job.losses == 0
    assert work.ended == [0, 1]


def test_what_is_done_is_answered_after_a_restart(loops: Callable[..., WorkerLoop], work: Work) -> None:
    first = loops()
    ask(first, 0)
    job = ended(first, 0)
    first.stop()
    second = loops()
    assert second.submit(job_id(0), {"i": 0}) == (job, False)
    assert second.folder.progress(job) == (10, 10)
    assert work.began == [0]


def test_a_job_taken_by_another_loop_is_dropped_and_its_result_too(
    loops: Callable[..., WorkerLoop], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.may_go_on.clear()
    monkeypatch.setattr("otoscope.serve.worker_loop.HEARTBEAT_SECONDS", 60.0)  # so that ours does not notice
    loop = loops(lease=600)
    ask(loop, 0)
    until(lambda: state(loop, 0) == "running")
    ours = loop.folder.get(job_id(0))
    assert ours is not None
    theirs = loop.folder.advance(ours, "running", by="another")  # as if ours had been silent
    assert theirs is not None
    loop.folder.result(theirs).write_bytes(b"theirs")
    done = loop.folder.advance(theirs, "done")
    assert done is not None
    work.may_go_on.set()
    until(lambda: loop.counts["lost"])
    assert work.ended == [0]  # ours came to its end, and wrote what it found
    assert loop.folder.get(job_id(0)) == done
    assert loop.folder.result(done).read_bytes() == b"theirs"


def test_a_job_that_takes_its_loops_with_it_fails_in_the_end(loops: Callable[..., WorkerLoop], work: Work) -> None:
    loop = loops(start=False)
    job = ask(loop, 0)
    for losses in (0, 1, 2):
        ghost = loop.folder.advance(job, "running", by="ghost", losses=losses)
        assert ghost is not None
        job = ghost
    ask(loop, 1)
    loop.start()
    assert "3 processes that worked on it died" in ended(loop, 0, "failed").error
    ended(loop, 1)
    assert work.began == [1]


def test_errors_are_one_line_and_faults_say_nothing_of_the_inside(
    loops: Callable[..., WorkerLoop], caplog: pytest.LogCaptureFixture
) -> None:
    loop = loops(redact=lambda text: text.replace("first", "1st"))
    ask(loop, 0, raises="value"), ask(loop, 1, raises="fault"), ask(loop, 2)
    assert ended(loop, 0, "failed").error == "1st line"
    assert ended(loop, 1, "failed").error == "the service failed on it (RuntimeError); see its log"
    assert "second line" in caplog.text
    ended(loop, 2)
    assert loop.submit(job_id(0), {"i": 0, "raises": "value"})[1]  # a job that failed may be tried again


def test_a_loop_outlives_a_folder_that_fails_for_a_while(
    loops: Callable[..., WorkerLoop], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = loops()
    queue = tmp_path / "state" / "queue"
    queue.rename(tmp_path / "away")
    until(lambda: "cannot be used now" in caplog.text)
    (tmp_path / "away").rename(queue)
    ask(loop, 0)
    ended(loop, 0)
    assert loop.alive


def _loop_that_hangs(root: str, running: Any) -> None:
    def hang(job: str, request: Mapping[str, Any], target: Path, _running: RunningJob) -> None:
        if request["i"] == 0:
            target.write_bytes(b"0")
            return
        target.write_bytes(b"half")
        running.set()
        time.sleep(600)

    loop = WorkerLoop(JobFolder(root), hang, lease=LEASE)
    loop.start()
    for i in (0, 1):
        loop.submit(job_id(i), {"i": i})
    time.sleep(600)


def test_a_heartbeat_renews_the_lease(tmp_path: Path) -> None:
    """With a lease of no time at all every second look finds it over, unless there was a heartbeat in between."""
    folder = JobFolder(tmp_path / "state")
    job = folder.create(job_id(0), {"i": 0})
    assert job is not None
    running = folder.advance(job, "running", by="another")
    assert running is not None
    loop = WorkerLoop(folder, lambda *_: None, lease=0.0)
    looks = []
    for stamp in (1, 1, 2, 2):
        os.utime(folder._event(running.id, running.number), ns=(stamp, stamp))
        looks.append(loop._lease_is_over(running))
    assert looks == [False, True, False, True]


def test_the_job_of_a_killed_process_is_taken_over_and_what_was_done_is_kept(
    loops: Callable[..., WorkerLoop], tmp_path: Path, work: Work
) -> None:
    spawn = multiprocessing.get_context("spawn")
    running = spawn.Event()
    process = spawn.Process(target=_loop_that_hangs, args=(str(tmp_path / "state"), running))
    process.start()
    assert running.wait(300)
    patient = loops(lease=600.0)
    until(lambda: job_id(1) in patient._heartbeats)
    assert state(patient, 1) == "running"  # while it lives, it is left alone
    patient.stop()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    loop = loops()
    job = ended(loop, 1)
    assert (job.losses, loop.counts["taken_over"]) == (1, 1)
    assert loop.folder.result(job).read_bytes() == b'{"i": 1}'
    assert work.began == [1]
    assert loop.folder.result(ended(loop, 0)).read_bytes() == b"0"
    results = tmp_path / "state" / "jobs" / job_id(1)
    until(lambda: [path.name for path in results.glob("result*")] == ["result.000003.parquet"])  # swept after its end
