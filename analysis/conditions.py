"""Conditions on clips: COLUMN=VALUE and COLUMN!=VALUE, by label columns.

Conventions: of one column, the values that are asked for are alternatives, and none of those that are excluded may be
had; columns combine by "and". A clip without a label in a column satisfies no condition on it. How a condition is
written: `selection.condition_of`.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..messages import quoted, visible
from .selection.selection import condition_of


def clips_where(ds: xr.Dataset, conditions: Sequence[str]) -> NDArray[np.bool_]:
    """Which clips (clip) of a task satisfy all conditions; clips that do not count satisfy none. Read at once.

    Raises ValueError for a text that is no condition, LookupError for a column that does not exist, a value that no
    clip has, conditions that no clip satisfies, and any condition on probabilities made elsewhere, which have no clips.
    """
    if conditions and "clip" not in ds.dims:
        raise LookupError(
            f"probabilities made elsewhere have no clips to choose by {listed(conditions)}; expected a store "
            "extracted here: leave it out"
        )
    by_column: dict[str, dict[bool, set[str]]] = {}
    for column, wanted, value in map(condition_of, conditions):
        by_column.setdefault(column, {True: set(), False: set()})[wanted].add(value)
    satisfied: NDArray[np.bool_] = ds.otoscope.counted.values
    for column, values in by_column.items():
        codes = ds.otoscope.codes(column)
        known = codes.attrs["categories"]
        if unknown := sorted((values[True] | values[False]).difference(known)):
            some = ", ".join(map(quoted, known[:10])) + (", ..." if len(known) > 10 else "")
            raise LookupError(f"no clip has {column} {quoted(unknown[0])}; expected one of {some or 'no values'}")
        admitted = [name not in values[False] and name in (values[True] or {name}) for name in known]
        satisfied = satisfied & np.array([*admitted, False])[codes.values]  # -1, without a label, finds the last
    if conditions and not satisfied.any():
        raise LookupError(f"no clip has {listed(conditions)}; expected some: leave a condition out")
    return satisfied


def listed(conditions: Sequence[str]) -> str:
    """Conditions as messages name them: "split=train, speaker!=07"."""
    return ", ".join(map(visible, conditions))
