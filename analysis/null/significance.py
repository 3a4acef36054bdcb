"""From draws to statements: p-values corrected for many cells, and bootstrap intervals.

Goal: small pure functions on arrays that know nothing of neurons.
Conventions: `found` is (cell...), `draws` (draw, cell...) of the same cells; cells are looked at some thousand at a
time, so that the workspace does not grow with their number.
"""

import math
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ..kinds import SIDES

Floats = NDArray[np.floating]

CHUNK_CELLS = 4096


def exceedance(
    found: Floats, draws: Floats, tested: NDArray[np.bool_] | None = None, side: str = "above"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p and family-wise corrected p of each cell; NaN for cells that cannot be tested: those that are not `tested`,
    those where nothing was found (NaN), and all of them without a draw.

        z = (x - mean) / (sd + s0),   e = z, -z or |z|, by the side that is extreme: "above", "below" or "both"
        p = (1 + number of draws whose e >= e found) / (1 + number of draws)
        corrected p = (1 + number of draws whose highest e >= e found) / (1 + number of draws)

    mean and sd of a cell are over the draws and what was found; s0 is the root mean square of sd over the tested
    cells, for a cell that hardly ever moves would otherwise have the highest e whenever it does. What was found is
    treated like a draw throughout, so p-values are exact if all are exchangeable. A draw that is NaN counts as 0.

    Maximum statistic: Westfall and Young 1993, "Resampling-Based Multiple Testing"; s0: Tusher et al. 2001 (SAM).
    """
    check_side(side)
    shape, n = found.shape, len(draws) + 1
    cells, draws = np.nan_to_num(found).reshape(-1), draws.reshape(len(draws), found.size)
    known = ~np.isnan(found.reshape(-1))
    inside = known if tested is None else known & tested.reshape(-1)
    if not inside.any() or n == 1:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    parts = [slice(i, i + CHUNK_CELLS) for i in range(0, cells.size, CHUNK_CELLS)]

    def all_of(part: slice) -> NDArray[np.float64]:
        return np.concatenate([cells[None, part], np.nan_to_num(draws[:, part])]).astype(np.float64)

    mean, sd, p, evidence = (np.empty(cells.size) for _ in range(4))
    for part in parts:
        x = all_of(part)
        mean[part], sd[part] = x.mean(axis=0), x.std(axis=0)
    width = sd + np.sqrt((sd[inside] ** 2).mean())
    width[width == 0] = 1
    highest = np.full(n, -np.inf)
    for part in parts:
        z = (all_of(part) - mean[part]) / width[part]
        # As far above as below is a tie, whatever the mean was rounded to.
        each = np.round(np.abs(z), 12) if side == "both" else z if side == "above" else -z
        evidence[part], p[part] = each[0], (each >= each[0]).sum(axis=0) / n
        highest = np.maximum(highest, np.where(inside[part], each, -np.inf).max(axis=1))
    corrected = (n - np.searchsorted(np.sort(highest), evidence, side="left")) / n
    return np.where(inside, p, np.nan).reshape(shape), np.where(inside, corrected, np.nan).reshape(shape)


def check_side(side: str) -> None:
    """Raise ValueError for a side of the null that is none."""
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; expected one of {', '.join(SIDES)}")


def check_level(level: float) -> None:
    """Raise ValueError for a level of significance that no p could be compared with."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level:g}; expected a number above 0 and below 1, such as 0.05")


def fewest_permutations(level: float) -> int:
    """The fewest permutations by which a p can be as low as a level: 1 / (1 + n) <= level."""
    near = max(1, math.ceil(1 / level) - 2)
    return next(n for n in count(near) if 1 / (1 + n) <= level)


def fewest_draws(confidence: float) -> int:
    """The fewest draws between whose extremes so large a share of further ones is expected: 39 for 0.95."""
    return math.ceil(2 / (1 - confidence) - 1 - 1e-9)


def intervals(found: Floats, draws: Floats, confidence: float, highest: float) -> dict[str, NDArray[np.float64]]:
    """sd and bias over the draws, and the basic bootstrap interval from low to high, of each cell.

        bias = mean over draws - found,   low, high = 2 found - upper, lower quantile, kept within [0, highest]

    Quantiles interpolate. NaN draws of a cell are left out. NaN is sd of fewer than two draws, bias of none, and an
    interval of fewer than `fewest_draws`, or of no width: draws that are all alike, or lie beyond what is possible, do
    not say how far the number moves.
    Basic interval: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 2.4.
    """
    shape, cells = found.shape, found.reshape(-1).astype(np.float64)
    draws = draws.reshape(len(draws), found.size)
    parts = {name: np.full(cells.size, np.nan) for name in ("sd", "bias", "low", "high")}
    for i in range(0, cells.size if len(draws) else 0, CHUNK_CELLS):
        at = slice(i, i + CHUNK_CELLS)
        x = np.sort(draws[:, at].astype(np.float64), axis=0)  # NaN comes last
        n = np.isfinite(x).sum(axis=0)
        some = np.maximum(n, 1)
        mean = np.where(n > 0, np.nansum(x, axis=0) / some, np.nan)
        parts["sd"][at] = np.sqrt(np.where(n > 1, np.nansum((x - mean) ** 2, axis=0), np.nan) / some)
        parts["bias"][at] = mean - cells[at]
        for name, share in (("low", (1 + confidence) / 2), ("high", (1 - confidence) / 2)):
            position = share * (some - 1)
            floor = np.floor(position).astype(np.intp)
            lower, upper = (np.take_along_axis(x, k[None], axis=0)[0] for k in (floor, np.minimum(floor + 1, some - 1)))
            parts[name][at] = np.clip(2 * cells[at] - (lower + (upper - lower) * (position - floor)), 0, highest)
        known = (n >= fewest_draws(confidence)) & (parts["low"][at] < parts["high"][at])
        for name in ("low", "high"):
            parts[name][at] = np.where(known, parts[name][at], np.nan)
    return {name: values.reshape(shape) for name, values in parts.items()}


def moments(draws: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over the draws, NaN of a single one: (draw, cell...) -> (cell...), in float64."""
    flat = draws.reshape(len(draws), -1)
    mean, sd = np.empty(flat.shape[1]), np.empty(flat.shape[1])
    for i in range(0, flat.shape[1], CHUNK_CELLS):
        x = flat[:, i : i + CHUNK_CELLS].astype(np.float64)
        mean[i : i + CHUNK_CELLS] = x.mean(axis=0)
        sd[i : i + CHUNK_CELLS] = x.std(axis=0) if len(x) > 1 else np.nan
    return mean.reshape(draws.shape[1:]), sd.reshape(draws.shape[1:])
