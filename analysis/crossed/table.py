"""Grounding as a table, a row per neuron, and such a table read back."""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its functions are not.)

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import compute
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
    own = own.drop_vars({*own.coords} - {"layer", "site", "neuron"}).chunk(layer=1).unify_chunks()
    exists = np.ones((own.sizes["layer"], own.sizes["neuron"]), bool)
    if valid is not None:
        exists = valid.transpose("layer", "neuron").values
    # Not optimised, as those of one part would each be by itself, with all that comes before them.
    blocks = {str(name): of.data.to_delayed(optimize_graph=False) for name, of in own.data_vars.items()}
    about = {name: own[name].values for name in ("layer", "site") if name in own.coords}
    parts = list(pairwise(np.cumsum([0, *own.chunksizes["neuron"]]).tolist()))
    rows = compute(
        *(
            delayed(_rows, pure=False)(
                {name: of[layer, i] for name, of in blocks.items()}, exists[layer, first:last],
                own["neuron"].values[first:last], {name: of[layer] for name, of in about.items()},
            )
            for layer in range(len(exists)) for i, (first, last) in enumerate(parts)
        )
    )  # fmt: skip
    columns = {name: np.concatenate([some.pop(name) for some in rows]) for name in list(rows[0])}
    return pd.DataFrame(columns | {letter: found.attrs[letter] for letter in LETTERS}, copy=False)


def _rows(
    parts: Mapping[str, NDArray[Any]], exists: NDArray[np.bool_], neuron: NDArray[Any], layer: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Columns of some neurons of a layer; copies, so that what they were computed with can go."""
    columns = {name: np.full(np.count_nonzero(exists), value) for name, value in layer.items()}
    return columns | {"neuron": neuron[exists]} | {name: part[0, exists] for name, part in parts.items()}


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
