"""Progress: how much is done, how fast, how long still; a bar on a terminal, log lines elsewhere.

Goal: a line that a person or a log can read, from nothing but a count.
Conventions: times in seconds; the rate is that of the last half minute, so that it follows the present.
Contents: `Progress`.
"""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

WINDOW = 30.0  # seconds that the rate looks back on
BAR_EVERY, LINE_EVERY = 0.1, 10.0  # seconds between two bars and between two log lines


class Progress:
    """Counts up to `total` and says so on `stream`: the first and the last time, and now and then between.

    with Progress(2000, unit="clips") as progress:
        progress.advance(32)
    """

    def __init__(
        self,
        total: int,
        unit: str = "clips",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.unit, self.done = total, unit, 0
        self._stream, self._clock = sys.stderr if stream is None else stream, clock
        self._terminal = self._stream.isatty()
        self._begin = clock()
        self._recent = deque([(self._begin, 0)])
        self._said: float | None = None
        self._width = 0  # of the bar that stands on the terminal's line

    def __enter__(self) -> Self:
        return self

    def advance(self, n: int, note: str = "") -> None:
        """Count n more as done; `note` is shown behind this line only."""
        now = self._clock()
        self.done += n
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and self._recent[1][0] <= now - WINDOW:
            self._recent.popleft()
        due = self._said is None or now - self._said >= (BAR_EVERY if self._terminal else LINE_EVERY)
        if due or self.done == self.total:
            self._said = now
            self._say(f"{self._state()}{'  ' * bool(note)}{note}", end="" if self._terminal else "\n")

    def rate(self) -> float:
        """Units per second over the last half minute; 0 while no time has passed."""
        (before, then), (now, done) = self._recent[0], self._recent[-1]
        return (done - then) / (now - before) if now > before else 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The summary: how many in what time, at what rate over all of it."""
        took = self._clock() - self._begin
        count = f"{self.done:,}" if self.done == self.total and kind is None else f"{self.done:,}/{self.total:,}"
        speed = f", {self.done / took:,.1f} {self.unit}/s" if took > 0 and self.done else ""
        stopped = f"; stopped by {kind.__name__}" if kind is not None else ""
        self._say(f"{count} {self.unit} in {_duration(took)}{speed}{stopped}", end="\n")

    def _state(self) -> str:
        share = self.done / self.total if self.total else 1.0
        full = min(20, int(20 * share))
        bar = f"[{'#' * full}{'.' * (20 - full)}] " if self._terminal else ""
        rate = self.rate()
        left = f"  ETA {_duration((self.total - self.done) / rate)}" if rate and self.done < self.total else ""
        count = f"{self.done:,}/{self.total:,} {self.unit} ({int(100 * share)}%)"
        return f"{bar}{count}  {rate:,.1f}/s{left}"

    def _say(self, text: str, end: str) -> None:
        if self._terminal:
            # A bar that wraps could not be redrawn.
            text = text[: max(20, shutil.get_terminal_size().columns - 1)]
            text, self._width = "\r" + text.ljust(self._width), len(text)
        self._stream.write(text + end)
        self._stream.flush()


def _duration(seconds: float) -> str:
    """Seconds as M:SS, or H:MM:SS from an hour on."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
