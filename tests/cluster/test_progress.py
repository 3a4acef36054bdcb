"""Progress on a clock that the test turns."""

import io
import re
import threading
import time
from itertools import pairwise

import pytest

import otoscope.cluster.progress
from otoscope.cluster.executor import WorkerState
from otoscope.cluster.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_has_first_and_last_line_and_one_every_ten_seconds_between():
    clock, log = Clock(), io.StringIO()
    with Progress(1000, unit="clips", stream=log, clock=clock) as progress:
        for _ in range(100):
            clock.now += 1.0
            progress.advance(10)
    *lines, summary = log.getvalue().splitlines()
    done = [int(line.split("/")[0].replace(",", "")) for line in lines]
    assert done == [10, 110, 210, 310, 410, 510, 610, 710, 810, 910, 1000]
    assert lines[1] == "110/1,000 clips (11%)  10.0/s  ETA 1:29"  # 890 clips at 10 clips/s
    assert summary == "1,000 clips in 1:40, 10.0 clips/s"
    assert "\r" not in log.getvalue()


def test_rate_is_of_the_last_half_minute():
    clock, log = Clock(), io.StringIO()
    progress = Progress(10_000, stream=log, clock=clock)
    for n in [100] * 10 + [0, 2] * 30:
        clock.now += 1.0
        progress.advance(n)
    assert progress.rate() == pytest.approx(1.0)


def test_a_pause_longer_than_the_window_counts_in_full():
    clock = Clock()
    progress = Progress(100, stream=io.StringIO(), clock=clock)
    clock.now += 1.0
    progress.advance(1)
    clock.now += 100.0
    progress.advance(50)
    assert progress.rate() == pytest.approx(50 / 100)


def test_bar_is_redrawn_on_one_line_that_fits_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    clock, screen = Clock(), Terminal()
    with Progress(8, stream=screen, clock=clock) as progress:
        for i in range(8):
            clock.now += 1.0
            progress.advance(1, note="a long note that cannot fit" if i == 3 else "")
    shown = screen.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    draws = shown.rstrip("\n").split("\r")[1:]
    assert len(draws) == 9  # eight bars and the summary
    assert max(map(len, draws)) <= 59
    assert draws[3].startswith("[##########..........] 4/8 clips (50%)  1.0/s  ETA 0:04  a ")
    # Each draw covers all that the one before it left on the line.
    assert all(len(draw) >= len(before.rstrip()) for before, draw in pairwise(draws))
    assert draws[-1].rstrip() == "8 clips in 0:08, 1.0 clips/s"


def test_bar_is_not_redrawn_more_than_ten_times_a_second():
    clock, screen = Clock(), Terminal()
    progress = Progress(10_000, stream=screen, clock=clock)
    for _ in range(5000):
        clock.now += 0.001
        progress.advance(1)
    assert screen.getvalue().count("\r") <= 51


def test_an_exception_is_named_with_what_was_done_until_then():
    clock, log = Clock(), io.StringIO()

    def stopped():
        with Progress(20, unit="blocks", stream=log, clock=clock) as progress:
            clock.now += 4000.0
            progress.advance(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert log.getvalue().splitlines()[-1] == "5/20 blocks in 1:06:40, 0.0 blocks/s; stopped by KeyboardInterrupt"


def test_nothing_to_do_and_no_time_passed():
    log = io.StringIO()
    with Progress(0, stream=log, clock=Clock()) as progress:
        progress.advance(0)
    assert log.getvalue().splitlines() == ["0/0 clips (100%)  0.0/s", "0 clips in 0:00"]


def screen_of(written: str, columns: int, lines: int) -> list[str]:
    """What stands on a terminal after all that was written to it."""
    rows, row, column = [" " * columns] * lines, 0, 0
    for part in re.findall(r"\x1b\[\d*[AK]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            assert row < lines, "the screen would scroll, and nothing could be redrawn"
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
        elif part.startswith("\x1b"):
            rows[row] = rows[row][:column] + " " * (columns - column)
        else:
            assert column + len(part) < columns, "the line would wrap"
            rows[row] = rows[row][:column] + part + rows[row][column + len(part) :]
            column += len(part)
    return [row.rstrip() for row in rows]


def worker(number: int, phase: str, **counts: int) -> WorkerState:
    name = f"actor {number}"
    return WorkerState(name=name, node="" if phase == "starting" else "n1", pid=7, phase=phase, **counts)  # type: ignore[arg-type]


def test_each_worker_that_lives_has_a_line_below_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "7")
    clock, screen = Clock(), Terminal()
    states = [worker(1, "starting"), worker(2, "starting")]
    progress = Progress(100, stream=screen, clock=clock, workers=lambda: states)
    clock.now += 1.0
    progress.advance(10)
    assert screen_of(screen.getvalue(), 60, 7)[1:4] == [
        "  actor 1: starting, 0 in flight, 0 done",
        "  actor 2: starting, 0 in flight, 0 done",
        "",
    ]
    states[:] = [worker(1, "working", in_flight=2, done=3), *(worker(i, "idle", failed=i) for i in range(2, 9))]
    clock.now += 1.0
    progress.advance(10, "1 failed")
    shown = screen_of(screen.getvalue(), 60, 7)
    assert shown[0].endswith("20/100 clips (20%)  10.0/s  ETA 0:08")
    assert shown[1] == "  actor 1 on n1: working, 2 in flight, 3 done"
    assert shown[5] == "  actor 5 on n1: idle, 0 in flight, 0 done, 5 failed"  # as many as there is room for
    assert shown[6] == ""
    states[:] = [worker(1, "lost", in_flight=2, done=3), worker(2, "working", in_flight=1)]
    clock.now += 1.0
    progress.advance(80)
    assert screen_of(screen.getvalue(), 60, 7)[1:] == ["  actor 2 on n1: working, 1 in flight, 0 done", *[""] * 5]
    progress.__exit__(None, None, None)
    last = screen_of(screen.getvalue(), 60, 7)
    assert last == ["100 clips in 0:03, 33.3 clips/s; 1 worker lost", *[""] * 6]
    assert screen.getvalue().endswith("\n")


def test_a_terminal_shows_workers_anew_while_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(otoscope.cluster.progress, "TICK", 0.01)
    screen, states = Terminal(), [worker(1, "starting"), worker(2, "starting")]
    before = threading.active_count()
    with Progress(100, stream=screen, workers=lambda: states):
        began = time.monotonic()
        while "actor 2" not in screen.getvalue() and time.monotonic() < began + 10:
            time.sleep(0.01)
        states[1] = worker(2, "idle")
        while "actor 2 on n1: idle" not in screen.getvalue():
            assert time.monotonic() < began + 10
            time.sleep(0.01)
    assert threading.active_count() == before


def test_log_lines_say_in_short_how_many_workers_do_what():
    clock, log = Clock(), io.StringIO()
    states = [worker(1, "lost"), worker(2, "working"), worker(3, "starting"), worker(4, "working"), worker(5, "ended")]
    with Progress(10, stream=log, clock=clock, workers=lambda: states) as progress:
        clock.now += 1.0
        progress.advance(10, "2 failed")
    assert log.getvalue().splitlines() == [
        "10/10 clips (100%)  10.0/s  2 failed  workers: 1 lost, 1 starting, 2 working",
        "10 clips in 0:01, 10.0 clips/s; 1 worker lost",
    ]


def test_one_worker_is_not_worth_a_line():
    clock, log = Clock(), io.StringIO()
    with Progress(1, stream=log, clock=clock, workers=lambda: [worker(1, "working", in_flight=1)]) as progress:
        clock.now += 1.0
        progress.advance(1)
    assert log.getvalue().splitlines() == ["1/1 clips (100%)  1.0/s", "1 clips in 0:01, 1.0 clips/s"]
