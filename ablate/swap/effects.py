"""What swaps did: effects by category, their errors, and GC_causal. Pure.

Goal: from the margins of single swaps to how much of the sound, and of the text, an answer owes to some neurons.
Conventions: values are (..., c, c', number, category held, number held) as of `pairs`, float64, NaN where c = c'. Of a
swap the value is the margin of c over c' in a clip of c, less that with the neurons as in its partner of c': above 0
where the neurons carry what was swapped. Pooled values are over the pairs of categories that are asked for:
    overall      all of them
    necessity    row c: clips of c, from which c was taken (noising)
    sufficiency  column c: clips of others, to which c was given (denoising)
    pair         c and c' alone
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from ...analysis.null.significance import exceedance

Floats = NDArray[np.float64]
PARTS = ("overall", "necessity", "sufficiency", "pair")
LEVEL = 0.025  # of one modality: 0.05 of either
CONFIDENCE = 0.95
DRAWS = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """Means of some parts of a table, (part) each."""

    mean: Floats
    error: Floats
    """Standard error, clustered both by what is exchanged and by what is held."""
    df: Floats
    """Of the error, by Satterthwaite."""

    @property
    def magnitude(self) -> Floats:
        """sqrt(max(mean^2 - error^2, 0)): what noise adds to a square is taken off."""
        found: Floats = np.sqrt(np.maximum(self.mean**2 - self.error**2, 0))
        return found

    @property
    def half_width(self) -> Floats:
        """Of the 95 % interval of the mean, by Student's t."""
        found: Floats = self.error * stdtrit(np.maximum(self.df, 1), (1 + CONFIDENCE) / 2)
        return found


def parts_of(n: int) -> list[tuple[str, int, int, NDArray[np.bool_]]]:
    """The parts of a table of n categories: (name, c, c', pairs of categories that it takes (c, c')); -1 for none."""
    apart = ~np.eye(n, dtype=bool)
    index = np.arange(n)
    found = [("overall", -1, -1, apart)]
    found += [("necessity", c, -1, apart & (index == c)[:, None]) for c in range(n)]
    found += [("sufficiency", c, -1, apart & (index == c)[None]) for c in range(n)]
    found += [("pair", c, d, (index == c)[:, None] & (index == d)[None]) for c in range(n) for d in range(n) if c != d]
    return found


def pooled(values: Floats) -> Floats:
    """Means over the pairs of categories of each part: (..., c, c', rest) -> (..., part, rest)."""
    n = values.shape[-5]
    flat = values.reshape(*values.shape[:-5], n * n, *values.shape[-3:])
    return np.stack([flat[..., np.flatnonzero(taken), :, :, :].mean(axis=-4) for *_, taken in parts_of(n)], axis=-4)


def estimates(values: Floats) -> Estimate:
    """Mean and error of every part of a table (c, c', number, category held, number held).

    What is exchanged comes in groups of partners, one of every category with one number, n of them; what is held in m
    numbers of each of its g categories. With z the part's mean (number, category held, number held) and mean squares
        MS_N of its means over what is held, df n - 1
        MS_H of its means over numbers, within categories held, df g (m - 1)
        MS_E of what is left within categories held, df (n - 1) g (m - 1)
    the mean varies by (MS_N + MS_H - MS_E) / (n g m), at least MS_E / (n g m): clustered by both, as numbers of both
    were drawn. Categories are what is asked about, and count as drawn in neither.
    Source: the two random factors of Clark 1973; errors clustered two ways, Cameron, Gelbach and Miller 2011.
    """
    z = pooled(values)
    n, g, m = z.shape[1:]
    mean = z.mean(axis=(1, 2, 3))
    of_number = z.mean(axis=(2, 3))
    of_held, of_cell = z.mean(axis=1), z.mean(axis=3)  # (part, g, m), (part, n, g)
    of_category = of_held.mean(axis=2)
    rest = z - of_held[:, None] - of_cell[..., None] + of_category[:, None, :, None]
    df = np.array([n - 1, g * (m - 1), (n - 1) * g * (m - 1)], float)
    squares = np.stack(
        [
            g * m * ((of_number - mean[:, None]) ** 2).sum(axis=1),
            n * ((of_held - of_category[..., None]) ** 2).sum(axis=(1, 2)),
            (rest**2).sum(axis=(1, 2, 3)),
        ]
    ) / df[:, None]  # fmt: skip
    combined = np.maximum(squares[0] + squares[1] - squares[2], squares[2])
    below = (squares**2 / df[:, None]).sum(axis=0)
    freedom = np.divide(combined**2, below, out=np.full(len(mean), df[0]), where=below > 0)
    return Estimate(mean=mean, error=np.sqrt(combined / (n * g * m)), df=freedom)


def causal_share(of_sound: Floats, of_text: Floats) -> Floats:
    """GC_causal of magnitudes: that of the sound in both; NaN where both are 0."""
    both = of_sound + of_text
    found: Floats = np.divide(of_sound, both, out=np.full(both.shape, np.nan), where=both > 0)
    return found


def share_interval(of_sound: Estimate, of_text: Estimate, seed: int = 0) -> tuple[Floats, Floats]:
    """95 % interval of GC_causal, (part) each: quantiles over draws of both means and their errors.

        error* = error sqrt(df / chi2(df)),   mean* = mean + error* z,   z normal,   magnitudes of these

    A draw in which neither effect is there may have been any share. NaN where neither effect has a mean or an error.
    """
    rng = np.random.default_rng([seed, DRAWS])
    steps = (np.arange(DRAWS) + 0.5) / DRAWS
    drawn = []
    for one in (of_sound, of_text):
        z = ndtri(rng.permutation(steps))[:, None]
        chi = rng.chisquare(np.maximum(one.df, 1), (DRAWS, len(one.df))) / np.maximum(one.df, 1)
        error = one.error / np.sqrt(chi)
        drawn.append(Estimate(mean=one.mean + error * z, error=error, df=one.df).magnitude)
    shares = causal_share(*drawn)
    ends = []
    for edge, quantile in ((0.0, (1 - CONFIDENCE) / 2), (1.0, (1 + CONFIDENCE) / 2)):
        ends.append(np.quantile(np.nan_to_num(shares, nan=edge), quantile, axis=0))
    nothing = (of_sound.mean == 0) & (of_text.mean == 0) & (of_sound.error == 0) & (of_text.error == 0)
    return np.where(nothing, np.nan, ends[0]), np.where(nothing, np.nan, ends[1])


def ranks(found: Floats, controls: Floats, names: list[str]) -> tuple[Floats, Floats]:
    """p_rank and p_corrected of means (part), against those of matched controls (control, part).

        p_rank = (1 + controls with |mean| as large or larger) / (1 + controls)

    Corrected is over the parts of one name, as all rows, by the most extreme of each control; see `exceedance`.
    NaN without controls.
    """
    p, corrected = np.full(len(found), np.nan), np.full(len(found), np.nan)
    if not len(controls):
        return p, corrected
    every = np.round(np.abs(np.concatenate([found[None], controls])), 12)  # what sums rounded to is no difference
    p = (every >= every[0]).sum(axis=0) / len(every)
    for name in dict.fromkeys(names):
        own = np.array([each == name for each in names])
        corrected[own] = exceedance(every[0, own], every[1:, own])[1]
    return p, corrected
