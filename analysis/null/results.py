"""The results of nulls and bootstraps as data sets with names, units and coordinates.

Conventions: statistics are arrays over the neurons that exist; here they get their place among all (layer, neuron).
Contents: `STATISTICS`, `PARTS`, `selection_found`, `variables`, `over_neurons`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..selection.from_counts import Selected
from .resampling import Sample

Values = dict[str, NDArray[Any]]
"""A statistic each, of one draw (cell...) or of all (draw, cell...)."""

STATISTICS = {
    "common_neuron_ratio": (("category", "other_category"), "common neuron ratio", "1"),
    "neurons": (("category",), "class-specific neurons", "neurons"),
    "coverage_ratio": ((), "class coverage ratio", "1"),
    "neurons_per_category": ((), "class-specific neurons per category", "neurons"),
    "aape": (("layer", "neuron"), "AAPE", "nat"),
}
PARTS = {
    "null_mean": "mean {} over shuffled labels",
    "null_sd": "standard deviation of the {} over shuffled labels",
    "p": "p of the {}",
    "p_corrected": "family-wise corrected p of the {}",
    "significant": "whether the {} exceeds the null",
    "sd": "standard deviation of the {} over draws",
    "bias": "bias of the {} over draws",
    "low": "lower end of the interval of the {}",
    "high": "upper end of the interval of the {}",
}


def selection_found(sample: Sample, other_categories: Sequence[str], chosen: Selected, found: Values) -> xr.Dataset:
    """What was selected, every statistic as found, and what was exchanged; a bool or number per cell."""
    member = over_neurons(sample, chosen.dense(sample.existing.size), False)
    selected = over_neurons(sample, np.isin(np.arange(sample.existing.size), chosen.neurons), False)
    result = xr.Dataset(
        {
            "member": member.assign_attrs(long_name="class-specific"),
            "selected": selected.assign_attrs(long_name="selected by AAPE"),
        }
    )
    for name, value in found.items():
        result = result.assign(variables(sample, name, {"": value}))
    n_clips = xr.Variable("category", sample.clips_per_category, {"long_name": "clips", "units": "clips"})
    return result.assign_coords(
        category=list(sample.categories), other_category=list(other_categories), n_clips=n_clips
    ).assign_attrs(
        balanced=int(sample.balanced), imbalance=sample.imbalance, units_exchanged=len(sample.first_and_unit[0])
    )


def variables(sample: Sample, name: str, parts: Values) -> dict[str, xr.DataArray]:
    """Parts (cell...) of a statistic as variables "statistic_part", with its dimensions."""
    dims, long_name, units = STATISTICS[name]
    made = {}
    for part, values in parts.items():
        if name == "aape":
            array = over_neurons(sample, values, False if values.dtype == bool else np.nan)
        else:
            array = xr.DataArray(values, dims=dims)
        about = {"long_name": PARTS[part].format(long_name) if part else long_name}
        if part not in ("p", "p_corrected", "significant"):
            about["units"] = units
        made[f"{name}_{part}" if part else name] = array.assign_attrs(about)
    return made


def over_neurons(sample: Sample, values: NDArray[Any], missing: Any) -> xr.DataArray:
    """Values (..., existing neuron) as (layer, neuron, ...), `missing` where no neuron is."""
    full = np.full((*values.shape[:-1], sample.neurons.size), missing, values.dtype)
    full[..., sample.neurons.values.ravel()] = values
    full = full.reshape(*values.shape[:-1], *sample.neurons.shape)
    dims = ("category", "layer", "neuron")[3 - full.ndim :]
    return xr.DataArray(full, sample.neurons.coords, dims=dims).transpose("layer", "neuron", ...)
