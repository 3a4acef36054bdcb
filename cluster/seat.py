"""Seat: what runs in a process of its own on behalf of a pool, with a place for one worker.

Goal: a worker's exceptions become answers, so that whatever else the pool sees means that the process is gone.
Conventions: an exception travels as bytes, since the process that reads it may lack the class; its traceback is a note
on it.
Contents: `Seat`, `Raised`.
"""

import os
import pickle
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """An exception on its way from one process to another."""

    pickled: bytes
    words: str

    @classmethod
    def of(cls, error: Exception) -> "Raised":
        """Pack an exception."""
        words = f"{type(error).__name__}: {error}"
        error.add_note("".join(traceback.format_exception(error)))
        try:
            return cls(pickled=pickle.dumps(error), words=words)
        except Exception:  # a lock, an open file, a class that is no module's
            return cls(pickled=b"", words=words)

    def error(self) -> Exception:
        """The exception, or one that says the same where it cannot be had."""
        try:
            error = pickle.loads(self.pickled)
        except Exception:
            error = None
        return error if isinstance(error, Exception) else RuntimeError(self.words)


class Seat:
    """A place for one worker. `work` may be called by several threads once `make` has returned None."""

    def __init__(self) -> None:
        self.worker: Callable[[Any], Any] | None = None

    def hello(self) -> tuple[str, int]:
        """Machine and process: answered as soon as there is one."""
        return platform.node(), os.getpid()

    def make(self, make_worker: Callable[[], Callable[[Any], Any]]) -> Raised | None:
        """Make the worker."""
        try:
            self.worker = make_worker()
        except Exception as error:
            return Raised.of(error)
        return None

    def work(self, piece: Any) -> tuple[Any, float] | Raised:
        """The result of a piece and the seconds it took, or what it raised."""
        began = time.perf_counter()
        try:
            return self.worker(piece), time.perf_counter() - began  # type: ignore[misc]
        except Exception as error:
            return Raised.of(error)

    def end(self) -> None:
        """Let the worker go."""
        getattr(self.worker, "close", lambda: None)()
