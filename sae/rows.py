"""Rows: stored states as training reads them, one row per clip, and their moments.

Conventions: a row is a raw hidden state, float32 (width). Which rows meet in a batch is decided by the order's seed,
the number of the epoch and where the rows are held, never by a recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

BATCH = 256
"""Rows at a time wherever they are gone through without being mixed: the last bits of products depend on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Of rows."""

    n: int
    mean: Tensor
    """Float64 (width)."""
    variance: float
    """Mean squared distance of a row from the mean."""

    @property
    def scale(self) -> float:
        """What rows less their mean are multiplied with, so that their mean squared norm is their width."""
        return float((len(self.mean) / self.variance) ** 0.5)


class Sums:
    """What moments are made of, row by row."""

    def __init__(self) -> None:
        self.n, self.total, self.squares, self.first = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take in rows (row, width), at least one."""
        for x in torch.split(rows, BATCH):
            if not self.n:  # differences from a row, so that a mean much larger than the spread costs no digits
                self.first = x[0].double()
                self.total, self.squares = torch.zeros_like(self.first), self.first.new_zeros(())
            apart = x.double() - self.first
            self.n += len(x)
            self.total, self.squares = self.total + apart.sum(dim=0), self.squares + apart.square().sum()

    def moments(self, what: str) -> Moments:
        """Of all of them. Raises ValueError for none, and for NaN and infinities.

        what: for messages, which rows they are.
        """
        if not self.n:
            raise ValueError(f"there are no {what} rows; expected some: see that clips were extracted and not left out")
        if not bool(torch.isfinite(self.total).all() & torch.isfinite(self.squares)):
            raise ValueError(
                f"{what} rows hold NaN or infinity; expected numbers: choose another state, or extract again"
            )
        mean = self.total / self.n
        variance = float(self.squares / self.n - mean.square().sum())
        return Moments(n=self.n, mean=(self.first + mean).cpu(), variance=max(variance, 0.0))


class Rows(Protocol):
    """Rows of one state."""

    n: int
    """How many."""
    width: int
    """Values of a row."""
    order: str
    """What decides over the order of an epoch, beside its number and the rows themselves."""
    known: Moments | None
    """Of the rows, where whoever opened them has gone through them already."""

    def epoch(self, number: int, batch: int) -> Iterator[Tensor]:
        """Batches float32 (row, width) of all rows, each row once, in the order that is drawn for this epoch, from 0.

        The last batch may be smaller.
        """
        ...

    def plain(self, batch: int) -> Iterator[Tensor]:
        """The same in the order in which they are stored."""
        ...


class HeldRows:
    """Rows in memory, on any device, in a new exact permutation each epoch."""

    def __init__(self, values: Tensor, order_seed: int = 0) -> None:
        """Of values float32 (row, width). Raises ValueError for another type or shape."""
        if values.ndim != 2 or values.dtype != torch.float32 or not values.shape[1]:
            raise ValueError(f"rows are {values.dtype} {tuple(values.shape)}; expected float32 (row, width)")
        self.values, self.order_seed = values, order_seed
        self.n, self.width = values.shape
        self.order = f"all of them, seed {order_seed}"
        self.known: Moments | None = None

    def epoch(self, number: int, batch: int) -> Iterator[Tensor]:
        """As Rows; drawn on the CPU, so that devices agree."""
        drawn = np.random.default_rng((self.order_seed, number)).permutation(self.n)
        order = torch.from_numpy(drawn).to(self.values.device)
        for start in range(0, self.n, batch):
            yield self.values.index_select(0, order[start : start + batch])

    def plain(self, batch: int) -> Iterator[Tensor]:
        """As Rows."""
        for start in range(0, self.n, batch):
            yield self.values[start : start + batch]


def moments(rows: Rows, what: str = "training") -> Moments:
    """Mean and variance, in one pass unless they are known. Raises as `Sums.moments`."""
    if rows.known is not None:
        return rows.known
    sums = Sums()
    for x in rows.plain(BATCH):
        sums.add(x)
    return sums.moments(what)
