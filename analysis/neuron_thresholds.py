"""Thresholds of the neuron's own."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray


def neuron_thresholds(mean: xr.DataArray, counted: NDArray[np.bool_], how: str) -> xr.DataArray:
    """Threshold of each neuron (layer, neuron) by the clips that count: "q80", or "z1.5"."""
    values = mean.isel(clip=np.flatnonzero(counted)).astype(np.float64)
    number = float(how[1:])
    if how[0] == "q":
        return values.compute().quantile(number / 100, "clip", method="lower").drop_vars("quantile")
    return values.mean("clip") + number * values.std("clip")
