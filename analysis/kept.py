"""What a task keeps, by what it is needed for: means, bits and positive frames, and the threshold on the means.

Goal: an answer that needs what was not kept, or a dimension that was selected away, is an error with a remedy.
Conventions: `ds` is one task as the reader shows it. Lazy in, lazy out.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .own_thresholds import neuron_thresholds
from .selection.selection import Selection


def variable_of(ds: xr.Dataset, name: str, purpose: str) -> xr.DataArray:
    """A variable that is expected for some purpose.

    Raises LookupError where it was not kept, ValueError where a selection took one of its dimensions.
    """
    if name not in ds:
        remedy = f"extract with --keep {name}"
        if name == "positive_frames" and ds.attrs.get("rows") == "clip":
            remedy = "latents of whole clips have one value each; ask by the reading clip, with a threshold"
        raise LookupError(f"this task keeps no {name!r}, expected for {purpose}: {remedy}")
    found = ds[name]
    needed = ("layer", "neuron", "clip") if name in ("mean", "positive_frames") else ()
    if gone := [dim for dim in needed if dim not in found.dims]:
        raise ValueError(
            f"found dimensions {', '.join(map(str, found.dims))} of {name}; expected {gone[0]} for {purpose}: a "
            f"selection of one {gone[0]} keeps its dimension as {gone[0]}=[1]"
        )
    return found


def means_of(ds: xr.Dataset) -> xr.DataArray:
    """The means, for a threshold on them. Raises as `variable_of`."""
    return variable_of(ds, "mean", "a threshold on the mean")


def bits_of(ds: xr.Dataset) -> xr.DataArray:
    """The packed bits; the bools if neurons were selected, for bits cannot follow a selection."""
    bits = variable_of(ds, "active_bits", "activation probabilities")
    neurons = ds.indexes.get("neuron")
    whole = neurons is not None and np.array_equal(neurons, np.arange(bits.attrs["n_neurons"]))
    return bits if whole else variable_of(ds, "active", "activation probabilities")


def activity_of(ds: xr.Dataset, how: Selection) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Which neurons are active in which clips, packed where possible; or positive frames, and of how many."""
    if how.reading == "clip":
        return bits_of(ds), None
    purpose = f"the reading {how.reading!r}"
    positive = variable_of(ds, "positive_frames", purpose)
    frames = variable_of(ds, "frame_count", purpose) if how.reading == "frame" else None
    return (positive > 0 if frames is None else positive), frames


def line_of(ds: xr.Dataset, how: Selection, counted: NDArray[np.bool_]) -> float | xr.DataArray | None:
    """The threshold on the mean, a number or one per neuron; None where none counts, or the stored bit does.

    counted: bool (clip), the clips by which a threshold of the neuron's own is found.
    Raises ValueError for a threshold that is of other neurons.
    """
    threshold = how.line
    if isinstance(threshold, xr.DataArray):
        if "file" in threshold.attrs:
            from .threshold_files import fitted  # reads files, with all that this takes

            return fitted(threshold, ds)
        _check_threshold(ds, threshold)
        return threshold
    if isinstance(threshold, str):
        return neuron_thresholds(means_of(ds), counted, threshold)
    return threshold or None


def _check_threshold(ds: xr.Dataset, threshold: xr.DataArray) -> None:
    """Raise ValueError for others than one per neuron. A lazy one is not searched for NaN; nothing exceeds it."""
    neurons = ds["neuron_valid"] if "neuron_valid" in ds else variable_of(ds, "mean", "a threshold")
    like = {dim: neurons.sizes[dim] for dim in ("layer", "neuron") if dim in neurons.dims}
    found = f"{threshold.dtype} {dict(threshold.sizes)}"
    good = threshold.dtype.kind in "iuf" and threshold.sizes in ({}, like)
    named = [dim for dim in threshold.dims if dim in threshold.indexes and dim in neurons.indexes]
    if good and any(not threshold.indexes[dim].equals(neurons.indexes[dim]) for dim in named):
        good, found = False, f"{found} of other neurons than those of this data set"
    if good and threshold.chunks is None and bool(threshold.isnull().any()):
        valid = neurons.compute(scheduler="synchronous") if neurons.dtype == bool else True
        good, found = not bool((threshold.isnull() & valid).any()), "NaN for neurons that exist"
    if not good:
        raise ValueError(
            f"threshold is {' '.join(found.split())}; expected a number, or one per neuron of the data set as a "
            "DataArray (layer, neuron)"
        )
