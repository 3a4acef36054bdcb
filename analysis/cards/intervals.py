"""How sure a neuron's bars are: the interval of each P, and what shuffled labels would give.

Conventions: P is (category), of clips or of frames; `active` and `of` are what each clip adds to the two sides of a
share: 0 or 1 of 1, or positive frames of all its frames. Units are what is exchangeable: clips, or whole groups of
them, as an `Arrangement` has them. All arrays (clip) are of the arrangement's clips.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..null.resampling import BAND, Arrangement, shuffle_labels

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CONFIDENCE = 0.95
Z = 1.959963984540054  # of the normal distribution, for 95 %
DRAWS, MIN_DRAWS = 2000, 199  # of shuffled labels; fewer of many units
UNITS_DRAWN = 4_000_000  # over all draws, where units are shuffled one by one: half a second
EQUAL = 1e-9  # of a bar and the end of a band that differ by rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """P of each category with its interval, and the band of shuffled labels: all (category), in [0, 1]."""

    p: Floats
    low: Floats
    high: Floats
    """95 % interval of each; NaN where a single unit says nothing of it."""
    band_low: Floats
    band_high: Floats
    """Where all bars lie together in 95 % of shuffles of the labels; NaN where nothing can be shuffled."""
    unit: str
    """What was drawn and shuffled: "clip", or the group's column, such as "speaker"."""
    no_band: str = ""
    """Why there is no band; "" where there is one."""

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Bars that lie outside the band (category): where labels mean nothing, 95 % of neurons have none."""
        return (self.p < self.band_low - EQUAL) | (self.p > self.band_high + EQUAL)


def bars_of(active: Counts, of: Counts, arrangement: Arrangement, *, unit: str = "clip", seed: int = 0) -> Bars:
    """P of each category, its interval, and the band of shuffled labels.

    The interval of a share of clips is Wilson's; that of a share of frames, or of clips that come in groups, the same
    by as many clips as would be as uncertain (`effective_n`).
    active, of: int64 (clip). unit: the name of what moves as one. seed: of the shuffled labels.
    """
    codes, n = arrangement.codes, len(arrangement.categories)
    k = np.bincount(codes, active, n).astype(np.int64)
    total = np.bincount(codes, of, n).astype(np.int64)
    single = bool((of == 1).all())
    alone = len(arrangement.first_and_unit[0]) == len(codes)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / total
    low, high = wilson_interval(p, total if single and alone else effective_n(active, of, arrangement))
    band_low, band_high, why = np.full(n, np.nan), np.full(n, np.nan), ""
    try:
        shuffle_labels(arrangement, seed, 0)
    except ValueError as error:
        why = str(error)
    else:
        band_low, band_high = _band(active, of, arrangement, seed)
    return Bars(p=p, low=low, high=high, band_low=band_low, band_high=band_high, unit=unit, no_band=why)


def wilson_interval(p: Floats, n: NDArray[np.number]) -> tuple[Floats, Floats]:
    """95 % interval of shares p of n, as Wilson 1927 has it; both (...), NaN where n is 0 or not known.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        n = np.where(np.asarray(n) > 0, n, np.nan).astype(np.float64)
        middle, scale = p + Z**2 / (2 * n), 1 + Z**2 / n
        half = Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        # Of 0 and 1 the ends are these, which rounding would miss.
        low, high = (middle - half) / scale, (middle + half) / scale
    return np.where(p == 0, 0.0 * low, low), np.where(p == 1, 1.0 + 0.0 * high, high)


def effective_n(active: Counts, of: Counts, arrangement: Arrangement) -> Floats:
    """Of how many single clips a category's P would be as uncertain as it is: (category).

    P = sum of k_u / sum of n_u over its G units; by the linearised variance of a ratio

        v = G / (G - 1) sum (k_u - P n_u)^2 / (sum n_u)^2,   n = P (1 - P) / v (z / t)^2,

    at most as many as clips or frames, where t is Student's 97.5 % point with G - 1 degrees of freedom. A P of 0 or 1
    has no variance: n is then G. NaN for a single unit.
    Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts".
    """
    from scipy.special import stdtrit

    n, units = len(arrangement.categories), arrangement.first_and_unit[1]
    cells, cell = np.unique(units * n + arrangement.codes, return_inverse=True)  # a unit's clips in a category
    k_u, n_u = np.bincount(cell, active), np.bincount(cell, of)
    category = cells % n
    k, total, groups = (np.bincount(category, each, n) for each in (k_u, n_u, np.ones(len(cells))))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / total
        squares = np.bincount(category, (k_u - p[category] * n_u) ** 2, n)
        variance = groups / (groups - 1) * squares / total**2
        t = stdtrit(np.maximum(groups - 1, 1), (1 + CONFIDENCE) / 2)
        found = np.minimum(np.where(variance > 0, p * (1 - p) / variance, np.inf), total) * (Z / t) ** 2
    found = np.where((p == 0) | (p == 1), groups, found)
    return np.where((groups > 1) & (total > 0), found, np.nan)


def _band(active: Counts, of: Counts, arrangement: Arrangement, seed: int) -> tuple[Floats, Floats]:
    """Both ends (category) of the band that holds all bars in 95 % of the labellings: center -+ q scale.

    q: of the draws and the labelling found the largest |P - center| / scale of any category, of which 5 % are larger.
    Center and scale are the same for every labelling, so that of labellings that mean nothing no more than 5 % have any
    bar outside, however few the draws.
    """
    n = len(arrangement.categories)
    first, unit = arrangement.first_and_unit
    k_u, n_u = (np.bincount(unit, each).astype(np.float64) for each in (active, of))
    codes = arrangement.codes[first]
    center, scale = _moments(k_u, n_u, codes, arrangement)
    rng = np.random.default_rng([seed, BAND])
    if (n_u == 1).all() and (k_u <= 1).all():
        drawn = _counted(k_u, codes, arrangement, rng)
    else:
        draws = int(np.clip(UNITS_DRAWN // len(first), MIN_DRAWS, DRAWS))
        drawn = np.empty((draws, n))
        for i in range(draws):
            shuffled = codes.copy()
            for units in arrangement.units_of_strata:
                shuffled[units] = rng.permutation(codes[units])
            with np.errstate(invalid="ignore", divide="ignore"):  # groups without a frame
                drawn[i] = np.bincount(shuffled, k_u, n) / np.bincount(shuffled, n_u, n)
    away = np.nan_to_num(np.abs(drawn - center))
    far = np.max(np.divide(away, scale, out=np.zeros_like(away), where=scale > 0), axis=1)
    q = np.sort(far)[int(np.ceil(CONFIDENCE * (len(far) + 1))) - 1]
    return np.clip(center - q * scale, 0, 1), np.clip(center + q * scale, 0, 1)


def _moments(k_u: Floats, n_u: Floats, codes: Counts, arrangement: Arrangement) -> tuple[Floats, Floats]:
    """Mean and standard deviation (category) of P over the labellings, linearised where units differ in size.

    Of the units of a stratum m are in the category. With P of all units and r = k - P n, of mean a and variance
    s^2 (divided by U) over the U units, the sum of r over the category has the mean m a and the variance
    m (U - m) / (U - 1) s^2; strata add up. Of clips that count 0 or 1 this is the multivariate hypergeometric's.
    """
    n = len(arrangement.categories)
    p = k_u.sum() / n_u.sum()
    residual, sums, variance, size = k_u - p * n_u, np.zeros(n), np.zeros(n), np.zeros(n)
    for units in arrangement.units_of_strata:
        m, total = np.bincount(codes[units], minlength=n), len(units)
        sums += m * residual[units].mean()
        variance += m * (total - m) / max(1, total - 1) * residual[units].var()
        size += m * n_u[units].mean()
    return p + sums / size, np.sqrt(variance) / size


def _counted(k_u: Floats, codes: Counts, arrangement: Arrangement, rng: np.random.Generator) -> Floats:
    """P (draw, category) where each unit is a clip and counts 0 or 1: by counts alone, whatever the number of clips."""
    n = len(arrangement.categories)
    drawn = np.zeros((DRAWS, n))
    for units in arrangement.units_of_strata:
        of = np.bincount(codes[units], minlength=n)
        drawn += rng.multivariate_hypergeometric(of, int(k_u[units].sum()), DRAWS, method="marginals")
    return drawn / arrangement.clips_per_category
