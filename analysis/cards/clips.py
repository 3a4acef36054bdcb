"""The clips of a card: highest, lowest, in ranges of quantiles, at random, one of each category, or by a range of means.

Conventions: as in `exemplars`: equal values rank in the order of the clips; NaN, failed clips and those that do not
count (code -1) are nowhere. Positions are along the data set's `clip`; ranks from 1, the highest value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .card import Card

TABS = ("top", "least", "quantiles", "random", "categories", "range")
RANGES, OF_RANGE = 5, 8  # ranges of quantiles, and clips of each


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedClips:
    """Some clips of a neuron under one heading."""

    heading: str
    """What they are: "highest", "quantile 80 to 100 %", "random", a category's name, "mean from a to b"."""
    position: NDArray[np.int64]
    """Along the data set's `clip` (row)."""
    value: NDArray[np.float32]
    """The neuron's mean (row)."""
    rank: NDArray[np.int64]
    """Place among all clips that count, from 1, the highest (row)."""
    total: int
    """Clips that these were taken from: more than are listed, where the list is cut."""


def clip_tab(
    card: Card, tab: str, k: int = 20, *, seed: int = 0, low: float = -np.inf, high: float = np.inf
) -> tuple[ListedClips, ...]:
    """The clips of a tab, in the order in which they are shown.

    top: the k highest, highest first; least: the k lowest, lowest first; quantiles: 5 ranges of equally many clips from
    the highest down, of each 8 drawn by the seed, highest first; random: k drawn by the seed, in the order drawn;
    categories: of each category the highest; range: the k highest whose mean is from low to high (both included).
    Raises ValueError for an unknown tab, and for k below 1.
    """
    raise NotImplementedError


def clips_between(card: Card, low: float, high: float) -> NDArray[np.int64]:
    """Positions of all clips that count with low <= mean <= high, in the order of the clips."""
    raise NotImplementedError
