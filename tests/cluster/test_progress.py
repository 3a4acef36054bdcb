"""Progress on a clock that the test turns."""

import io
from itertools import pairwise

import pytest

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
