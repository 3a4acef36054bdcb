"""Files of thresholds, one per neuron: `otoscope table neuron-thresholds` writes them, `--threshold FILE` reads them.

Conventions: CSV or Parquet with the columns layer, neuron, threshold and encoder; a row for each neuron that exists.
`encoder` is the same in all rows, a digest of the identity and the sites: thresholds of one encoder's neurons mean
nothing for another's, nor those of means over other frames. Infinities are thresholds; NaN is none.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ..messages import one_line
from ..store.frames import MAX_CELLS, read_frame
from ..store.provenance import digest_of
from .kinds import THRESHOLD_ENDINGS

COLUMNS = ("layer", "neuron", "threshold", "encoder")
DIGEST = 16  # hexadecimal digits
REMEDY = "`otoscope table neuron-thresholds -o` makes one"


def encoder_digest(ds: xr.Dataset) -> str:
    """What tells the encoder of a data set from others: a digest of its task's identity and its sites."""
    sites = [str(site) for site in ds["site"].values] if "site" in ds.coords else None
    return digest_of({"identity": ds.attrs.get("identity"), "sites": sites})[:DIGEST]


def neuron_thresholds_table(thresholds: xr.DataArray, ds: xr.Dataset) -> pd.DataFrame:
    """One row per neuron of a data set that exists: layer, neuron, threshold, encoder. Computes."""
    table = thresholds.reset_coords(drop=True).transpose("layer", "neuron").to_dataframe("threshold").reset_index()
    if "neuron_valid" in ds:
        table = table[ds["neuron_valid"].transpose("layer", "neuron").values.ravel()].reset_index(drop=True)
    return table.assign(encoder=encoder_digest(ds))


def read_thresholds(path: str | os.PathLike[str]) -> xr.DataArray:
    """Thresholds of a file: float64 (layer, neuron), NaN where it has no row; attrs encoder and file.

    Raises FileNotFoundError where there is none, ValueError for one that is not such a table.
    """
    path = Path(path)
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; expected a table of thresholds: {REMEDY}")
    try:
        if path.suffix.lower() not in THRESHOLD_ENDINGS:
            raise ValueError(f"its name ends in none of {', '.join(THRESHOLD_ENDINGS)}")
        # A digest such as 12e4 is no number.
        return _thresholds(read_frame(path, dtype={"encoder": str}), path)
    except (ValueError, TypeError, OSError, OverflowError) as error:  # also what pandas and pyarrow raise
        raise ValueError(
            f"{path} holds no thresholds ({one_line(error)}); expected columns {', '.join(COLUMNS)}: {REMEDY}"
        ) from error


def _thresholds(frame: pd.DataFrame, path: Path) -> xr.DataArray:
    if missing := [name for name in COLUMNS if name not in frame]:
        raise ValueError(f"it has no column {missing[0]!r}")
    if not len(frame):
        raise ValueError("it has no row")
    for name in ("layer", "neuron"):
        if not pd.api.types.is_integer_dtype(frame[name]) or frame[name].isna().any() or (frame[name] < 0).any():
            raise ValueError(f"it has a {name} that is not a whole number from 0 on")
    if not pd.api.types.is_float_dtype(frame["threshold"]) and not pd.api.types.is_integer_dtype(frame["threshold"]):
        raise ValueError("it has a threshold that is not a number")
    if frame["threshold"].isna().any():
        layer, neuron = (int(frame[name][frame["threshold"].isna()].iloc[0]) for name in ("layer", "neuron"))
        raise ValueError(f"it has no threshold for layer {layer}, neuron {neuron}")
    if frame["encoder"].nunique(dropna=False) != 1:
        raise ValueError(f"it is of {frame['encoder'].nunique(dropna=False)} encoders")
    if frame.duplicated(["layer", "neuron"]).any():
        raise ValueError("it has several rows for one neuron")
    shape = int(frame["layer"].max()) + 1, int(frame["neuron"].max()) + 1
    if shape[0] * shape[1] > MAX_CELLS:
        raise ValueError(f"it has layer {shape[0] - 1} and neuron {shape[1] - 1}; expected up to {MAX_CELLS} neurons")
    values = np.full(shape, np.nan)
    values[frame["layer"].to_numpy(np.int64), frame["neuron"].to_numpy(np.int64)] = frame["threshold"].to_numpy(float)
    coords = {"layer": np.arange(shape[0]), "neuron": np.arange(shape[1])}
    attrs = {"encoder": str(frame["encoder"].iloc[0]), "file": path.name}
    return xr.DataArray(values, coords, ("layer", "neuron"), "threshold", attrs)


def fitted(thresholds: xr.DataArray, ds: xr.Dataset) -> xr.DataArray:
    """Thresholds of a file for the neurons of a data set, in their order.

    Raises ValueError for those of another encoder, and where some of the data set's neurons have none.
    """
    name, task = thresholds.attrs["file"], ds.attrs.get("task")
    if thresholds.attrs["encoder"] != encoder_digest(ds):
        raise ValueError(
            f"{name} has thresholds of another encoder than task {task} is of, with other weights, sites, frames or "
            f"precision; expected those of its own neurons: {REMEDY}"
        )
    neurons = {dim: ds[dim] for dim in ("layer", "neuron")}
    found = thresholds.reindex(neurons)
    exists = ds["neuron_valid"].transpose("layer", "neuron").values if "neuron_valid" in ds else True
    lacking = np.argwhere(np.isnan(found.values) & exists)
    if len(lacking):
        layer, neuron = (int(neurons[dim].values[at]) for dim, at in zip(neurons, lacking[0], strict=True))
        raise ValueError(
            f"{name} has no threshold for {len(lacking)} neurons of task {task}, the first in layer {layer}, neuron "
            f"{neuron}; expected one for each: {REMEDY}"
        )
    return found
