"""Worker loop: takes jobs from a folder, one at a time, and sees to it that each ends.

Goal: queue, cancellation, and what happens when processes die, apart from HTTP and from what the jobs are about.
Conventions: several loops, in as many processes or machines, may share a folder. Whoever works on a job leaves a
heartbeat every second; one that has left none for `lease` seconds is taken to be dead, and its job goes to another
loop. Were it alive after all, it would find the job taken, and stop. A job under which process after process dies
fails.
"""

import logging
import os
import platform
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..messages import one_line
from .jobs import Job, JobFolder

log = logging.getLogger(__name__)

MAX_QUEUED = 64
LEASE_SECONDS = 20.0
HEARTBEAT_SECONDS = 1.0  # between two heartbeats, and two looks at whether the job is still ours
POLL_SECONDS = 0.25  # between two looks into the queue
MAX_LOSSES = 3  # processes that may die under a job
PROGRESS_SECONDS = 0.5  # between two records of progress


class QueueFull(RuntimeError):
    """As many jobs wait as may."""

    def __init__(self, n_queued: int, retry_after: int) -> None:
        super().__init__(f"{n_queued} jobs are waiting; expected fewer: ask again in {retry_after} s")
        self.retry_after = retry_after


class Ended(RuntimeError):
    """The job is no longer to be done: cancelled, taken by another loop, or the loop stops."""


class RunningJob:
    """A job that is being done, as its runner sees it."""

    def __init__(self, folder: JobFolder, job: Job) -> None:
        self.job, self.ended = job, threading.Event()
        self._folder, self._recorded = folder, -PROGRESS_SECONDS
        self._when_ended: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def progress(self, done: int, total: int) -> None:
        """Record how much is done. Raises Ended where the job is not to be done any more."""
        if self.ended.is_set():
            raise Ended
        if time.monotonic() - self._recorded > PROGRESS_SECONDS or done == total:
            self._recorded = time.monotonic()
            self._folder.record_progress(self.job, done, total)

    def when_ended(self, action: Callable[[], None]) -> None:
        """Have something done, in another thread, once the job is not to be done any more: to end sooner."""
        with self._lock:
            self._when_ended = action
            ended = self.ended.is_set()
        if ended:
            action()

    def end(self) -> None:
        """The job is not to be done any more."""
        with self._lock:
            action, already = self._when_ended, self.ended.is_set()
            self.ended.set()
        if action is not None and not already:
            action()


Runner = Callable[[str, Mapping[str, Any], Path, RunningJob], None]
"""(id, request, target, running): do what is asked and write the result to the target, whole or not at all.

ValueError, LookupError and OSError are for whoever asked, in one line; other exceptions are faults of ours. Doing a job
twice must give the same result twice.
"""


class WorkerLoop:
    """Jobs of a folder, done one at a time in a thread of this process; use `start` and `stop`."""

    def __init__(
        self, folder: JobFolder, runner: Runner, *, max_queued: int = MAX_QUEUED, lease: float = LEASE_SECONDS,
        redact: Callable[[str], str] = str,
    ) -> None:  # fmt: skip
        self.folder, self.runner, self.max_queued, self.lease, self.redact = folder, runner, max_queued, lease, redact
        self.name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.counts: Counter[str] = Counter()
        """Of this loop, by what happened: submitted, known, refused, done, failed, cancelled, taken_over, lost."""
        self.seconds = 0.0
        """Spent on jobs that are done."""
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._submitting = threading.Lock()
        self._running: RunningJob | None = None
        self._heartbeats: dict[str, tuple[tuple[int, int], float]] = {}
        """By job: number and time of its last heartbeat, and when, on our clock, it was seen first."""
        self._threads = [
            threading.Thread(target=one, name=one.__name__, daemon=True) for one in (self._work, self._send_heartbeats)
        ]

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Take no more jobs; put the present one back into the queue."""
        self._stopping.set()
        self._wake.set()
        if (running := self._running) is not None:
            running.end()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether jobs are taken."""
        return not self._stopping.is_set() and all(thread.is_alive() for thread in self._threads)

    def submit(self, job: str, request: Mapping[str, Any]) -> tuple[Job, bool]:
        """A job, and whether it is queued by this call; one that failed or was cancelled is queued again.

        Raises QueueFull, ValueError for what is not a valid id, OSError where the folder cannot be written.
        """
        with self._submitting:
            while True:
                found = self.folder.get(job)
                if found is not None and (found.unfinished or found.state == "done"):
                    self.counts["known"] += 1
                    return found, False
                n_queued = sum(each.state == "queued" for each in self.folder.waiting())
                if n_queued >= self.max_queued:
                    self.counts["refused"] += 1
                    raise QueueFull(n_queued, self._retry_after())
                new = self.folder.create(job, request)
                if new is None and found is not None:
                    new = self.folder.advance(found, "queued", again=True)
                if new is not None:
                    self.counts["submitted"] += 1
                    self._wake.set()
                    return new, True

    def cancel(self, job: Job) -> Job:
        """The job, cancelled unless it ended before. What works on it stops within seconds, and leaves no result."""
        while job.unfinished:
            cancelled = self.folder.advance(job, "cancelled", by=job.by)
            if cancelled is not None:
                self.counts["cancelled"] += 1
                if (running := self._running) is not None and running.job.id == job.id:
                    running.end()
                return cancelled
            found = self.folder.get(job.id)
            if found is None:
                return job
            job = found
        return job

    def _retry_after(self) -> int:
        """Seconds until the queue may have room."""
        mean = self.seconds / self.counts["done"] if self.counts["done"] else 5.0
        return int(min(max(mean, 1.0), 600.0) + 0.5)

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                job = self._take()
                if job is not None:
                    self._do(job)
                    continue
            except OSError as error:  # of the folder; jobs are not lost by it
                log.error("the folder of jobs cannot be used now: %s", one_line(error))
            except Exception:
                log.exception("a fault of the service")
            self._wake.wait(POLL_SECONDS)

    def _take(self) -> Job | None:
        """The oldest job that nobody works on, now ours."""
        waiting = self.folder.waiting()
        self._heartbeats = {job.id: self._heartbeats[job.id] for job in waiting if job.id in self._heartbeats}
        for job in waiting:
            losses = job.losses
            if job.state == "running":
                if not self._lease_is_over(job):
                    continue
                losses += 1
                log.warning("job %s: %s is gone", job.id[:12], job.by)
                if losses >= MAX_LOSSES:
                    error = f"{losses} processes that worked on it died; see their logs, and ask for less at once"
                    self.folder.advance(job, "failed", by=self.name, losses=losses, error=error)
                    continue
            taken = self.folder.advance(job, "running", by=self.name, losses=losses)
            if taken is not None:
                self.counts["taken_over"] += job.state == "running"
                return taken
        return None

    def _lease_is_over(self, job: Job) -> bool:
        """Whether who works on a job has left no heartbeat for the length of a lease, by our own clock."""
        try:
            heartbeat = (job.number, self.folder.last_heartbeat(job))
        except FileNotFoundError:
            return False
        now = time.monotonic()
        known, since = self._heartbeats.get(job.id, (None, now))
        if known != heartbeat:
            since = now
        self._heartbeats[job.id] = heartbeat, since
        return now - since > self.lease

    def _do(self, job: Job) -> None:
        running = self._running = RunningJob(self.folder, job)
        began = time.monotonic()
        error = ""
        try:
            if self._stopping.is_set():
                running.end()
            log.info("job %s begins", job.id[:12])
            self.runner(job.id, self.folder.request(job.id), self.folder.result(job), running)
        except Exception as raised:  # whatever it is: it belongs to this job, and the next one is done all the same
            if not running.ended.is_set():
                error = self._message(raised)
        finally:
            self._running = None
        if running.ended.is_set():
            back = self.folder.advance(job, "queued", losses=job.losses)
            log.info("job %s %s", job.id[:12], "is put back" if back else "is no longer ours")
            self.counts["lost"] += not back
            return
        ended = self.folder.advance(job, "failed" if error else "done", by=self.name, losses=job.losses, error=error)
        if ended is None:
            self.counts["lost"] += 1
            return
        log.info("job %s %s in %.1f s%s", job.id[:12], ended.state, time.monotonic() - began, error and f": {error}")
        self.counts[ended.state] += 1
        if ended.state == "done":
            self.seconds += time.monotonic() - began
            self.folder.sweep(ended)

    def _message(self, error: Exception) -> str:
        """An exception in one line, for whoever asked."""
        if isinstance(error, ValueError | LookupError | OSError):
            return self.redact(one_line(error))
        log.error("a job failed by a fault of ours", exc_info=error)
        return f"the service failed on it ({type(error).__name__}); see its log"

    def _send_heartbeats(self) -> None:
        while not self._stopping.wait(min(HEARTBEAT_SECONDS, self.lease / 5)):
            running = self._running
            if running is None:
                continue
            try:
                self.folder.send_heartbeat(running.job)
                now = self.folder.get(running.job.id)
                if now is None or now.number != running.job.number:
                    running.end()
            except FileNotFoundError:  # deleted
                running.end()
            except OSError as error:
                log.error("the folder of jobs cannot be used now: %s", one_line(error))
