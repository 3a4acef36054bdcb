"""Ranks of the clips by a neuron's means, and their sums per category under any number of labellings.

Goal: a thousand shuffles of the labels in the time that it takes to read the ranks a few times.
Conventions: ranks are midranks times two, whole numbers from 2 to 2n, so that ties stay exact; arrays of them are
(clip, neuron) of at most `TILE` neurons, a cache line a clip where they are uint16. A labelling is an `order` (clip) of
the clips by category, those of category c from edges[c] to edges[c + 1].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...store.selected import selected_by
from ..adders import compiled, widened

TILE = 32  # neurons: ranks of 16,000 clips then stay in a core's cache, whatever the order they are added up in
COLUMN = 128  # neurons read at once, as they lie together in a store
COLUMN_BYTES = 64 << 20  # or fewer, of many clips
NARROW = 32_767  # clips up to which doubled ranks fit 16 bits, and the sum of any of them 32

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """Ranks of some neurons of one layer."""

    layer: int
    neurons: slice
    values: NDArray[Any]
    """Means (neuron, clip)."""
    ranks: NDArray[np.unsignedinteger]
    """Doubled midranks (clip, neuron)."""
    order: NDArray[np.uint32]
    """Clips by ascending mean (neuron, clip)."""
    spread: Floats
    """1 - T / (n^3 - n) (neuron), T the sum of t^3 - t over groups of t tied clips; 0 where all are tied, NaN where
    some mean is."""


def columns_of(mean: xr.DataArray, clips: NDArray[np.intp]) -> Iterator[tuple[int, slice]]:
    """Layers and ranges of neurons (layer, neuron, clip) to be read one after the other."""
    width = max(1, min(COLUMN, COLUMN_BYTES // max(1, 4 * len(clips))))
    for layer in range(mean.sizes["layer"]):
        for first in range(0, mean.sizes["neuron"], width):
            yield layer, slice(first, min(first + width, mean.sizes["neuron"]))


def read_means(
    mean: xr.DataArray, layer: int, neurons: slice | NDArray[np.intp], clips: NDArray[np.intp]
) -> NDArray[Any]:
    """Means (clip, neuron) of these clips, of some neurons of a layer."""
    stored = selected_by(mean.transpose("layer", "neuron", "clip").data, ("layer", "neuron", "clip"))
    if stored is not None:
        found = stored.part(layer=slice(layer, layer + 1), neuron=neurons, clip=clips).read()[0]
        values: NDArray[Any] = widened(found) if found.dtype == np.float16 else found
    else:
        part = mean.variable.isel(layer=layer, neuron=neurons).transpose("clip", "neuron")
        values = part.compute(scheduler="synchronous").values
        values = values if len(clips) == len(values) else values[clips]
    return values if values.itemsize > 4 else values.astype(np.float32, copy=False)  # exact, and machine code knows it


def rank(values: NDArray[Any], layer: int, neurons: slice) -> Iterator[Ranked]:
    """Ranks of means (clip, neuron), `TILE` neurons at a time."""
    n = len(values)
    for first in range(0, values.shape[1], TILE):
        part = np.ascontiguousarray(values[:, first : first + TILE].T)
        order = np.argsort(part, axis=1, kind="stable").astype(np.uint32) if part.itemsize > 4 else _sorted(part)
        ranks = np.empty((n, len(part)), np.uint16 if n <= NARROW else np.uint32)
        spread = np.empty(len(part))
        _rank(part, order, ranks, spread)
        own = slice(neurons.start + first, neurons.start + first + len(part))
        yield Ranked(layer=layer, neurons=own, values=part, ranks=ranks, order=order, spread=spread)


def _sorted(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Positions by ascending value (neuron, clip), NaN last: sorted as whole numbers of value and position."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(values.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    return keys.astype(np.uint32)  # the low half


@compiled
def _rank(values: Any, order: Any, ranks: Any, spread: Any) -> None:
    """Doubled midranks (clip, neuron) of values (neuron, clip), whose positions are in order, and their spread."""
    n = values.shape[1]
    for neuron in range(len(values)):
        row, sorted_clips = values[neuron], order[neuron]
        tied = 0.0
        unknown = False
        first = 0
        while first < n:
            last = first + 1
            value = row[sorted_clips[first]]
            unknown |= value != value
            while last < n and row[sorted_clips[last]] == value:
                last += 1
            for i in range(first, last):
                ranks[sorted_clips[i], neuron] = first + last + 1
            same = float(last - first)
            tied += same * same * same - same
            first = last
        whole = float(n) * n * n - n
        spread[neuron] = np.nan if unknown else (1 - tied / whole if whole > 0 else 0.0)


@compiled
def rank_sums(ranks: Any, orders: Any, edges: Any, sums: Any) -> None:
    """Sums (draw, category, neuron) of ranks (clip, neuron) by orders (draw, clip) and edges (draw, category + 1).

    Four clips at a time, so that as many are on their way from the cache.
    """
    n_neurons = ranks.shape[1]
    for draw in range(len(orders)):
        order = orders[draw]
        for category in range(edges.shape[1] - 1):
            total = sums[draw, category]
            total[:] = 0
            i, stop = edges[draw, category], edges[draw, category + 1]
            while i + 4 <= stop:
                a, b, c, d = ranks[order[i]], ranks[order[i + 1]], ranks[order[i + 2]], ranks[order[i + 3]]
                for k in range(n_neurons):
                    total[k] += (np.uint64(a[k]) + b[k]) + (np.uint64(c[k]) + d[k])
                i += 4
            while i < stop:
                a = ranks[order[i]]
                for k in range(n_neurons):
                    total[k] += a[k]
                i += 1


def by_category(codes: Codes, n_categories: int) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    """Order and edges of a labelling, codes (clip) from 0."""
    order = np.argsort(codes.astype(np.min_scalar_type(n_categories)), kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=n_categories))])
    return order.astype(np.uint16 if len(codes) <= 1 << 16 else np.uint32), edges


def z_of(sums: NDArray[Any], of: NDArray[np.integer], spread: Floats) -> Floats:
    """Tie-corrected z (..., category, neuron) of doubled rank sums, `of` clips (..., category); NaN where none varies.

    z = (R - n_c (n + 1) / 2) / sqrt(n_c (n - n_c) (n + 1) / 12 (1 - T / (n^3 - n)))
    """
    n_in = of[..., None].astype(np.float64)
    n = n_in.sum(axis=-2, keepdims=True)
    variance = n_in * (n - n_in) * (n + 1) / 12 * spread
    excess = (sums.astype(np.float64) - n_in * (n + 1)) / 2
    z: Floats = np.divide(excess, np.sqrt(variance), out=np.full(excess.shape, np.nan), where=variance > 0)
    return z


def auc_of(sums: NDArray[Any], of: NDArray[np.integer]) -> Floats:
    """AUC (..., category, neuron) of doubled rank sums: the chance that a clip of the category has the higher mean.

    AUC = (R - n_c (n_c + 1) / 2) / (n_c (n - n_c)),   ties count half
    """
    n_in = of[..., None].astype(np.float64)
    pairs = n_in * (n_in.sum(axis=-2, keepdims=True) - n_in)
    above = (sums.astype(np.float64) - n_in * (n_in + 1)) / 2
    auc: Floats = np.divide(above, pairs, out=np.full(above.shape, np.nan), where=pairs > 0)
    return auc
