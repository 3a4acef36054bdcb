"""Pool: the life of one run on actors that may die, whatever kind of actors they are.

Goal: every piece ends exactly once as an event, whatever happens to actors and nodes, as long as some can be had.
Conventions: an actor is asked for, then placed (it is somewhere), then made (its worker is there). One that is lost is
replaced by another, and what it may still do or answer counts for nothing; pieces must therefore bear to be run twice.
Contents: `Pool`, `Actors`, `Lost`.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol

from .executor import IN_FLIGHT, Done, Event, Failed, Killed, Piece, Result, WorkerState
from .ledger import Ledger, Ticket
from .seat import Raised

log = logging.getLogger(__name__)

TICK = 0.5  # seconds between two looks at what there is, while nothing happens
STARTS = 3  # times in a row that workers may fail to be made by an exception
DEATHS = 8  # or by one of these and the loss of their actor, which may have nothing to do with them
LONGEST_PAUSE = 10.0  # seconds before another is asked for after that
WORD = 60.0  # seconds between two words on what is waited for
LONG = 600.0  # seconds without an answer that are worth a word
WORDS = ("hello", "make")  # what answers may be about beside pieces
GRACE = 20.0  # seconds for workers to close in the end


class Lost(Exception):
    """The actor that owed an answer is gone; the message says what became of it, in few words."""


class Actors(Protocol):
    """Where actors come from, each with a `Seat` in it, and how they are called."""

    def ask(self) -> Any:
        """Ask for an actor; it comes when there is room."""
        ...

    def call(self, actor: Any, method: str, *given: Any) -> Hashable:
        """Call a method of its `Seat`, as soon as it is there; the answer is awaited by `ready`."""
        ...

    def ready(self, answers: list[Any], seconds: float, every: bool = False) -> list[Any]:
        """Answers that are there, or whose actor is lost: as soon as there is one (or every one), or time is up."""
        ...

    def value(self, answer: Any) -> Any:
        """An answer that is ready. Raises Lost."""
        ...

    def end(self, actor: Any) -> None:
        """End an actor at once, if it lives."""
        ...

    def room(self, n_actors: int, n_unplaced: int) -> int:
        """How many actors to have more than we have, some of which are not placed yet."""
        ...

    def lacking(self, seconds: float) -> str:
        """Why no actor has been placed for so long, "" while that is no wonder. Raises OSError where none will be."""
        ...


@dataclass(kw_only=True, eq=False, slots=True)
class _Actor:
    """An actor that is asked for, or there, and not known to be lost."""

    name: str
    handle: Any
    asked: float
    """When, by the monotonic clock."""
    heard: float
    """When it answered last, or was given work as it had none; by the same."""
    placed: bool = False
    made: bool = False


class Pool(Generic[Piece, Result]):
    """One run: what was asked of whom, and what comes back."""

    def __init__(
        self, actors: Actors, maker: Any, pieces: Iterable[Piece], retries: int, states: dict[str, WorkerState],
        clock: Callable[[], float] = time.monotonic, stuck_after: float = math.inf,
    ):  # fmt: skip
        """`maker` goes to `Seat.make`; `states`, by name, is added to and kept up to date.

        stuck_after: seconds without an answer after which an actor that owes one is taken for lost.
        """
        self.source, self.maker, self.states, self.clock, self.stuck_after = actors, maker, states, clock, stuck_after
        self.ledger = Ledger(pieces, retries)
        self.actors: dict[str, _Actor] = {}
        self.calls: dict[Any, tuple[_Actor, Any]] = {}
        """What each answer that is awaited will be about: "hello", "make" or a piece's `Ticket`."""
        self.failed_starts = 0
        self.failed_at = self.not_before = -math.inf
        self.bare_since = self.said = self.wondered = clock()

    def events(self) -> Iterator[Event[Piece, Result]]:
        """One event per piece. Raises OSError, ValueError or LookupError where no worker can be had."""
        complete = False
        try:
            while self.ledger.unfinished():
                self.grow()
                self.hand_out()
                if not self.calls:  # none may be asked for just now
                    time.sleep(TICK)
                for answer in self.source.ready(list(self.calls), TICK) if self.calls else []:
                    yield from self.hear(answer)
                yield from self.lose_the_stuck()
                self.refuse_to_wait_for_ever()
            complete = True
        finally:
            self.dismiss(politely=complete)

    def grow(self) -> None:
        """Ask for actors while pieces wait for some."""
        if self.clock() < self.not_before:
            return
        room = self.source.room(len(self.actors), sum(not actor.placed for actor in self.actors.values()))
        if room <= 0:
            return
        idle = sum(self.ledger.held(name) == 0 for name in self.actors)  # they will have the first that wait
        for _ in range(self.ledger.waiting(room + idle) - idle):
            now = self.clock()
            actor = _Actor(name=f"actor {len(self.states) + 1}", handle=self.source.ask(), asked=now, heard=now)
            self.actors[actor.name] = actor
            self.states[actor.name] = WorkerState(name=actor.name, node="", pid=0, phase="starting")
            self.calls[self.source.call(actor.handle, "hello")] = actor, "hello"
            self.calls[self.source.call(actor.handle, "make", self.maker)] = actor, "make"

    def hand_out(self) -> None:
        """Give every worker what it may have, first to those that have nothing."""
        for n_held in range(IN_FLIGHT):
            for actor in self.actors.values():
                if actor.made and self.ledger.held(actor.name) == n_held:
                    ticket = self.ledger.take(actor.name)
                    if ticket is not None:
                        actor.heard = actor.heard if n_held else self.clock()
                        self.calls[self.source.call(actor.handle, "work", ticket.piece)] = actor, ticket
                        self.tell(actor, phase="working")

    def tell(self, actor: _Actor, done: int = 0, failed: int = 0, **changes: Any) -> None:
        """Note what an actor is doing, for whoever asks."""
        state = self.states[actor.name]
        counts = {"in_flight": self.ledger.held(actor.name), "done": state.done + done, "failed": state.failed + failed}
        self.states[actor.name] = replace(state, **{**counts, **changes})

    def hear(self, answer: Any) -> Iterator[Event[Piece, Result]]:
        """What an answer comes to."""
        if answer not in self.calls:  # of an actor that was lost since
            return
        actor, about = self.calls.pop(answer)
        try:
            value = self.source.value(answer)
        except Lost as lost:
            yield from self.lose(actor, str(lost))
            return
        actor.heard = self.clock()
        if isinstance(about, Ticket):
            yield self.ended(actor, about, value)
        elif isinstance(value, Raised):
            self.discard(actor, "lost")
            self.failed_to_start(actor, value.error(), STARTS)
        elif about == "hello":
            actor.placed = True
            self.tell(actor, node=value[0], pid=value[1])
        else:
            actor.made, self.failed_starts = True, 0
            self.tell(actor, phase="idle")

    def ended(self, actor: _Actor, ticket: Ticket[Piece], value: Any) -> Event[Piece, Result]:
        """The event of a piece that was answered."""
        self.ledger.end(actor.name, ticket)
        phase = "working" if self.ledger.held(actor.name) else "idle"
        if isinstance(value, Raised):
            self.tell(actor, failed=1, phase=phase)
            return Failed(piece=ticket.piece, error=value.error(), worker=actor.name)
        self.tell(actor, done=1, phase=phase)
        return Done(piece=ticket.piece, result=value[0], seconds=value[1], worker=actor.name)

    def lose(self, actor: _Actor, how: str) -> Iterator[Event[Piece, Result]]:
        """An actor is gone: what it answered before counts, what it had in flight is for others."""
        owed = [answer for answer, (owner, about) in self.calls.items() if owner is actor and about not in WORDS]
        for answer in self.source.ready(owed, 0.0, every=True) if owed else []:
            try:
                value = self.source.value(answer)
            except Lost:
                continue
            yield self.ended(actor, self.calls[answer][1], value)
        log.info("%s on %s was lost: %s", actor.name, self.states[actor.name].node or "no node yet", how)
        dropped = self.ledger.held(actor.name)
        given_up = self.ledger.lose(actor.name, how)
        self.discard(actor, "lost")
        self.tell(actor, in_flight=dropped)
        for ticket in given_up:
            hows = ", ".join(dict.fromkeys(ticket.losses))
            yield Killed(piece=ticket.piece, how=f"killed its worker {len(ticket.losses)} times ({hows})")
        if not actor.made:
            self.failed_to_start(actor, OSError(how), DEATHS)

    def lose_the_stuck(self) -> Iterator[Event[Piece, Result]]:
        """Take actors for lost that have owed an answer for too long; of such as may only be slow, say so."""
        now, waited = self.clock(), 0.0
        for actor in list(self.actors.values()):
            silent = now - actor.heard
            if not actor.placed or (actor.made and not self.ledger.held(actor.name)):
                continue
            patience = self.stuck_after if actor.made else max(self.stuck_after, LONG)  # the encoder is loaded first
            if silent > patience:
                yield from self.lose(actor, f"it answered nothing for {patience:g} s")
            elif silent > max(LONG, waited):
                waited, slowest = silent, self.states[actor.name]
        if waited and now - self.wondered > LONG:
            self.wondered = now
            log.warning(
                "%s on %s, process %d, has answered nothing for %d minutes; if it is stuck, end that process, and "
                "others do its work", slowest.name, slowest.node, slowest.pid, waited // 60,
            )  # fmt: skip

    def discard(self, actor: _Actor, phase: str) -> None:
        """Have nothing to do with an actor any more; if it lives, end it."""
        del self.actors[actor.name]
        self.calls = {answer: about for answer, about in self.calls.items() if about[0] is not actor}
        self.source.end(actor.handle)
        self.tell(actor, phase=phase)

    def failed_to_start(self, actor: _Actor, error: Exception, most: int) -> None:
        """Wait longer and longer before the next one is asked for; give up after `most` where none is left."""
        if actor.asked > self.failed_at:  # those that were asked for together count once
            log.warning("%s could not start: %s", actor.name, " ".join(str(error).split()))
            self.failed_at, self.failed_starts = self.clock(), self.failed_starts + 1
            self.not_before = self.failed_at + min(LONGEST_PAUSE, TICK * 2**self.failed_starts)
        others = self.actors.values()
        hopeless = self.failed_starts >= 3 * most and not any(other.made for other in others)
        if hopeless or (self.failed_starts >= most and not any(other.placed for other in others)):
            if isinstance(error, ValueError | LookupError):
                raise error
            raise OSError(
                f"workers could not be started {self.failed_starts} times in a row ({' '.join(str(error).split())}); "
                "expected them to start on the nodes as they do here: see the log of the executor's nodes"
            ) from error

    def refuse_to_wait_for_ever(self) -> None:
        """Raise OSError where no actor can be placed; say so where it only takes long."""
        now = self.clock()
        if not self.actors or any(actor.placed for actor in self.actors.values()):
            self.bare_since = self.said = now
        elif (why := self.source.lacking(now - self.bare_since)) and now - self.said > WORD:
            self.said = now
            log.warning("%s", why)

    def dismiss(self, politely: bool) -> None:
        """End all actors; where nothing is at work and nobody is in a hurry, let their workers close first."""
        ends = [self.source.call(actor.handle, "end") for actor in self.actors.values() if politely and actor.made]
        if ends:
            self.source.ready(ends, GRACE, every=True)
        for actor in list(self.actors.values()):
            self.discard(actor, "ended")
