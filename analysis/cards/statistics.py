"""What the cards of a labelling have in common, computed once and kept in memory.

Goal: a card, a search and a list of neurons need nothing but this and the neuron's own means and bits.
Conventions: plain numpy arrays, by position: (layer, neuron, category), (clip). Clips are those of the data set, in its
order; those that do not count have code -1. Nothing here is lazy.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..null.resampling import Arrangement
from ..selection.selection import Selection

Floats = NDArray[np.float64]
Progress = Callable[[str], None]
"""Told what is computed next, in a few words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabellingStatistics:
    """Probabilities, AAPE and selection of all neurons for one labelling."""

    ds: xr.Dataset
    """The task, as the reader shows it: what a card reads its neuron from."""
    task: str
    label: str
    how: Selection
    codes: NDArray[np.int64]
    """Category of each clip (clip), -1 for one that does not count: failed, without a label, left out by `where`."""
    categories: tuple[str, ...]
    n_clips: NDArray[np.int64]
    """Clips that count (category)."""
    n_frames: NDArray[np.int64] | None
    """Their frames (category), by the reading "frame"; else None."""
    frames: NDArray[np.int64] | None
    """Frames of each clip (clip), by the reading "frame"; else None."""
    layers: NDArray[np.int64]
    """Number of each layer, as a user names it (layer): where a neuron of layer 4 is, is `layer_at(4)`."""
    exists: NDArray[np.bool_]
    """Whether there is such a neuron (layer, neuron): layers narrower than the widest are padded."""
    p: Floats
    """Activation probability in the reading asked (layer, neuron, category), NaN of neurons that do not exist."""
    aape: Floats
    """In nats (layer, neuron), NaN for a neuron that never fires."""
    normalised: Floats
    """AAPE / ln(categories) (layer, neuron)."""
    rank: NDArray[np.int64]
    """Place by AAPE from 1, the lowest (layer, neuron), ties by (layer, neuron); 0 where AAPE is NaN."""
    rate: Floats
    """Overall rate of activity (layer, neuron): share of the clips, or frames, that count."""
    threshold: Floats | float | None
    """What a mean must exceed: of each neuron (layer, neuron), one for all, or None where the stored bit, frames or
    `any` count."""
    member: NDArray[np.bool_]
    """Which neurons are class-specific for which category (layer, neuron, category)."""
    tests: dict[str, Floats] = field(default_factory=dict)
    """By the rule contrast z, auc, auc_low, auc_high, p, q, each (layer, neuron, category); else nothing."""
    arrangement: Arrangement
    """The clips that count, and which of them move as one (`group`) or within what (`within`)."""
    nothing: str = ""
    """Why no neuron is selected, and which command to try next; "" where some are."""
    notes: tuple[str, ...] = ()
    """What is to be said of the selection, a line each."""

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Clips that count (clip)."""
        return self.codes >= 0

    @property
    def n_ranked(self) -> int:
        """Neurons with an AAPE."""
        return int(self.rank.max(initial=0))

    @property
    def specific(self) -> NDArray[np.int64]:
        """The class-specific neurons, rows of (layer number, neuron), in this order."""
        return self.pairs(self.member.any(axis=2))

    def pairs(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Neurons where `which` (layer, neuron) is, as rows of (layer number, neuron): int64 (row, 2)."""
        at, neuron = np.nonzero(which)
        return np.stack([self.layers[at], neuron], axis=1)

    def layer_at(self, layer: int, neuron: int = 0) -> int:
        """Where a layer of this number is along `layer`, for a neuron that exists.

        Raises LookupError for a layer, or a neuron of it, that does not exist: also for one that pads a narrow layer.
        """
        raise NotImplementedError

    def category_at(self, name: str) -> int:
        """Where a category is along `category`. Raises LookupError naming those that exist."""
        raise NotImplementedError


def labelling_statistics(
    ds: xr.Dataset, label: str, how: Selection | None = None, *, task: str = "", progress: Progress | None = None
) -> LabellingStatistics:
    """Compute what the cards of a labelling have in common.

    ds: a task as `otoscope.open` shows it. how: the selection; by default `Selection()`, which takes rank tests of all
    neurons. `Selection(rule="lape")` goes by the stored bits: at 100,000 clips x 36,864 neurons under 2 s.
    A selection that selects nothing is no error: `nothing` then says why and what to try.
    Raises LookupError for an unknown label, for what the store does not keep, and for published probabilities;
    ValueError for fewer than two categories with clips, a task without clips, or one that is not finished.
    """
    raise NotImplementedError
