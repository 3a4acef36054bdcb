"""Conditions on clips: COLUMN=VALUE and COLUMN!=VALUE, by label columns.

Conventions: of one column, the values that are asked for are alternatives, and none of those that are excluded may be
had; columns combine by "and". A clip without a label in a column satisfies no condition on it.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..messages import quoted
from .selection.selection import condition_of


def clips_where(ds: xr.Dataset, conditions: Sequence[str]) -> NDArray[np.bool_]:
    """Which clips (clip) of a task satisfy all conditions; clips that do not count satisfy none.

    Raises LookupError for a column that does not exist, or a value that no clip has.
    """
    satisfied: NDArray[np.bool_] = ds.otoscope.counted.values
    by_column: dict[str, dict[bool, list[str]]] = {}
    for column, wanted, value in map(condition_of, conditions):
        by_column.setdefault(column, {True: [], False: []})[wanted].append(value)
    for column, values in by_column.items():
        found = ds.otoscope.label(column).values.astype(str)
        known = sorted({*found.tolist()} - {""})
        if unknown := [value for value in values[True] + values[False] if value not in known]:
            some = ", ".join(map(quoted, known[:10])) + (", ..." if len(known) > 10 else "")
            raise LookupError(f"no clip has {column} {quoted(unknown[0])}; expected one of {some or 'no values'}")
        satisfied = satisfied & (found != "") & ~np.isin(found, values[False])
        if values[True]:
            satisfied = satisfied & np.isin(found, values[True])
    return satisfied
