"""The page of one clip: which neurons are active in it, those that are rarest elsewhere first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .statistics import Floats, LabellingStatistics


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipNeurons:
    """Neurons of one layer that are active in a clip: rows by `share`, lowest first, ties by neuron."""

    layer: int
    """Its number."""
    neuron: NDArray[np.int64]
    """At most k (row)."""
    share: Floats
    """Share of the clips that count in which it is active (row): `rate` of the statistics."""
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
    raise NotImplementedError
