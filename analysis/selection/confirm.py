"""What was selected, on clips that did not select it; and how strong its effects are.

Conventions: a task as the reader shows it; selections are those of `class_specific`, computed. These functions compute.
"""

from dataclasses import replace

import numpy as np
import xarray as xr

from .. import accessor  # noqa: F401  registers ds.otoscope
from ..contrast.hold_up import effects, hold_up
from .selection import Selection, condition_of


def confirmed(ds: xr.Dataset, label: str, how: Selection, found: xr.Dataset) -> xr.Dataset:
    """As `hold_up`, on the clips that `how.confirm` names, and confirm_probability (layer, neuron, category).

    That is P of the selected neurons on these clips, by the thresholds that the selecting clips gave. Conditions of
    `how.where` on other columns than those of `how.confirm` hold for these clips too.
    Raises ValueError where these clips are of fewer than two categories, where a group has clips on both sides, and as
    `hold_up` does.
    """
    selecting, codes = ds.otoscope.codes(label, how), _confirming(ds, label, how)
    if how.group:
        group = ds.otoscope.label(how.group).values
        both = sorted({*group[selecting.values >= 0].tolist()} & {*group[codes.values >= 0].tolist()} - {""})
        if both:
            raise ValueError(
                f"{len(both)} groups of {how.group!r}, such as {both[0]!r}, have clips that select and clips that "
                "confirm; expected each on one side: confirm by other clips"
            )
    result = hold_up(ds["mean"], found, ds.otoscope.arrangement(label, how, codes), how)
    line = ds.otoscope.neuron_thresholds(label, how) if isinstance(how.line, str) else how.line
    here = ds.isel(clip=np.flatnonzero(codes.values >= 0))
    p = here.otoscope.probability(label, reading=how.reading, threshold=line)
    own = p.transpose("layer", "neuron", "category").reindex(category=found["category"].values).values
    return result.assign(confirm_probability=(found["member"].dims, np.where(found["member"], own, np.nan)))


def with_effects(ds: xr.Dataset, label: str, how: Selection, found: xr.Dataset) -> xr.Dataset:
    """A selection with the AUC of its neurons, auc, auc_low and auc_high, where clips and their means are there."""
    if "auc" in found or "mean" not in ds:
        return found
    return found.assign(effects(ds["mean"], found["member"], ds.otoscope.arrangement(label, how)).variables)


def confirming(how: Selection) -> tuple[str, ...]:
    """Conditions on the clips that confirm: those of `where` on other columns hold for them too."""
    columns = {condition_of(text)[0] for text in how.confirm}
    return (*how.confirm, *(text for text in how.where if condition_of(text)[0] not in columns))


def _confirming(ds: xr.Dataset, label: str, how: Selection) -> xr.DataArray:
    """Codes (clip) of the clips that confirm, among those of the categories that were selected for."""
    codes: xr.DataArray = ds.otoscope.codes(label, replace(how, where=confirming(how), confirm=()))
    names, selecting = codes.attrs["categories"], ds.otoscope.categories(label, how)
    kept = np.array([name in selecting for name in names], bool)
    here = [name for name in names if name in selecting]
    if len(here) < 2:
        raise ValueError(
            f"the clips with {' '.join(how.confirm)} that select nothing are of {len(here)} of {len(selecting)} "
            "categories; expected at least 2: confirm by other clips"
        )
    number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last one of clips without a code
    return codes.copy(data=number[codes.values]).assign_attrs(categories=here)
