"""The page of one clip: which neurons are active in it, those that are rarest elsewhere first."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..kept import bits_of, means_of, variable_of
from .labelling import Floats, LabellingStatistics


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipNeurons:
    """Neurons of one layer that are active in a clip: rows by `share`, lowest first, ties by neuron."""

    layer: int
    """Its number."""
    neuron: NDArray[np.int64]
    """At most k (row)."""
    share: Floats
    """Share of the clips, by the reading "frame" of the frames, that count in which it is active (row)."""
    mean: NDArray[np.float32] | None
    """Mean in this clip (row); None where no means were kept."""
    specific: tuple[tuple[str, ...], ...]
    """Categories that each is specific for (row)."""
    n_active: int
    """Neurons of the layer that are active in the clip."""


def neurons_in_clip(statistics: LabellingStatistics, position: int, k: int = 20) -> tuple[ClipNeurons, ...]:
    """Of each layer the k neurons active in the clip that are active in the fewest others: one entry per layer.

    Active as the statistics count it: by bit, threshold, or (readings "frame" and "any") in any frame of the clip.
    position: along the data set's `clip`. Raises LookupError for a clip that does not exist, ValueError for k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected the number of neurons to show, at least 1")
    n_clips = statistics.ds.sizes["clip"]
    if not 0 <= position < n_clips:
        raise LookupError(f"no clip {position}; expected 0 to {n_clips - 1}")
    active, mean = _active_in(statistics, position), None
    if "mean" in statistics.ds:
        mean = _of_clip(statistics.ds["mean"], position)
    found = []
    for at, layer in enumerate(statistics.layers):
        neurons = np.flatnonzero(active[at] & statistics.exists[at])
        first = neurons[np.argsort(statistics.rate[at, neurons], kind="stable")[:k]]
        member = statistics.member[at, first]
        found.append(
            ClipNeurons(
                layer=int(layer),
                neuron=statistics.neurons[first],
                share=statistics.rate[at, first],
                mean=None if mean is None else mean[at, first].astype(np.float32),
                specific=tuple(tuple(statistics.categories[c] for c in np.flatnonzero(row)) for row in member),
                n_active=len(neurons),
            )
        )
    return tuple(found)


def _active_in(statistics: LabellingStatistics, position: int) -> NDArray[np.bool_]:
    """Which neurons are active in a clip (layer, neuron), as the statistics count it."""
    ds, reading = statistics.ds, statistics.how.reading
    if statistics.threshold is not None:
        return _of_clip(means_of(ds), position).astype(np.float64) > statistics.threshold
    if reading != "clip":
        return _of_clip(variable_of(ds, "positive_frames", f"the reading {reading!r}"), position) > 0
    bits_of(ds)  # says what was not kept
    return _of_clip(ds["active"], position).astype(bool)


def _of_clip(values: xr.DataArray, position: int) -> NDArray[Any]:
    """Values (layer, neuron) of one clip."""
    one = values.variable.isel(clip=position).transpose("layer", "neuron")
    found: NDArray[Any] = one.compute(scheduler="synchronous").values
    return found
