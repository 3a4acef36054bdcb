"""The selection of one draw, in milliseconds, from counts of active clips or positive frames.

Goal: what `class_specific` selects, to the last tie, hundreds of times a minute.
Conventions: arrays are (category, neuron) over the neurons that exist, in order of (layer, neuron), flat.

Where the time is saved: cells are ordered as small integers; entropies are looked up to 1e-6 nats, and computed
exactly (`entropy_of`) only near the cut.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adders import compiled
from .rules import INACTIVE, TOP_SHARE
from .selection import PERCENTILE, Selection
from .selectivity import entropy_of

Floats = NDArray[np.float64]

MARGIN = 1e-6  # nats; more than float32 rounds entropies of up to 8 nats
MAX_LEVELS = 1 << 18  # different probabilities up to which a table of them pays; frames soon make more


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """Class-specific neurons of one draw."""

    aape: NDArray[np.float32]
    """To 1e-6 nats, float32 (neuron); NaN for a neuron that never fires."""
    neurons: NDArray[np.intp]
    """The selected ones, ascending (selected)."""
    member: NDArray[np.bool_]
    """(category, selected)."""

    def dense(self, n_neurons: int) -> NDArray[np.bool_]:
        """(category, neuron)."""
        full = np.zeros((len(self.member), n_neurons), bool)
        full[:, self.neurons] = self.member
        return full


def select_counts(counts: NDArray[np.integer], of: NDArray[np.integer], selection: Selection) -> Selected:
    """Counts (category, neuron) of `of` (category) clips or frames, all positive, to the neurons that a rule selects.

    The same as `class_specific(counts / of, selection)`. Raises ValueError for fewer than two categories.
    """
    if len(of) < 2:
        raise ValueError(f"found {len(of)} categories; expected at least two to compare")
    rule, percentile = selection.rule, selection.percentile or PERCENTILE
    plain = rule == "paper" or _many(of)
    levels: NDArray[Any] = counts / of[:, None] if plain else _levels(counts, _tables(of))
    entropy = _aape(levels) if plain else aape_of_counts(counts, of)
    if rule == "paper":
        neurons, member = _by_paper(levels, percentile)
    else:
        neurons, member = _by_lape(levels, entropy, counts, of, percentile)
    return Selected(aape=entropy, neurons=neurons, member=member)


def aape_of_counts(counts: NDArray[np.integer], of: NDArray[np.integer]) -> NDArray[np.float32]:
    """AAPE (neuron) of counts (category, neuron) of `of` (category), all positive: to 1e-6 nats."""
    return _aape(counts / of[:, None]) if _many(of) else _approximate_aape(counts, _tables(of))


def _many(of: NDArray[np.integer]) -> bool:
    return bool(of.sum() > MAX_LEVELS)


def _tables(of: NDArray[np.integer]) -> list[Floats]:
    """P of every count, by category."""
    return [np.arange(n + 1) / n for n in of]


def _by_lape(
    levels: NDArray[Any],
    entropy: NDArray[np.float32],
    counts: NDArray[np.integer],
    of: NDArray[np.integer],
    percentile: float,
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Selected neurons (ascending) and memberships (category, selected); levels are in the order of P."""
    nothing = np.zeros(0, np.intp), np.zeros((len(counts), 0), bool)
    if not levels.size:
        return nothing
    k = max(1, round(levels.size * TOP_SHARE))
    line = np.partition(levels, k - 1, axis=None)[k - 1]
    considered = np.flatnonzero(levels.max(axis=0) > line)
    n_selected = min(round(entropy.size * percentile / 100), len(considered))
    if n_selected == 0:
        return nothing
    near = entropy[considered]
    cut = np.partition(near, n_selected - 1)[n_selected - 1]
    close = considered[near <= cut + 2 * MARGIN]
    exact = entropy_of((counts[:, close] / of[:, None]).T)
    first = np.argsort(exact, kind="stable")[:n_selected]
    selected = np.sort(close[first])
    return selected, levels[:, selected] > line


def _by_paper(p: Floats, percentile: float) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """As `_by_lape`, but from the probabilities themselves, because this rule's thresholds lie between them."""
    top = p.max(axis=0, initial=0)
    considered = np.flatnonzero(top > np.percentile(top, INACTIVE)) if top.size else np.zeros(0, np.intp)
    if not considered.size:
        return considered, np.zeros((len(p), 0), bool)
    exact = entropy_of(p[:, considered].T)
    selected = considered[exact <= np.percentile(exact, percentile)]
    return selected, p[:, selected] > np.percentile(p[:, selected], 100 * TOP_SHARE)


def _aape(p: Floats) -> NDArray[np.float32]:
    """(category, neuron) -> (neuron), as `_approximate_aape` does it, without tables."""
    return _entropy((p * np.log(np.where(p > 0, p, 1))).sum(axis=0), p.sum(axis=0))


def _entropy(information: Floats, total: Floats) -> NDArray[np.float32]:
    """ln S - (sum of P ln P) / S (neuron), NaN where S, the sum of P, is 0; of two categories or more."""
    sum_p = np.where(total > 0, total, 1)
    entropy = np.maximum(np.log(sum_p) - information / sum_p, 0)
    return np.where(total > 0, entropy, np.nan).astype(np.float32)


def ratio_of(a: Selected, b: Selected | None = None) -> NDArray[np.float64]:
    """Common neuron ratio (category, other category) with another selection, or with itself."""
    b = a if b is None else b
    _, in_a, in_b = np.intersect1d(a.neurons, b.neurons, assume_unique=True, return_indices=True)
    common = (a.member[:, in_a].astype(np.float32) @ b.member[:, in_b].astype(np.float32).T).astype(np.float64)
    either = a.member.sum(axis=1)[:, None] + b.member.sum(axis=1) - common
    ratio: NDArray[np.float64] = np.divide(common, either, out=np.full(common.shape, np.nan), where=either > 0)
    return ratio


def _levels(counts: NDArray[np.integer], tables: list[Floats]) -> NDArray[np.unsignedinteger]:
    """Small integers (category, neuron) in the order of the probabilities, equal where these are equal."""
    values = tables[0] if _alike(tables) else np.unique(np.concatenate(tables))
    dtype = np.uint16 if len(values) <= 2**16 else np.uint32
    if _alike(tables):
        return counts.astype(dtype)
    levels = np.empty(counts.shape, dtype)
    for level, count, table in zip(levels, counts, tables, strict=True):
        np.take(np.searchsorted(values, table).astype(dtype), count, out=level, mode="clip")
    return levels


def _approximate_aape(counts: NDArray[np.integer], tables: list[Floats]) -> NDArray[np.float32]:
    """ln S - (sum of P ln P) / S with S the sum of P: (category, neuron) -> (neuron).

    Sums in float64, given as float32: then, but for one case in millions, the order of the categories leaves no
    trace, and neurons whose probabilities are permutations of each other come out equal here too, as ties must.
    """
    terms = np.zeros((len(tables), max(map(len, tables))))
    for row, table in zip(terms, tables, strict=True):
        row[: len(table)] = table * np.log(np.where(table > 0, table, 1))
    shares = np.array([table[1] for table in tables])
    information, total = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    _add_terms(np.ascontiguousarray(counts, dtype=np.int32), terms, shares, information, total)
    return _entropy(information, total)


@compiled
def _add_terms(counts: Any, terms: Any, shares: Any, information: Any, total: Any) -> None:
    """information (neuron) += terms (category, count) at the counts (category, neuron); total += counts * shares."""
    n_neurons, tile = counts.shape[1], 2048  # so many sums stay in a core's nearest cache
    for first in range(0, n_neurons, tile):
        last = min(first + tile, n_neurons)
        informed, summed = information[first:last], total[first:last]
        for category in range(len(counts)):
            row, term, share = counts[category][first:last], terms[category], shares[category]
            for neuron in range(last - first):
                informed[neuron] += term[np.uint32(row[neuron])]  # unsigned: no looking from the end
                summed[neuron] += row[neuron] * share


def _alike(tables: list[Floats]) -> bool:
    return len({len(table) for table in tables}) == 1
