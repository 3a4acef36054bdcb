"""Rows: stored states as training reads them, one row per clip.

Conventions: a row is a raw hidden state, float32 (width). Which rows meet in a batch is decided by the order's seed,
the number of the epoch and where the rows are held, never by a recipe.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Rows(Protocol):
    """Rows of one state."""

    n: int
    """How many."""
    width: int
    """Values of a row."""

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
