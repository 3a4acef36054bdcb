"""Progress: how much is done, how fast, how long still; a bar on a terminal, log lines elsewhere.

Goal: a line that a person or a log can read, from nothing but a count, and what the workers do where there are several.
Conventions: times in seconds; the rate is that of the last half minute, so that it follows the present.
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Self, TextIO

from tqdm import tqdm

from ..messages import printable
from .executor import WorkerState

WINDOW_SECONDS = 30.0  # that the rate looks back on
BAR_SECONDS, LINE_SECONDS = 0.1, 10.0  # between two bars and between two log lines


class Rate:
    """How fast a count grows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._seen = clock, deque[tuple[float, int]]()

    def at(self, done: int) -> None:
        """Note what the count is now."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()

    def per_second(self) -> float:
        """Units per second over the last half minute that was noted; 0 while no time has passed."""
        if not self._seen:
            return 0.0
        (before, then), (now, done) = self._seen[0], self._seen[-1]
        return (done - then) / (now - before) if now > before else 0.0


class Progress:
    """Counts up to `total` and says so on `stream`: the first and the last time, and now and then between.

    with Progress(2000, unit="clips", workers=executor.workers) as progress:
        progress.advance(32)

    workers: asked for the state of all workers.
    """

    def __init__(
        self,
        total: int,
        unit: str = "clips",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        workers: Callable[[], Sequence[WorkerState]] = tuple,
    ):
        self.total, self.unit, self.done = total, unit, 0
        self._stream, self._clock, self._workers = sys.stderr if stream is None else stream, clock, workers
        self._rate, self._begin = Rate(clock), clock()
        self._rate.at(0)
        self._reported: float | None = None
        self._bar = None
        if self._stream.isatty():
            look: dict[str, Any] = {"leave": False, "dynamic_ncols": True, "bar_format": "[{bar:20}] {desc}"}
            self._bar = tqdm(total=total, file=self._stream, ascii=" #", **look)

    def __enter__(self) -> Self:
        return self

    def advance(self, n: int, note: str = "") -> None:
        """Count n more as done; `note` is shown behind this line only."""
        self.done += n
        self._rate.at(self.done)
        now, pause = self._clock(), LINE_SECONDS if self._bar is None else BAR_SECONDS
        if self._reported is not None and now - self._reported < pause and self.done != self.total:
            return
        self._reported = now
        share, rate = self.done / self.total if self.total else 1.0, self._rate.per_second()
        left = f"  ETA {_duration((self.total - self.done) / rate)}" if rate and self.done < self.total else ""
        line = f"{self.done:,}/{self.total:,} {self.unit} ({int(100 * share)}%)  {rate:,.1f}/s{left}"
        line = "  ".join(filter(None, [line, note, _summary(self._workers())]))
        if self._bar is None:
            self._write(line)
        else:
            self._bar.n = self.done
            self._bar.set_description_str(line)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The summary: how many in what time, at what rate over all of it."""
        if self._bar is not None:
            self._bar.close()
        if kind is not None and not self.total:
            return  # it was never known what there was to do: the error says all
        took = self._clock() - self._begin
        count = f"{self.done:,}" if self.done == self.total and kind is None else f"{self.done:,}/{self.total:,}"
        speed = f", {self.done / took:,.1f} {self.unit}/s" if took > 0 and self.done else ""
        n_lost = sum(state.phase == "lost" for state in self._workers())
        lost = f"; {n_lost} worker{'s' * (n_lost > 1)} lost" if n_lost else ""
        stopped = f"; stopped by {kind.__name__}" if kind is not None else ""
        self._write(f"{count} {self.unit} in {_duration(took)}{speed}{lost}{stopped}")

    def _write(self, line: str) -> None:
        self._stream.write(f"{printable(line)}\n")
        self._stream.flush()


def _summary(states: Sequence[WorkerState]) -> str:
    """How many workers do what, where there is more than one."""
    phases = Counter(state.phase for state in states if state.phase != "ended")
    return f"workers: {', '.join(f'{n} {phase}' for phase, n in sorted(phases.items()))}" if len(states) > 1 else ""


def _duration(seconds: float) -> str:
    """Seconds as M:SS, or H:MM:SS from an hour on."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
