"""Worker loop: takes jobs from the table, one at a time, and sees to it that each ends.

Goal: queue, cancellation, and what happens when processes die, apart from HTTP and from what the jobs are about.
Conventions: a job under which process after process dies fails. A result on disk is a job that is done, whatever the
table says.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..ablate.jobs.process import JobProcess
from ..ablate.jobs.results import Results
from ..messages import one_line
from .jobs import Job, JobTable, State, job_of, jobs_of
from .metrics import Metrics
from .settings import Settings

log = logging.getLogger(__name__)

MAX_LOSSES = 3  # processes that may die under a job
RETRY_SECONDS = 1.0  # between two looks into the queue: it is looked into at once when a job comes
STOP_SECONDS = 20.0


class QueueFull(RuntimeError):
    """As many jobs wait as may."""

    def __init__(self, n_queued: int, retry_after: int) -> None:
        super().__init__(f"{n_queued} jobs are waiting; expected fewer: ask again in {retry_after} s")
        self.retry_after = retry_after


class WorkerLoop:
    """Jobs of a table, done one at a time; use `start` and `stop`.

    on_stale: called when a job found the stores changed.
    Raises OSError where the folder of the settings cannot be used.
    """

    def __init__(self, settings: Settings, process: JobProcess, on_stale: Callable[[], object]) -> None:
        self.settings, self.process, self.on_stale, self.metrics = settings, process, on_stale, Metrics()
        self.results = Results(settings.state / "results")
        self.results.clear()
        self.table = JobTable(settings.state / "jobs.sqlite", lambda: jobs_of(self.results))
        self.problem = "it was not started"
        """Why no jobs are taken, or ""."""
        self._wake, self._cancelled, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.RLock()
        self._progress = (0, 0)
        self._seconds = 5.0  # that the last job took
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self.problem = ""
        self._thread.start()

    def stop(self) -> None:
        """Take no more jobs, put the present one back into the queue, and end the process."""
        for event in (self._stopping, self._cancelled, self._wake):
            event.set()
        self._thread.join(STOP_SECONDS)
        self.process.stop()
        self.table.close()

    def submit(self, id_: str, request: Mapping[str, Any]) -> tuple[Job, bool]:
        """A job, and whether it is queued by this call; one that failed or was cancelled is queued again.

        Raises QueueFull, OSError where the table cannot be written.
        """
        with self._lock:
            row, now = self.table.get(id_), time.time()
            known = row if row and row.unfinished else job_of(self.results, id_)
            if known is not None:
                if row is None or row.state in ("failed", "cancelled"):
                    row = replace(known, request=dict(request))
                    self.table.put(row)
                self.metrics.jobs.labels("known").inc()
                return self.shown(row), False
            n_queued = sum(each.state == "queued" for each in self.table.unfinished())
            if n_queued >= self.settings.max_queued:
                self.metrics.jobs.labels("refused").inc()
                raise QueueFull(n_queued, int(min(max(self._seconds, 1.0), 600.0) + 0.5))
            job = Job(id=id_, state="queued", request=dict(request), submitted=now, changed=now)
            self.metrics.jobs.labels("submitted").inc()
            self.table.put(job)
            self._wake.set()
            return job, True

    def job(self, id_: str) -> Job:
        """A job as it stands. Raises LookupError where there is none."""
        found = self.table.get(id_) or job_of(self.results, id_)
        if found is None:
            raise LookupError(f"no job {id_}; expected the id of one that was asked for")
        return self.shown(found)

    def result(self, id_: str) -> tuple[Job, pa.Table | None]:
        """A job and, if it is done, its result; one whose result is not whole has failed. Raises as `job`."""
        with self._lock:  # or a job that is asked for again meanwhile would fail
            job, table = self.job(id_), self.results.read(id_)
            if job.state == "done" and table is None:
                job = self.put(job, "failed", "its result on disk was damaged or deleted: ask again")
            return job, table if job.state == "done" else None

    def shown(self, job: Job) -> Job:
        """A job of the table with what is done of it by now."""
        done, total = self._progress if job.state == "running" else (job.done, job.total)
        return replace(job, done=done, total=total)

    def cancel(self, id_: str) -> Job:
        """A job, cancelled unless it ended before. The process stops working on it within seconds. Raises as `job`."""
        with self._lock:
            job = self.job(id_)
            if job.unfinished:
                if job.state == "running":
                    self._cancelled.set()
                job = self.put(job, "cancelled")
            return job

    def put(self, job: Job, state: State, error: str = "") -> Job:
        """A job in another state."""
        job = replace(job, state=state, error=error, changed=time.time())
        self.table.put(job)
        if not job.unfinished:
            self.metrics.jobs.labels(state).inc()
            log.info("job %s %s%s", job.id[:12], state, error and f": {error}")
        return job

    def _put_back(self, job: Job, why: str) -> None:
        log.warning("job %s: %s", job.id[:12], why)
        found, job = job_of(self.results, job.id), replace(job, losses=job.losses + 1)
        if found is not None:
            self.put(replace(job, done=found.done, total=found.total), "done")
        elif job.losses < MAX_LOSSES:
            self.put(job, "queued")
        else:
            died = f"{job.losses} processes that worked on it died"
            self.put(job, "failed", f"{died}; see the log, and ask for less at once")

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if self._do_next():
                    continue
                self.problem = ""
            except Exception as error:  # of the disk, or a fault of ours; jobs are not lost by it
                found, self.problem = self.problem, one_line(error)
                if self.problem != found:
                    log.exception("no jobs are taken")
            self._wake.wait(RETRY_SECONDS)
        self.problem = "it was stopped"

    def _do_next(self) -> bool:
        """Do the oldest queued job; False where there is none."""
        with self._lock:
            for left in self.table.unfinished():
                if left.state == "running":  # nothing is, now
                    self._put_back(left, "the server ended under it, or could not write how it ended")
            job = next(iter(self.table.unfinished()), None)
            self._cancelled.clear()  # before it is looked whether it stops: `stop` does it the other way round
            if job is None or self._stopping.is_set():
                return False
            self._progress = (0, 0)
            job = self.put(job, "running")
        began = time.monotonic()
        outcome, error = self.process.run(job.id, job.request, self._follow, self._cancelled)
        with self._lock:
            job = self.table.get(job.id) or job
            if job.state != "running":  # cancelled, and perhaps asked for again
                return True
            job = self.shown(job)
            if outcome == "cancelled" or (outcome == "lost" and self._stopping.is_set()):
                self.put(job, "queued")
            elif outcome == "lost":
                self._put_back(job, error)
            elif outcome == "done":
                self.put(job, "done")
                self._seconds = time.monotonic() - began
                self.metrics.seconds.observe(self._seconds)
            else:
                if outcome == "stale":  # first, so that whoever sees that it failed may ask again
                    self.on_stale()
                self.put(job, "failed", self.settings.redact(error))
        return True

    def _follow(self, done: int, total: int) -> None:
        self._progress = (done, total)
