"""Ledger: which pieces wait, which worker has which, and under which a worker was lost.

Goal: the bookkeeping of a pool of workers that may die, without the pool, so that its laws can be tested alone.
Conventions: pieces are drawn one by one as they are needed; nothing is kept of a piece that ended. A piece under which
a worker was lost is a suspect: it is given out before all others and runs alone on its worker, so that its neighbours
are not suspected for long.
Contents: `Ledger`, `Ticket`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic

from .executor import IN_FLIGHT, Piece


@dataclass(kw_only=True, eq=False, slots=True)
class Ticket(Generic[Piece]):
    """A piece from when it is drawn until it ends."""

    piece: Piece
    losses: list[str] = field(default_factory=list)
    """What became of each worker that was lost while it had the piece."""


class Ledger(Generic[Piece]):
    """Every piece is waiting, or with one worker, or ended; it is never with two."""

    def __init__(self, pieces: Iterable[Piece], retries: int):
        """`retries`: a piece under which so many workers were lost is given up."""
        self._source, self._retries = iter(pieces), retries
        self._fresh: deque[Ticket[Piece]] = deque()
        self._suspects: deque[Ticket[Piece]] = deque()
        self._held: dict[str, list[Ticket[Piece]]] = {}

    def waiting(self, most: int) -> int:
        """How many pieces wait for a worker, counted up to `most`; so many are drawn."""
        while len(self._fresh) + len(self._suspects) < most:
            try:
                self._fresh.append(Ticket(piece=next(self._source)))
            except StopIteration:
                break
        return min(most, len(self._fresh) + len(self._suspects))

    def unfinished(self) -> bool:
        """Whether any piece waits or is with a worker."""
        return any(self._held.values()) or self.waiting(1) > 0

    def held(self, worker: str) -> int:
        """How many pieces a worker has."""
        return len(self._held.get(worker, ()))

    def take(self, worker: str) -> Ticket[Piece] | None:
        """The next piece for a worker, or None where it is to have no more now."""
        held = self._held.setdefault(worker, [])
        if len(held) == IN_FLIGHT or any(ticket.losses for ticket in held):
            return None
        if self._suspects:
            if held:  # it will be free for one in a while
                return None
            ticket = self._suspects.popleft()
        elif self.waiting(1):
            ticket = self._fresh.popleft()
        else:
            return None
        held.append(ticket)
        return ticket

    def end(self, worker: str, ticket: Ticket[Piece]) -> None:
        """A piece ended, done or failed."""
        self._held[worker].remove(ticket)

    def lose(self, worker: str, how: str) -> list[Ticket[Piece]]:
        """A worker is gone: the pieces that are given up for it; others that it had wait again."""
        held = self._held.pop(worker, [])
        for ticket in held:
            ticket.losses.append(how)
        self._suspects.extend(ticket for ticket in held if len(ticket.losses) < self._retries)
        return [ticket for ticket in held if len(ticket.losses) >= self._retries]
