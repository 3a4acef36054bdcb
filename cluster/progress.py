"""Progress: how much is done, how fast, how long still; a bar on a terminal, log lines elsewhere.

Goal: a line that a person or a log can read, from nothing but a count, and what each worker is doing where there are
several.
Conventions: times in seconds; the rate is that of the last half minute, so that it follows the present.
Contents: `Progress`.
"""

import shutil
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from .executor import WorkerState

WINDOW = 30.0  # seconds that the rate looks back on
BAR_EVERY, LINE_EVERY = 0.1, 10.0  # seconds between two bars and between two log lines
TICK = 1.0  # seconds after which workers are shown anew, whether anything was counted or not
UP, CLEAR = "\x1b[{}A", "\x1b[K"  # moves the terminal's cursor up, clears to the end of its line


class Progress:
    """Counts up to `total` and says so on `stream`: the first and the last time, and now and then between.

    with Progress(2000, unit="clips", workers=executor.workers) as progress:
        progress.advance(32)

    workers: asked for the state of all workers. On a terminal each that lives has a line below the bar.
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
        self._terminal = self._stream.isatty()
        self._begin = clock()
        self._recent = deque([(self._begin, 0)])
        self._said: float | None = None
        self._note = ""
        self._width = 0  # of the bar that stands on the terminal's line
        self._below = 0  # lines of workers that stand below it
        self._drawing, self._over = threading.Lock(), threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._terminal and self._workers is not tuple:
            self._ticking.start()
        return self

    def advance(self, n: int, note: str = "") -> None:
        """Count n more as done; `note` is shown behind this line only."""
        now = self._clock()
        with self._drawing:
            self.done += n
            self._note = note
            self._recent.append((now, self.done))
            while len(self._recent) > 2 and self._recent[1][0] <= now - WINDOW:
                self._recent.popleft()
            due = self._said is None or now - self._said >= (BAR_EVERY if self._terminal else LINE_EVERY)
            if due or self.done == self.total:
                self._said = now
                self._show()

    def rate(self) -> float:
        """Units per second over the last half minute; 0 while no time has passed."""
        (before, then), (now, done) = self._recent[0], self._recent[-1]
        return (done - then) / (now - before) if now > before else 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The summary: how many in what time, at what rate over all of it."""
        self._over.set()
        if self._ticking.is_alive():
            self._ticking.join()
        took = self._clock() - self._begin
        count = f"{self.done:,}" if self.done == self.total and kind is None else f"{self.done:,}/{self.total:,}"
        speed = f", {self.done / took:,.1f} {self.unit}/s" if took > 0 and self.done else ""
        n_lost = sum(state.phase == "lost" for state in self._workers())
        lost = f"; {n_lost} worker{'s' * (n_lost > 1)} lost" if n_lost else ""
        stopped = f"; stopped by {kind.__name__}" if kind is not None else ""
        self._say(f"{count} {self.unit} in {_duration(took)}{speed}{lost}{stopped}", [], end="\n")

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            with self._drawing:
                self._show()

    def _show(self) -> None:
        states = self._workers()
        if self._terminal:
            self._say(f"{self._state()}{'  ' * bool(self._note)}{self._note}", _lines_of(states), end="")
        else:
            notes = [note for note in (self._note, _in_short(states)) if note]
            self._say("  ".join([self._state(), *notes]), [], end="\n")

    def _state(self) -> str:
        share = self.done / self.total if self.total else 1.0
        full = min(20, int(20 * share))
        bar = f"[{'#' * full}{'.' * (20 - full)}] " if self._terminal else ""
        rate = self.rate()
        left = f"  ETA {_duration((self.total - self.done) / rate)}" if rate and self.done < self.total else ""
        count = f"{self.done:,}/{self.total:,} {self.unit} ({int(100 * share)}%)"
        return f"{bar}{count}  {rate:,.1f}/s{left}"

    def _say(self, text: str, below: list[str], end: str) -> None:
        if self._terminal:
            # A bar that wraps could not be redrawn.
            size = shutil.get_terminal_size()
            text = text[: max(20, size.columns - 1)]
            text, self._width = "\r" + text.ljust(self._width), len(text)
            below = [line[: max(20, size.columns - 1)] for line in below[: max(0, size.lines - 2)]]
            n = max(len(below), self._below)  # lines that go away are cleared
            rows = "".join(f"\n{line}{CLEAR}" for line in [*below, *[""] * (n - len(below))])
            text, self._below = text + rows + (UP.format(n) if n else ""), n
        self._stream.write(text + end)
        self._stream.flush()


def _lines_of(states: Sequence[WorkerState]) -> list[str]:
    """A line for each worker that lives, where there is more than one."""
    return [
        f"  {state.name}{f' on {state.node}' * bool(state.node)}: {state.phase}, {state.in_flight} in flight, "
        f"{state.done} done{f', {state.failed} failed' * bool(state.failed)}"
        for state in states
        if len(states) > 1 and state.phase not in ("ended", "lost")
    ]


def _in_short(states: Sequence[WorkerState]) -> str:
    """How many workers do what, where there is more than one."""
    phases = Counter(state.phase for state in states if state.phase != "ended")
    return f"workers: {', '.join(f'{n} {phase}' for phase, n in sorted(phases.items()))}" if len(states) > 1 else ""


def _duration(seconds: float) -> str:
    """Seconds as M:SS, or H:MM:SS from an hour on."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Rate:
    """Units per second over the last half minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> None:
        """So many are done now."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()

    def per_second(self) -> float:
        """The rate; 0 while no time has passed."""
        (before, then), (now, done) = self._seen[0], self._seen[-1]
        return (done - then) / (now - before) if now > before else 0.0
