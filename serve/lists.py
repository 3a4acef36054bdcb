"""Lists of neurons: of a labelling, of a search, behind a cell of the overlap map; plain dataclasses, as in `views`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..analysis.cards.home import SpecificCounts, neurons_frame, specific_counts
from ..analysis.cards.labelling_statistics import LabellingStatistics
from ..analysis.overlap import OverlapMap, overlap_cell, overlap_map
from ..analysis.search import find_neurons
from .addresses import Scope
from .explorer import Explorer

PAGE_ROWS = 100
SORTS = {"layer": "layer", "neuron": "neuron", "aape": "AAPE", "rate": "rate", "p": "P"}


@dataclass(frozen=True, kw_only=True)
class FoundNeuron:
    """A neuron in a list."""

    layer: int
    neuron: int
    href: str
    aape: float
    normalised: float
    rank: int
    rate: float
    top: str
    p: float
    categories: str


@dataclass(frozen=True, kw_only=True)
class LabellingView:
    """The first page of a labelling: its class-specific neurons, or those that a search found."""

    scope: Scope
    statistics: LabellingStatistics
    counts: SpecificCounts
    find: str
    problem: str
    caret: str
    sort: str
    down: bool
    total: int
    page: int
    pages: int
    rows: tuple[FoundNeuron, ...]


@dataclass(frozen=True, kw_only=True)
class OverlapView:
    """Neurons in common of two labellings, and those behind one cell."""

    scope: Scope
    other: Scope
    choices: tuple[Scope, ...]
    """Labellings that it can be compared with."""
    map: OverlapMap
    cell: tuple[str, str] | None
    parts: tuple[tuple[str, tuple[FoundNeuron, ...], int], ...]
    """Of the cell: heading, the first neurons, how many there are."""


def overlap_view(
    explorer: Explorer, scope: Scope, statistics: LabellingStatistics, other: LabellingStatistics,
    cell: tuple[str, str] | None,
) -> OverlapView:  # fmt: skip
    """The overlap of two labellings. Raises LookupError for a category that does not exist, ValueError as `overlap_map`
    where their neurons are not the same.
    """
    a, b = members(statistics), members(other)
    itself = (other.task, other.label) == (statistics.task, statistics.label)
    parts = []
    if cell is not None:
        found = overlap_cell(a, cell[0], b, cell[1])
        headings = ("In both", f"Only in {cell[0]}", f"Only in {cell[1]}")
        for heading, which in zip(headings, (found.shared, found.only_first, found.only_second), strict=True):
            pairs = statistics.pairs(np.asarray(which))
            parts.append((heading, found_neurons(scope, statistics, pairs[:PAGE_ROWS]), len(pairs)))
    own = explorer.record(scope.task).identity
    choices = [
        scope.other(task, label)
        for task in explorer.offer.labels
        if explorer.record(task).identity == own
        for label in explorer.overview(task).labels
    ]
    return OverlapView(
        scope=scope, other=scope.other(other.task, other.label), choices=tuple(choices),
        map=overlap_map(a, None if itself else b), cell=cell, parts=tuple(parts),
    )  # fmt: skip


def members(statistics: LabellingStatistics) -> xr.DataArray:
    """Membership of neurons, bool (layer, neuron, category), with names."""
    return xr.DataArray(
        statistics.member, dims=("layer", "neuron", "category"),
        coords={"layer": statistics.layers, "category": np.array(statistics.categories, object)},
    )  # fmt: skip


def found_neurons(scope: Scope, statistics: LabellingStatistics, pairs: NDArray[np.int64]) -> tuple[FoundNeuron, ...]:
    """Neurons (row, 2) as a list shows them."""
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()}
        for row in neurons_frame(statistics, pairs).to_dict(orient="records")
    ]
    return tuple(FoundNeuron(**row, href=scope.neuron(row["layer"], row["neuron"])) for row in rows)


def labelling_view(
    scope: Scope, statistics: LabellingStatistics, *, find: str = "", sort: str = "aape", down: bool = False,
    page: int = 1,
) -> LabellingView:  # fmt: skip
    """The neurons of a labelling, or those that a search finds. Raises ValueError for an unknown column or page."""
    if sort not in SORTS:
        raise ValueError(f"no column {sort!r}; expected one of {', '.join(SORTS)}")
    problem = caret = ""
    pairs: NDArray[np.int64] = np.empty((0, 2), np.int64)
    try:
        pairs = find_neurons(statistics, find) if find.strip() else statistics.specific
    except ValueError as error:
        problem, caret = str(error), str(getattr(error, "caret", ""))
    pairs = sorted_pairs(statistics, pairs, sort, down)
    pages = max(1, -(-len(pairs) // PAGE_ROWS))
    if not 1 <= page <= pages:
        raise ValueError(f"no page {page}; expected 1 to {pages}")
    rows = found_neurons(scope, statistics, pairs[(page - 1) * PAGE_ROWS : page * PAGE_ROWS])
    return LabellingView(
        scope=scope, statistics=statistics, counts=specific_counts(statistics), find=find, problem=problem, caret=caret,
        sort=sort, down=down, total=len(pairs), page=page, pages=pages, rows=rows,
    )  # fmt: skip


def sorted_pairs(statistics: LabellingStatistics, pairs: NDArray[np.int64], sort: str, down: bool) -> NDArray[np.int64]:
    """Neurons (row, 2) by a column, NaN last, equal ones by (layer, neuron)."""
    if not len(pairs):
        return pairs
    at = np.searchsorted(statistics.layers, pairs[:, 0]), pairs[:, 1]
    p = np.nan_to_num(statistics.p[at], nan=-1).max(axis=1)
    by: dict[str, NDArray[Any]] = {
        "layer": pairs[:, 0], "neuron": pairs[:, 1], "aape": statistics.aape[at], "rate": statistics.rate[at], "p": p,
    }  # fmt: skip
    key = by[sort].astype(np.float64)
    order = np.lexsort([pairs[:, 1], pairs[:, 0], -key if down else key, np.isnan(key)])
    return np.asarray(pairs[order])
