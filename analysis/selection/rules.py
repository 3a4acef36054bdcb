"""Class-specific neurons: the selection in three steps, and what can be counted about it.

Goal: from activation probabilities to the neurons of each category, by the published LAPE arithmetic or by
the paper's words.
Conventions: probabilities (layer, neuron, category) in [0, 1], NaN for cells that do not exist; membership is
bool (layer, neuron, category). Float64, lazy in, lazy out. Ties at the cut go to the lowest (layer, neuron).
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .selection import Selection, published_selection
from .selectivity import CELL_DIMS, ONE_CHUNK, Floats, aape, existing

TOP_SHARE = 0.95  # share of cells (layer, neuron, category) that are not high; both rules
INACTIVE = 5.0  # percentile of neurons that fire too rarely to be judged; rule "paper"
THRESHOLDS = {
    "activity_threshold": "least highest probability",
    "aape_threshold": "highest AAPE selected",
    "probability_threshold": "least probability assigned",
}


def class_specific(
    p: xr.DataArray, selection: Selection | None = None, valid: xr.DataArray | None = None, **changes: Any
) -> xr.Dataset:
    """Which neurons are specific for which category: `member` bool (layer, neuron, category).

        class_specific(p, percentile=5)

    Three steps; the thresholds, whose definitions by rule are those of `thresholds`, come along as
    scalars: 1. consider neurons whose highest P exceeds `activity_threshold`; 2. select those of lowest AAPE:
    "lape" round(percentile/100 of all neurons) of them, ties to the lowest (layer,
       neuron); "paper" all up to `aape_threshold`;
    3. assign a selected neuron to every category in which its P exceeds `probability_threshold`.

    `selected` is a bool (layer, neuron). `saturated` is True where so many probabilities equal the highest
    one that nothing exceeds a threshold, as the readings "clip" and "any" can have it with ReLU encoders or
    few clips; `member` is then empty. `probability` (layer, neuron, category) is P, and `aape` (layer, neuron) is what
    `aape` makes of it.
    selection, changes: `percentile` and `rule` count; the reading is that of p.
    valid: bool (layer, neuron), False for neurons that do not exist.
    Raises ValueError for an unknown rule or a percentile outside 0 to 100, TypeError for what is not a field.

    LAPE: Tang et al. 2024, "Language-Specific Neurons: The Key to Multilingual Capabilities in LLMs".
    """
    how = published_selection(selection, **changes)
    cells = existing(p, valid)
    entropy = aape(cells)
    *lines, selected, member, saturated = xr.apply_ufunc(
        _select,
        cells,
        entropy,
        kwargs={"percentile": how.percentile, "rule": how.rule},
        input_core_dims=[list(CELL_DIMS), list(CELL_DIMS[:2])],
        output_core_dims=[[], [], [], list(CELL_DIMS[:2]), list(CELL_DIMS), []],
        dask="parallelized",
        dask_gufunc_kwargs=ONE_CHUNK,
        output_dtypes=[np.float64] * 3 + [bool] * 3,
    )
    result = {
        name: line.assign_attrs(long_name=long_name, units="nat" if name == "aape_threshold" else "1")
        for (name, long_name), line in zip(THRESHOLDS.items(), lines, strict=True)
    }
    result |= {
        "member": member.assign_attrs(long_name="class-specific"),
        "selected": selected.assign_attrs(long_name="selected by AAPE"),
        "saturated": saturated.assign_attrs(long_name="probabilities saturate"),
        "probability": cells.assign_attrs(p.attrs),
        "aape": entropy,
    }
    coords = {name: coord for name, coord in p.coords.items() if set(coord.dims) <= set(CELL_DIMS)}
    return xr.Dataset(result, coords, {"rule": how.rule, "percentile": how.percentile})


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
    `class_specific`, which computes these too.
    """
    return class_specific(p, selection, valid, **changes)[list(THRESHOLDS)].reset_coords(drop=True)


def _select(
    p: Floats, entropy: Floats, percentile: float, rule: str
) -> tuple[Any, Any, Any, NDArray[np.bool_], NDArray[np.bool_], np.bool_]:
    """The thresholds, selected (layer, neuron), member (layer, neuron, category), whether probabilities saturate."""
    top: Floats = np.where(np.isnan(p), -np.inf, p).max(axis=-1, initial=-np.inf)  # of neurons without a cell -inf
    activity, line, probability = _thresholds(p, entropy, top, percentile, rule)
    considered = top > activity
    selected = considered & (entropy <= line)  # NaN, which says nothing of selectivity, is never below
    if rule == "lape":
        # The threshold alone would admit all that tie at the cut: keep the first ones.
        n_selected = round(np.count_nonzero(np.isfinite(top)) * percentile / 100)
        first = np.argsort(np.where(selected, entropy, np.inf), axis=None, kind="stable")[:n_selected]
        selected = selected & np.isin(np.arange(selected.size), first).reshape(selected.shape)
    member = selected[..., None] & (p > probability)
    active = bool((top > 0).any())
    saturated = np.bool_(active and (not considered.any() or (selected.any() and not member.any())))
    return activity, line, probability, selected, member, saturated


def _thresholds(p: Floats, entropy: Floats, top: Floats, percentile: float, rule: str) -> tuple[Any, Any, Any]:
    cells = p[~np.isnan(p)]
    exists, known = np.isfinite(top), ~np.isnan(entropy)
    if not cells.size:
        return np.float64(np.nan), np.float64(np.nan), np.float64(np.nan)
    if rule == "lape":
        k = max(1, round(cells.size * TOP_SHARE))
        activity = probability = np.partition(cells, k - 1)[k - 1]
        kept = np.sort(entropy[(top > activity) & known])[: round(np.count_nonzero(exists) * percentile / 100)]
        return activity, kept[-1] if kept.size else np.float64(np.nan), probability
    activity = np.percentile(top[exists], INACTIVE)
    kept = entropy[(top > activity) & known]
    line = np.percentile(kept, percentile) if kept.size else np.float64(np.nan)
    selected = p[(top > activity) & (entropy <= line)]
    selected = selected[~np.isnan(selected)]
    return activity, line, np.percentile(selected, 100 * TOP_SHARE) if selected.size else np.float64(np.nan)


def coverage_ratio(member: xr.DataArray) -> xr.DataArray:
    """Class coverage ratio: the share of categories with at least one neuron, in [0, 1]."""
    covered = member.any(["layer", "neuron"]).mean("category")
    return covered.rename("coverage_ratio").assign_attrs(long_name="class coverage ratio", units="1")


def mean_class_specific(member: xr.DataArray) -> xr.DataArray:
    """Mean number of class-specific neurons over the categories, those without any included."""
    mean = member.sum(["layer", "neuron"]).mean("category")
    return mean.rename("neurons").assign_attrs(long_name="class-specific neurons per category", units="neurons")


def depth_histogram(member: xr.DataArray, by_category: bool = False) -> xr.DataArray:
    """Class-specific neurons in each layer: (layer), or (layer, category) with `by_category`.

    A neuron that is specific for several categories counts once in (layer), and once in each of its
    categories.
    """
    found = member if by_category else member.any("category")
    depth = found.sum("neuron").rename("neurons")
    return depth.assign_attrs(long_name="class-specific neurons", units="neurons")
