"""The LAPE selection of one draw, in milliseconds, from counts of active clips.

Goal: what `class_specific` selects, to the last tie, hundreds of times a minute.
Conventions: arrays are (category, neuron) over the neurons that exist, in order of (layer, neuron), flat.
Contents: `Selected`, `select_counts`, `ratio_of`.

Where the time is saved: cells are ordered as small integers; entropies are looked up to 1e-6 nats, and computed
exactly (`aape`) only near the cut.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .selectivity import TOP_SHARE, aape

Floats = NDArray[np.floating]

MARGIN = 1e-6  # nats; more than float32 rounds entropies of up to 8 nats


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """Class-specific neurons of one draw."""

    aape: Floats
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


def select_counts(counts: NDArray[np.integer], n_clips: NDArray[np.integer], percentile: float) -> Selected:
    """Counts of active clips (category, neuron) of n_clips (category), all positive, to the neurons that LAPE selects.

    The same as `class_specific(counts / n_clips, percentile, "lape")`.
    """
    tables = [np.arange(n + 1) / n for n in n_clips]  # P of every count, by category
    levels = _levels(counts, tables)
    entropy = _approximate_aape(counts, tables)
    nothing = Selected(aape=entropy, neurons=np.zeros(0, np.intp), member=np.zeros((len(counts), 0), bool))
    if not levels.size:
        return nothing
    k = max(1, round(levels.size * TOP_SHARE))
    line = np.partition(levels, k - 1, axis=None)[k - 1]
    considered = np.flatnonzero((levels > line).any(axis=0))
    n_selected = min(round(entropy.size * percentile / 100), len(considered))
    if n_selected == 0:
        return nothing
    near = entropy[considered]
    cut = np.partition(near, n_selected - 1)[n_selected - 1]
    close = considered[near <= cut + 2 * MARGIN]
    shares = xr.DataArray(counts[:, close] / n_clips[:, None], dims=("category", "neuron"))
    first = np.argsort(aape(shares).values, kind="stable")[:n_selected]
    selected = np.sort(close[first])
    return Selected(aape=entropy, neurons=selected, member=levels[:, selected] > line)


def ratio_of(a: Selected, b: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Common neuron ratio (category, other category) with another membership (category, neuron), or with itself."""
    own = a.member.astype(np.float32)
    other = own if b is None else b[:, a.neurons].astype(np.float32)
    common = (own @ other.T).astype(np.float64)
    either = own.sum(axis=1)[:, None] + (own if b is None else b).sum(axis=1) - common
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
    information, one = np.zeros(counts.shape[1]), np.empty(counts.shape[1])
    alike, terms = _alike(tables), None
    total = counts.sum(axis=0) * tables[0][1] if alike else np.zeros(counts.shape[1])
    for count, table in zip(counts, tables, strict=True):
        if terms is None or not alike:
            terms = table * np.log(np.where(table > 0, table, 1))
        np.take(terms, count, out=one, mode="clip")  # faster than to raise
        information += one
        if not alike:
            total += table[1] * count
    sum_p = np.where(total > 0, total, 1)
    entropy = np.maximum(np.log(sum_p) - information / sum_p, 0)
    return np.where(total > 0, entropy, np.nan).astype(np.float32)


def _alike(tables: list[Floats]) -> bool:
    return len({len(table) for table in tables}) == 1
