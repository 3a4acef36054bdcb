"""Jobs: what was asked, how far it is and what came out, in a folder that several processes share.

Goal: whatever dies, and whenever: nothing finished is lost, nothing unfinished forgotten, and nothing ends two ways.
Conventions: the states of a job are a row of files that are never changed; the last one holds. The next one can be
created by one process only, so that of several who would continue from the same state one does, and the others look
again. Who works on a job touches its last file, as a heartbeat; without one it is replaced by the next file. JSON only.
    jobs/ID/000000.json ...       its states: queued, running, done, failed, cancelled, queued again ...
    jobs/ID/result.000002.parquet what the run that began with 000001 and ended with 000002 found
    jobs/ID/progress.json         of the present run
    queue/TIME-ID                 where to look for unfinished jobs, oldest first; may name finished ones for a minute
The folder must be on a file system with hard links (local ones, NFS).
"""

import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..documents import parse_json, read_document
from ..files import whole_file

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled")
UNFINISHED = ("queued", "running")
JOB_ID = re.compile(r"[0-9a-f]{64}")
EVENT = re.compile(r"(\d{6})\.json")
HINT_SECONDS = 60.0  # that a hint may be ahead of its job


@dataclass(frozen=True, kw_only=True)
class Job:
    """The state of a job at one moment."""

    id: str
    """64 hexadecimal digits."""
    number: int
    """Of its last event, from 0 on."""
    state: State
    at: float
    """When that was, in seconds since 1970."""
    submitted: float
    """When it was last asked for."""
    by: str = ""
    """Name of who works on it, or did."""
    losses: int = 0
    """How many that worked on it vanished."""
    error: str = ""
    """One line, of a failed one."""

    @property
    def unfinished(self) -> bool:
        """Whether something remains to be done."""
        return self.state in UNFINISHED


class JobFolder:
    """Jobs under a folder, which is made where there is none.

    Raises OSError where the folder cannot be made or holds something else.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._jobs, self._queue = self.root / "jobs", self.root / "queue"
        note = self.root / "state.json"
        if self.root.is_dir() and any(self.root.iterdir()) and not note.is_file():
            raise OSError(f"{self.root} holds other files; expected a new folder, or the state of a service")
        for folder in (self._jobs, self._queue):
            folder.mkdir(parents=True, exist_ok=True)
        put_new(note, {"format": 1})
        if parse_json(read_document(note)) != {"format": 1}:
            raise OSError(f"{self.root} was written by another version; expected format 1: use a new folder")
        self._repair()

    def get(self, job: str) -> Job | None:
        """A job as it stands, or None. Raises ValueError for what is not a valid id."""
        if not JOB_ID.fullmatch(job):
            raise ValueError(f"{job[:80]!r} is not a valid id of a job; expected 64 hexadecimal digits")
        try:
            names = os.listdir(self._jobs / job)
        except FileNotFoundError:
            return None
        numbers = [int(match[1]) for name in names if (match := EVENT.fullmatch(name))]
        if not numbers:
            return None
        found = parse_json(read_document(self._event(job, max(numbers))))
        found.pop("request", None)
        return Job(id=job, number=max(numbers), **found)

    def request(self, job: str) -> dict[str, Any]:
        """What was asked. Raises FileNotFoundError for a job that does not exist."""
        asked: dict[str, Any] = parse_json(read_document(self._event(job, 0)))["request"]
        return asked

    def create(self, job: str, request: Mapping[str, Any]) -> Job | None:
        """A new job, queued; None where it exists already."""
        self._hint(job)
        now = time.time()
        made = Job(id=job, number=0, state="queued", at=now, submitted=now)
        (self._jobs / job).mkdir(exist_ok=True)
        return made if self._put(made, request=dict(request)) else None

    def advance(
        self, job: Job, state: State, *, by: str = "", losses: int = 0, error: str = "", again: bool = False
    ) -> Job | None:
        """The job's next state; None where it is no longer as in `job`: somebody else was first.

        again: it is asked for anew, and counts as submitted now.
        """
        now = time.time()
        if again:
            self._hint(job.id)
        next_ = replace(
            job, number=job.number + 1, state=state, at=now, by=by, losses=losses, error=error,
            submitted=now if again else job.submitted,
        )  # fmt: skip
        try:
            return next_ if self._put(next_) else None
        except FileNotFoundError:  # the folder was deleted
            return None

    def waiting(self) -> list[Job]:
        """Unfinished jobs, oldest first."""
        found: dict[str, Job] = {}
        for name in sorted(os.listdir(self._queue)):
            since, _, job = name.partition("-")
            if not since.isdecimal() or not JOB_ID.fullmatch(job):
                continue
            state = self.get(job)
            if state is not None and state.unfinished:
                found.setdefault(job, state)
            elif time.time() - int(since) / 1e9 > HINT_SECONDS:
                (self._queue / name).unlink(missing_ok=True)
        return list(found.values())

    def latest(self, limit: int, state: str | None = None) -> list[Job]:
        """Jobs whose state changed last, the latest first; of one state, if one is named."""
        changed: dict[str, int] = {}
        for entry in os.scandir(self._jobs):
            with suppress(FileNotFoundError):  # it was deleted
                changed[entry.name] = entry.stat().st_mtime_ns
        found: list[Job] = []
        for name in sorted(filter(JOB_ID.fullmatch, changed), key=lambda name: -changed[name]):
            if len(found) == limit:
                break
            job = self.get(name)
            if job is not None and state in (None, job.state):
                found.append(job)
        return found

    def send_heartbeat(self, job: Job) -> None:
        """Record that a job is worked on. Raises FileNotFoundError where it was deleted."""
        os.utime(self._event(job.id, job.number))

    def last_heartbeat(self, job: Job) -> int:
        """When that was last recorded: only good for comparison with itself, for clocks of machines differ."""
        return self._event(job.id, job.number).stat().st_mtime_ns

    def record_progress(self, job: Job, done: int, total: int) -> None:
        """Record how much of a running job is done."""
        with whole_file(self._jobs / job.id / "progress.json") as partial:
            partial.write_text(json.dumps({"number": job.number, "done": done, "total": total}))

    def progress(self, job: Job) -> tuple[int, int]:
        """How much is done, of how much: (0, 0) where that is not known."""
        with suppress(OSError, ValueError, KeyError):
            found = parse_json(read_document(self._jobs / job.id / "progress.json"))
            if found["number"] == job.number - (job.state == "done"):
                return int(found["done"]), int(found["total"])
        return 0, 0

    def result(self, job: Job) -> Path:
        """Where the result of a job lies that is done; for one that is running, where it is to be written."""
        return self._jobs / job.id / f"result.{job.number + (job.state == 'running'):06d}.parquet"

    def sweep(self, job: Job) -> None:
        """Delete results that runs wrote which did not end the job."""
        for path in (self._jobs / job.id).glob("result.*.parquet"):
            if path != self.result(job):
                path.unlink(missing_ok=True)

    def _event(self, job: str, number: int) -> Path:
        return self._jobs / job / f"{number:06d}.json"

    def _put(self, job: Job, **more: Any) -> bool:
        event = {key: value for key, value in asdict(job).items() if key not in ("id", "number")}
        return put_new(self._event(job.id, job.number), event | more)

    def _hint(self, job: str, since: float | None = None) -> None:
        """Before the event, so that whatever dies in between, no unfinished job is without one."""
        stamp = int((time.time() if since is None else since) * 1e9)
        (self._queue / f"{stamp:020d}-{job}").touch()

    def _repair(self) -> None:
        """Hints for unfinished jobs that have none, whoever deleted them."""
        hinted = {name.partition("-")[2] for name in os.listdir(self._queue)}
        for name in filter(JOB_ID.fullmatch, os.listdir(self._jobs)):
            job = None if name in hinted else self.get(name)
            if job is not None and job.unfinished:
                self._hint(name, job.submitted)


def put_new(path: Path, value: Mapping[str, Any]) -> bool:
    """Write a JSON file, whole, where there is none; whether it was. Of several at the same instant one succeeds."""
    whole = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with whole.open("wb") as file:
            file.write(json.dumps(value, ensure_ascii=False).encode())
            file.flush()
            os.fsync(file.fileno())
        os.link(whole, path)
    except FileExistsError:
        return False
    finally:
        whole.unlink(missing_ok=True)
    return True
