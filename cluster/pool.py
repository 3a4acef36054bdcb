"""Pool: the life of one run on workers in processes of their own that may die, whatever starts these processes.

Goal: every piece ends exactly once as an event, whatever happens to processes and nodes, as long as some can be had.
Conventions: a process (an actor) is asked for, then located (it runs somewhere), then ready (its worker is made). One
that is lost is replaced by another, and what it may still do or answer counts for nothing; pieces must therefore bear
to be run twice. Times are of the monotonic clock.
"""

import logging
import math
import pickle
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol

from ..messages import one_line
from .executor import IN_FLIGHT, Done, Event, Failed, Killed, Piece, Result, WorkerState

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # between two looks at what there is, while nothing happens
MAX_FAILED_STARTS = 3  # times in a row that workers may fail to be made by an exception
MAX_LOST_STARTS = 8  # or by one of these and the loss of their actor, which may have nothing to do with them
MAX_PAUSE_SECONDS = 10.0  # before another is asked for after that
REPORT_SECONDS = 60.0  # between two lines in the log on what is waited for
SILENT_SECONDS = 600.0  # without an answer, after which the log says so
CLOSE_SECONDS = 20.0  # for workers to close in the end


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """An exception on its way from one process to another, as bytes: the process that reads it may lack its class."""

    pickled: bytes
    text: str

    @classmethod
    def of(cls, error: Exception) -> "Raised":
        """Pack an exception; its traceback becomes a note on it."""
        text = f"{type(error).__name__}: {error}"
        error.add_note("".join(traceback.format_exception(error)))
        try:
            return cls(pickled=pickle.dumps(error), text=text)
        except Exception:  # a lock, an open file, a class that is no module's
            return cls(pickled=b"", text=text)

    def error(self) -> Exception:
        """The exception, or one that says the same where it cannot be had."""
        try:
            error = pickle.loads(self.pickled)
        except Exception:
            error = None
        return error if isinstance(error, Exception) else RuntimeError(self.text)


class Lost(Exception):
    """The actor that owed an answer is gone; the message says what became of it, in few words."""


class Actors(Protocol):
    """Where actors come from, each of which hosts one worker (see `ray.WorkerHost`), and how they are called."""

    def ask(self) -> Any:
        """Ask for an actor; it comes when there is room."""

    def call(self, actor: Any, method: str, *given: Any) -> Hashable:
        """Call a method of it, as soon as it is there; the answer is awaited by `ready`."""

    def ready(self, answers: list[Any], seconds: float, every: bool = False) -> list[Any]:
        """Answers that are there, or whose actor is lost: as soon as there is one (or every one), or time is up."""

    def value(self, answer: Any) -> Any:
        """An answer that is ready. Raises Lost."""

    def end(self, actor: Any) -> None:
        """End an actor at once, if it lives."""

    def room(self, n_actors: int, n_not_located: int) -> int:
        """How many actors to have more than we have, some of which do not run anywhere yet."""

    def shortage(self, seconds: float) -> str:
        """Why no actor has run for so long. Raises OSError where none will."""


@dataclass(kw_only=True, eq=False, slots=True)
class Assignment(Generic[Piece]):
    """A piece from when it is drawn until it ends."""

    piece: Piece
    losses: list[str] = field(default_factory=list)
    """What became of each worker that was lost while it had the piece."""


class Assignments(Generic[Piece]):
    """Which pieces wait, which worker has which, and under which a worker was lost.

    Every piece waits, or is with one worker, or has ended; it is never with two. Pieces are drawn one by one as they
    are needed; nothing is kept of one that ended. A piece under which a worker was lost is retried before any other
    begins, and runs alone on its worker, so that its neighbours are not taken for the cause for long.
    """

    def __init__(self, pieces: Iterable[Piece], retries: int):
        """`retries`: a piece under which so many workers were lost is given up."""
        self._source, self._retries = iter(pieces), retries
        self._fresh: deque[Assignment[Piece]] = deque()
        self._retried: deque[Assignment[Piece]] = deque()
        self._held: dict[str, list[Assignment[Piece]]] = {}

    def waiting(self, limit: int) -> int:
        """How many pieces wait for a worker, counted up to `limit`; so many are drawn."""
        while len(self._fresh) + len(self._retried) < limit:
            try:
                self._fresh.append(Assignment(piece=next(self._source)))
            except StopIteration:
                break
        return min(limit, len(self._fresh) + len(self._retried))

    def unfinished(self) -> bool:
        """Whether any piece waits or is with a worker."""
        return any(self._held.values()) or self.waiting(1) > 0

    def held(self, worker: str) -> int:
        """How many pieces a worker has."""
        return len(self._held.get(worker, ()))

    def take(self, worker: str) -> Assignment[Piece] | None:
        """The next piece for a worker, or None where it is to have no more now."""
        held = self._held.setdefault(worker, [])
        if len(held) == IN_FLIGHT or any(assignment.losses for assignment in held):
            return None
        if self._retried:
            if held:  # it will be free for one in a while
                return None
            assignment = self._retried.popleft()
        elif self.waiting(1):
            assignment = self._fresh.popleft()
        else:
            return None
        held.append(assignment)
        return assignment

    def end(self, worker: str, assignment: Assignment[Piece]) -> None:
        """A piece ended, done or failed."""
        self._held[worker].remove(assignment)

    def lose(self, worker: str, how: str) -> list[Assignment[Piece]]:
        """A worker is gone: the pieces that are given up for it; others that it had wait again."""
        held = self._held.pop(worker, [])
        for assignment in held:
            assignment.losses.append(how)
        self._retried.extend(assignment for assignment in held if len(assignment.losses) < self._retries)
        return [assignment for assignment in held if len(assignment.losses) >= self._retries]


@dataclass(kw_only=True, eq=False, slots=True)
class _Actor:
    """An actor that is asked for, or there, and not known to be lost."""

    name: str
    handle: Any
    asked: float
    """When."""
    answered: float
    """When it answered last, or was given work as it had none."""
    located: bool = False
    ready: bool = False


class Pool(Generic[Piece, Result]):
    """One run: what was asked of whom, and what comes back."""

    def __init__(
        self,
        actors: Actors,
        make_worker: Any,
        pieces: Iterable[Piece],
        retries: int,
        states: dict[str, WorkerState],
        clock: Callable[[], float] = time.monotonic,
        stuck_after: float = math.inf,
    ):
        """`make_worker` goes to the host's `make`; `states`, by name, is added to and kept up to date.

        stuck_after: seconds without an answer after which an actor that owes one is taken for lost.
        """
        self.source, self.make_worker, self.states = actors, make_worker, states
        self.clock, self.stuck_after = clock, stuck_after
        self.assignments = Assignments(pieces, retries)
        self.actors: dict[str, _Actor] = {}
        self.calls: dict[Any, tuple[_Actor, Any]] = {}
        """What each answer that is awaited will be about: "locate", "make" or a piece's `Assignment`."""
        self.failed_starts = 0
        self.failed_at = self.not_before = -math.inf
        self.none_since = self.shortage_reported = self.silence_reported = clock()

    def events(self) -> Generator[Event[Piece, Result]]:
        """One event per piece. Raises OSError, ValueError or LookupError where no worker can be had."""
        complete = False
        try:
            while self.assignments.unfinished():
                self.add_actors()
                self.assign()
                if not self.calls:  # none may be asked for just now
                    time.sleep(POLL_SECONDS)
                for answer in self.source.ready(list(self.calls), POLL_SECONDS) if self.calls else []:
                    yield from self.receive(answer)
                yield from self.lose_stuck()
                self.check_shortage()
            complete = True
        finally:  # where nothing is at work and nobody is in a hurry, workers close first
            ends = [self.source.call(actor.handle, "end") for actor in self.actors.values() if complete and actor.ready]
            if ends:
                self.source.ready(ends, CLOSE_SECONDS, every=True)
            for actor in list(self.actors.values()):
                self.discard(actor, "ended")

    def add_actors(self) -> None:
        """Ask for actors while pieces wait for some."""
        if self.clock() < self.not_before:
            return
        room = self.source.room(len(self.actors), sum(not actor.located for actor in self.actors.values()))
        if room <= 0:
            return
        idle = sum(self.assignments.held(name) == 0 for name in self.actors)  # they will have the first that wait
        for _ in range(self.assignments.waiting(room + idle) - idle):
            now = self.clock()
            actor = _Actor(name=f"actor {len(self.states) + 1}", handle=self.source.ask(), asked=now, answered=now)
            self.actors[actor.name] = actor
            self.states[actor.name] = WorkerState(name=actor.name, node="", pid=0, phase="starting")
            self.calls[self.source.call(actor.handle, "locate")] = actor, "locate"
            self.calls[self.source.call(actor.handle, "make", self.make_worker)] = actor, "make"

    def assign(self) -> None:
        """Give every worker what it may have, first to those that have nothing."""
        for n_held in range(IN_FLIGHT):
            for actor in self.actors.values():
                if actor.ready and self.assignments.held(actor.name) == n_held:
                    assignment = self.assignments.take(actor.name)
                    if assignment is not None:
                        actor.answered = actor.answered if n_held else self.clock()
                        self.calls[self.source.call(actor.handle, "work", assignment.piece)] = actor, assignment
                        self.update(actor, phase="working")

    def update(self, actor: _Actor, **changes: Any) -> None:
        """Note what an actor is doing, for whoever asks."""
        state = replace(self.states[actor.name], in_flight=self.assignments.held(actor.name))
        self.states[actor.name] = replace(state, **changes)

    def receive(self, answer: Any) -> Generator[Event[Piece, Result]]:
        """What an answer comes to."""
        if answer not in self.calls:  # of an actor that was lost since
            return
        actor, about = self.calls.pop(answer)
        try:
            value = self.source.value(answer)
        except Lost as lost:
            yield from self.lose(actor, str(lost))
            return
        actor.answered = self.clock()
        if isinstance(about, Assignment):
            yield self.completed(actor, about, value)
        elif isinstance(value, Raised):
            self.discard(actor, "lost")
            self.failed_to_start(actor, value.error(), MAX_FAILED_STARTS)
        elif about == "locate":
            actor.located = True
            self.update(actor, node=value[0], pid=value[1])
        else:
            actor.ready, self.failed_starts = True, 0
            self.update(actor, phase="idle")

    def completed(self, actor: _Actor, assignment: Assignment[Piece], value: Any) -> Event[Piece, Result]:
        """The event of a piece that was answered."""
        self.assignments.end(actor.name, assignment)
        phase, state = "working" if self.assignments.held(actor.name) else "idle", self.states[actor.name]
        if isinstance(value, Raised):
            self.update(actor, failed=state.failed + 1, phase=phase)
            return Failed(piece=assignment.piece, error=value.error(), worker=actor.name)
        self.update(actor, done=state.done + 1, phase=phase)
        return Done(piece=assignment.piece, result=value[0], seconds=value[1], worker=actor.name)

    def lose(self, actor: _Actor, how: str) -> Generator[Event[Piece, Result]]:
        """An actor is gone: what it answered before counts, what it had in flight is for others."""
        owed = {
            answer: about
            for answer, (owner, about) in self.calls.items()
            if owner is actor and isinstance(about, Assignment)
        }
        for answer in self.source.ready(list(owed), 0.0, every=True) if owed else []:
            try:
                value = self.source.value(answer)
            except Lost:
                continue
            yield self.completed(actor, owed[answer], value)
        log.info("%s on %s was lost: %s", actor.name, self.states[actor.name].node or "no node yet", how)
        dropped = self.assignments.held(actor.name)
        given_up = self.assignments.lose(actor.name, how)
        self.discard(actor, "lost")
        self.update(actor, in_flight=dropped)
        for assignment in given_up:
            hows = ", ".join(dict.fromkeys(assignment.losses))
            yield Killed(piece=assignment.piece, how=f"killed its worker {len(assignment.losses)} times ({hows})")
        if not actor.ready:
            self.failed_to_start(actor, OSError(how), MAX_LOST_STARTS)

    def lose_stuck(self) -> Generator[Event[Piece, Result]]:
        """Take actors for lost that have owed an answer for too long; of such as may only be slow, say so."""
        now, waited = self.clock(), 0.0
        for actor in list(self.actors.values()):
            silent = now - actor.answered
            if not actor.located or (actor.ready and not self.assignments.held(actor.name)):
                continue
            # The encoder is loaded before a worker is ready.
            timeout = self.stuck_after if actor.ready else max(self.stuck_after, SILENT_SECONDS)
            if silent > timeout:
                yield from self.lose(actor, f"it answered nothing for {timeout:g} s")
            elif silent > max(SILENT_SECONDS, waited):
                waited, slowest = silent, self.states[actor.name]
        if waited and now - self.silence_reported > SILENT_SECONDS:
            self.silence_reported = now
            log.warning(
                "%s on %s, process %d, has answered nothing for %d minutes; if it is stuck, end that process, and "
                "others do its work", slowest.name, slowest.node, slowest.pid, waited // 60,
            )  # fmt: skip

    def discard(self, actor: _Actor, phase: str) -> None:
        """Have nothing to do with an actor any more; if it lives, end it."""
        del self.actors[actor.name]
        self.calls = {answer: about for answer, about in self.calls.items() if about[0] is not actor}
        self.source.end(actor.handle)
        self.update(actor, phase=phase)

    def failed_to_start(self, actor: _Actor, error: Exception, limit: int) -> None:
        """Wait longer and longer before the next one is asked for; give up after `limit` where none is left."""
        why = one_line(error, whole=True)
        if actor.asked > self.failed_at:  # those that were asked for together count once
            log.warning("%s could not start: %s", actor.name, why)
            self.failed_at, self.failed_starts = self.clock(), self.failed_starts + 1
            self.not_before = self.failed_at + min(MAX_PAUSE_SECONDS, POLL_SECONDS * 2**self.failed_starts)
        others = self.actors.values()
        hopeless = self.failed_starts >= 3 * limit and not any(other.ready for other in others)
        if hopeless or (self.failed_starts >= limit and not any(other.located for other in others)):
            if isinstance(error, ValueError | LookupError):
                raise error
            raise OSError(
                f"workers could not be started {self.failed_starts} times in a row ({why}); "
                "expected them to start on the nodes as they do here: see the log of the executor's nodes"
            ) from error

    def check_shortage(self) -> None:
        """Raise OSError where no actor will ever run; log it where it only takes long."""
        now = self.clock()
        if not self.actors or any(actor.located for actor in self.actors.values()):
            self.none_since = self.shortage_reported = now
            return
        why = self.source.shortage(now - self.none_since)
        if now - self.shortage_reported > REPORT_SECONDS:
            self.shortage_reported = now
            log.warning("%s", why)
