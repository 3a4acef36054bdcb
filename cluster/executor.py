"""Executor: run independent pieces of work somewhere, and report what became of each.

Goal: one small protocol, and the serial executor that every other one must agree with.
Conventions: a worker is a function of one piece; it is made where it runs, once, and called by at most `IN_FLIGHT`
threads at the same time, so that one piece may be written while the next is computed. A worker may have `close()`: the
executor calls it when no piece is left, or to make the calls under way end soon, by whatever exception. A piece that
raises is reported, not raised: whoever iterates over the events decides whether to go on. Pieces are drawn as they
are needed and not kept.
"""

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

IN_FLIGHT = 2  # pieces that a worker has at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Generic[Piece, Result]):
    """A piece of work was completed."""

    piece: Piece
    result: Result
    seconds: float
    """Wall time, on the machine that did the work; pieces of one worker overlap."""
    worker: str = ""
    """Name of the worker, as in `WorkerState`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Generic[Piece]):
    """A piece of work raised, or no worker could be made for it."""

    piece: Piece
    error: Exception
    worker: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Killed(Generic[Piece]):
    """The process of a piece's worker died under it, again and again: it is given up, and the others go on."""

    piece: Piece
    how: str
    """What became of the workers, for a person to read."""


Event = Done[Piece, Result] | Failed[Piece] | Killed[Piece]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """What one worker of a run is doing."""

    name: str
    """Unique in the life of the executor."""
    node: str
    """Name of its machine, "" until it is known."""
    pid: int
    """Its process on that machine, 0 until it is known."""
    phase: Literal["starting", "working", "idle", "ended", "lost"]
    in_flight: int = 0
    """Pieces that it has now; of one that was lost, pieces that were given to others."""
    done: int = 0
    """Pieces that it completed."""
    failed: int = 0
    """Pieces that raised."""


class Executor(Protocol):
    """Runs pieces in any order, each at least once."""

    name: str
    """For reports alone; callers decide by the others."""
    remote: bool
    """Whether workers are in other processes, where they load what they need themselves and may see other devices."""
    cpus_per_worker: float | None
    """Processors of each worker, None for all that there are."""

    @property
    def on_this_machine(self) -> bool:
        """Whether workers share the memory of the machine that runs this."""

    def max_workers(self) -> int:
        """How many workers there may be at a time, as far as is known."""

    def run(
        self, make_worker: Callable[[], Callable[[Piece], Result]], pieces: Iterable[Piece]
    ) -> Generator[Event[Piece, Result]]:
        """One event per piece, as they end. No worker is made where there is no piece.

        Closing the generator early (or an exception in it) ends the pieces under way, finished or not.
        """

    def workers(self) -> tuple[WorkerState, ...]:
        """Every worker so far, of this run and those before, the lost ones included. Any thread may ask."""


class SerialExecutor:
    """One worker in this process; pieces begin in order, each when the one before the last has ended."""

    name, remote, on_this_machine = "serial", False, True
    cpus_per_worker: float | None = None
    _state: WorkerState | None = None

    def max_workers(self) -> int:
        """One."""
        return 1

    def run(
        self, make_worker: Callable[[], Callable[[Piece], Result]], pieces: Iterable[Piece]
    ) -> Generator[Event[Piece, Result]]:
        """One event per piece, in order; of the pieces whose events were not asked for, at most one has begun."""
        worker: Callable[[Piece], Result] | None = None
        waiting = iter(pieces)
        ahead: deque[tuple[Piece, Future[tuple[Result, float]]]] = deque()
        state = self._state or WorkerState(name="serial", node=platform.node(), pid=os.getpid(), phase="starting")
        self._state = replace(state, phase="starting")
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="piece") as pool:
            try:
                while True:
                    for piece in waiting:
                        future: Future[tuple[Result, float]] = Future()
                        try:
                            worker = worker or make_worker()
                        except Exception as error:
                            future.set_exception(error)
                        else:
                            future = pool.submit(timed, worker, piece)
                        ahead.append((piece, future))
                        if len(ahead) == IN_FLIGHT:
                            break
                    if not ahead:
                        break
                    yield self._event(*ahead.popleft(), len(ahead))
            finally:  # before the pool waits for its threads
                for _, future in ahead:
                    future.cancel()
                close(worker)
                self._state = replace(self._state, phase="ended", in_flight=0)

    def _event(self, piece: Piece, future: "Future[tuple[Result, float]]", n_behind: int) -> Event[Piece, Result]:
        """Wait for a piece."""
        assert self._state is not None
        state = self._state = replace(self._state, phase="working", in_flight=n_behind + 1)
        try:
            result, seconds = future.result()
        except Exception as error:
            self._state = replace(state, in_flight=n_behind, failed=state.failed + 1)
            return Failed(piece=piece, error=error, worker=state.name)
        self._state = replace(state, in_flight=n_behind, done=state.done + 1)
        return Done(piece=piece, result=result, seconds=seconds, worker=state.name)

    def workers(self) -> tuple[WorkerState, ...]:
        """The one worker, once there was a run; of all runs together."""
        return (self._state,) if self._state else ()


def close(worker: object) -> None:
    """Call a worker's `close`, if it has one."""
    getattr(worker, "close", lambda: None)()


def timed(worker: Callable[[Piece], Result], piece: Piece) -> tuple[Result, float]:
    """The result of a piece and the seconds it took."""
    began = time.perf_counter()
    result = worker(piece)
    return result, time.perf_counter() - began
