"""The process of jobs: started by the server, ended with it, told by SIGINT to leave the job that it is at.

Goal: whatever a job does to its process, the server answers, and the next job is done in a new process.
Conventions: the server sends (id, request); what comes back is ("progress", clips, all clips), the first as soon as the
job can be interrupted, then once ("done", ""), ("cancelled", ""), or ("failed", "stale" or "fault", a line for whoever
asked). After a fault, which nobody foresaw, the process is not used again.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...messages import one_line
from .runner import JobRunner, Stale
from .setup import Setup

log = logging.getLogger(__name__)

CANCEL_SECONDS = 5.0  # in which a job that was told to end must have ended, or its process is
STOP_SECONDS = 10.0  # that an idle process has to end in
LOOK_SECONDS = 0.1  # between two looks at whether the job is cancelled
Outcome = tuple[str, str]
Progress = Callable[[int, int], None]


class JobProcess:
    """Does jobs one at a time in a process of its own, which is started when it is needed."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process: Any = None
        self._connection: Any = None

    def start(self) -> None:
        """Start it, if it does not run. Raises in one line: ValueError where it cannot do jobs, OSError if it dies."""
        if self._process is not None and self._process.is_alive():
            return
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, self._setup), daemon=True, name="jobs")
        self._process.start()
        theirs.close()
        try:
            state, error = self._connection.recv()
        except EOFError as lost:
            raise OSError(f"the process of jobs {self._how_it_ended()} before it was ready; see its log") from lost
        if state != "ready":
            self._end()
            raise ValueError(error)

    def run(self, job: str, asked: Mapping[str, Any], progress: Progress, cancelled: threading.Event) -> Outcome:
        """Do a job, until the event is set: how it ended, or "lost", with the process, and a line."""
        try:
            self.start()
        except ValueError as error:
            return "failed", str(error)
        except OSError as error:
            return "lost", str(error)
        interrupted_at, began = 0.0, False
        try:
            self._connection.send((job, dict(asked)))
            while True:
                if self._connection.poll(LOOK_SECONDS):
                    kind, *rest = self._connection.recv()
                    if kind == "fault":
                        self._end()
                    if kind != "progress":
                        return kind, rest[0]
                    began = True
                    progress(*rest)
                if cancelled.is_set() and began and not interrupted_at:
                    interrupted_at = time.monotonic()
                    os.kill(self._process.pid, signal.SIGINT)
                if interrupted_at and time.monotonic() - interrupted_at > CANCEL_SECONDS:
                    self._end()
                    return "cancelled", ""
        except (EOFError, OSError):
            return "lost", f"its process {self._how_it_ended()}"

    def stop(self) -> None:
        """End the process, which does no job now."""
        if self._process is not None:
            self._connection.close()
            self._process.join(STOP_SECONDS)
            self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.join()

    def _how_it_ended(self) -> str:
        self._process.join()
        code = self._process.exitcode
        return f"ended with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def _main(connection: Connection, setup: Setup) -> None:
    """The process."""
    os.setsid()  # Control-C is for the server, which then sees to it that this ends
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):  # where memory runs out, Linux is to end this process, not the server
        Path("/proc/self/oom_score_adj").write_text("500")
    at_work = threading.Event()

    def interrupt(*_: object) -> None:
        if at_work.is_set():  # SIGINT ends a job, and nothing else
            raise KeyboardInterrupt

    def work(job: str, asked: Mapping[str, Any]) -> Outcome:
        try:
            at_work.set()
            connection.send(("progress", 0, 0))
            return outcome_of(runner, job, asked, lambda *done: connection.send(("progress", *done)))
        finally:
            at_work.clear()

    signal.signal(signal.SIGINT, interrupt)
    setup.prepare()
    try:
        with setup.workers() as executor:
            runner = JobRunner(setup, executor)
            connection.send(("ready", ""))
            while True:
                task = connection.recv()
                try:
                    outcome = work(*task)
                except KeyboardInterrupt:
                    outcome = "cancelled", ""
                connection.send(outcome)
    except EOFError:  # the server has closed it
        pass
    except (ValueError, LookupError, OSError, ImportError) as error:
        connection.send(("failed", one_line(error, whole=True)))


def outcome_of(runner: JobRunner, job: str, asked: Mapping[str, Any], progress: Progress) -> Outcome:
    """Do a job; its exceptions become a line for whoever asked."""
    try:
        runner(job, asked, progress)
    except Stale as error:
        return "stale", str(error)
    except (ValueError, LookupError, OSError) as error:
        return "failed", one_line(error)
    except Exception as error:
        log.exception("a job failed by a fault of ours")
        return "fault", f"the server failed on it ({type(error).__name__}); see its log"
    return "done", ""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
