"""Whether a selection means anything; and if not, why, and what does.

Goal: an error that names its cause and a remedy that works: one that was tried on the same labelling.
Conventions: selections are those of `class_specific`, computed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from .. import accessor  # noqa: F401  registers ds.otoscope
from ..conditions import listed
from .rules import class_specific
from .selection import Selection, Threshold

QUANTILES = (0.8, 0.95)  # of the means of all categories: thresholds that are tried


class NothingSelected(ValueError):
    """Nothing can be selected from a labelling as it was asked; the message says why and what to do."""


def select(ds: xr.Dataset, label: str, how: Selection) -> xr.Dataset:
    """Class-specific neurons, computed, from the clips that a data set has, whatever `how.clips` says."""
    p = ds.otoscope.probability(label, how, clips="all").compute()
    return class_specific(p, how).compute()


def check_categories(categories: Sequence[str], name: str, how: Selection) -> None:
    """Raise NothingSelected for fewer than two categories with clips; name: of the labelling."""
    if len(categories) < 2:
        found = f"1 category with clips ({categories[0]!r})" if categories else "no category with clips"
        other = ", or other clips" if how.where else ""
        raise NothingSelected(
            f"{_with_clips(name, how)} has {found}; expected at least 2 to compare: use another label column{other}"
        )


def _with_clips(name: str, how: Selection) -> str:
    return f"{name} of the clips with {listed(how.where)}" if how.where else name


def check_selection(selection: xr.Dataset, name: str, how: Selection, remedy: Callable[[], str]) -> None:
    """Raise NothingSelected, with what to do about it, where a selection cannot mean anything.

    name: of the labelling, as in "cremad:gender". remedy: what to use instead where the probabilities are the cause, as
    of `remedy_for`; asked only then.
    """
    check_categories([str(c) for c in selection["category"].values], name, how)
    name = _with_clips(name, how)
    reading = selection["probability"].attrs.get("reading", "clip")
    by = f"by the reading {reading!r}{'' if how.threshold is None else f' and the threshold {_short(how.threshold)}'}"
    if bool(selection["saturated"]):
        raise NothingSelected(
            f"{name}: {by} {_saturation(selection)}, so that no neuron stands out; expected probabilities that differ: "
            f"{remedy()}"
        )
    if not bool((selection["probability"] > 0).any()):
        raise NothingSelected(f"{name}: {by} no neuron is active in any clip; expected some: {remedy()}")
    if (enough := _enough(selection)) > how.percentile:
        n_neurons = int(selection["probability"].notnull().any("category").sum())
        raise NothingSelected(
            f"{name}: no neuron is selected out of {n_neurons}; expected at least one at percentile "
            f"{how.percentile:g}: use --percentile {enough:g} or more"
        )


def _enough(selection: xr.Dataset) -> float:
    """The percentile of the selection, or if that is of no neuron at all the lowest one that is of one."""
    percentile: float = selection.attrs["percentile"]
    n_neurons = int(selection["probability"].notnull().any("category").sum())
    if selection.attrs["rule"] == "lape" and n_neurons and not round(n_neurons * percentile / 100):
        return math.ceil(1e4 / n_neurons) / 100
    return percentile


def _short(threshold: Threshold) -> str:
    return f"{threshold:g}" if isinstance(threshold, float) else "of each neuron"


def _saturation(selection: xr.Dataset) -> str:
    """What saturates, in words: the line that nothing exceeds is itself the highest probability."""
    if bool(selection["selected"].any()):
        which, highest = "more than 5 % of the selected neurons' probabilities equal", "probability_threshold"
    elif selection.attrs["rule"] == "paper":
        which, highest = "at least 95 % of the neurons reach in some category", "activity_threshold"
    else:
        which, highest = "more than 5 % of the activation probabilities equal", "activity_threshold"
    return f"{which} the highest one, {float(selection[highest]):.4g}"


def remedy_for(ds: xr.Dataset, label: str, how: Selection) -> str:
    """What to do so that something is selected from the same clips; options are tried before they are named."""
    if "clip" not in ds.dims:
        return "make them again by another reading, as `otoscope export --reading frame` does"
    for options, other in _others(ds, label, how):
        found = select(ds, label, other)
        if (enough := _enough(found)) > other.percentile:
            options = f"{options} --percentile {enough:g}"
            found = select(ds, label, replace(other, percentile=enough))
        if bool(found["selected"].any()) and not bool(found["saturated"]):
            return f"use {options}"
    kept = " and ".join(name for name in ("positive_frames", "mean") if name in ds) or "the bits alone"
    return f"use another label column, for no reading of what this task keeps ({kept}) tells these categories apart"


def _others(ds: xr.Dataset, label: str, how: Selection) -> Iterator[tuple[str, Selection]]:
    """Other selections and the options that make them: the kind of reading that was asked for comes first."""
    thresholds = _thresholds(ds, label, how)
    if how.threshold is not None:
        yield from thresholds
    if how.reading != "frame" and "positive_frames" in ds:
        without = "" if how.threshold is None else " without --threshold"
        yield f"--reading frame{without}", replace(how, reading="frame", threshold=None)
    yield from thresholds


def _thresholds(ds: xr.Dataset, label: str, how: Selection) -> Iterator[tuple[str, Selection]]:
    if "mean" in ds:
        reading = "" if how.reading == "clip" else "--reading clip "
        for line in np.nanquantile(ds.otoscope.category_mean(label, how, clips="all").values, QUANTILES):
            threshold = float(f"{line:.2g}")
            yield f"{reading}--threshold {threshold:g}", replace(how, reading="clip", threshold=threshold)
