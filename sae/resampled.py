"""Groups of clips drawn anew: the interval of what is measured on clips that belong together.

Goal: the clips of a singer are no evidence apart from each other; an interval is as wide as other singers make it.
Conventions: a draw takes as many groups as there are, with replacement; a weight is how often it took one. Every
category that is asked for has clips in every draw. Intervals are of 95 %: quantiles of the draws, moved so that their
mean is the number itself, because what depends on the variety of clips, as an entropy does, is biased in all draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
MAX_TRIES = 100  # for a draw with clips of every category
AT_ONCE = 64  # draws

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupDraws:
    """Draws of groups of clips."""

    weights: NDArray[np.uint16]
    """(draw, group)."""
    of: NDArray[np.intp]
    """(clip): the group of each."""

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return int(self.weights.shape[1])

    def sums(self, values: NDArray[np.generic]) -> Floats:
        """Sums over the clips of each draw: (clip, ...) -> (draw, ...)."""
        flat = np.asarray(values, np.float64).reshape(len(values), -1)
        order = np.argsort(self.of, kind="stable")
        by_group = np.add.reduceat(flat[order], np.searchsorted(self.of[order], np.arange(self.n_groups)), axis=0)
        starts = range(0, len(self.weights), AT_ONCE)
        drawn = np.concatenate([self.weights[i : i + AT_ONCE].astype(np.float64) @ by_group for i in starts])
        return drawn.reshape(-1, *np.shape(values)[1:])

    def of_clips(self, clips: NDArray[np.intp]) -> NDArray[np.float32]:
        """How often each draw takes each of some clips (draw, clip)."""
        return self.weights[:, self.of[clips]].astype(np.float32)


def draw_groups(groups: NDArray[np.integer], codes: NDArray[np.integer], n_draws: int, seed: int) -> GroupDraws:
    """Draws of the groups of clips.

    groups: numbers (clip), in the order of their names; codes: categories (clip).
    Raises ValueError for fewer than two groups, and where draws leave a category without clips.
    """
    _, of = np.unique(groups, return_inverse=True)
    n = int(of.max(initial=-1)) + 1
    if n < 2:
        raise ValueError(
            f"found {n} group of clips to draw an interval from; expected at least 2: group by another column"
        )
    cells = np.zeros((n, int(codes.max()) + 1), np.int64)
    np.add.at(cells, (of, codes), 1)
    in_groups = [np.flatnonzero(cells[:, code]) for code in np.flatnonzero(cells.any(axis=0))]
    rng = np.random.default_rng([seed, n])
    weights = np.empty((n_draws, n), np.uint16)
    for row in weights:
        for _ in range(MAX_TRIES):
            row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
            if all(row[own].any() for own in in_groups):
                break
        else:
            raise ValueError(
                f"{MAX_TRIES} draws of {n} groups left a category without clips; expected each category in several "
                "groups: group by another column"
            )
    return GroupDraws(weights=weights, of=of)


def interval(value: float, draws: Floats, low: float = 0.0, high: float = np.inf) -> tuple[float, float]:
    """Ends of the interval of a number, by what it is in each draw (draw), NaN left out; within low and high.

    The number itself is always in it. NaN where the number is, or fewer than two draws know it.
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < 2:
        return float("nan"), float("nan")
    tail = (1 - LEVEL) / 2
    ends = np.quantile(known, [tail, 1 - tail]) + value - known.mean()
    first, last = np.clip(ends, low, high).tolist()
    return min(first, value), max(last, value)
