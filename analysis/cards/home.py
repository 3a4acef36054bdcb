"""What a store holds: its tasks, how far they are, and per labelling what was found."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from .statistics import LabellingStatistics


@dataclass(frozen=True, kw_only=True)
class TaskOverview:
    """A task at a glance; reads no activations."""

    task: str
    encoder: str
    n_clips: int
    """Clips that were extracted."""
    failed: dict[str, int]
    """Failed clips by reason, most first."""
    n_pending: int
    labels: tuple[str, ...]
    """Labellings with at least two categories, groupings left out as everywhere; by name they can still be asked."""
    left_out: dict[str, str]
    """Label columns that are not among them, each with why."""
    n_layers: int
    n_neurons: int
    """Neurons that exist, of all layers."""
    remedy: str
    """What to do next where nothing can be shown: the command that goes on; "" where something can."""


def task_overview(ds: xr.Dataset, task: str) -> TaskOverview:
    """A task at a glance. ds: as `otoscope.open(url, failed="keep")` or `otoscope.open(url)` shows it.

    With failed clips hidden their reasons are not known: `failed` then counts them under "".
    """
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class SpecificCounts:
    """Class-specific neurons of a labelling."""

    layers: NDArray[np.int64]
    """Numbers (layer)."""
    by_layer: NDArray[np.int64]
    """Neurons that are specific for some category (layer)."""
    by_category: NDArray[np.int64]
    """Neurons specific for it (category)."""
    cells: NDArray[np.int64]
    """(layer, category)."""
    nothing: str
    """Why there are none, and the command to try; ""."""


def specific_counts(statistics: LabellingStatistics) -> SpecificCounts:
    """Class-specific neurons by layer and category."""
    raise NotImplementedError


def neurons_frame(statistics: LabellingStatistics, neurons: NDArray[np.int64] | None = None) -> pd.DataFrame:
    """A row per neuron: layer, neuron, aape, normalised, rank, rate, top (category of the highest P), p (that P),
    categories (those it is specific for, joined by "; ").

    neurons: rows (layer number, neuron), as of `find_neurons`; the class-specific ones by default. In their order.
    """
    raise NotImplementedError
