"""Laws of the serial executor: every piece once and in order, one worker, errors reported and not raised."""

from collections.abc import Callable

import pytest

from otoscope.cluster.executor import Done, Executor, Failed, SerialExecutor


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
    assert events[1] == Failed(piece=1, error=error)


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


def test_work_is_done_only_as_events_are_asked_for() -> None:
    """Whoever reads the events may stop, and no further piece begins."""
    begun: list[int] = []
    events = SerialExecutor().run(lambda: begun.append, [1, 2, 3])
    next(events)
    assert begun == [1]
    events.close()  # type: ignore[attr-defined]
    assert begun == [1]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_not_taken_for_a_failed_piece(interruption: type[BaseException]) -> None:
    def work(_: int) -> None:
        raise interruption

    with pytest.raises(interruption):
        list(SerialExecutor().run(lambda: work, [1]))
