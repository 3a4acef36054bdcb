"""Grounding as a table, a row per neuron, and such a table read back."""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its functions are not.)

from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from ...messages import one_line, quoted
from ...store.frames import ENDINGS, read_frame
from ..kinds import STATES

LETTERS = ("K", "J", "L", "M")
COLUMNS = (
    "gc", "gc_low", "gc_high", "state", "cut", "gc_aape", "d_A", "d_T", "s_A", "s_T", "s_AT", "p_A", "p_T", "p_AT", "q",
    "q_AT", "aape_excess_A", "aape_excess_T", "smallest_d_A", "smallest_d_T",
)  # fmt: skip
DRAWN = ("layer", "neuron", "state", "d_A", "d_T", *LETTERS)
"""Columns that a figure needs."""
REMEDY = "`otoscope grounding -o` makes one"


def grounding_table(found: xr.Dataset, valid: xr.DataArray | None = None) -> pd.DataFrame:
    """One row per neuron that exists: layer, (site,) neuron, the variables of `grounding`, and K, J, L, M.

    Computes, chunk by chunk, of which nothing but rows is kept. valid: bool (layer, neuron), False for neurons that do
    not exist.
    """
    numbers = {name: np.arange(found.sizes[name]) for name in ("layer", "neuron") if name not in found.coords}
    own = found[[name for name in COLUMNS if name in found]].transpose("layer", "neuron").assign_coords(numbers)
    own = own.drop_vars({*own.coords} - {"layer", "site", "neuron"})
    exists = np.ones((own.sizes["layer"], own.sizes["neuron"]), bool)
    if valid is not None:
        exists = valid.transpose("layer", "neuron").values
    ends = np.cumsum([0, *own.chunksizes.get("neuron", [own.sizes["neuron"]])]).tolist()
    parts = [(layer, slice(*part)) for layer in range(len(exists)) for part in pairwise(ends)]
    rows = dask.compute(
        *(delayed(_rows, pure=False)(own.isel(layer=layer, neuron=part), exists[layer, part]) for layer, part in parts)
    )
    columns = {name: np.concatenate([some.pop(name) for some in rows]) for name in list(rows[0])}
    return pd.DataFrame(columns | {letter: found.attrs[letter] for letter in LETTERS}, copy=False)


def _rows(part: xr.Dataset, exists: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Columns of some neurons of a layer; copies, so that what they were computed with can go."""
    columns: dict[str, NDArray[Any]] = {
        str(name): np.full(np.count_nonzero(exists), part[name].item())
        for name in ("layer", "site") if name in part.coords
    }  # fmt: skip
    return columns | {str(name): part[name].values[exists] for name in ("neuron", *part.data_vars)}


def read_grounding(path: str) -> pd.DataFrame:
    """A table of `grounding_table`, CSV or Parquet, with the columns that a figure needs.

    Raises FileNotFoundError where there is none, ValueError for one that is not such a table.
    """
    file = Path(path)
    if not file.is_file():
        what = "is not a regular file" if file.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; expected a table of grounding: {REMEDY}")
    try:
        if file.suffix.lower() not in ENDINGS:
            raise ValueError(f"its name ends in none of {', '.join(ENDINGS)}")
        table = read_frame(file)
        if lacking := [name for name in DRAWN if name not in table]:
            raise ValueError(f"it has no column {lacking[0]}")
        if not len(table):
            raise ValueError("it has no row")
        if unknown := sorted(set(map(str, table["state"].unique())) - set(STATES)):
            raise ValueError(f"it has a state {quoted(unknown[0])}")
        numbers = table[[name for name in DRAWN if name != "state"]].astype(np.float64)
        if not np.isfinite(numbers[["layer", "neuron", *LETTERS]]).all(axis=None) or (numbers < 0).any(axis=None):
            raise ValueError("it has negative numbers, or lacks some")
        return table.assign(**numbers)
    except (ValueError, TypeError, OSError, OverflowError) as error:  # also what pandas and pyarrow raise
        raise ValueError(
            f"{path} holds no grounding of neurons ({one_line(error)}); expected columns {', '.join(DRAWN)}: {REMEDY}"
        ) from error
