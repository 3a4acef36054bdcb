"""Laws of the pool on actors that a test makes: they answer, raise and die in any order that hypothesis thinks of."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.cluster.executor import IN_FLIGHT, Done, Failed, Killed
from otoscope.cluster.pool import MAX_FAILED_STARTS, MAX_LOST_STARTS, Assignments, Lost, Pool, Raised

RETRIES = 3


@dataclass
class Chance:
    """What happens next: drawn by hypothesis, or the first of the choices once that is used up."""

    draws: list[int]

    def choose(self, n: int) -> int:
        return self.draws.pop() % n if self.draws else 0


@dataclass
class FakeActors:
    """At most `limit` actors, of which `capacity` have room; pieces in `deadly` kill, pieces in `bad` raise."""

    chance: Chance
    limit: int = 3
    capacity: int = 3
    deadly: frozenset[int] = frozenset()
    bad: frozenset[int] = frozenset()
    makes: bool = True
    n_asked: int = 0
    n_deaths: int = 0
    alive: set[int] = field(default_factory=set)
    ended: list[int] = field(default_factory=list)
    calls: dict[int, tuple[int, str, Any]] = field(default_factory=dict)
    done: dict[int, Any] = field(default_factory=dict)
    begun: Counter[int] = field(default_factory=Counter)
    at_work: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    met: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    dropped: list[int] = field(default_factory=list)

    def ask(self) -> int:
        self.n_asked += 1
        self.alive.add(self.n_asked)
        return self.n_asked

    def call(self, actor: int, method: str, *given: Any) -> int:
        answer = len(self.calls) + 1
        self.calls[answer] = (actor, method, given[0] if given else None)
        if method == "work":
            assert actor in self.alive
            self.begun[given[0]] += 1
            assert all(given[0] not in pieces for pieces in self.at_work.values())
            self.at_work[actor].append(given[0])
            for piece in self.at_work[actor]:
                self.met[piece] |= set(self.at_work[actor])
            assert len(self.at_work[actor]) <= IN_FLIGHT
        return answer

    def ready(self, answers: list[int], seconds: float, every: bool = False) -> list[int]:
        there = [answer for answer in answers if answer in self.done]
        if every:
            return there + self.finish([a for a in answers if self.calls[a][1] == "end"])
        started = sorted(self.alive)[: self.capacity]
        waiting = [answer for answer in answers if answer not in self.done and self.calls[answer][0] in started]
        if waiting:
            self.happen(waiting[self.chance.choose(len(waiting))])
        return [answer for answer in answers if answer in self.done][:1]

    def finish(self, answers: list[int]) -> list[int]:
        self.done.update(dict.fromkeys(answers))
        return answers

    def happen(self, answer: int) -> None:
        """One answer comes, or its actor dies."""
        actor, method, piece = self.calls[answer]
        if piece in self.deadly or self.chance.choose(8) == 7:
            self.n_deaths += 1
            self.dropped += self.at_work.pop(actor, [])
            for other, (owner, _, _) in self.calls.items():
                if owner == actor and other not in self.done:
                    self.done[other] = Lost("struck")
        elif method == "work":
            self.at_work[actor].remove(piece)
            self.done[answer] = Raised.of(OSError(str(piece))) if piece in self.bad else (-piece, 0.5)
        elif method == "make":
            self.done[answer] = None if self.makes else Raised.of(ValueError("expected, found, remedy"))
        else:
            self.done[answer] = (f"node {actor}", 1000 + actor)

    def value(self, answer: int) -> Any:
        if isinstance(self.done[answer], Lost):
            raise self.done[answer]
        return self.done[answer]

    def end(self, actor: int) -> None:
        self.alive.discard(actor)
        self.ended.append(actor)

    def room(self, n_actors: int, n_not_located: int) -> int:
        return self.limit - n_actors

    def shortage(self, seconds: float) -> str:
        if not self.capacity:
            raise OSError("no room")
        return ""


def counted(n: int, drawn: list[int]) -> Iterator[int]:
    for piece in range(n):
        drawn.append(piece)
        yield piece


class Clock:
    """A second passes with each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


pieces = st.integers(0, 12)


@given(
    draws=st.lists(st.integers(0, 1000), max_size=300), n=pieces, limit=st.integers(1, 4),
    deadly=st.frozensets(pieces, max_size=2), bad=st.frozensets(pieces, max_size=2),
)  # fmt: skip
def test_every_piece_ends_once_whatever_dies(
    draws: list[int], n: int, limit: int, deadly: frozenset[int], bad: frozenset[int]
) -> None:
    actors = FakeActors(Chance(draws), limit=limit, deadly=deadly, bad=bad)
    drawn: list[int] = []
    states: dict[str, Any] = {}
    events: list[Any] = []
    try:
        for event in Pool(actors, None, counted(n, drawn), RETRIES, states, Clock()).events():
            events.append(event)
            assert len(drawn) - len(events) <= limit * (IN_FLIGHT + 1)  # nothing is drawn that is not soon to be done
    except OSError as error:
        if f"could not be started {MAX_LOST_STARTS} times in a row (struck)" not in str(error) or actors.alive:
            raise
        return  # hypothesis may well strike while they start
    assert sorted(event.piece for event in events) == list(range(n))
    repeated = Counter(actors.dropped)
    for event in events:
        losses = repeated[event.piece]
        if isinstance(event, Killed):
            assert losses == RETRIES == actors.begun[event.piece]
            assert event.how == "killed its worker 3 times (struck)"
        else:
            assert losses < RETRIES
            assert actors.begun[event.piece] == losses + 1
            assert isinstance(event, Failed) == (event.piece in bad)
            assert isinstance(event, Failed) or (event.result, event.seconds) == (-event.piece, 0.5)
    assert not actors.alive  # all were ended
    assert sum(state.done for state in states.values()) == sum(isinstance(event, Done) for event in events)
    assert sum(state.failed for state in states.values()) == sum(isinstance(event, Failed) for event in events)
    assert sum(state.in_flight for state in states.values()) == len(actors.dropped)  # work repeated: what was in flight
    assert {state.phase for state in states.values()} <= {"ended", "lost"}


@given(draws=st.lists(st.integers(0, 6), max_size=200), deadly=st.integers(0, 11))
def test_a_piece_that_kills_is_given_up_and_no_other(draws: list[int], deadly: int) -> None:
    """Its neighbour is retried once: what a worker was lost under runs alone afterwards."""
    actors = FakeActors(Chance(draws), deadly=frozenset([deadly]))  # draws below 7: nothing else kills
    events = list(Pool(actors, None, range(12), RETRIES, {}, Clock()).events())
    assert [event.piece for event in events if isinstance(event, Killed)] == [deadly]
    assert len(events) == 12
    assert actors.n_deaths == RETRIES
    assert max(Counter(actors.dropped)[piece] for piece in range(12) if piece != deadly) <= 1
    assert len(actors.dropped) <= RETRIES + IN_FLIGHT - 1


def test_an_answer_given_before_its_actor_died_counts() -> None:
    """Two pieces on one actor: the one that was answered is not done again when the other kills."""

    class Late(FakeActors):
        def ready(self, answers: list[int], seconds: float, every: bool = False) -> list[int]:
            work = [a for a in answers if self.calls[a][1] == "work" and a not in self.done]
            if len(work) == 2 and not self.n_deaths:
                self.at_work[1].clear()
                self.done[work[1]] = (-self.calls[work[1]][2], 0.1)
                self.done[work[0]] = Lost("struck")
                self.n_deaths = 1
                return [work[0]]
            return super().ready(answers, seconds, every)

    actors = Late(Chance([]), limit=1)
    events = list(Pool(actors, None, range(4), RETRIES, {}, Clock()).events())
    assert [event.piece for event in events] == [1, 0, 2, 3]
    assert actors.begun == {0: 2, 1: 1, 2: 1, 3: 1}


def test_a_piece_that_hangs_is_given_up_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Hanging(FakeActors):
        def ready(self, answers: list[int], seconds: float, every: bool = False) -> list[int]:
            return super().ready([a for a in answers if self.calls[a][2] != 4], seconds, every)

        def end(self, actor: int) -> None:
            self.at_work.pop(actor, None)
            super().end(actor)

    actors = Hanging(Chance([]))
    events = list(Pool(actors, None, range(12), RETRIES, {}, Clock(), stuck_after=2000.0).events())
    (killed,) = (event for event in events if isinstance(event, Killed))
    assert killed == Killed(piece=4, how="killed its worker 3 times (it answered nothing for 2000 s)")
    assert sorted(event.piece for event in events) == list(range(12))
    assert actors.begun[4] == RETRIES
    assert max(n for piece, n in actors.begun.items() if piece != 4) <= 2
    assert not actors.alive
    logged = [message for message in caplog.messages if "has answered nothing for" in message]
    assert 3 <= len(logged) <= 12  # of each of three, now and then
    assert all(
        f"actor {n} on node {n}, process 100{n}, has answered nothing for 10 minutes" in "".join(logged)
        for n in (1, 2, 3)
    )


def test_a_worker_that_is_never_made_is_stuck_too() -> None:
    class Hanging(FakeActors):
        def ready(self, answers: list[int], seconds: float, every: bool = False) -> list[int]:
            return super().ready([a for a in answers if self.calls[a][:2] != (1, "make")], seconds, every)

    actors = Hanging(Chance([]), limit=1)
    states: dict[str, Any] = {}
    events = list(Pool(actors, None, range(3), RETRIES, states, Clock(), stuck_after=50.0).events())
    assert [event.piece for event in events] == [0, 1, 2]
    assert [state.phase for state in states.values()] == ["lost", "ended"]


def test_workers_that_cannot_be_made_end_the_run_with_their_error(caplog: pytest.LogCaptureFixture) -> None:
    actors = FakeActors(Chance([]), makes=False)
    clock = Clock()
    with pytest.raises(ValueError, match="expected, found, remedy"), caplog.at_level(logging.WARNING):
        list(Pool(actors, None, range(100), RETRIES, {}, clock).events())
    assert not actors.alive
    # Three were asked for at a time, and those that failed together count once.
    assert [message.split(" could")[0] for message in caplog.messages] == ["actor 1", "actor 4", "actor 7"]
    assert len(caplog.messages) == MAX_FAILED_STARTS


def test_no_room_for_any_actor_is_an_error() -> None:
    actors = FakeActors(Chance([]), capacity=0)
    with pytest.raises(OSError, match="no room"):
        list(Pool(actors, None, [1], RETRIES, {}, Clock()).events())
    assert not actors.alive


def test_no_more_actors_are_asked_for_than_pieces_wait() -> None:
    actors = FakeActors(Chance([]), limit=50, capacity=50)
    assert len(list(Pool(actors, None, range(4), RETRIES, {}, Clock()).events())) == 4
    assert actors.n_asked == 4


def test_whoever_stops_reading_ends_all_actors_at_once() -> None:
    actors = FakeActors(Chance([]))
    events = Pool(actors, None, range(100), RETRIES, {}, Clock()).events()
    next(events)
    events.close()
    assert not actors.alive
    assert not any(method == "end" for _, method, _ in actors.calls.values())


def test_a_retried_piece_waits_for_a_worker_of_its_own() -> None:
    assignments = Assignments(range(6), RETRIES)
    a, b = assignments.take("one"), assignments.take("one")
    other = assignments.take("two")
    assert assignments.take("one") is None
    assert assignments.lose("one", "struck") == []
    assert assignments.take("two") is None  # it has a piece; those to be retried come first
    assert assignments.take("three") is a
    assert assignments.take("three") is None
    assert other is not None
    assignments.end("two", other)
    assert assignments.take("two") is b
    assert assignments.held("two") == 1
    assert assignments.unfinished()
