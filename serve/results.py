"""Results on disk: Parquet files whose names hold the SHA-256 of their bytes.

Goal: what is read is what was written, or nothing.
Conventions: ID.DIGEST.parquet. A file that is unlike its name is deleted when it is read: its job can be done again.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..ablate.result import KEY
from ..documents import parse_json
from .jobs import Job

log = logging.getLogger(__name__)


class Results:
    """Results under a folder, which is made where there is none; what was left half written there is deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete what a process that died left half written."""
        for left in self.folder.glob(".*"):
            left.unlink()

    def partial(self, job: str) -> Path:
        """Where the result of a job is to be written, for `keep`."""
        return self.folder / f".{job}.parquet"

    def keep(self, job: str) -> None:
        """Let the result that was written to `partial` be that of the job."""
        partial = self.partial(job)
        partial.replace(self.folder / f"{job}.{_digest(partial.read_bytes())}.parquet")

    def read(self, job: str) -> pa.Table | None:
        """The result of a job, or None where there is none, or none that is whole."""
        for path in self.folder.glob(f"{job}.*.parquet"):
            content = path.read_bytes()
            if _digest(content) == path.name.split(".")[1]:
                return pq.read_table(pa.BufferReader(content))
            log.error("the result %s is damaged: it is deleted, and done again when it is asked for", path.name[:12])
            path.unlink(missing_ok=True)
        return None

    def job(self, job: str) -> Job | None:
        """The job of a result on disk, as far as that tells, or None."""
        table = self.read(job)
        if table is None:
            return None
        (path, *_) = self.folder.glob(f"{job}.*.parquet")
        when, about = path.stat().st_mtime, about_of(table)["attrs"]
        n = int(about["n_clips"])
        return Job(id=job, state="done", request=about["request"], submitted=when, changed=when, done=n, total=n)

    def jobs(self) -> Iterator[Job]:
        """The jobs of all results."""
        for name in sorted({path.name.split(".")[0] for path in self.folder.glob("[!.]*.parquet")}):
            if (found := self.job(name)) is not None:
                yield found


def about_of(table: pa.Table) -> dict[str, Any]:
    """All in a result that is no row."""
    found: dict[str, Any] = parse_json((table.schema.metadata or {})[KEY])
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
