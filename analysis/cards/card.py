"""The card of one neuron: its statistics for one labelling, from its own means and bits.

Goal: what a reader of a card sees, with how sure it is, in a fraction of a second.
Conventions: positions of clips are along the data set's `clip`. Everything is computed at once; nothing is precomputed
in the store, which is read in chunks of 128 neurons.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import Bars, Floats
from .statistics import LabellingStatistics

BINS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Clips by their mean, with the lines that are drawn in it."""

    edges: Floats
    """Of the bins (bin + 1), the last one closed: numpy's histogram of the float64 values."""
    counts: NDArray[np.int64]
    """Clips (bin)."""
    zero: float
    """0, the line of the stored bit."""
    threshold: float
    """The threshold of the neuron that the selection uses; NaN where none counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """One neuron in one labelling."""

    layer: int
    neuron: int
    task: str
    label: str
    reading: str
    aape: float
    """In nats; NaN for a neuron that never fires."""
    normalised: float
    """AAPE / ln(categories), 0 to 1."""
    rank: int
    """Place by AAPE among `n_ranked` neurons, from 1, the most selective; 0 without an AAPE."""
    n_ranked: int
    rate: float
    """Share of the clips (by the reading "frame" of the frames) that count in which it is active."""
    threshold: float
    """What a mean must exceed; NaN where the stored bit, or frames, count."""
    state: str
    """"dead" where it is active in no clip that counts, "saturated" where in all (frames, by that reading), else ""."""
    categories: tuple[str, ...]
    specific: tuple[str, ...]
    """Those that the selection finds it specific for."""
    bars: Bars
    """P of each category, interval, and band of shuffled labels (category)."""
    n_clips: NDArray[np.int64]
    """Clips that count (category)."""
    mean: Floats
    """Mean activation (category)."""
    auc: Floats
    """AUC of each category against all others (category), by the means; NaN where there is nothing to compare."""
    auc_low: Floats
    auc_high: Floats
    """DeLong's 95 % interval, over groups where they move whole."""
    p_value: Floats | None
    """p of the rank tests (category), if the selection's rule is contrast; None where no test is at hand."""
    q_value: Floats | None
    histogram: Histogram
    values: NDArray[np.float32]
    """The neuron's mean of each clip (clip), also of clips that do not count."""
    active: NDArray[np.bool_]
    """Whether it is active in the clip, as P counts it (clip); by the reading "frame", in any frame."""
    codes: NDArray[np.int64]
    """Category of each clip (clip), -1 for one that does not count."""

    def __repr__(self) -> str:
        """A few lines for a notebook."""
        raise NotImplementedError


def neuron_card(statistics: LabellingStatistics, layer: int, neuron: int, *, bins: int = BINS) -> Card:
    """The card of a neuron: layer as a user numbers it, neuron from 0.

    Reads this neuron's means, and what else its reading counts, of all clips. Deterministic: the shuffled labels are
    drawn by the selection's seed.
    Raises LookupError for a neuron that does not exist, and for means or bits that were not kept.
    """
    raise NotImplementedError
