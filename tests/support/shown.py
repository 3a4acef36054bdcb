"""What a reader shows of a store, clip by clip, to be compared with what it should show."""

import numpy as np
import xarray as xr

from otoscope.store.reader import open_store

REFUSALS = (ValueError, OSError, LookupError)


Shown = dict[str, dict[str, dict[str, bytes]]]


def shown(url: str) -> Shown:
    """By task, clip and variable, all that the reader shows of the clip; read whole. Raises as the reader does."""
    return rows_of(open_store(url, failed="keep"))


def rows_of(tree: xr.DataTree) -> Shown:
    """The same of a store that was opened before."""
    found = {}
    for task, node in tree.children.items():
        ds = node.to_dataset().compute()
        rows = {
            str(name): _rows(v.transpose("clip", ...).values) for name, v in ds.variables.items() if "clip" in v.dims
        }
        names = map(str, ds["clip"].values)
        found[task] = {
            name: dict(zip(rows, row, strict=True)) for name, *row in zip(names, *rows.values(), strict=True)
        }
    return found


def _rows(values: np.ndarray) -> list[bytes]:
    return [repr(row).encode() if values.dtype.kind in "OT" else row.tobytes() for row in values]
