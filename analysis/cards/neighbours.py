"""From a neuron to others: itself in other labellings, those active with it, the previous, next or a random one.

Conventions: neurons by the numbers of layer and neuron, in this order. Computed at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..kept import bits_of
from ..rates import activation_counts
from .card import Card, bits_of_neuron
from .labelling import Floats, LabellingStatistics

STEPS = ("previous", "next", "random")


@dataclass(frozen=True, kw_only=True)
class ElsewhereRow:
    """A neuron in another labelling of its task."""

    task: str
    label: str
    aape: float
    normalised: float
    rank: int
    best: str
    """Category of its highest P; the first of those that tie, "" for a neuron that never fires."""
    best_p: float
    specific: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ActiveWith:
    """The neurons most often active together with one: rows by Jaccard, highest first, ties by (layer, neuron)."""

    layer: NDArray[np.int64]
    """Number of the layer (row)."""
    neuron: NDArray[np.int64]
    jaccard: Floats
    """Clips in which both are active over clips in which either is (row)."""
    expected: Floats
    """The same were they independent: a b / (N (a + b) - a b), of N clips a and b active (row)."""
    both: NDArray[np.int64]
    """Clips in which both are active (row)."""
    active: NDArray[np.int64]
    """Clips in which the other one is (row)."""
    own: int
    """Clips in which the neuron itself is active."""
    n_clips: int
    """Clips that count."""


def elsewhere(others: Iterable[LabellingStatistics], layer: int, neuron: int) -> list[ElsewhereRow]:
    """The same neuron in other labellings of the task, as their statistics have it.

    Raises LookupError for a neuron that does not exist.
    """
    rows = []
    for other in others:
        at = other.at(layer, neuron)
        p = np.nan_to_num(other.p[at], nan=-1)
        best = int(np.argmax(p))
        fires = p[best] > 0
        rows.append(
            ElsewhereRow(
                task=other.task,
                label=other.label,
                aape=float(other.aape[at]),
                normalised=float(other.normalised[at]),
                rank=int(other.rank[at]),
                best=other.categories[best] if fires else "",
                best_p=max(0.0, float(p[best])),
                specific=tuple(other.categories[c] for c in np.flatnonzero(other.member[at])),
            )
        )
    return rows


def active_with(statistics: LabellingStatistics, card: Card, k: int = 20) -> ActiveWith:
    """The k neurons that are active in the same clips as this one, by the stored bits (mean above 0) of both.

    card: of the neuron, by these statistics. Of the clips that count; reads all bits once. Neurons that are active in
    none with it are left out.
    Raises LookupError where no bits were kept, ValueError for k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected the number of neurons to show, at least 1")
    at, own = statistics.at(card.layer, card.neuron)
    bits = bits_of(statistics.ds)
    by_bits = statistics.how.reading == "clip" and statistics.threshold is None
    own_bits = card.active if by_bits else bits_of_neuron(statistics, at, own)
    codes = xr.DataArray(np.where(statistics.counted, own_bits, -1), dims="clip", attrs={"categories": ["off", "on"]})
    counts = activation_counts(bits, codes)
    off, both = counts.transpose("category", "layer", "neuron").values.astype(np.int64)
    active, n_own, n_clips = off + both, int((own_bits & statistics.counted).sum()), int(statistics.counted.sum())
    others = statistics.exists & (both > 0)
    others[at, own] = False
    rows = np.flatnonzero(others)
    a, shared = active.ravel()[rows], both.ravel()[rows]
    jaccard = shared / (n_own + a - shared)
    first = np.argsort(-jaccard, kind="stable")[:k]
    pairs = statistics.pairs(others)[first]
    return ActiveWith(
        layer=pairs[:, 0],
        neuron=pairs[:, 1],
        jaccard=jaccard[first],
        expected=n_own * a[first] / (n_clips * (n_own + a[first]) - n_own * a[first]),
        both=shared[first],
        active=a[first],
        own=n_own,
        n_clips=n_clips,
    )


def step_neuron(
    statistics: LabellingStatistics, layer: int, neuron: int, step: str, seed: int | None = None
) -> tuple[int, int] | None:
    """Another class-specific neuron, (layer number, neuron): the "previous" or "next" in order, or a "random" one.

    At an end it goes on at the other; None where there is no other. The neuron itself need not be class-specific.
    seed: of "random"; None draws anew. Raises ValueError for another step.
    """
    if step not in STEPS:
        raise ValueError(f"no step {step!r}; expected one of {', '.join(STEPS)}")
    pairs = statistics.specific
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]  # whatever order neurons were selected in
    pairs = pairs[(pairs[:, 0] != layer) | (pairs[:, 1] != neuron)]
    if not len(pairs):
        return None
    after = (pairs[:, 0] > layer) | ((pairs[:, 0] == layer) & (pairs[:, 1] > neuron))
    n_before = int(np.count_nonzero(~after))
    if step == "random":
        row = int(np.random.default_rng(seed).integers(len(pairs)))
    else:
        row = (n_before if step == "next" else n_before - 1) % len(pairs)
    return int(pairs[row, 0]), int(pairs[row, 1])
