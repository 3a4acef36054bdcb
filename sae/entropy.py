"""Entropy of a factor's values, in bits.

Goal: the estimate that was published by name, and the one that was computed there; undefined where it means nothing.
Conventions: values (clip) are numbers of any unit. Differential entropy grows by 1 bit where the unit is halved: to
compare factors, give them in units of their deviation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

NEIGHBOURS, BINS = 3, 10  # published
MAX_TIED = 0.01  # share of values that may be another's equal: rounding to float32 does that to a few of thousands


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Differential entropy of values."""

    bits: float
    """NaN where it is undefined."""
    tied: float
    """Share of the values that occur more than once, in [0, 1]."""


def nearest_neighbour_entropy(values: ArrayLike, k: int = NEIGHBOURS) -> Entropy:
    """Of values (clip), by Kozachenko and Leonenko (1987), in one dimension:

        H = (psi(n) - psi(k) + ln 2 + mean of ln r_k) / ln 2

    r_k: a value's distance to the k-th nearest of the others. Undefined where over 1 % of the values are tied, where
    one occurs more than k times, for k values or fewer, and where some are not finite: a distribution of which a part
    lies on single points has no differential entropy.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    counts = np.unique(ordered, return_counts=True)[1]
    tied = float(counts[counts > 1].sum() / n) if n else 0.0
    if n <= k or tied > MAX_TIED or counts.max() > k or not np.isfinite(ordered).all():
        return Entropy(bits=float("nan"), tied=tied)
    padded = np.concatenate([np.full(k, -np.inf), ordered, np.full(k, np.inf)])
    # The k nearest are neighbours in order, some of them below: the widest distance of each way to share them out.
    ways = [np.maximum(ordered - padded[k - i : k - i + n], padded[2 * k - i :][:n] - ordered) for i in range(k + 1)]
    log_distance = np.log(np.min(ways, axis=0)).mean()
    return Entropy(bits=float((digamma(n) - digamma(k) + np.log(2) + log_distance) / np.log(2)), tied=tied)


def histogram_entropy(values: ArrayLike, bins: int = BINS) -> float:
    """Of values (clip) counted in equal bins from the smallest to the largest, from 0 to log2(bins), whatever the unit.

        H = - sum of p log2 p   over bins that are not empty

    The published figure of nearest neighbours shows this one. NaN where some are not finite, or there are none.
    """
    given = np.asarray(values, np.float64)
    if not len(given) or not np.isfinite(given).all():
        return float("nan")
    counts = np.histogram(given, bins)[0]
    p = counts[counts > 0] / len(given)
    return float(-(p * np.log2(p)).sum()) + 0.0
