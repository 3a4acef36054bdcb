"""The tests of the rule "contrast": every neuron, every category against all other labelled clips.

Goal: neurons that respond to a category, with an effect that means something and a stated share of false findings.
Conventions: results are (layer, neuron, category), NaN for neurons that do not exist, whose means are all alike or not
known, and for categories without clips or without others; p and q also where the category or all others are of a
single clip or group. Computed at once, a few neurons of all clips at a time.
Pooling: neurons that are alike in how many of their means are tied are pooled. The z of one that is off in nearly all
clips is far from normal: by the few clips in which it is on, it exceeds 7 in one shuffle of fifty; pooled with all
others it would hide them.
Memory: the orders of all draws (2 or 4 bytes per clip and draw, at most `ORDER_BYTES` at a time), and per thread a
column of means and the pooled null (800 KB per category).
"""

import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..adders import compiled
from ..categories import category_names
from ..null.resampling import Arrangement, shuffle_labels
from ..null.significance import fewest_permutations
from ..selection.rules import THRESHOLDS
from ..selection.selection import Selection
from ..selection.selectivity import CELL_DIMS, aape, existing
from .delong import delong_variance
from .ranks import Floats, Ranked, auc_of, by_category, columns_of, rank, rank_sums, read_means, z_of

CONFIDENCE_Z = 1.959963984540054  # of the normal distribution, for 95 %
STEP = 256  # values of the pooled null per unit of z, so that a p is at most 2 % too large where z is 5
HIGHEST = 32  # z beyond it count as it
ORDER_BYTES = 256 << 20
EDGES = (0.01, 0.03, 0.1, 0.3, 0.6)
"""Of the spread: 1 - (1 - a)^3 of a neuron that is on, and there untied, in a share a of the clips."""
FEWEST = 100  # neurons of a pool, if there are so many
BATCH = 32  # draws whose sums are made at once: they stay in a core's cache
LONG_NAMES = {
    "z": ("tie-corrected rank z of the category against all other clips", "1"),
    "auc": ("AUC of the category against all other clips", "1"),
    "auc_low": ("lower end of the 95 % interval of the AUC", "1"),
    "auc_high": ("upper end of the 95 % interval of the AUC", "1"),
    "p": ("p of the rank z among shuffled labels, pooled over neurons", "1"),
    "q": ("corrected p", "1"),
}


def contrast_tests(
    mean: xr.DataArray,
    arrangement: Arrangement,
    selection: Selection,
    *,
    valid: xr.DataArray | None = None,
    threads: int | None = None,
) -> xr.Dataset:
    """Rank tests of every neuron and category: z, auc, auc_low, auc_high, p, q (layer, neuron, category).

    z: tie-corrected Mann-Whitney z of the means of the category's clips against all other labelled clips; auc: the
    chance that a clip of the category has the higher mean, with DeLong's 95 % interval, over groups where units are
    groups (see `delong_variance`).
    p: the share of z as high or higher among the tested neurons of the category that are tied as much (see `EDGES`),
    under all labellings, `permutations` of them shuffled and the one found; with sign "negative" as low or lower, with
    "both" as far from 0. Conservative by at most 2 % where z is 5.
    q: with `correct` "bh" the least share of false findings at which the cell is among the findings, over all cells
    (Benjamini and Hochberg 1995); with "max" the share of labellings whose smallest p of all cells is as small, so that
    the chance of any false finding is at most `level` (Westfall and Young 1993). Never below what the permutations, or
    few units, can give.

    mean: (layer, neuron, clip); arrangement: of its clips. selection: its sign, correct, permutations and seed count.
    valid: bool (layer, neuron), False for neurons that do not exist.
    Raises ValueError where there is nothing to shuffle, and for fewer permutations than the level needs.
    """
    if (smallest := 1 / (1 + selection.permutations)) > selection.level:
        raise ValueError(
            f"found {selection.permutations} permutations, by which no p is below {smallest:.2g}; expected at least "
            f"{fewest_permutations(selection.level)} for the level {selection.level:g}: give --permutations"
        )
    n_categories = len(arrangement.categories)
    order_bytes = len(arrangement.codes) * (2 if len(arrangement.codes) <= 1 << 16 else 4)
    at_once = max(1, ORDER_BYTES // max(1, order_bytes))
    n_draws = selection.permutations + 1
    exists = np.ones((mean.sizes["layer"], mean.sizes["neuron"]), bool)
    if valid is not None:
        exists = valid.transpose("layer", "neuron").values
    found = Found(exists=exists, n_categories=n_categories)
    extremes = n_draws if selection.correct == "max" else 0
    pool = Pool.empty(n_categories, extremes)
    for first in range(0, n_draws, at_once):
        draws = Draws.of(arrangement, selection.seed, range(first, min(first + at_once, n_draws)))
        columns: queue.SimpleQueue[tuple[int, slice]] = queue.SimpleQueue()
        for column in columns_of(mean, arrangement.clips):
            columns.put(column)

        def work(draws: Draws = draws, columns: Any = columns) -> Pool:
            own = Pool.empty(n_categories, extremes)
            for layer, neurons in _until_empty(columns):
                values = read_means(mean, layer, neurons, arrangement.clips)
                for ranked in rank(values, layer, neurons):
                    draws.add_to(own, ranked, found.exists[layer, ranked.neurons])
                    if draws.numbers.start == 0:
                        found.keep(ranked, arrangement, draws.sums(ranked, slice(1))[0])
            return own

        n_threads = threads or os.cpu_count() or 1
        with ThreadPoolExecutor(n_threads) as executor:
            for each in [executor.submit(work) for _ in range(n_threads)]:
                pool.add(each.result())
    found.values["p"], found.values["q"] = _p_and_q(found, pool, arrangement, selection)
    return found.result(mean, arrangement, selection)


def contrast_specific(p: xr.DataArray, tests: xr.Dataset, selection: Selection) -> xr.Dataset:
    """The class-specific neurons of the rule "contrast", as `rules.class_specific` gives those of the others.

    p: activation probability (layer, neuron, category), which is told beside the tests and selects nothing; tests: of
    `contrast_tests`. `selected` are the neurons of some category. The tests come along; the other rules' thresholds are
    NaN.
    """
    member, cells = members(tests, selection), existing(p, tests["z"].notnull().any("category"))
    found = {
        **{name: xr.DataArray(np.nan, attrs={"long_name": text}) for name, text in THRESHOLDS.items()},
        "member": member.reset_coords(drop=True),
        "selected": member.any("category").reset_coords(drop=True).assign_attrs(long_name="of some category"),
        "saturated": xr.DataArray(False),
        "probability": cells.assign_attrs(p.attrs),
        "aape": aape(cells),
        **{str(name): tests[name].reset_coords(drop=True) for name in LONG_NAMES},
    }
    coords = {name: coord for name, coord in p.coords.items() if set(coord.dims) <= set(CELL_DIMS)}
    about = {"rule": selection.rule, "percentile": np.nan, "level": selection.level}
    return xr.Dataset(found, coords, {**about, "min_effect": selection.min_effect, **tests.attrs})


def members(tests: xr.Dataset, selection: Selection) -> xr.DataArray:
    """Which neurons are specific for which category: bool (layer, neuron, category).

    Those with q at most `level` and an AUC of at least `min_effect`; with sign "negative" of at most 1 - `min_effect`,
    with "both" either.
    """
    auc, significant = tests["auc"], tests["q"] <= selection.level
    high, low = auc >= selection.min_effect, auc <= 1 - selection.min_effect
    far = {"positive": high, "negative": low, "both": high | low}[selection.sign]
    return (significant & far).rename("member").assign_attrs(long_name="class-specific")


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Labellings: the one found (number 0), or with the labels shuffled."""

    numbers: range
    orders: NDArray[np.unsignedinteger]
    """Clips by category (draw, clip)."""
    edges: NDArray[np.int64]
    """Where categories begin (draw, category + 1)."""

    @classmethod
    def of(cls, arrangement: Arrangement, seed: int, numbers: range) -> "Draws":
        """These labellings. Raises what `shuffle_labels` raises."""
        codes = (arrangement.codes if i == 0 else shuffle_labels(arrangement, seed, i - 1) for i in numbers)
        each = [by_category(one, len(arrangement.categories)) for one in codes]
        orders, edges = zip(*each, strict=True)
        return cls(numbers=numbers, orders=np.stack(orders), edges=np.stack(edges))

    @property
    def of_category(self) -> NDArray[np.int64]:
        """Clips (draw, category)."""
        return np.diff(self.edges, axis=1)

    def sums(self, ranked: Ranked, draws: slice) -> NDArray[np.unsignedinteger]:
        """Doubled rank sums (draw, category, neuron)."""
        orders, edges = self.orders[draws], self.edges[draws]
        wide = np.uint32 if ranked.ranks.itemsize == 2 else np.uint64
        sums = np.empty((len(orders), edges.shape[1] - 1, ranked.ranks.shape[1]), wide)
        rank_sums(ranked.ranks, orders, edges, sums)
        return sums

    def add_to(self, pool: "Pool", ranked: Ranked, exists: NDArray[np.bool_]) -> None:
        """Add the z of some neurons to a pooled null."""
        spread = np.where(exists & (ranked.spread > 0), ranked.spread, 0.0)
        for start in range(0, len(self.orders), BATCH):
            draws = slice(start, start + BATCH)
            numbers = self.numbers[draws]
            sums, of = self.sums(ranked, draws), self.of_category[draws]
            highest, lowest = (each[:, numbers.start : numbers.stop] for each in (pool.highest, pool.lowest))
            _pool(sums, of, spread, kind_of(spread), pool.counts, highest, lowest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """z under all labellings, pooled over neurons of a kind in each category."""

    counts: NDArray[np.int64]
    """Of each value of z (kind, category, value): from -HIGHEST, STEP values per unit."""
    highest: NDArray[np.float64]
    """The highest z of each labelling (kind, draw, category); of no labelling where they are not needed."""
    lowest: NDArray[np.float64]
    """The lowest z of each labelling, likewise."""

    @classmethod
    def empty(cls, n_categories: int, n_draws: int) -> "Pool":
        """Of nothing yet; n_draws: labellings whose extremes are kept."""
        kinds = len(EDGES) + 1
        counts = np.zeros((kinds, n_categories, 2 * HIGHEST * STEP + 1), np.int64)
        ends = (np.full((kinds, n_draws, n_categories), end) for end in (-np.inf, np.inf))
        highest, lowest = ends
        return cls(counts=counts, highest=highest, lowest=lowest)

    def add(self, other: "Pool") -> None:
        """Add what another one has pooled."""
        self.counts[...] += other.counts
        np.maximum(self.highest, other.highest, out=self.highest)
        np.minimum(self.lowest, other.lowest, out=self.lowest)

    def merged(self, pool_of: NDArray[np.intp]) -> "Pool":
        """The same of fewer kinds, by the new kind of each."""
        kinds = int(pool_of.max()) + 1
        new = Pool(
            counts=np.zeros((kinds, *self.counts.shape[1:]), np.int64),
            highest=np.full((kinds, *self.highest.shape[1:]), -np.inf),
            lowest=np.full((kinds, *self.lowest.shape[1:]), np.inf),
        )
        np.add.at(new.counts, pool_of, self.counts)
        np.maximum.at(new.highest, pool_of, self.highest)
        np.minimum.at(new.lowest, pool_of, self.lowest)
        return new

    def p(self, z: Floats, kind: NDArray[np.intp], sign: str) -> Floats:
        """p (..., category) of z (..., category) of neurons of a kind (...); NaN stays."""
        total = self.counts.sum(axis=2)
        above = self.counts[..., ::-1].cumsum(axis=2)[..., ::-1]
        below = self.counts.cumsum(axis=2)
        value, last = value_of(z), 2 * HIGHEST * STEP
        category = np.broadcast_to(np.arange(z.shape[-1]), z.shape)
        of_kind = np.broadcast_to(kind[..., None], z.shape)
        if sign == "positive":
            tail = above[of_kind, category, value]
        elif sign == "negative":
            tail = below[of_kind, category, value]
        else:
            far = np.maximum(value, last - value)
            other = np.where(2 * far > last, last - far, far - 1)
            tail = above[of_kind, category, far] + below[of_kind, category, other]
        tail = np.maximum(tail, 1)  # z itself, were it rounded to the next value
        p: Floats = np.where(np.isnan(z), np.nan, tail / np.maximum(total[of_kind, category], 1))
        return p


def kind_of(spread: Floats) -> NDArray[np.intp]:
    """Which neurons are pooled (neuron), by how much of their ranks is not tied."""
    kind: NDArray[np.intp] = np.searchsorted(EDGES, np.nan_to_num(spread))
    return kind


def pools_of(n_neurons: NDArray[np.integer]) -> NDArray[np.intp]:
    """The pool of each kind (kind), of so many neurons (kind): kinds of few neurons join those that are tied more.

    A pool has at least `FEWEST` neurons, if there are so many in all.
    """
    pool, number, many = np.zeros(len(n_neurons), np.intp), 0, 0
    for kind in reversed(range(len(n_neurons))):
        if many >= FEWEST and n_neurons[: kind + 1].sum() >= FEWEST:
            number, many = number + 1, 0
        pool[kind] = number
        many += int(n_neurons[kind])
    return pool


def value_of(z: Floats) -> NDArray[np.int64]:
    """Which value of a pooled null a z counts as; NaN as 0."""
    scaled = np.floor((np.nan_to_num(z) + HIGHEST) * STEP + 0.5)
    return np.clip(scaled, 0, 2 * HIGHEST * STEP).astype(np.int64)


@compiled
def _pool(sums: Any, of: Any, spread: Any, kinds: Any, counts: Any, highest: Any, lowest: Any) -> None:
    """Add z of doubled rank sums (draw, category, neuron) to counts, in place, and to the extremes of each draw."""
    n_draws, n_categories, n_neurons = sums.shape
    n = float(of[0].sum())
    for category in range(n_categories):
        for draw in range(n_draws):
            n_in = float(of[draw, category])
            expected, scale = n_in * (n + 1), n_in * (n - n_in) * (n + 1) / 12
            for neuron in range(n_neurons):
                variance = scale * spread[neuron]
                if variance <= 0:
                    continue
                z = (sums[draw, category, neuron] - expected) / 2 / np.sqrt(variance)
                kind = kinds[neuron]
                if highest.shape[1]:
                    highest[kind, draw, category] = max(highest[kind, draw, category], z)
                    lowest[kind, draw, category] = min(lowest[kind, draw, category], z)
                value = np.floor((z + HIGHEST) * STEP + 0.5)
                counts[kind, category, int(min(max(value, 0.0), 2.0 * HIGHEST * STEP))] += 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What the clips' own labels give, neuron by neuron."""

    exists: NDArray[np.bool_]
    n_categories: int
    values: dict[str, Floats] = field(default_factory=dict)
    kind: NDArray[np.intp] = field(init=False)
    """As of `kind_of` (layer, neuron)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", np.zeros(self.exists.shape, np.intp))
        for name in ("z", "auc", "auc_low", "auc_high"):
            self.values[name] = np.full((*self.exists.shape, self.n_categories), np.nan)

    def keep(self, ranked: Ranked, arrangement: Arrangement, sums: NDArray[np.unsignedinteger]) -> None:
        """Of some neurons, their doubled rank sums (category, neuron)."""
        of = arrangement.clips_per_category
        auc, z = auc_of(sums, of), z_of(sums, of, ranked.spread)
        variance = delong_variance(ranked, arrangement, of)
        half = CONFIDENCE_Z * np.sqrt(np.where(variance > 0, variance, np.nan))  # of no width: none
        known = self.exists[ranked.layer, ranked.neurons] & ~np.isnan(z)
        self.kind[ranked.layer, ranked.neurons] = kind_of(ranked.spread)
        parts = {"z": z, "auc": auc, "auc_low": np.maximum(auc - half, 0), "auc_high": np.minimum(auc + half, 1)}
        for name, values in parts.items():
            self.values[name][ranked.layer, ranked.neurons] = np.where(known, values, np.nan).T

    def result(self, mean: xr.DataArray, arrangement: Arrangement, selection: Selection) -> xr.Dataset:
        """As `contrast_tests` gives it."""
        coords = {name: c for name, c in mean.coords.items() if set(c.dims) <= {"layer", "neuron"}}
        n_clips = xr.Variable("category", arrangement.clips_per_category, {"long_name": "clips", "units": "clips"})
        variables = {
            name: xr.Variable(CELL_DIMS, self.values[name], {"long_name": long_name, "units": units})
            for name, (long_name, units) in LONG_NAMES.items()
        }
        return xr.Dataset(
            variables,
            {**coords, "category": category_names(arrangement.categories), "n_clips": n_clips},
            {
                "sign": selection.sign,
                "correct": selection.correct,
                "permutations": selection.permutations,
                "units_exchanged": len(arrangement.first_and_unit[0]),
                "smallest_p": arrangement.smallest_p(selection.permutations),
            },
        )


def _p_and_q(found: Found, pool: Pool, arrangement: Arrangement, selection: Selection) -> tuple[Floats, Floats]:
    outside = arrangement.cells.sum(axis=1, keepdims=True) - arrangement.cells
    # One clip is no evidence on a category, nor what tells it from one clip.
    lone = np.minimum(np.count_nonzero(arrangement.cells, axis=0), np.count_nonzero(outside, axis=0)) < 2
    z = np.where(lone, np.nan, found.values["z"])
    neurons = ~np.isnan(z).all(axis=2)
    pool_of = pools_of(np.bincount(found.kind[neurons], minlength=len(EDGES) + 1))
    pool = pool.merged(pool_of)
    p = pool.p(z, pool_of[found.kind], selection.sign)
    q, tested = np.full(p.shape, np.nan), ~np.isnan(p)
    if not tested.any():
        return p, q
    if selection.correct == "bh":
        from scipy.stats import false_discovery_control  # takes a second to load

        q[tested] = false_discovery_control(p[tested])
    else:
        ends = {"positive": [pool.highest], "negative": [pool.lowest], "both": [pool.highest, pool.lowest]}
        kinds = np.arange(pool_of.max() + 1)
        each = [
            pool.p(
                np.where(np.isfinite(end) & ~lone, end, np.nan),
                np.broadcast_to(kinds[:, None], end.shape[:2]),
                selection.sign,
            )
            for end in ends[selection.sign]
        ]
        smallest = np.sort(np.nanmin(each, axis=(0, 1, 3)))
        q[tested] = np.searchsorted(smallest, p[tested], side="right") / len(smallest)
    q[tested] = np.maximum(q[tested], arrangement.smallest_p(selection.permutations))
    return p, q


def _until_empty(columns: "queue.SimpleQueue[tuple[int, slice]]") -> Iterator[tuple[int, slice]]:
    while True:
        try:
            yield columns.get_nowait()
        except queue.Empty:
            return
