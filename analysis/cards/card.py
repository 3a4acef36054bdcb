"""The card of one neuron: its statistics for one labelling, from its own means and bits.

Goal: what a reader of a card sees, with how sure it is, in a fraction of a second.
Conventions: positions of clips are along the data set's `clip`. Everything is computed at once; nothing is precomputed
in the store, which is read in chunks of 128 neurons.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ...store.selected import selected_by
from ..contrast.delong import delong_variance
from ..contrast.ranks import auc_of, by_category, rank, rank_sums, read_means
from ..kept import bits_of, variable_of
from ..null.resampling import Arrangement
from .intervals import Bars, Floats, Z, bars_of
from .labelling import LabellingStatistics

BINS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Clips by their mean, with the lines that are drawn in it."""

    edges: Floats
    """Of the bins (bin + 1), the last one closed: numpy's histogram of the float64 values. Clips whose mean is not
    finite are in no bin."""
    counts: NDArray[np.int64]
    """Clips (bin)."""
    zero: float
    """0, the line of the stored bit."""
    threshold: float
    """The threshold of the neuron that the selection uses; NaN where none counts."""

    def range_of(self, first: int, last: int) -> tuple[float, float]:
        """The lowest and highest mean of the clips in the bins first to last, for `clips_between`.

        Raises ValueError for bins that do not exist.
        """
        if not 0 <= first <= last < len(self.counts):
            raise ValueError(f"found bins {first} to {last}; expected some from 0 to {len(self.counts) - 1}")
        high = self.edges[last + 1]
        return float(self.edges[first]), float(high if last == len(self.counts) - 1 else np.nextafter(high, -np.inf))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Card:
    """One neuron in one labelling."""

    layer: int
    neuron: int
    task: str
    label: str
    reading: str
    aape: float
    """In nats; NaN for a neuron that never fires."""
    normalised: float
    """AAPE / ln(categories), 0 to 1."""
    rank: int
    """Place by AAPE among `n_ranked` neurons, from 1, the most selective; 0 without an AAPE."""
    n_ranked: int
    rate: float
    """Share of the clips (by the reading "frame" of the frames) that count in which it is active."""
    threshold: float
    """What a mean must exceed; NaN where the stored bit, or frames, count."""
    state: str
    """"dead" where it is active in no clip that counts, "saturated" where in all (frames, by that reading), else ""."""
    categories: tuple[str, ...]
    specific: tuple[str, ...]
    """Those that the selection finds it specific for."""
    bars: Bars
    """P of each category, interval, and band of shuffled labels (category)."""
    n_clips: NDArray[np.int64]
    """Clips that count (category)."""
    mean: Floats
    """Mean activation (category)."""
    auc: Floats
    """AUC of each category against all others (category), by the means; NaN where there is nothing to compare."""
    auc_low: Floats
    auc_high: Floats
    """DeLong's 95 % interval, over groups where they move whole."""
    p_value: Floats | None
    """p of the rank tests (category), if the selection's rule is contrast; None where no test is at hand."""
    q_value: Floats | None
    histogram: Histogram
    values: NDArray[np.float32]
    """The neuron's mean of each clip (clip), also of clips that do not count."""
    active: NDArray[np.bool_]
    """Whether it is active in the clip, as P counts it (clip); by the reading "frame", in any frame."""
    codes: NDArray[np.int64]
    """Category of each clip (clip), -1 for one that does not count."""

    @cached_property
    def highest_first(self) -> NDArray[np.int64]:
        """Positions of the clips that count and whose mean is known, highest mean first, equal ones in their order."""
        clips = np.flatnonzero((self.codes >= 0) & ~np.isnan(self.values))
        return clips[np.argsort(-self.values[clips], kind="stable")]

    @cached_property
    def rank_of_clip(self) -> NDArray[np.int64]:
        """Place of each clip among these, from 1, the highest (clip); 0 for all others."""
        found = np.zeros(len(self.values), np.int64)
        found[self.highest_first] = np.arange(1, len(self.highest_first) + 1)
        return found

    @property
    def frame(self) -> pd.DataFrame:
        """A row per category: category, clips, probability with its interval and the band of shuffled labels, whether
        it lies outside, mean, auc with its interval, p and q where there are tests, whether it is specific.
        """
        bars = self.bars
        columns = {
            "category": self.categories,
            "clips": self.n_clips,
            "probability": bars.p,
            "low": bars.low,
            "high": bars.high,
            "band_low": bars.band_low,
            "band_high": bars.band_high,
            "outside": bars.outside,
            "mean": self.mean,
            "auc": self.auc,
            "auc_low": self.auc_low,
            "auc_high": self.auc_high,
            **({} if self.p_value is None else {"p": self.p_value, "q": self.q_value}),
            "specific": [name in self.specific for name in self.categories],
        }
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        name = f"{self.task}:{self.label}" if self.task else self.label
        best = np.argsort(-np.nan_to_num(self.bars.p, nan=-1), kind="stable")[:3]
        shown = ", ".join(
            f"{self.categories[c]} {self.bars.p[c]:.3f} [{self.bars.low[c]:.3f}, {self.bars.high[c]:.3f}]" for c in best
        )
        ranked = f", rank {self.rank:,} of {self.n_ranked:,}" if self.rank else ""
        above = "" if np.isnan(self.threshold) else f", threshold {self.threshold:.4g}"
        lines = [
            f"neuron ({self.layer}, {self.neuron}) in {name}{f': {self.state}' if self.state else ''}",
            f"  AAPE {self.aape:.3f} nats ({self.normalised:.3f} of the highest){ranked}",
            f"  active in {self.rate:.1%} of the {'frames' if self.reading == 'frame' else 'clips'}{above}",
            f"  highest P: {shown}",
            f"  specific for {', '.join(self.specific) or 'no category'}",
            f"  outside the band of shuffled labels: {int(self.bars.outside.sum())} of {len(self.categories)} "
            f"categories (unit: {self.bars.unit}); .frame has all",
        ]
        return "\n".join(lines)


class Cards(LabellingStatistics):
    """The statistics of a labelling, of which a card is one call away."""

    def card(self, layer: int, neuron: int) -> Card:
        """The card of a neuron; see `neuron_card`."""
        return neuron_card(self, layer, neuron)


def neuron_card(statistics: LabellingStatistics, layer: int, neuron: int, *, bins: int = BINS) -> Card:
    """The card of a neuron: layer and neuron as a user numbers them.

    Reads this neuron's means, and what else its reading counts, of all clips. Deterministic: the shuffled labels are
    drawn by the selection's seed.
    Raises LookupError for a neuron that does not exist, and for means or bits that were not kept.
    """
    at, own = statistics.at(layer, neuron)
    ds, how, codes, arrangement = statistics.ds, statistics.how, statistics.codes, statistics.arrangement
    mean = variable_of(ds, "mean", "cards")
    values = read_means(mean, at, slice(own, own + 1), np.arange(len(codes)))
    threshold = _threshold_of(statistics, at, own)
    counts = counted_of(statistics, at, own, values[:, 0])
    clips = arrangement.clips
    of = np.ones(len(clips), np.int64) if statistics.frames is None else statistics.frames[clips]
    bars = bars_of(counts[clips], of, arrangement, unit=how.group or "clip", seed=how.seed)
    with np.errstate(invalid="ignore"):  # infinite means
        sums = np.bincount(arrangement.codes, values[clips, 0].astype(np.float64), len(statistics.categories))
        means = sums / statistics.n_clips
    auc = _auc(values[clips], arrangement)
    rate = float(statistics.rate[at, own])
    finite = values[clips, 0][np.isfinite(values[clips, 0])].astype(np.float64)
    in_bins, edges = np.histogram(finite, bins)
    tests = {name: tested[at, own] for name, tested in statistics.tests.items()}
    return Card(
        layer=layer,
        neuron=neuron,
        task=statistics.task,
        label=statistics.label,
        reading=how.reading,
        aape=float(statistics.aape[at, own]),
        normalised=float(statistics.normalised[at, own]),
        rank=int(statistics.rank[at, own]),
        n_ranked=statistics.n_ranked,
        rate=rate,
        threshold=threshold,
        state={0.0: "dead", 1.0: "saturated"}.get(rate, ""),
        categories=statistics.categories,
        specific=tuple(statistics.categories[c] for c in np.flatnonzero(statistics.member[at, own])),
        bars=bars,
        n_clips=statistics.n_clips,
        mean=means,
        auc=auc[0],
        auc_low=auc[1],
        auc_high=auc[2],
        p_value=tests.get("p"),
        q_value=tests.get("q"),
        histogram=Histogram(edges=edges, counts=in_bins, zero=0.0, threshold=threshold),
        values=values[:, 0].astype(np.float32, copy=False),
        active=counts > 0,
        codes=codes,
    )


def counted_of(statistics: LabellingStatistics, layer: int, neuron: int, values: Floats) -> NDArray[np.int64]:
    """What each clip adds to a neuron's P (clip): 1 where it is active, or its positive frames.

    layer, neuron: positions. values: the neuron's means (clip).
    """
    reading, ds = statistics.how.reading, statistics.ds
    if statistics.threshold is not None:
        return (values.astype(np.float64) > _threshold_of(statistics, layer, neuron)).astype(np.int64)
    if reading == "clip":
        return bits_of_neuron(statistics, layer, neuron).astype(np.int64)
    positive = variable_of(ds, "positive_frames", f"the reading {reading!r}")
    frames = read_column(positive, layer, neuron)
    return (frames > 0).astype(np.int64) if reading == "any" else frames.astype(np.int64)


def bits_of_neuron(statistics: LabellingStatistics, layer: int, neuron: int) -> NDArray[np.bool_]:
    """The stored bits of a neuron (clip): mean above 0, before it was rounded. layer, neuron: positions."""
    bits = bits_of(statistics.ds)
    if "packed_dim" not in bits.attrs:
        return read_column(bits, layer, neuron).astype(bool)
    (byte,) = (dim for dim in bits.dims if dim not in ("layer", "clip"))
    column = read_column(bits, layer, neuron // 8, str(byte))
    return np.asarray(column >> np.uint8(neuron % 8) & 1, bool)


def read_column(variable: xr.DataArray, layer: int, at: int, dim: str = "neuron") -> NDArray[Any]:
    """One column (clip) of a variable of (layer, clip, dim), straight from its files where it is stored."""
    dims = tuple(map(str, variable.dims))
    stored = selected_by(variable.data, dims)
    if stored is not None:
        part = stored.part(layer=slice(layer, layer + 1), **{dim: slice(at, at + 1)}).read()
        return np.asarray(part).reshape(-1)
    one = variable.variable.isel({"layer": layer, dim: at}).compute(scheduler="synchronous")
    return np.asarray(one.values)


def _threshold_of(statistics: LabellingStatistics, layer: int, neuron: int) -> float:
    line = statistics.threshold
    if line is None:
        return float("nan")
    return float(line[layer, neuron]) if isinstance(line, np.ndarray) else float(line)


def _auc(values: Floats, arrangement: Arrangement) -> tuple[Floats, Floats, Floats]:
    """AUC (category) of means (clip, 1) of the arrangement's clips, and the ends of DeLong's interval, NaN where all
    means are alike or some are not known.
    """
    of = arrangement.clips_per_category
    (ranked,) = rank(values, 0, slice(0, 1))
    order, edges = by_category(arrangement.codes, len(of))
    sums = np.empty((1, len(of), 1), np.uint32 if ranked.ranks.itemsize == 2 else np.uint64)
    rank_sums(ranked.ranks, order[None], edges[None], sums)
    known = ranked.spread > 0  # not where it is NaN
    auc = np.where(known, auc_of(sums[0], of), np.nan)[:, 0]
    variance = delong_variance(ranked, arrangement, of)[:, 0]
    half = Z * np.sqrt(np.where(variance > 0, variance, np.nan))
    return auc, np.maximum(auc - half, 0), np.minimum(auc + half, 1)
