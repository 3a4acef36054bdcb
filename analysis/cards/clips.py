"""The clips of a card: highest, lowest, by ranges of quantiles, at random, one of each category, by a range of means.

Conventions: as in `exemplars`: equal values rank in the order of the clips; NaN, failed clips and those that do not
count (code -1) are nowhere. Positions are along the data set's `clip`; ranks from 1, the highest value.
"""

from dataclasses import dataclass, replace

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
    if tab not in TABS:
        raise ValueError(f"no tab {tab!r} of clips; expected one of {', '.join(TABS)}")
    if k < 1:
        raise ValueError(f"k is {k}; expected the number of clips to show, at least 1")
    order, rng = card.highest_first, np.random.default_rng([seed, TABS.index(tab)])
    if tab == "top":
        return (_listed(card, "highest", order, k),)
    if tab == "least":
        clips = np.sort(order)
        return (_listed(card, "lowest", clips[np.argsort(card.values[clips], kind="stable")], k),)
    if tab == "random":
        drawn = rng.choice(order, min(k, len(order)), replace=False)
        return (replace(_listed(card, "random", drawn, k), total=len(order)),)
    if tab == "range":
        kept = order[_between(card.values[order], low, high)]
        return (_listed(card, f"mean from {low:.4g} to {high:.4g}", kept, k),)
    if tab == "categories":
        codes = card.codes[order]
        return tuple(_listed(card, name, order[codes == c], 1) for c, name in enumerate(card.categories))
    found = []
    for i, part in enumerate(np.array_split(np.arange(len(order)), RANGES)):
        drawn = np.sort(rng.choice(part, min(OF_RANGE, len(part)), replace=False))
        heading = f"quantile {100 - 100 * (i + 1) // RANGES} to {100 - 100 * i // RANGES} %"
        found.append(replace(_listed(card, heading, order[drawn], OF_RANGE), total=len(part)))
    return tuple(found)


def clips_between(card: Card, low: float, high: float) -> NDArray[np.int64]:
    """Positions of all clips that count with low <= mean <= high, in the order of the clips."""
    counted = np.flatnonzero(card.codes >= 0)
    return counted[_between(card.values[counted], low, high)]


def _between(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    exact = values.astype(np.float64)  # float32 is not compared with ends that are rounded to it
    found: NDArray[np.bool_] = (exact >= low) & (exact <= high)
    return found


def _listed(card: Card, heading: str, clips: NDArray[np.int64], k: int) -> ListedClips:
    """The first k of these clips."""
    first = clips[:k]
    return ListedClips(
        heading=heading, position=first, value=card.values[first], rank=card.rank_of_clip[first], total=len(clips)
    )
