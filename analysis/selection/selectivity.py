"""How selective a neuron is for one category.

Goal: one number per neuron from its activation probabilities.
Conventions: probabilities are (layer, neuron, category) in [0, 1]; NaN cells (a neuron that does not exist, a
category without clips) take part in nothing. Float64 throughout, lazy in, lazy out.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELL_DIMS = ("layer", "neuron", "category")
WEIGHTS = ("n_frames", "n_clips")  # coordinates (category): how much a category's P counts for the overall rate
ONE_CHUNK = {"allow_rechunk": False}  # chunks are joined beforehand; dask's own way fails without categories


def aape(p: xr.DataArray, normalised: bool = False) -> xr.DataArray:
    """Audio activation probability entropy: (layer, neuron, category) -> (layer, neuron), in nats.

        q_c = P_c / sum of P over categories,   AAPE = -sum of q_c ln q_c   (0 ln 0 = 0)

    Low is selective: 0 for a neuron that fires for one category only, ln(number of categories) for one that
    does not care; NaN for a neuron that never fires, or whose P is known for fewer than two categories. normalised:
    divided by ln(number of categories with P), so in [0, 1]. Neurons whose probabilities are permutations of each other
    come out exactly equal.
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
        entropy = share_of_highest(entropy, p)
    return entropy.rename("aape").assign_attrs(
        long_name="normalised AAPE" if normalised else "AAPE", units="1" if normalised else "nat"
    )


def share_of_highest(entropy: xr.DataArray, p: xr.DataArray) -> xr.DataArray:
    """AAPE / ln(number of categories with P), the highest that AAPE can be: (layer, neuron) in [0, 1].

    entropy: AAPE in nats (layer, neuron) of the probabilities p (layer, neuron, category).
    """
    known = p.notnull().sum("category")
    return entropy / np.log(known.where(known > 1))


def overall_rate(p: xr.DataArray) -> xr.DataArray:
    """How often a neuron is active, whatever the category: (layer, neuron, category) -> (layer, neuron), in [0, 1].

        rate = sum of w_c P_c / sum of w_c

    over the categories with P; w_c is the coordinate `n_frames` (category), which the reading "frame" has, else
    `n_clips`: so that this is the share of all their frames or clips. Probabilities that were made elsewhere have
    neither: then it is the mean over categories. NaN without P.
    """
    weights = next((p[name] for name in WEIGHTS if name in p.coords), xr.ones_like(p["category"], np.int64))
    rate: xr.DataArray = p.reset_coords(drop=True).weighted(weights.reset_coords(drop=True)).mean("category")
    return rate.rename("rate").assign_attrs(long_name="overall activation rate", units="1")


def median_of(values: xr.DataArray, which: xr.DataArray) -> float:
    """Median of the values where `which` is, both (layer, neuron), NaN left out; NaN where there are none."""
    found = values.transpose(*which.dims).values[which.values]
    return float(np.median(found[~np.isnan(found)])) if (~np.isnan(found)).any() else float("nan")


def entropy_of(p: Floats) -> Floats:
    """Entropy over the last axis, sorted first: the order of the categories must leave no rounding behind.

    NaN where all is 0, or fewer than two are known: of one category nobody can be selective.
    """
    several = np.count_nonzero(~np.isnan(p), axis=-1) > 1
    p = np.sort(np.nan_to_num(p.astype(np.float64)), axis=-1)
    total = p.sum(axis=-1, keepdims=True)
    q = p / np.where(total > 0, total, 1)
    entropy = 0.0 - (q * np.log(np.where(q > 0, q, 1))).sum(axis=-1)
    return np.where(several & (total[..., 0] > 0), entropy, np.nan)


def existing(p: xr.DataArray, valid: xr.DataArray | None) -> xr.DataArray:
    """P in float64, NaN for neurons that do not exist; one chunk, coordinates of its dimensions only."""
    p = p.reset_coords(drop=True).transpose(*CELL_DIMS).astype(np.float64)
    return in_one_chunk(p if valid is None else p.where(valid.reset_coords(drop=True)), CELL_DIMS)


def in_one_chunk(values: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """Values with a single chunk along these dimensions, if they have chunks."""
    return values if values.chunks is None else values.chunk(dict.fromkeys(dims, -1))
