"""The tests of the rule "contrast": every neuron, every category against all other labelled clips.

Goal: neurons that respond to a category, with an effect that means something and a stated share of false findings.
Conventions: results are (layer, neuron, category), NaN for neurons that do not exist, whose means are all alike or not
known, and for categories without clips or without others. Computed at once, a few neurons of all clips at a time.
Memory: the orders of all draws (2 or 4 bytes per clip and draw, at most `ORDER_BYTES` at a time), and per thread a
column of means and the pooled null (130 KB per category).
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
    p: the share of z as high or higher among all tested neurons of the category under all labellings, `permutations` of
    them shuffled and the one found; with sign "negative" as low or lower, with "both" as far from 0. Conservative by at
    most 2 % where z is 5.
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
    pool = Pool.empty(n_categories, n_draws)
    for first in range(0, n_draws, at_once):
        draws = Draws.of(arrangement, selection.seed, range(first, min(first + at_once, n_draws)))
        columns: queue.SimpleQueue[tuple[int, slice]] = queue.SimpleQueue()
        for column in columns_of(mean, arrangement.clips):
            columns.put(column)

        def work(draws: Draws = draws, columns: Any = columns) -> Pool:
            own = Pool.empty(n_categories, n_draws)
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
    found.values["p"], found.values["q"] = _p_and_q(found.values["z"], pool, arrangement, selection)
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
            own = slice(numbers.start, numbers.stop)
            sums, of = self.sums(ranked, draws), self.of_category[draws]
            _pool(sums, of, spread, pool.counts, pool.highest[own], pool.lowest[own])


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """z under all labellings, pooled over the neurons of each category."""

    counts: NDArray[np.int64]
    """Of each value of z (category, value): from -HIGHEST, STEP values per unit."""
    highest: NDArray[np.float64]
    """The highest z of each labelling (draw, category)."""
    lowest: NDArray[np.float64]
    """The lowest z of each labelling (draw, category)."""

    @classmethod
    def empty(cls, n_categories: int, n_draws: int) -> "Pool":
        """Of nothing yet."""
        counts = np.zeros((n_categories, 2 * HIGHEST * STEP + 1), np.int64)
        return cls(
            counts=counts,
            highest=np.full((n_draws, n_categories), -np.inf),
            lowest=np.full((n_draws, n_categories), np.inf),
        )

    def add(self, other: "Pool") -> None:
        """Add what another one has pooled."""
        self.counts[...] += other.counts
        np.maximum(self.highest, other.highest, out=self.highest)
        np.minimum(self.lowest, other.lowest, out=self.lowest)

    def p(self, z: Floats, sign: str) -> Floats:
        """p (..., category) of z (..., category); NaN stays."""
        total = self.counts.sum(axis=1, keepdims=True)
        above = self.counts[:, ::-1].cumsum(axis=1)[:, ::-1]
        below = self.counts.cumsum(axis=1)
        value = value_of(z)
        category = np.broadcast_to(np.arange(z.shape[-1]), z.shape)
        if sign == "positive":
            tail = above[category, value]
        elif sign == "negative":
            tail = below[category, value]
        else:
            far = np.maximum(value, 2 * HIGHEST * STEP - value)
            tail = above[category, far] + np.where(
                far > HIGHEST * STEP, below[category, 2 * HIGHEST * STEP - far], below[category, far - 1]
            )
        tail = np.maximum(tail, 1)  # z itself, were it rounded to the next value
        p: Floats = np.where(np.isnan(z), np.nan, tail / np.maximum(total.T[0], 1))
        return p


def value_of(z: Floats) -> NDArray[np.int64]:
    """Which value of a pooled null a z counts as; NaN as 0."""
    scaled = np.floor((np.nan_to_num(z) + HIGHEST) * STEP + 0.5)
    return np.clip(scaled, 0, 2 * HIGHEST * STEP).astype(np.int64)


@compiled
def _pool(sums: Any, of: Any, spread: Any, counts: Any, highest: Any, lowest: Any) -> None:
    """Add z of doubled rank sums (draw, category, neuron) to counts, in place, and to the extremes of each draw."""
    n_draws, n_categories, n_neurons = sums.shape
    n = float(of[0].sum())
    for category in range(n_categories):
        row = counts[category]
        for draw in range(n_draws):
            n_in = float(of[draw, category])
            expected, scale = n_in * (n + 1), n_in * (n - n_in) * (n + 1) / 12
            for neuron in range(n_neurons):
                variance = scale * spread[neuron]
                if variance <= 0:
                    continue
                z = (sums[draw, category, neuron] - expected) / 2 / np.sqrt(variance)
                highest[draw, category] = max(highest[draw, category], z)
                lowest[draw, category] = min(lowest[draw, category], z)
                value = np.floor((z + HIGHEST) * STEP + 0.5)
                row[int(min(max(value, 0.0), 2.0 * HIGHEST * STEP))] += 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What the clips' own labels give, neuron by neuron."""

    exists: NDArray[np.bool_]
    n_categories: int
    values: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("z", "auc", "auc_low", "auc_high"):
            self.values[name] = np.full((*self.exists.shape, self.n_categories), np.nan)

    def keep(self, ranked: Ranked, arrangement: Arrangement, sums: NDArray[np.unsignedinteger]) -> None:
        """Of some neurons, their doubled rank sums (category, neuron)."""
        of = arrangement.clips_per_category
        auc, z = auc_of(sums, of), z_of(sums, of, ranked.spread)
        variance = delong_variance(ranked, arrangement.codes, arrangement.units, of)
        half = CONFIDENCE_Z * np.sqrt(np.where(variance > 0, variance, np.nan))  # of no width: none
        known = self.exists[ranked.layer, ranked.neurons] & ~np.isnan(z)
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


def _p_and_q(z: Floats, pool: Pool, arrangement: Arrangement, selection: Selection) -> tuple[Floats, Floats]:
    p = pool.p(z, selection.sign)
    q, tested = np.full(p.shape, np.nan), ~np.isnan(p)
    if not tested.any():
        return p, q
    if selection.correct == "bh":
        from scipy.stats import false_discovery_control  # takes a second to load

        q[tested] = false_discovery_control(p[tested])
    else:
        none = ~np.isfinite(pool.highest)  # of a category of which nothing is tested
        ends = [pool.highest] if selection.sign == "positive" else [pool.lowest]
        if selection.sign == "both":
            ends = [pool.highest, pool.lowest]
        each = np.min([pool.p(np.where(none, np.nan, end), selection.sign) for end in ends], axis=0)
        smallest = np.sort(np.nanmin(each, axis=1))
        q[tested] = np.searchsorted(smallest, p[tested], side="right") / len(smallest)
    q[tested] = np.maximum(q[tested], arrangement.smallest_p(selection.permutations))
    return p, q


def _until_empty(columns: "queue.SimpleQueue[tuple[int, slice]]") -> Iterator[tuple[int, slice]]:
    while True:
        try:
            yield columns.get_nowait()
        except queue.Empty:
            return
