"""What the cards of a labelling have in common, computed once and kept in memory.

Goal: a card, a search and a list of neurons need nothing but this and the neuron's own means and bits.
Conventions: plain numpy arrays, by position: (layer, neuron, category), (clip). Clips are those of the data set, in its
order; those that do not count have code -1. Nothing here is lazy.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...messages import quoted
from ..categories import category_names
from ..contrast.rank_tests import LONG_NAMES
from ..kept import line_of
from ..null.resampling import Arrangement
from ..selection.selection import Selection
from ..selection.selectivity import CELL_DIMS, overall_rate, share_of_highest

Floats = NDArray[np.float64]
Progress = Callable[[str], None]
"""Told what is computed next, in a few words."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabellingStatistics:
    """Probabilities, AAPE and selection of all neurons for one labelling."""

    ds: xr.Dataset
    """The task, as the reader shows it: what a card reads its neuron from."""
    task: str
    label: str
    how: Selection
    codes: NDArray[np.int64]
    """Category of each clip (clip), -1 for one that does not count: failed, without a label, left out by `where`."""
    categories: tuple[str, ...]
    n_clips: NDArray[np.int64]
    """Clips that count (category)."""
    n_frames: NDArray[np.int64] | None
    """Their frames (category), by the reading "frame"; else None."""
    frames: NDArray[np.int64] | None
    """Frames of each clip (clip), by the reading "frame"; else None."""
    layers: NDArray[np.int64]
    """Number of each layer, as a user names it (layer)."""
    neurons: NDArray[np.int64]
    """Number of each neuron in its layer (neuron): from 0 on, unless some were selected."""
    exists: NDArray[np.bool_]
    """Whether there is such a neuron (layer, neuron): layers narrower than the widest are padded."""
    p: Floats
    """Activation probability in the reading asked (layer, neuron, category), NaN of neurons that do not exist."""
    aape: Floats
    """In nats (layer, neuron), NaN for a neuron that never fires."""
    normalised: Floats
    """AAPE / ln(categories) (layer, neuron)."""
    rank: NDArray[np.int64]
    """Place by AAPE from 1, the lowest (layer, neuron), ties by (layer, neuron); 0 where AAPE is NaN."""
    rate: Floats
    """Overall rate of activity (layer, neuron): share of the clips, or frames, that count."""
    threshold: Floats | float | None
    """What a mean must exceed: of each neuron (layer, neuron), one for all, or None where the stored bit, frames or
    `any` count."""
    member: NDArray[np.bool_]
    """Which neurons are class-specific for which category (layer, neuron, category)."""
    tests: dict[str, Floats] = field(default_factory=dict)
    """By the rule contrast z, auc, auc_low, auc_high, p, q, each (layer, neuron, category); else nothing."""
    arrangement: Arrangement
    """The clips that count, and which of them move as one (`group`) or within what (`within`)."""
    nothing: str = ""
    """Why no neuron is selected, and which command to try next; "" where some are."""
    notes: tuple[str, ...] = ()
    """What is to be said of the selection, a line each."""

    def __repr__(self) -> str:
        n_layers, n_neurons = int(self.exists.any(axis=1).sum()), int(self.exists.sum())
        found = self.nothing or f"{len(self.specific):,} class-specific by the rule {self.how.rule}"
        return (
            f"{self.name}: {self.counted.sum():,} clips of {len(self.categories)} categories, {n_neurons:,} neurons of "
            f"{n_layers} layers: {found}; .card(layer, neuron) has one"
        )

    @property
    def name(self) -> str:
        """As in "cremad:gender"."""
        return f"{self.task}:{self.label}" if self.task else self.label

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Clips that count (clip)."""
        return self.codes >= 0

    @property
    def n_ranked(self) -> int:
        """Neurons with an AAPE."""
        return int(self.rank.max(initial=0))

    @property
    def specific(self) -> NDArray[np.int64]:
        """The class-specific neurons, rows of (layer number, neuron), in this order."""
        return self.pairs(np.asarray(self.member.any(axis=2)))

    @property
    def members(self) -> xr.DataArray:
        """`member` with the names of its dimensions, as `common_neuron_ratio` and `overlap_map` take it."""
        coords = {"layer": self.layers, "neuron": self.neurons, "category": category_names(self.categories)}
        return xr.DataArray(self.member, coords, CELL_DIMS, "member")

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, for a cache."""
        own = [*vars(self).values(), *self.tests.values(), *vars(self.arrangement).values()]
        return sum(each.nbytes for each in own if isinstance(each, np.ndarray))

    def pairs(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Neurons where `which` (layer, neuron) is, as rows of (layer number, neuron): int64 (row, 2)."""
        layer, neuron = np.nonzero(which)
        return np.stack([self.layers[layer], self.neurons[neuron]], axis=1)

    def at(self, layer: int, neuron: int) -> tuple[int, int]:
        """Where a neuron is along (layer, neuron), by its numbers.

        Raises LookupError for one that does not exist: also for one that pads a narrow layer.
        """
        there = np.flatnonzero(self.layers == layer)
        if not there.size:
            known = f"{self.layers.min()} to {self.layers.max()}" if self.layers.size else "some: the task has none"
            raise LookupError(f"no layer {layer} in {self.name}; expected {known}")
        own = np.flatnonzero(self.neurons == neuron)
        if not own.size or not self.exists[there[0], own[0]]:
            exist = self.neurons[self.exists[there[0]]]
            raise LookupError(
                f"no neuron {neuron} in layer {layer} of {self.name}; expected {exist.min()} to {exist.max()}"
            )
        return int(there[0]), int(own[0])

    def positions(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where neurons that exist, rows of (layer number, neuron), are along layer and neuron."""
        found = []
        for numbers, wanted in ((self.layers, pairs[:, 0]), (self.neurons, pairs[:, 1])):
            order = np.argsort(numbers)
            found.append(order[np.searchsorted(numbers, wanted, sorter=order)])
        return found[0], found[1]

    def category_at(self, name: str) -> int:
        """Where a category is along `category`. Raises LookupError naming those that exist."""
        if name not in self.categories:
            known = ", ".join(map(quoted, self.categories[:20])) + ", ..." * (len(self.categories) > 20)
            raise LookupError(f"no category {quoted(name)} in {self.name}; those that exist: {known}")
        return self.categories.index(name)


def used_threshold(
    ds: xr.Dataset, how: Selection, counted: NDArray[np.bool_], progress: Progress = lambda _: None
) -> tuple[Floats | float | None, Selection]:
    """The threshold as numbers, and the selection that uses them as they are: the neuron's own are found once."""
    if isinstance(how.line, str):
        progress("thresholds of the neurons' own")
    line = line_of(ds, how, counted)
    if not isinstance(line, xr.DataArray):
        return line, how
    line = line.transpose("layer", "neuron", missing_dims="ignore").compute()
    if line.ndim < 2:
        return float(line), how
    exists = (
        ds["neuron_valid"].transpose("layer", "neuron").values if "neuron_valid" in ds else np.ones(line.shape, bool)
    )
    known = isinstance(how.line, str) and not np.isnan(line.values[exists]).any()
    return line.values.astype(np.float64), replace(how, threshold=line) if known else how


def fields_of(
    ds: xr.Dataset,
    found: xr.Dataset,
    codes: xr.DataArray,
    arrangement: Arrangement,
    how: Selection,
    threshold: Floats | float | None,
    task: str,
    label: str,
) -> dict[str, Any]:
    """The fields of `LabellingStatistics` for a selection that is computed: found, as of `class_specific`.

    codes: (clip) of all clips. threshold: as `used_threshold` gives it.
    """
    cells = found["probability"].transpose(*CELL_DIMS)
    aape = found["aape"].transpose(*CELL_DIMS[:2])
    flat = np.asarray(aape.values).ravel()
    order = np.argsort(flat, kind="stable")[: np.count_nonzero(~np.isnan(flat))]
    rank = np.zeros(flat.size, np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    exists = ds["neuron_valid"].transpose(*CELL_DIMS[:2]).values if "neuron_valid" in ds else np.ones(aape.shape, bool)
    by_frames = how.reading == "frame"
    return dict(
        ds=ds,
        task=task,
        label=label,
        how=how,
        codes=codes.values.astype(np.int64),
        categories=arrangement.categories,
        n_clips=arrangement.clips_per_category,
        n_frames=found["n_frames"].values.astype(np.int64) if by_frames else None,
        frames=ds["frame_count"].values.astype(np.int64) if by_frames else None,
        layers=ds["layer"].values.astype(np.int64),
        neurons=ds["neuron"].values.astype(np.int64),
        exists=exists,
        p=cells.values,
        aape=aape.values,
        normalised=share_of_highest(aape, cells).values,
        rank=rank.reshape(aape.shape),
        rate=overall_rate(cells).transpose(*CELL_DIMS[:2]).values,
        threshold=threshold,
        member=found["member"].transpose(*CELL_DIMS).values,
        tests={name: found[name].transpose(*CELL_DIMS).values for name in LONG_NAMES if name in found},
        arrangement=arrangement,
    )
