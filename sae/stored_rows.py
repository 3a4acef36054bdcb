"""Rows of one stored hidden state for training: held in memory where they fit, else read by object, again each epoch.

Goal: training from the store is as fast as from memory, within a stated memory, and in the same order whenever it is
run again.
Conventions: rows are float32 (row, width). Rows that fit are held, on the device, and permuted exactly. Else the
objects are drawn in a new order each epoch, read some at a time into a window, and the rows in it are permuted; one
thread reads the next window meanwhile. The order depends on order seed, epoch, layout and number of objects at a time,
which the memory decides; held-out rows come in the store's order. One pass before all others holds what is held and
has the moments: a training of E epochs reads an object E + 2 times, the last time to measure what came out.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..store.state_rows import StateRows
from .rows import HeldRows, Moments, Rows, Sums
from .source import Source

WINDOWS = 2  # one is mixed while the other is read
MAX_HELD_OUT_SHARE = 0.5  # of the memory that held-out rows may take, where not all rows are held


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the rows of a state lie in memory while they are trained on."""

    memory: int
    """Bytes, the least for which this is the layout."""
    objects: int
    """That are read and mixed at a time; 0 where all rows are held."""
    hold_out: bool = True
    """Whether the held-out rows are held."""


def layout_of(source: Source, state: StateRows, memory: int) -> Layout:
    """The layout that a number of bytes has room for. Raises ValueError where it has none."""
    row, one = 4 * state.width, state.object_bytes
    train, held_out = row * len(source.train), row * len(source.held_out)
    if train + held_out <= memory:
        return Layout(memory=train + held_out, objects=0)
    needed_at_all = (WINDOWS + 1) * one
    hold_out = held_out <= min(MAX_HELD_OUT_SHARE * memory, memory - needed_at_all)
    beside = held_out if hold_out else 0
    n_objects = sum(1 for _ in state.objects(source.train))
    objects = min((memory - beside - one) // (WINDOWS * one), n_objects)
    if objects < 1:
        raise ValueError(
            f"the rows of {source.where} do not fit into a memory of {memory} bytes, nor do parts of them; expected at "
            f"least {needed_at_all}, for two stored objects and one that is read: give more"
        )
    needed = beside + (WINDOWS * objects + 1) * one
    if hold_out:
        needed = max(needed, int(np.ceil(held_out / MAX_HELD_OUT_SHARE)))
    return Layout(memory=needed, objects=objects, hold_out=hold_out)


def rows_of(source: Source, state: int, layout: Layout, order_seed: int, device: str) -> tuple[Rows, Rows]:
    """The training rows and the held-out rows of a state; each object is read once.

    Raises ValueError for a damaged object, and where it is known by then as of `Sums.moments`, FileNotFoundError for a
    missing object, OSError where reading fails.
    """
    stored, sides = source.state(state), (source.train, source.held_out)
    if not layout.objects:
        train, held_out = held_rows(stored, sides, device)
        return HeldRows(train, order_seed), HeldRows(held_out)
    sums, held_out = (Sums(), Sums()), torch.empty(len(source.held_out) if layout.hold_out else 0, stored.width)
    for parts in by_object(stored, sides):
        for side, at, rows in parts:
            sums[side].add(rows)
            if side and layout.hold_out:
                held_out[at] = rows
    how = (layout.objects, order_seed, device)
    found = [own.moments(what) for own, what in zip(sums, ("training", "held-out"), strict=True)]
    train_rows, streamed = (StreamedRows(stored, at, *how, of) for at, of in zip(sides, found, strict=True))
    return train_rows, HeldRows(held_out.to(device)) if layout.hold_out else streamed


def held_rows(stored: StateRows, clips: Sequence[NDArray[np.intp]], device: str = "cpu") -> list[Tensor]:
    """The rows of several lots of clips (row), each (row, width) in ascending order; each object is read once."""
    held = [torch.empty(len(own), stored.width) for own in clips]
    for parts in by_object(stored, clips):
        for lot, at, rows in parts:
            held[lot][at] = rows
    return [values.to(device) for values in held]


def by_object(stored: StateRows, clips: Sequence[NDArray[np.intp]]) -> Iterator[list[tuple[int, slice, Tensor]]]:
    """Of each object that has rows of several lots of clips (row), ascending, once: the lot, where in it, rows.

    Rows are (row, width); all of a lot are together those of its clips in order.
    """
    wanted = [{number: (inside, at) for number, inside, at in stored.objects(own)} for own in clips]
    buffer = torch.empty(stored.object_rows, stored.width)
    for number in sorted(set().union(*wanted)):
        stored.read(number, buffer.numpy())
        yield [
            (lot, slice(int(at[0]), int(at[-1]) + 1), buffer.index_select(0, torch.from_numpy(inside)))
            for lot, of in enumerate(wanted) if number in of for inside, at in [of[number]]
        ]  # fmt: skip


class StreamedRows:
    """Rows that are read from the store again in each epoch, whole objects at a time."""

    def __init__(
        self, stored: StateRows, clips: NDArray[np.intp], objects: int, order_seed: int = 0, device: str = "cpu",
        known: Moments | None = None,
    ) -> None:  # fmt: skip
        """clips: positions (row), ascending. objects: how many are read and mixed at a time. known: as Rows."""
        self.stored, self.at_once, self.order_seed, self.device = stored, objects, order_seed, device
        self.objects = [(number, inside) for number, inside, _ in stored.objects(clips)]
        self.n, self.width, self.known = len(clips), stored.width, known
        self.order = f"{objects} objects of {stored.object_rows} rows at a time, seed {order_seed}"
        self._windows: list[Tensor] = []  # kept from pass to pass: fresh memory costs as much as reading into it

    def epoch(self, number: int, batch: int) -> Iterator[Tensor]:
        """All rows, each once, in the order of an epoch, in batches of which the last may be smaller."""
        return self._batches(np.random.default_rng([self.order_seed, number]), batch)

    def plain(self, batch: int) -> Iterator[Tensor]:
        """All rows in the store's order, in batches."""
        return self._batches(None, batch)

    def _batches(self, rng: np.random.Generator | None, batch: int) -> Iterator[Tensor]:
        order = np.arange(len(self.objects)) if rng is None else rng.permutation(len(self.objects))
        drawn = [self.objects[i] for i in order.tolist()]
        together = [drawn[start : start + self.at_once] for start in range(0, len(drawn), self.at_once)]
        size = self.stored.object_rows
        windows, self._windows = self._windows, []  # a pass beside this one takes others
        while len(windows) < min(WINDOWS, len(together)):
            windows.append(torch.empty(self.at_once * size, self.width))

        def read(turn: int) -> Tensor:
            window = windows[turn % WINDOWS]
            for i, (number, _) in enumerate(together[turn]):
                self.stored.read(number, window[i * size : (i + 1) * size].numpy())
            return window.to(self.device)

        try:
            left = torch.empty(0, self.width, device=self.device)  # of the window before: less than a batch
            with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
                ahead = reader.submit(read, 0)
                for turn, objects in enumerate(together):
                    window = ahead.result()
                    if turn + 1 < len(together):
                        ahead = reader.submit(read, turn + 1)
                    at = np.concatenate([i * size + inside for i, (_, inside) in enumerate(objects)])
                    index = torch.from_numpy(at if rng is None else rng.permutation(at)).to(self.device)
                    first = batch - len(left) if len(left) else 0
                    if first:
                        left = torch.cat([left, window.index_select(0, index[:first])])
                        if len(left) < batch:
                            continue
                        yield left
                    starts = range(first, len(index), batch)
                    for start in starts[: (len(index) - first) // batch]:
                        yield window.index_select(0, index[start : start + batch])
                    whole = first + (len(index) - first) // batch * batch
                    left = window.index_select(0, index[whole:])
            if len(left):
                yield left
        finally:
            self._windows = windows
