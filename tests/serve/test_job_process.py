"""The process of jobs, a real one: what it does when it is to leave a job, and when it dies."""

import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from otoscope.ablate.jobs import process as job_process
from otoscope.ablate.jobs.process import JobProcess
from otoscope.ablate.jobs.results import Results
from otoscope.ablate.offer import Offer

from ..support.running_service import ServedStore, asked

LONG = asked(controls=10_000, match=("rate",))


@pytest.mark.slow
def test_a_job_is_left_at_once_and_a_process_that_dies_is_replaced(stored: ServedStore, tmp_path: Path) -> None:
    settings = stored.settings(tmp_path / "s")
    process, offer = JobProcess(settings), Offer(settings.stores)
    cancelled, seen = threading.Event(), list[tuple[int, int]]()

    def run(request, when_begun) -> tuple[str, str]:
        """Do a job, and something when it has begun."""

        def progress(done: int, total: int) -> None:
            seen.append((done, total))
            when_begun()

        return process.run(offer.id_of(request), request.to_json(), progress, cancelled)

    try:
        assert run(LONG, cancelled.set) == ("cancelled", "")
        pid = process._process.pid
        cancelled.clear()
        assert run(asked(), lambda: None) == ("done", "")  # in the same process, which holds the encoder
        assert process._process.pid == pid
        assert seen[-1][0] == seen[-1][1] > 0
        assert Results(settings.state / "results").read(offer.id_of(asked())) is not None
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
        outcome, error = run(LONG, lambda: os.kill(pid, signal.SIGKILL))
        assert (outcome, error) == ("lost", "its process was ended by SIGKILL")
        assert not process._process.is_alive()
        assert not Results(settings.state / "results").read(offer.id_of(LONG))
        outcome, error = process.run(
            "0" * 64, asked().to_json() | {None: 1}, lambda *_: None, cancelled
        )  # which nobody foresaw
        assert (outcome, error) == ("fault", "the server failed on it (TypeError); see its log")
        assert not process._process.is_alive()
        dying = JobProcess(replace(settings, prepare=partial(os._exit, 3)))
        outcome, error = dying.run("0" * 64, {}, lambda *_: None, cancelled)
        assert (outcome, error) == ("lost", "the process of jobs ended with status 3 before it was ready; see its log")
    finally:
        process.stop()


@pytest.mark.slow
def test_a_job_that_cannot_be_interrupted_is_ended_with_its_process(
    stored: ServedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_process, "CANCEL_SECONDS", 0.2)
    settings = stored.settings(tmp_path / "s")
    process, offer, cancelled = JobProcess(settings), Offer(settings.stores), threading.Event()
    process.start()
    os.kill(process._process.pid, signal.SIGSTOP)  # it hears nothing
    begun = []

    def later() -> None:
        os.kill(process._process.pid, signal.SIGCONT)
        while not begun:
            time.sleep(0.01)
        os.kill(process._process.pid, signal.SIGSTOP)
        cancelled.set()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert process.run(offer.id_of(LONG), LONG.to_json(), lambda *_: begun.append(1), cancelled) == (
            "cancelled",
            "",
        )
        assert not process._process.is_alive()
        cancelled.clear()
        assert process.run(offer.id_of(asked()), asked().to_json(), lambda *_: None, cancelled) == ("done", "")
    finally:
        thread.join()
        process.stop()
