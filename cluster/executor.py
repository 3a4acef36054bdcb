"""Executor: run independent pieces of work somewhere, and tell what became of each.

Goal: one small protocol, and the serial executor that every other one must agree with.
Conventions: a worker is a function of one piece; it is made where it runs, once. A piece that raises is reported, not
raised: whoever iterates over the events decides whether to go on.
Contents: `Executor`, `Done`, `Failed`, `SerialExecutor`.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Generic[Piece, Result]):
    """A piece of work was completed."""

    piece: Piece
    result: Result
    seconds: float
    """Wall time, on the machine that did the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Generic[Piece]):
    """A piece of work raised."""

    piece: Piece
    error: Exception


class Executor(Protocol):
    """Runs pieces in any order, each at least once."""

    name: str

    def run(
        self, make_worker: Callable[[], Callable[[Piece], Result]], pieces: Iterable[Piece]
    ) -> Iterator[Done[Piece, Result] | Failed[Piece]]:
        """One event per piece, as they end. No worker is made where there is no piece."""
        ...


class SerialExecutor:
    """One worker in this process, one piece after another."""

    name = "serial"

    def run(
        self, make_worker: Callable[[], Callable[[Piece], Result]], pieces: Iterable[Piece]
    ) -> Iterator[Done[Piece, Result] | Failed[Piece]]:
        """One event per piece, in order."""
        worker = None
        for piece in pieces:
            began = time.perf_counter()
            try:
                worker = worker or make_worker()
                result = worker(piece)
            except Exception as error:
                yield Failed(piece=piece, error=error)
            else:
                yield Done(piece=piece, result=result, seconds=time.perf_counter() - began)
