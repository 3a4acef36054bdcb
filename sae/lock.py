"""Lock: one command at a time trains into a folder.

Goal: of two that would write the same files the second is refused, and none that was killed is in the way of others.
Conventions: a file system's own lock on a file in the folder, which ends with the process that holds it; the file says
who that is. It is gone at the end. Where a file system has no locks, nothing is refused.
"""

import errno
import io
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

NAME = ".lock"
NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


@contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Keep a folder that is there for a command alone, for the length of a `with` statement.

    command: what it is, for messages. Raises ValueError, saying who holds it and since when, where it is locked.
    """
    path = folder / NAME
    file = _locked_file(path, command)
    try:
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {platform.node()} since {since}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _locked_file(path: Path, command: str) -> io.FileIO:
    """The file, open and locked."""
    while True:
        file = path.open("ab+", buffering=0)
        if sys.platform == "win32":
            return file
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            who = file.read(200).decode(errors="replace") or "another process"
            file.close()
            raise ValueError(
                f"{path.parent} is in use by another `{command}`, {who}; expected one at a time: wait for it, or give "
                "another folder with -o"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # whoever held it has deleted it since
