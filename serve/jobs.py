"""Jobs: what was asked and what became of it, as rows of one SQLite file.

Goal: nothing acknowledged is forgotten, and no damage of the file is ever shown for the truth.
Conventions: one process has the file open, on a local disk. Each row carries the digest of its values. A file that
cannot be read, or holds a row unlike its digest, is set aside, and a new one begun with what could be read of it and
with the results that are on disk.
"""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..ablate.jobs.results import Results, about_of
from ..documents import parse_json
from ..messages import one_line
from ..store.provenance import digest_of

log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
# Not damage; a file that is read only may be, by a flipped bit: where it is, says the disk.
CLOSED = sqlite3.SQLITE_MISUSE  # the file, when a request outlives the server; Python gives no code
NO_DAMAGE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, CLOSED)
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT, request TEXT, submitted REAL, changed REAL, error TEXT, done INTEGER,
    total INTEGER, losses INTEGER, digest TEXT
);
CREATE INDEX IF NOT EXISTS unfinished ON jobs (submitted) WHERE state IN ('queued', 'running');
"""
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job at one moment, by the columns of its row."""

    id: str
    """64 hexadecimal digits."""
    state: State
    request: dict[str, Any]
    submitted: float
    """When it was last asked for, in seconds since 1970."""
    changed: float
    """When its state last changed."""
    error: str = ""
    """One line, of a failed one."""
    done: int = 0
    """Clips."""
    total: int = 0
    losses: int = 0
    """How many processes died under it."""

    @property
    def unfinished(self) -> bool:
        """Whether something remains to be done."""
        return self.state in ("queued", "running")


def job_of(results: Results, id_: str) -> Job | None:
    """The job of a result on disk, as far as that tells, or None."""
    when, table = results.written(id_), results.read(id_)
    if table is None:
        return None
    about = about_of(table)["attrs"]
    n = int(about["n_clips"])
    return Job(id=id_, state="done", request=about["request"], submitted=when, changed=when, done=n, total=n)


def jobs_of(results: Results) -> Iterator[Job]:
    """The jobs of all results on disk."""
    return filter(None, (job_of(results, id_) for id_ in results.ids()))


class Damaged(ValueError):
    """A row is not what was written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class JobTable:
    """Jobs in a file, which is made where there is none; any thread may ask.

    on_disk: the jobs whose results are on disk, for a file that is begun anew.
    Raises OSError where the file cannot be used.
    """

    def __init__(self, path: Path, on_disk: Callable[[], Iterable[Job]]) -> None:
        self.path, self._on_disk, self._lock = path, on_disk, threading.RLock()
        self._db = self._try(self._opened)
        self._try(self._check)

    def get(self, job: str) -> Job | None:
        """A job as it stands, or None."""
        return next(iter(self._select("WHERE id = ?", job)), None)

    def put(self, job: Job) -> None:
        """Write a job; it is on disk when this returns."""
        self._try(lambda: self._write(job))

    def unfinished(self) -> list[Job]:
        """Queued and running jobs, oldest first."""
        return self._select("WHERE state IN ('queued', 'running') ORDER BY submitted")

    def latest(self, limit: int, state: str | None = None) -> list[Job]:
        """Jobs whose state changed last, the latest first; of one state, if one is named."""
        return self._select("WHERE state = coalesce(?, state) ORDER BY changed DESC LIMIT ?", state, limit)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _select(self, which: str, *values: Any) -> list[Job]:
        return self._try(lambda: [_job(row) for row in self._db.execute(f"SELECT * FROM jobs {which}", values)])

    def _write(self, job: Job) -> None:
        values = list((vars(job) | {"request": json.dumps(job.request)}).values())
        marks = ",".join("?" * len(values))
        self._db.execute(f"REPLACE INTO jobs VALUES ({marks},?)", [*values, digest_of(values)])

    def _check(self) -> None:
        self._db.executescript(SCHEMA)
        found = [name for (name,) in self._db.execute("PRAGMA integrity_check")]
        if found != ["ok"]:
            raise Damaged(found[0])
        if not self._db.execute("SELECT EXISTS (SELECT * FROM jobs)").fetchone()[0]:
            for job in self._on_disk():
                self._write(job)

    def _try(self, action: Callable[[], Found]) -> Found:
        """Do something with the file; where it shows damage, once more with a new one."""
        with self._lock:
            try:
                try:
                    return action()
                except (sqlite3.DatabaseError, Damaged) as error:
                    closed = isinstance(error, sqlite3.ProgrammingError)
                    code = CLOSED if closed else getattr(error, "sqlite_errorcode", 0) & 0xFF
                    if code in NO_DAMAGE or not os.access(self.path, os.W_OK):
                        raise
                    self._set_aside(error)
                    return action()
            except sqlite3.Error as error:
                raise OSError(f"{self.path} cannot be used ({one_line(error)}); expected a file of SQLite") from error

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)

    def _set_aside(self, why: Exception) -> None:
        kept = self._readable()
        self._db.close()
        aside = next(p for i in count(1) if not (p := self.path.with_name(f"{self.path.name}.damaged-{i}")).exists())
        for ending in ("", "-journal"):  # an old journal would undo what is written to a new file
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}{ending}", f"{aside}{ending}")
        log.error(
            "%s is damaged (%s): it is set aside as %s; of its jobs %d could be read", self.path.name, one_line(why),
            aside.name, len(kept),
        )  # fmt: skip
        self._db = self._opened()
        self._check()
        for job in kept:
            self._write(job)

    def _readable(self) -> list[Job]:
        """What can still be read: from the front to the first page that cannot, and from the back."""
        found: dict[str, Job] = {}
        for order in ("ASC", "DESC"):
            with suppress(sqlite3.Error):
                for row in self._db.execute(f"SELECT * FROM jobs NOT INDEXED ORDER BY rowid {order}"):
                    with suppress(Damaged):
                        found.setdefault(row[0], _job(row))
        return list(found.values())


def _job(row: Sequence[Any]) -> Job:
    """Raises Damaged for a row that is not as it was written."""
    *values, digest = row
    with suppress(TypeError, ValueError):
        if digest_of(values) == digest:
            named = dict(zip(Job.__dataclass_fields__, values, strict=True))
            return Job(**named | {"request": parse_json(values[2].encode())})
    raise Damaged("a row is unlike its digest")
