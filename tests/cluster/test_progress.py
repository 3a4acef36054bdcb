"""Progress on a clock that the test turns."""

import io
import os
import select
import termios
from collections.abc import Callable
from typing import TextIO

import pytest

from otoscope.cluster.executor import WorkerState
from otoscope.cluster.progress import Progress, Rate


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
    clock, done = Clock(), 0
    rate = Rate(clock)
    assert rate.per_second() == 0.0
    rate.at(0)
    assert rate.per_second() == 0.0
    for n in [100] * 10 + [0, 2] * 30:
        clock.now += 1.0
        done += n
        rate.at(done)
    assert rate.per_second() == pytest.approx(1.0)


def test_a_pause_longer_than_the_window_counts_in_full():
    clock = Clock()
    rate = Rate(clock)
    for seconds, done in ((0.0, 0), (1.0, 1), (100.0, 51)):
        clock.now += seconds
        rate.at(done)
    assert rate.per_second() == pytest.approx(50 / 100)


def drawn(columns: int, draw: Callable[[TextIO], None]) -> list[str]:
    """What stands on a terminal's line, one after the other; nothing but the last ends the line."""
    screen, end = os.openpty()
    termios.tcsetwinsize(end, (20, columns))
    with open(end, "w") as stream:
        draw(stream)
        data = b""
        while b"\n" not in data and select.select([screen], [], [], 60)[0]:  # a terminal hands it over bit by bit
            data += os.read(screen, 10_000)
    os.close(screen)
    shown = data.decode().replace("\r\n", "\n")
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    return shown.rstrip("\n").split("\r")[1:]


def test_bar_is_redrawn_on_one_line_that_fits_the_terminal():
    def draw(stream: TextIO) -> None:
        clock = Clock()
        with Progress(8, stream=stream, clock=clock) as progress:
            for i in range(8):
                clock.now += 1.0
                progress.advance(1, note="a long note that cannot fit" if i == 3 else "")

    first, *bars, cleared, summary = drawn(60, draw)
    assert max(map(len, (first, *bars, cleared))) < 60
    assert len(bars) == 8
    assert bars[3].startswith("[##########          ] 4/8 clips (50%)  1.0/s  ETA 0:04")
    assert cleared.strip() == ""
    assert summary == "8 clips in 0:08, 1.0 clips/s"


def test_bar_is_not_redrawn_more_than_ten_times_a_second():
    clock, screen = Clock(), Terminal()
    progress = Progress(10_000, stream=screen, clock=clock)
    for _ in range(5000):
        clock.now += 0.001
        progress.advance(1)
    assert screen.getvalue().count("\r") <= 52


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


def worker(number: int, phase: str, **counts: int) -> WorkerState:
    name = f"actor {number}"
    return WorkerState(name=name, node="" if phase == "starting" else "n1", pid=7, phase=phase, **counts)  # type: ignore[arg-type]


def test_the_bar_says_in_short_how_many_workers_do_what():
    states = [worker(1, "starting"), worker(2, "working", in_flight=2)]

    def draw(stream: TextIO) -> None:
        clock = Clock()
        with Progress(10, stream=stream, clock=clock, workers=lambda: states) as progress:
            for n in (4, 6):
                clock.now += 1.0
                progress.advance(n)
                states[0] = worker(1, "lost")

    _, half, whole, _, summary = drawn(200, draw)
    assert half.rstrip().endswith("ETA 0:02  workers: 1 starting, 1 working")
    assert whole.rstrip().endswith("5.0/s  workers: 1 lost, 1 working")
    assert summary == "10 clips in 0:02, 5.0 clips/s; 1 worker lost"


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
