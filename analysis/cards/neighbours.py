"""From a neuron to others: the same one in other labellings, those active with it, the previous, next or a random one."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .card import Card
from .statistics import Floats, LabellingStatistics


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
    raise NotImplementedError


def active_with(statistics: LabellingStatistics, card: Card, k: int = 20) -> ActiveWith:
    """The k neurons that are active in the same clips as this one, by the stored bits (mean above 0) of both.

    Reads all bits once. Raises LookupError where no bits were kept, ValueError for k below 1.
    """
    raise NotImplementedError


def step_neuron(
    statistics: LabellingStatistics, layer: int, neuron: int, step: str, seed: int | None = None
) -> tuple[int, int] | None:
    """Another class-specific neuron, (layer number, neuron): the "previous" or "next" in order, or a "random" one.

    At an end it goes on at the other; None where there is no other. The neuron itself need not be class-specific.
    seed: of "random"; None draws anew. Raises ValueError for another step.
    """
    raise NotImplementedError
