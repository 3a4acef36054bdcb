"""Before and after on the same clips: paired tests and intervals.

Goal: small exact functions on arrays that know nothing of neurons.
Conventions: one number per clip; float64. Tests are two-sided. NaN where there are no clips.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT_CLIPS = 13  # up to so many, all 2^n sign patterns are looked at
CHUNK = 2**22  # numbers drawn at a time
NORMAL_95 = 1.959963984540054
RESOLUTION = 1e-12  # of the largest value: smaller differences are rounding


def mcnemar(lost: int, gained: int) -> float:
    """Exact p of McNemar's test: `lost` clips right before and wrong after, `gained` the other way round.

        p = min(1, 2 P(X <= min(lost, gained))),   X binomial(lost + gained, 1/2)

    1 where nothing changed. McNemar 1947; the exact form is the sign test of the clips that changed. Computed from
    whole numbers, and so correct to the last bit, which scipy's `binomtest` is not.
    """
    n, smaller = lost + gained, min(lost, gained)
    tail = sum(math.comb(n, k) for k in range(smaller + 1))
    return min(1.0, tail / 2 ** (n - 1)) if n else 1.0


def sign_flip(change: Floats, flips: int = 9999, seed: int = 0) -> float:
    """p of the permutation test that a paired change (clip) has mean 0: its signs are flipped at random.

        p = (1 + flips with |mean| >= |mean found|) / (1 + flips)

    With up to 13 clips all 2^n patterns are counted instead, and p is their exact share. A flip that ties up to
    rounding counts. NaN where a change is not a number. Fisher 1935, "The Design of Experiments", section 21.
    """
    n = len(change)
    if n == 0 or not np.isfinite(change).all():
        return math.nan
    found = abs(change.sum()) - 1e-12 * np.abs(change).sum()
    if n <= EXACT_CLIPS:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float((np.abs(signs @ change) >= found).mean())
    rng = np.random.default_rng(seed)
    reached, rows = 0, max(1, CHUNK // n)
    for done in range(0, flips, rows):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(rows, flips - done), n), dtype=np.int8)
        reached += int((np.abs(signs @ change) >= found).sum())
    return (1 + reached) / (1 + flips)


def difference_interval(lost: int, gained: int, n: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Score interval of a difference of paired shares, (gained - lost) / n: low, high in [-1, 1].

    All differences d that the score test does not reject, |gained - lost - n d| <= z sd(d), with sd at the most
    likely shares given d. Unlike a bootstrap it has a width where no clip changed, and keeps to [-1, 1].
    Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17.
    """
    if n == 0:
        return math.nan, math.nan
    found = (gained - lost) / n

    def score(d: float) -> float:
        """Standardised distance of what was found from d."""
        a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * d
        c = -lost * d * (1 - d)
        share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # of lost clips, most likely given d
        variance = n * (2 * share + d * (1 - d))
        distance = gained - lost - n * d
        if variance <= 1e-15:
            return 0.0 if abs(distance) < 1e-9 else math.copysign(math.inf, distance)
        return distance / math.sqrt(variance)

    def edge(inside: float, outside: float) -> float:
        for _ in range(80):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(score(middle)) <= z else (inside, middle)
        return inside

    return edge(found, -1.0), edge(found, 1.0)


def bootstrap_interval(
    values: Floats, draws: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Percentile interval of the mean over clips of each row (row, clip): low (row), high (row).

    Clips are drawn with replacement, all rows with the same draws. NaN where fewer than two values differ: clips that
    are all alike do not say how far others would be. With few clips it is too narrow: by nearly a fifth with 10 clips.
    Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)  # each its own: callers write into them
    rng = np.random.default_rng(seed)
    means = np.empty((draws, len(values)))
    rows = max(1, CHUNK // n)
    for start in range(0, draws, rows):
        weights = rng.multinomial(n, np.full(n, 1 / n), min(rows, draws - start))
        means[start : start + rows] = weights @ values.T / n
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    differ = np.isfinite(values).all(axis=1) & (np.ptp(values, axis=1) > RESOLUTION * np.abs(values).max(axis=1))
    return np.where(differ, low, np.nan), np.where(differ, high, np.nan)
