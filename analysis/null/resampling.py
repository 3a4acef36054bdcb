"""Clips rearranged: labels shuffled, or clips drawn with replacement, by seed and number of the draw.

Goal: the draws behind error bars, in which clips that belong together stay together.
Conventions: a `Sample` holds the packed bits of the labelled clips of one labelling in memory, uint8 (1, clip,
byte) with all layers of a clip side by side; for the reading "frame" it holds positive frames instead (clip, neuron).
Draw i of a seed is the same whatever else is drawn, and however many threads draw.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...store.bits import pack
from ..adders import compiled
from ..contrast.rank_sample import RankSample
from ..rates import activation_counts
from ..totals import count_bits

Codes = NDArray[np.int64]
Counts = NDArray[np.int32]

SHUFFLE, REDRAW, BALANCE, BAND = range(4)  # streams of random numbers: no two purposes share one
MAX_TRIES = 100
ONE_GROUPING = 0.5  # logarithm: between those of one and of two


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrangement:
    """The labelled clips of one labelling, and which of them may change places."""

    clips: NDArray[np.intp]
    """Places of the labelled clips among all (clip)."""
    codes: Codes
    """Category of each clip (clip), from 0."""
    units: Codes
    """What moves as one (clip): the number of the clip, or of its group, from 0."""
    strata: Codes
    """Within which units are exchanged (clip)."""
    categories: tuple[str, ...]
    balanced: bool

    @property
    def clips_per_category(self) -> Codes:
        """Number of clips (category)."""
        return np.bincount(self.codes, minlength=len(self.categories))

    @property
    def imbalance(self) -> float:
        """Clips of the largest category over those of the smallest; 1 is balanced."""
        return float(self.clips_per_category.max() / self.clips_per_category.min())

    @cached_property
    def first_and_unit(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """A clip of each unit (unit), and the position of each clip's unit among them (clip)."""
        _, first, unit = np.unique(self.units, return_index=True, return_inverse=True)
        return first, unit

    @cached_property
    def cells(self) -> Codes:
        """Clips of each unit and category (unit, category)."""
        n, unit = len(self.categories), self.first_and_unit[1]
        return np.bincount(unit * n + self.codes, minlength=n * len(self.first_and_unit[0])).reshape(-1, n)

    @cached_property
    def whole_groups(self) -> bool:
        """Whether all clips of a unit have one category."""
        first, unit = self.first_and_unit
        return bool((self.codes == self.codes[first][unit]).all())

    @cached_property
    def units_of_strata(self) -> list[NDArray[np.intp]]:
        """Positions of the units of each stratum."""
        stratum = self.strata[self.first_and_unit[0]]
        return [np.flatnonzero(stratum == s) for s in np.unique(stratum)]

    @cached_property
    def unit_counts(self) -> Codes:
        """Units with clips of each category in each stratum (stratum, category)."""
        _, stratum = np.unique(self.strata, return_inverse=True)
        cells = np.unique(np.stack([stratum, self.codes, self.units]), axis=1)
        counts = np.zeros((int(stratum.max()) + 1, len(self.categories)), np.int64)
        np.add.at(counts, (cells[0], cells[1]), 1)
        return counts

    @cached_property
    def log_groupings(self) -> float:
        """Logarithm of the number of different ways to part the units into categories by shuffling.

        Ways that differ in the categories' names alone are one: they give the same neurons. Of whole groups.
        """
        arrangements = sum(
            math.lgamma(row.sum() + 1) - sum(math.lgamma(n + 1) for n in row) for row in self.unit_counts
        )
        alike = Counter(tuple(column) for column in self.unit_counts.T.tolist())
        return max(0.0, arrangements - sum(math.lgamma(times + 1) for times in alike.values()))

    def smallest_p(self, permutations: int) -> float:
        """The smallest p that so many shuffles can give a whole selection, and a corrected p of any of its cells."""
        return max(1 / (1 + permutations), math.exp(-self.log_groupings))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample(Arrangement):
    """The labelled clips of one labelling and what their neurons did, ready to be reshuffled thousands of times."""

    bits: NDArray[np.uint8]
    """(1, clip, byte): the layers of a clip side by side; no bytes if `positive` is there."""
    positive: NDArray[np.unsignedinteger] | None
    """Positive frames (clip, neuron), the layers of a clip side by side; None where bits count clips."""
    weights: Codes
    """What a clip counts (clip): 1, or its frames."""
    existing: NDArray[np.intp]
    """Columns of the bits (neuron) that are neurons, in order of (layer, neuron)."""
    neurons: xr.DataArray
    """Whether they exist: bool (layer, neuron), with the coordinates of the results."""
    ranked: RankSample | None = None
    """By the rule contrast, also what its selections need."""

    def counts(self, codes: Codes, n_categories: int, clips: NDArray[np.intp] | None = None) -> tuple[Counts, Codes]:
        """Active clips, or positive frames (category, existing neuron), and of how many (category).

        codes: the category of each clip (clip); clips: those to count, as often as they are named, all by default.
        """
        weights = self.weights if clips is None else self.weights[clips]
        chosen = codes if clips is None else codes[clips]
        of = np.bincount(chosen, weights, n_categories).astype(np.int64)
        if self.positive is None:
            bits = self.bits if clips is None else self.bits[:, clips]
            counts = count_bits(bits, chosen, n_categories, 8 * bits.shape[2])[:, 0]
        else:
            counts = np.zeros((n_categories, self.positive.shape[1]), np.int32)
            _add_rows(self.positive, np.arange(len(codes)) if clips is None else clips, chosen, counts)
        return (counts if self.existing.size == counts.shape[1] else counts[:, self.existing]), of

    @cached_property
    def evidence(self) -> NDArray[np.int64]:
        """Clips (existing neuron) that say what a neuron responds to: the fewer of those with and without activity."""
        fewer: NDArray[np.int64]
        if self.positive is None:
            (active,), (of,) = self.counts(np.zeros_like(self.codes), 1)
            fewer = np.minimum(active, of - active).astype(np.int64)
        else:
            some = (self.positive > 0).sum(axis=0)
            not_all = (self.positive < self.weights[:, None]).sum(axis=0)
            fewer = np.minimum(some, not_all)[self.existing]
        return fewer


def arrange_clips(
    labels: xr.DataArray,
    *,
    groups: xr.DataArray | None = None,
    within: Sequence[xr.DataArray] = (),
    balanced: bool = False,
    seed: int = 0,
) -> Arrangement:
    """Which clips have a label, and which may change places; clips with a negative code are left out.

    labels: as for `activation_counts`.
    groups: what clips share, such as speaker or source file (clip); such clips move together, a clip with "" alone.
    within: columns such as split or fold (clip); clips are exchanged only where they have the same in all of them.
    balanced: every category is cut down to as many clips as the smallest has, chosen by the seed.
    Raises ValueError for fewer than two categories with clips, or a group that lies in two splits.
    """
    codes = labels.values.astype(np.int64)
    categories = [str(name) for name in labels.attrs["categories"]]
    clips_of = np.bincount(codes[codes >= 0], minlength=len(categories))
    empty = [name for name, n in zip(categories, clips_of, strict=True) if not n]
    if empty or len(categories) < 2:
        without = f", without clips: {', '.join(empty)}" if empty else ""
        remedy = (
            "take the codes from `ds.otoscope.codes(label)`" if empty else "use another label column, or other clips"
        )
        raise ValueError(
            f"found {len(categories)} categories with clips{without}; expected at least 2, all with clips: {remedy}"
        )
    if balanced:
        codes = _cut_to_smallest(codes, len(categories), np.random.default_rng([seed, BALANCE]))
    kept = np.flatnonzero(codes >= 0)
    units = np.arange(len(kept)) if groups is None else _numbered(groups, kept)
    if groups is not None:
        alone = np.flatnonzero(groups.values[kept] == "")
        units[alone] = len(kept) + alone
        units = np.unique(units, return_inverse=True)[1]
    strata = np.zeros(len(kept), np.int64)
    for column in within:
        _, strata = np.unique(np.stack([strata, _numbered(column, kept)]), axis=1, return_inverse=True)
    unit_of_pair = np.unique(np.stack([units, strata]), axis=1)[0]
    _, splits = np.unique(unit_of_pair, return_counts=True)
    if (splits > 1).any():
        raise ValueError(
            f"{(splits > 1).sum()} groups lie in more than one split; expected each group in one: "
            "leave out the split, or name a finer group"
        )
    return Arrangement(
        clips=kept, codes=codes[kept], units=units, strata=strata, categories=tuple(categories), balanced=balanced
    )


def take_sample(
    active: xr.DataArray,
    labels: xr.DataArray,
    *,
    frame_count: xr.DataArray | None = None,
    groups: xr.DataArray | None = None,
    within: Sequence[xr.DataArray] = (),
    balanced: bool = False,
    valid: xr.DataArray | None = None,
    seed: int = 0,
) -> Sample:
    """Read the labelled clips of a labelling into memory: one bit per clip and neuron, or one or two bytes.

    active, labels: as for `activation_counts`; clips with a negative code are left out.
    frame_count: frames (clip); `active` is then the positive frames, integers (layer, neuron, clip), and probabilities
        are shares of frames, as in `frame_probability`.
    groups, within, balanced, seed: as for `arrange_clips`.
    valid: bool (layer, neuron), False for neurons that do not exist.
    Raises ValueError for labels that do not fit, fewer than two categories with clips, or a group that lies in two
    splits.
    """
    # Checks the input, and has the result's coordinates.
    counts = activation_counts(active if frame_count is None else active > 0, labels)
    arrangement = arrange_clips(labels, groups=groups, within=within, balanced=balanced, seed=seed)
    kept = arrangement.clips
    cells = counts.isel(category=0, drop=True).transpose("layer", "neuron")
    exists = xr.DataArray(np.ones(cells.shape, bool), cells.coords, name="exists")
    if valid is not None:
        exists &= valid.reset_coords(drop=True).compute()
    columns, positive, weights = exists.values, None, np.ones(len(kept), np.int64)
    if frame_count is None:
        active = active if "packed_dim" in active.attrs else _packed(active)
        (byte,) = (str(dim) for dim in active.dims if dim not in ("layer", "clip"))
        bits = active.isel(clip=kept).transpose("clip", "layer", byte).values
        columns = np.pad(columns, ((0, 0), (0, 8 * bits.shape[2] - columns.shape[1])))
    else:
        weights = frame_count.isel(clip=kept).values.astype(np.int64)
        bits = np.zeros((len(kept), 1, 0), np.uint8)
        narrow = np.min_scalar_type(weights.max(initial=0))  # no neuron is positive in more frames than there are
        frames = active.isel(clip=kept).transpose("clip", "layer", "neuron").astype(narrow)
        positive = frames.values.reshape(len(kept), -1)
    return Sample(
        **{each.name: getattr(arrangement, each.name) for each in fields(Arrangement)},
        bits=np.ascontiguousarray(bits).reshape(1, len(kept), -1),
        positive=positive,
        weights=weights,
        existing=np.flatnonzero(columns),
        neurons=exists,
    )


def shuffle_labels(sample: Arrangement, seed: int, draw: int) -> Codes:
    """Codes (clip) of one draw: the categories of units permuted among the units of each stratum.

    Without groups every category keeps its number of clips in every stratum; with groups, its number of groups.
    Raises ValueError where a group has clips of several categories and, at draw 0, where shuffling changes nothing, or
    nothing but the names of categories.
    """
    if not sample.whole_groups:
        raise ValueError(
            "some groups have clips of several categories; expected one category per group to move them as a whole: "
            "give them as `within`, which shuffles inside each of them"
        )
    first, unit = sample.first_and_unit
    of_unit = sample.codes[first]
    if draw == 0 and all(len(np.unique(of_unit[units])) < 2 for units in sample.units_of_strata):
        raise ValueError(
            "within each value of `within` there is one category only; expected at least two to exchange labels "
            "between: leave out `within`"
        )
    if draw == 0 and sample.log_groupings < ONE_GROUPING:
        alone = len(first) == len(sample.codes)
        remedy = "use a label that several clips share" if alone else "group by another column, or leave `group` out"
        raise ValueError(
            f"shuffling would only rename the categories, each of which is one {'clip' if alone else 'clip or group'}; "
            f"expected categories of several: {remedy}"
        )
    rng = np.random.default_rng([seed, SHUFFLE, draw])
    shuffled = np.empty_like(of_unit)
    for units in sample.units_of_strata:
        shuffled[units] = rng.permutation(of_unit[units])
    return shuffled[unit]


def redraw_clips(sample: Arrangement, seed: int, draw: int, stream: int = 0) -> NDArray[np.intp]:
    """Clips (clip) of one bootstrap draw: units drawn with replacement within each stratum and category.

    Where groups have clips of several categories they are drawn within each stratum; should a category then have no
    clip, they are drawn once more.
    Raises ValueError where a category still has no clip after 100 tries.
    """
    rng = np.random.default_rng([seed, REDRAW, draw, stream])
    first, unit = sample.first_and_unit
    cell = sample.strata[first] * len(sample.categories) + (sample.codes[first] if sample.whole_groups else 0)
    order = np.argsort(cell, kind="stable")
    _, start, size = np.unique(cell[order], return_index=True, return_counts=True)
    by_unit = np.argsort(unit, kind="stable")
    edges = np.searchsorted(unit[by_unit], np.arange(len(first) + 1))
    for _ in range(MAX_TRIES):
        position = np.repeat(start, size) + np.floor(rng.random(len(first)) * np.repeat(size, size)).astype(np.intp)
        drawn = order[position]
        lengths = edges[drawn + 1] - edges[drawn]
        within_unit = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        clips: NDArray[np.intp] = by_unit[np.repeat(edges[drawn], lengths) + within_unit]
        if len(np.unique(sample.codes[clips])) == len(sample.categories):
            return clips
    raise ValueError(
        f"{MAX_TRIES} draws of groups left a category without clips; expected each category in several groups: "
        "draw clips instead"
    )


def check_drawable(sample: Arrangement) -> None:
    """Raise ValueError for a category whose clips are the same ones in every draw with replacement."""
    lone = [name for name, n in zip(sample.categories, sample.unit_counts.max(axis=0), strict=True) if n < 2]
    if lone:
        raise ValueError(
            f"{len(lone)} categories, such as {lone[0]!r}, have one clip or group to draw from, so that they would "
            "never change; expected at least two (within a split): group by another column, or leave it out"
        )


@compiled
def _add_rows(rows: Any, clips: Any, codes: Any, totals: Any) -> None:
    """totals (category, neuron) += rows (clip, neuron) of these clips, in place."""
    for i in range(len(clips)):
        row, total = rows[clips[i]], totals[codes[i]]
        for neuron in range(len(row)):
            total[neuron] += row[neuron]


def _packed(active: xr.DataArray) -> xr.DataArray:
    """Bools (layer, neuron, clip) as bits (layer, clip, byte)."""
    packed: xr.DataArray = xr.apply_ufunc(
        pack,
        active.chunk(neuron=-1) if active.chunks else active,
        input_core_dims=[["neuron"]],
        output_core_dims=[["byte"]],
        dask="parallelized",
        output_dtypes=[np.uint8],
        dask_gufunc_kwargs={"output_sizes": {"byte": -(-active.sizes["neuron"] // 8)}},
    )
    return packed


def _numbered(column: xr.DataArray, kept: NDArray[np.intp]) -> Codes:
    values: Any = column.values[kept]
    return np.unique(values.astype(str), return_inverse=True)[1].astype(np.int64)


def _cut_to_smallest(codes: Codes, n_categories: int, rng: np.random.Generator) -> Codes:
    smallest = np.bincount(codes[codes >= 0], minlength=n_categories).min()
    cut = np.full_like(codes, -1)
    for category in range(n_categories):
        cut[rng.permutation(np.flatnonzero(codes == category))[:smallest]] = category
    return cut
