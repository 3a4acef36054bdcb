"""Results on disk: Parquet files whose names hold the SHA-256 of their bytes.

Goal: what is read is what was written, or nothing.
Conventions: ID.DIGEST.parquet. A file that is unlike its name is deleted when it is read: its job can be done again.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...documents import parse_json
from ..result import KEY

log = logging.getLogger(__name__)

ARROW = "application/vnd.apache.arrow.stream"  # content type


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

    def written(self, job: str) -> float:
        """When the result of a job was written, in seconds since 1970; 0 where there is none."""
        return max((path.stat().st_mtime for path in self.folder.glob(f"{job}.*.parquet")), default=0.0)

    def ids(self) -> list[str]:
        """The jobs that have results, in order."""
        return sorted({path.name.split(".")[0] for path in self.folder.glob("[!.]*.parquet")})


def about_of(table: pa.Table) -> dict[str, Any]:
    """All in a result that is no row."""
    found: dict[str, Any] = parse_json((table.schema.metadata or {})[KEY])
    return found


def arrow_stream(table: pa.Table) -> bytes:
    """A result as an Arrow stream; its schema's metadata hold all that is no row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
