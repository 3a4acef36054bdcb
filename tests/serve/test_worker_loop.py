"""The engine: each job ends once and one way, whatever happens to those who work on it."""

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
from otoscope.serve.worker_loop import Engine, Errand, QueueFull

from .test_jobs import job_id

LEASE = 2.0  # seconds: a busy machine beats in time


class Work:
    """A stand-in for ablations: takes as long as it is told, and leaves what it was asked as its result."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, job: str, request: Mapping[str, Any], place: Path, errand: Errand) -> None:
        self.began.append(request["i"])
        errand.progress(0, 10)
        while not self.may_go_on.wait(0.005):
            errand.progress(1, 10)
        if "raises" in request:
            raise {"value": ValueError, "fault": RuntimeError}[request["raises"]]("first line\nsecond line")
        place.write_bytes(json.dumps(request).encode())
        errand.progress(10, 10)
        self.ended.append(request["i"])


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def engines(tmp_path: Path, work: Work) -> Iterator[Callable[..., Engine]]:
    """Makes engines on one folder; all are stopped in the end."""
    made: list[Engine] = []

    def make(start: bool = True, runner: Any = work, **options: Any) -> Engine:
        engine = Engine(JobFolder(tmp_path / "state"), runner, **{"lease": LEASE, **options})
        made.append(engine)
        if start:
            engine.start()
        return engine

    yield make
    work.may_go_on.set()
    for engine in made:
        engine.stop()


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(engine: Engine, i: int, **more: Any) -> Job:
    return engine.submit(job_id(i), {"i": i, **more})[0]


def state(engine: Engine, i: int) -> str:
    job = engine.folder.get(job_id(i))
    assert job is not None
    return job.state


def ended(engine: Engine, i: int, how: str = "done") -> Job:
    until(lambda: state(engine, i) not in ("queued", "running"))
    job = engine.folder.get(job_id(i))
    assert job is not None
    assert job.state == how, job
    return job


def test_the_same_request_is_done_once_however_many_ask(engines: Callable[..., Engine], work: Work) -> None:
    some = [engines(), engines()]
    with ThreadPoolExecutor(32) as pool:
        news = list(pool.map(lambda i: some[i % 2].submit(job_id(7), {"i": 7})[1], range(64)))
    assert sum(news) == 1
    ended(some[0], 7)
    assert not some[0].submit(job_id(7), {"i": 7})[1]
    assert work.began == [7]


def test_jobs_are_done_in_the_order_in_which_they_came(engines: Callable[..., Engine], work: Work) -> None:
    engine = engines(start=False)
    for i in (3, 1, 2):
        ask(engine, i)
    engine.start()
    ended(engine, 2)
    assert work.ended == [3, 1, 2]


def test_a_full_queue_refuses_until_there_is_room(engines: Callable[..., Engine], work: Work) -> None:
    work.may_go_on.clear()
    engine = engines(most_queued=2)
    ask(engine, 0)
    until(lambda: state(engine, 0) == "running")  # what runs does not wait
    ask(engine, 1), ask(engine, 2)
    with pytest.raises(QueueFull, match="2 jobs are waiting") as refused:
        ask(engine, 3)
    assert refused.value.retry_after >= 1
    assert engine.folder.get(job_id(3)) is None
    assert not engine.submit(job_id(2), {"i": 2})[1]  # known ones are answered all the same
    work.may_go_on.set()
    ended(engine, 2)
    ask(engine, 3)
    ended(engine, 3)


def test_a_queued_job_that_is_cancelled_never_begins(engines: Callable[..., Engine], work: Work) -> None:
    work.may_go_on.clear()
    engine = engines()
    ask(engine, 0)
    cancelled = engine.cancel(ask(engine, 1))
    assert cancelled.state == "cancelled"
    work.may_go_on.set()
    ended(engine, 0)
    time.sleep(0.4)
    assert work.began == [0]
    assert state(engine, 1) == "cancelled"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_running_job_that_is_cancelled_ends_soon_and_leaves_nothing(
    engines: Callable[..., Engine], work: Work, elsewhere: bool
) -> None:
    work.may_go_on.clear()
    engine = engines()
    other = engines(start=False) if elsewhere else engine  # another replica may be asked
    job = ask(engine, 0)
    until(lambda: state(engine, 0) == "running")
    assert other.cancel(job).state == "cancelled"
    until(lambda: engine._errand is None)
    assert state(engine, 0) == "cancelled"
    assert not work.ended
    work.may_go_on.set()
    assert engine.submit(job_id(0), {"i": 0})[1]  # asked again, it is done after all
    job = ended(engine, 0)
    assert engine.folder.result(job).read_bytes() == b'{"i": 0}'
    assert engine.cancel(job) == job  # what is done stays


def test_stopping_puts_the_job_back_and_the_next_engine_does_it(engines: Callable[..., Engine], work: Work) -> None:
    work.may_go_on.clear()
    first = engines()
    ask(first, 0), ask(first, 1)
    until(lambda: state(first, 0) == "running")
    first.stop()
    assert not first.alive
    assert [state(first, i) for i in (0, 1)] == ["queued", "queued"]
    work.may_go_on.set()
    second = engines()
    job = ended(second, 0)
    ended(second, 1)
    assert job.losses == 0
    assert work.ended == [0, 1]


def test_what_is_done_is_answered_after_a_restart(engines: Callable[..., Engine], work: Work) -> None:
    first = engines()
    ask(first, 0)
    job = ended(first, 0)
    first.stop()
    second = engines()
    assert second.submit(job_id(0), {"i": 0}) == (job, False)
    assert second.folder.progress(job) == (10, 10)
    assert work.began == [0]


def test_a_job_taken_by_another_engine_is_dropped_and_its_result_too(
    engines: Callable[..., Engine], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.may_go_on.clear()
    monkeypatch.setattr("otoscope.serve.worker_loop.BEAT", 60.0)  # so that ours does not notice
    engine = engines(lease=600)
    ask(engine, 0)
    until(lambda: state(engine, 0) == "running")
    ours = engine.folder.get(job_id(0))
    assert ours is not None
    theirs = engine.folder.advance(ours, "running", by="another")  # as if ours had been silent
    assert theirs is not None
    engine.folder.result(theirs).write_bytes(b"theirs")
    done = engine.folder.advance(theirs, "done")
    assert done is not None
    work.may_go_on.set()
    until(lambda: engine.counts["lost"])
    assert work.ended == [0]  # ours came to its end, and wrote what it found
    assert engine.folder.get(job_id(0)) == done
    assert engine.folder.result(done).read_bytes() == b"theirs"


def test_a_job_that_takes_its_engines_with_it_fails_in_the_end(engines: Callable[..., Engine], work: Work) -> None:
    engine = engines(start=False)
    job = ask(engine, 0)
    for losses in (0, 1, 2):
        ghost = engine.folder.advance(job, "running", by="ghost", losses=losses)
        assert ghost is not None
        job = ghost
    ask(engine, 1)
    engine.start()
    assert "3 processes that worked on it died" in ended(engine, 0, "failed").error
    ended(engine, 1)
    assert work.began == [1]


def test_errors_are_one_line_and_faults_say_nothing_of_the_inside(
    engines: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engines(words=lambda text: text.replace("first", "1st"))
    ask(engine, 0, raises="value"), ask(engine, 1, raises="fault"), ask(engine, 2)
    assert ended(engine, 0, "failed").error == "1st line"
    assert ended(engine, 1, "failed").error == "the service failed on it (RuntimeError); see its log"
    assert "second line" in caplog.text
    ended(engine, 2)
    assert engine.submit(job_id(0), {"i": 0, "raises": "value"})[1]  # a job that failed may be tried again


def test_an_engine_outlives_a_folder_that_fails_for_a_while(
    engines: Callable[..., Engine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engines()
    queue = tmp_path / "state" / "queue"
    queue.rename(tmp_path / "away")
    until(lambda: "cannot be used now" in caplog.text)
    (tmp_path / "away").rename(queue)
    ask(engine, 0)
    ended(engine, 0)
    assert engine.alive


def _engine_that_hangs(root: str, running: Any) -> None:
    def hang(job: str, request: Mapping[str, Any], place: Path, errand: Errand) -> None:
        if request["i"] == 0:
            place.write_bytes(b"0")
            return
        place.write_bytes(b"half")
        running.set()
        time.sleep(600)

    engine = Engine(JobFolder(root), hang, lease=LEASE)
    engine.start()
    for i in (0, 1):
        engine.submit(job_id(i), {"i": i})
    time.sleep(600)


def test_the_job_of_a_killed_process_is_taken_over_and_what_was_done_is_kept(
    engines: Callable[..., Engine], tmp_path: Path, work: Work
) -> None:
    spawn = multiprocessing.get_context("spawn")
    running = spawn.Event()
    process = spawn.Process(target=_engine_that_hangs, args=(str(tmp_path / "state"), running))
    process.start()
    assert running.wait(300)
    engine = engines()
    time.sleep(2 * LEASE)
    assert state(engine, 1) == "running"  # while it lives, it is left alone
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    job = ended(engine, 1)
    assert (job.losses, engine.counts["taken_over"]) == (1, 1)
    assert engine.folder.result(job).read_bytes() == b'{"i": 1}'
    assert work.began == [1]
    assert engine.folder.result(ended(engine, 0)).read_bytes() == b"0"
    assert [path.name for path in (tmp_path / "state" / "jobs" / job_id(1)).glob("result*")] == [
        "result.000003.parquet"
    ]
