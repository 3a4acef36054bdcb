"""Laws of the serial executor: every piece once, in order, two at a time; errors reported and not raised."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from otoscope.cluster.executor import Done, Executor, Failed, SerialExecutor

from ..support.marking_workers import wait_for


def test_every_piece_once_in_order_by_one_worker() -> None:
    made: list[Callable[[int], int]] = []

    def make_worker() -> Callable[[int], int]:
        made.append(lambda piece: piece * piece)
        return made[-1]

    executor: Executor = SerialExecutor()
    events = list(executor.run(make_worker, iter(range(5))))
    assert all(isinstance(event, Done) and event.seconds >= 0 for event in events)
    assert [(event.piece, event.result) for event in events if isinstance(event, Done)] == [
        (n, n * n) for n in range(5)
    ]
    assert len(made) == 1
    assert executor.name == "serial"


def test_no_worker_is_made_where_there_is_nothing_to_do() -> None:
    def make_worker() -> Callable[[int], int]:
        raise AssertionError("made for nothing")

    assert list(SerialExecutor().run(make_worker, [])) == []


def test_a_piece_that_raises_is_reported_and_the_others_go_on() -> None:
    error = OSError("disk")

    def work(piece: int) -> int:
        if piece == 1:
            raise error
        return -piece

    events = list(SerialExecutor().run(lambda: work, [0, 1, 2]))
    assert [type(event) for event in events] == [Done, Failed, Done]
    assert events[1] == Failed(piece=1, error=error, worker="serial")


def test_a_worker_that_cannot_be_made_is_reported_and_tried_again() -> None:
    tries = []

    def make_worker() -> Callable[[int], int]:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")
        return abs

    first, second = SerialExecutor().run(make_worker, [-1, -2])
    assert isinstance(first, Failed)
    assert str(first.error) == "not yet"
    assert isinstance(second, Done)
    assert second.result == 2


def test_one_piece_begins_beyond_the_event_that_is_asked_for_and_no_more() -> None:
    """Whoever reads the events may stop, and no further piece begins."""
    begun: list[int] = []
    events = SerialExecutor().run(lambda: begun.append, [1, 2, 3, 4, 5])
    for n in (2, 3):
        next(events)
        wait_for(lambda: len(begun) >= n)  # noqa: B023 called at once
        time.sleep(0.05)  # in which no other begins
        assert begun == list(range(1, n + 1))
    events.close()
    assert begun == [1, 2, 3]


def test_two_pieces_are_at_work_together_and_events_keep_the_order() -> None:
    """The second ends before the first may: they must run at the same time. Never are there more than two."""
    second_ended, at_work, largest = threading.Event(), [0], [0]
    lock = threading.Lock()

    def work(piece: int) -> int:
        with lock:
            at_work[0] += 1
            largest[0] = max(largest[0], at_work[0])
        if piece == 0:
            assert second_ended.wait(60)
        time.sleep(0.001)
        with lock:
            at_work[0] -= 1
        if piece == 1:
            second_ended.set()
        return piece

    executor = SerialExecutor()
    assert [event.piece for event in executor.run(lambda: work, range(20))] == list(range(20))
    assert largest == [2]
    assert [(state.name, state.phase, state.done, state.in_flight) for state in executor.workers()] == [
        ("serial", "ended", 20, 0)
    ]


class Closing:
    """A worker whose calls end only when it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __call__(self, piece: int) -> None:
        if piece > 0 and self.closed.wait(60):
            raise RuntimeError("told to stop")

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("how", ["stopped reading", "interrupted"])
def test_stopping_early_closes_the_worker_and_leaves_no_thread(how: str) -> None:
    worker, before = Closing(), threading.active_count()
    events = SerialExecutor().run(lambda: worker, range(5))
    assert isinstance(next(events), Done)
    if how == "stopped reading":
        events.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt)
    assert worker.closed.is_set()
    assert threading.active_count() == before


def test_the_worker_is_closed_in_the_end() -> None:
    worker = Closing()
    list(SerialExecutor().run(lambda: worker, [0, -1]))
    assert worker.closed.is_set()


def test_pieces_are_drawn_as_they_are_needed() -> None:
    drawn: list[int] = []

    def pieces() -> Iterator[int]:
        for piece in range(100):
            drawn.append(piece)
            yield piece

    for n, _ in enumerate(SerialExecutor().run(lambda: abs, pieces())):
        assert len(drawn) <= n + 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_not_taken_for_a_failed_piece(interruption: type[BaseException]) -> None:
    def work(_: int) -> None:
        raise interruption

    with pytest.raises(interruption):
        list(SerialExecutor().run(lambda: work, [1]))
