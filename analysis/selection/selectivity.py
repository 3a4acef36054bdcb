"""How selective a neuron is for one category, and the thresholds of the selection rules.

Goal: one number per neuron from its activation probabilities, and the thresholds of the two selection rules.
Conventions: probabilities are (layer, neuron, category) in [0, 1]; NaN cells (a neuron that does not exist, a
category without clips) take part in nothing. Float64 throughout, lazy in, lazy out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .selection import Selection, selection_of

Floats = NDArray[np.float64]

CELL_DIMS = ("layer", "neuron", "category")
TOP_SHARE = 0.95  # share of cells (layer, neuron, category) that are not high; both rules
INACTIVE = 5.0  # percentile of neurons that fire too rarely to be judged; rule "paper"
ONE_CHUNK = {"allow_rechunk": False}  # chunks are joined beforehand; dask's own way fails without categories
THRESHOLDS = ("activity_threshold", "aape_threshold", "probability_threshold")


def aape(p: xr.DataArray, normalised: bool = False) -> xr.DataArray:
    """Audio activation probability entropy: (layer, neuron, category) -> (layer, neuron), in nats.

        q_c = P_c / sum of P over categories,   AAPE = -sum of q_c ln q_c   (0 ln 0 = 0)

    Low is selective: 0 for a neuron that fires for one category only, ln(number of categories) for one that
    does not care; NaN for a neuron that never fires. normalised: divided by ln(number of categories), so in
    [0, 1]. Neurons whose probabilities are permutations of each other come out exactly equal.
    Raises ValueError for normalised with fewer than two categories.
    """
    n_categories = p.sizes["category"]
    if normalised and n_categories < 2:
        raise ValueError(f"found {n_categories} category; expected at least two to divide AAPE by ln(categories)")
    entropy: xr.DataArray = xr.apply_ufunc(
        entropy_of,
        in_one_chunk(p, ["category"]),
        input_core_dims=[["category"]],
        dask="parallelized",
        dask_gufunc_kwargs=ONE_CHUNK,
        output_dtypes=[np.float64],
    )
    if normalised:
        entropy = entropy / np.log(n_categories)
    return entropy.rename("aape").assign_attrs(
        long_name="normalised AAPE" if normalised else "AAPE", units="1" if normalised else "nat"
    )


def entropy_of(p: Floats) -> Floats:
    """Entropy over the last axis, sorted first: the order of the categories must leave no rounding behind."""
    p = np.sort(np.nan_to_num(p.astype(np.float64)), axis=-1)
    total = p.sum(axis=-1, keepdims=True)
    q = p / np.where(total > 0, total, 1)
    entropy = 0.0 - (q * np.log(np.where(q > 0, q, 1))).sum(axis=-1)
    return np.where(total[..., 0] > 0, entropy, np.nan)


def thresholds(
    p: xr.DataArray, selection: Selection | None = None, valid: xr.DataArray | None = None, **changes: Any
) -> xr.Dataset:
    """The thresholds of a selection's rule for these probabilities: three scalars, lazily.

    activity_threshold: a neuron is considered only if its highest P exceeds it.
    aape_threshold: the highest AAPE that is still selected, NaN if none is.
    probability_threshold: a selected neuron belongs to each category in which its P exceeds it.

    rule "lape": activity and probability threshold are the k-th smallest of all cells, k = round(0.95 cells);
    the round(percentile/100 neurons) lowest AAPE of the considered neurons are selected. "paper": activity is
    the 5th percentile over neurons of their highest P; AAPE the given percentile of the considered neurons'
    AAPE; probability the 95th percentile of the selected neurons' cells. round is Python's, percentiles
    interpolate.
    selection, changes: `percentile` and `rule` count, as in `thresholds(p, percentile=5)`; the reading is that of p.
    valid: bool (layer, neuron), False for neurons that do not exist. Saturation is judged in
    `class_specific`.
    """
    cells = existing(p, valid)
    return thresholds_of(cells, aape(cells), selection_of(selection, **changes))


def thresholds_of(cells: xr.DataArray, entropy: xr.DataArray, selection: Selection) -> xr.Dataset:
    """As `thresholds`, from P as of `existing` and its AAPE."""
    how = {"rule": selection.rule, "percentile": selection.percentile}
    lines = xr.apply_ufunc(
        _lines,
        cells,
        entropy,
        kwargs=how,
        input_core_dims=[list(CELL_DIMS), list(CELL_DIMS[:2])],
        output_core_dims=[[], [], []],
        dask="parallelized",
        dask_gufunc_kwargs=ONE_CHUNK,
        output_dtypes=[np.float64] * 3,
    )
    about = ("least highest probability", "highest AAPE selected", "least probability assigned")
    return xr.Dataset(
        {
            name: line.assign_attrs(long_name=long_name, units="nat" if name == "aape_threshold" else "1")
            for name, line, long_name in zip(THRESHOLDS, lines, about, strict=True)
        },
        attrs=how,
    )


def existing(p: xr.DataArray, valid: xr.DataArray | None) -> xr.DataArray:
    """P in float64, NaN for neurons that do not exist; one chunk, coordinates of its dimensions only."""
    p = p.reset_coords(drop=True).transpose(*CELL_DIMS).astype(np.float64)
    return in_one_chunk(p if valid is None else p.where(valid.reset_coords(drop=True)), CELL_DIMS)


def in_one_chunk(values: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """Values with a single chunk along these dimensions, if they have chunks."""
    return values if values.chunks is None else values.chunk(dict.fromkeys(dims, -1))


def highest(p: Floats) -> Floats:
    """Highest P of each neuron, -inf where it has no cell: (layer, neuron, category) -> (layer, neuron)."""
    result: Floats = np.where(np.isnan(p), -np.inf, p).max(axis=-1, initial=-np.inf)
    return result


def _lines(p: Floats, entropy: Floats, percentile: float, rule: str) -> tuple[Any, Any, Any]:
    cells = p[~np.isnan(p)]
    top = highest(p)
    exists = np.isfinite(top)
    if not cells.size:
        return np.float64(np.nan), np.float64(np.nan), np.float64(np.nan)
    if rule == "lape":
        k = max(1, round(cells.size * TOP_SHARE))
        activity = probability = np.partition(cells, k - 1)[k - 1]
        kept = np.sort(entropy[top > activity])[: round(np.count_nonzero(exists) * percentile / 100)]
        return activity, kept[-1] if kept.size else np.float64(np.nan), probability
    activity = np.percentile(top[exists], INACTIVE)
    kept = entropy[top > activity]
    line = np.percentile(kept, percentile) if kept.size else np.float64(np.nan)
    selected = p[(top > activity) & (entropy <= line)]
    selected = selected[~np.isnan(selected)]
    return activity, line, np.percentile(selected, 100 * TOP_SHARE) if selected.size else np.float64(np.nan)
