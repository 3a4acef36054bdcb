"""How sure is it: permutation nulls and bootstrap intervals for selection, coverage, AAPE and common neuron ratios.

Goal: for every number of a selection, what it would be if labels meant nothing, and how far it moves with other
clips.
Conventions: in the reading of a `Sample` and by either rule; computed at once, not lazily, for the draws need all
clips thousands of times.
Memory: the sample (one bit per clip and neuron, or one or two bytes by the reading "frame"), 4 bytes per draw and
neuron, and per thread 8 to 16 bytes per category and neuron (a bootstrap of bits: also the sample once more). A seed
gives the same result with any number of threads.
Contents: `permutation_null`, `bootstrap`, `with_null`.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..selection.from_counts import Selected, ratio_of, select_counts
from ..selection.selectivity import aape, check_rule
from .resampling import Sample, redraw_clips, shuffle_labels
from .results import Values, over_neurons, selection_found, variables
from .significance import exceedance, intervals, moments

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A sample and how its neurons are selected."""

    sample: Sample
    percentile: float
    rule: str

    def select(self, codes: NDArray[np.int64] | None = None, clips: NDArray[np.intp] | None = None) -> Selected:
        """The selection as found, with other codes (clip), or with other clips (clip)."""
        codes = self.sample.codes if codes is None else codes
        counts, of = self.sample.counts(codes, len(self.sample.categories), clips)
        return select_counts(counts, of, self.percentile, self.rule)


def permutation_null(
    sample: Sample,
    *,
    permutations: int = 1000,
    percentile: float = 1,
    rule: str = "lape",
    against: Sample | None = None,
    against_percentile: float | None = None,
    level: float = 0.05,
    seed: int = 0,
    threads: int | None = None,
) -> xr.Dataset:
    """What each number would be if the labels of the clips meant nothing, and whether it exceeds that.

    For each statistic s (common_neuron_ratio (category, other_category), neurons (category), coverage_ratio and
    neurons_per_category (), aape (layer, neuron)): s as found, s_null_mean and s_null_sd over the shuffled labels;
    s_p, the share of labellings, the one found included, that give as much or more (AAPE: as little or less);
    s_p_corrected, the same for the most extreme of all cells of s (see `exceedance`), so that the chance of a
    single false finding in s is at most `level`; s_significant, whether s_p_corrected <= level. `member`,
    `selected`: the selection found.

    percentile, rule: as for `class_specific`.
    against: another labelling, whose selection, at against_percentile (by default the same), is held as found: only
    the labels of `sample` are shuffled. Without it, the ratio is within the labelling, and its diagonal, always 1, is
    not tested.
    AAPE is tested for neurons that are active, and inactive, in as many clips as there are categories or more; the
    others have p NaN: a neuron that is active in one clip is always perfectly selective.
    threads: as many as there are cores by default.
    The AAPE of draws is to 1e-6 nats, the rest is exact.
    Raises ValueError where there is nothing to shuffle, and for a percentile or number of permutations that cannot
    be.
    """
    asked, theirs = _check(sample, against, permutations, percentile, against_percentile, rule)
    other = None if theirs is None else theirs.select()

    def draw(i: int) -> Values:
        return _statistics(asked.select(shuffle_labels(sample, seed, i)), other)

    chosen = asked.select()
    found = _statistics(chosen, other)
    drawn = _stacked(_in_threads(draw, permutations, threads), found, permutations)
    result = _result(asked, theirs, chosen, found)
    for name, value in found.items():
        null, tested = drawn[name], np.ones(value.shape, bool)
        mean, sd = moments(null if name == "aape" else np.nan_to_num(null))
        parts: Values = {"null_mean": mean, "null_sd": sd}
        if name == "common_neuron_ratio" and against is None:
            np.fill_diagonal(tested, False)
        if name == "aape":
            value, tested = _evidence(sample, value, null)
        parts["p"], parts["p_corrected"] = exceedance(value, null, tested)
        parts["significant"] = parts["p_corrected"] <= level
        result = result.assign(variables(sample, name, parts))
    return result.assign_attrs(permutations=permutations, seed=seed, level=level)


def bootstrap(
    sample: Sample,
    *,
    draws: int = 1000,
    percentile: float = 1,
    rule: str = "lape",
    against: Sample | None = None,
    against_percentile: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    threads: int | None = None,
) -> xr.Dataset:
    """How far each number moves when clips, or groups of clips, are drawn anew from those that there are.

    For each statistic s of `permutation_null`: s as found, s_sd, s_bias (mean over draws minus s), s_low and
    s_high: the basic bootstrap interval (see `intervals`), which allows for the bias that drawing with replacement
    repeats, since noise makes entropies too low and sets of neurons too different.
    stability (layer, neuron, category): the share of draws in which a neuron is specific for a category;
    selected_stability (layer, neuron): that in which it is selected. `member`, `selected`: the selection found.

    percentile, rule: as for `class_specific`.
    against: another labelling, at against_percentile; its clips are drawn anew too, independently.
    Raises ValueError for a percentile, confidence or number of draws that cannot be, and for groups too few to draw.
    """
    asked, theirs = _check(sample, against, draws, percentile, against_percentile, rule)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95")
    n_categories, n_neurons = len(sample.categories), sample.existing.size
    times, times_selected = np.zeros((n_categories, n_neurons), np.int32), np.zeros(n_neurons, np.int32)

    def draw(i: int) -> tuple[Values, Selected]:
        one = asked.select(clips=redraw_clips(sample, seed, i, 0))
        if theirs is None:
            return _statistics(one, None), one
        two = theirs.select(clips=redraw_clips(theirs.sample, seed, i, 1))
        return _statistics(one, two), one

    def counted() -> Iterator[Values]:
        for values, one in _in_threads(draw, draws, threads):
            times[:, one.neurons] += one.member
            times_selected[one.neurons] += 1
            yield values

    chosen = asked.select()
    found = _statistics(chosen, None if theirs is None else theirs.select())
    drawn = _stacked(counted(), found, draws)
    result = _result(asked, theirs, chosen, found)
    highest = {"aape": float(np.log(n_categories)), "neurons": np.inf, "neurons_per_category": np.inf}
    for name, value in found.items():
        parts = intervals(value, drawn[name], confidence, highest.get(name, 1.0))
        result = result.assign(variables(sample, name, parts))
    stability = over_neurons(sample, times / draws, np.nan).assign_attrs(
        long_name="share of draws in which the neuron is class-specific", units="1"
    )
    selected_stability = over_neurons(sample, times_selected / draws, np.nan).assign_attrs(
        long_name="share of draws in which the neuron is selected", units="1"
    )
    result = result.assign(stability=stability, selected_stability=selected_stability)
    return result.assign_attrs(draws=draws, seed=seed, confidence=confidence)


def with_null(result: xr.Dataset) -> xr.DataArray:
    """The common neuron ratio of a permutation null, for `overlap_figure`: cells that do not exceed it are marked.

    By the coordinate `within_null`, bool (category, other_category); cells that were not tested are not marked.
    """
    within = result["common_neuron_ratio_p_corrected"] > result.attrs["level"]
    ratio: xr.DataArray = result["common_neuron_ratio"].assign_coords(within_null=within.drop_attrs())
    return ratio.assign_attrs(level=result.attrs["level"])


def _check(
    sample: Sample, against: Sample | None, draws: int, percentile: float, against_percentile: float | None, rule: str
) -> tuple[_Asked, _Asked | None]:
    theirs = percentile if against_percentile is None else against_percentile
    for each in (percentile, theirs):
        check_rule(each, rule)
    if draws < 1:
        raise ValueError(f"found {draws} draws; expected at least 1, and 1,000 for p-values down to 0.001")
    asked = _Asked(sample=sample, percentile=percentile, rule=rule)
    if against is None:
        return asked, None
    if not against.neurons.equals(sample.neurons):
        raise ValueError(
            "the two labellings are of different neurons; expected the same layers and neurons: "
            "only neurons of one encoder can be common"
        )
    return asked, _Asked(sample=against, percentile=theirs, rule=rule)


def _statistics(chosen: Selected, other: Selected | None) -> Values:
    neurons = chosen.member.sum(axis=1).astype(np.float64)
    return {
        "common_neuron_ratio": ratio_of(chosen, other),
        "neurons": neurons,
        "coverage_ratio": np.asarray((neurons > 0).mean()),
        "neurons_per_category": np.asarray(neurons.mean()),
        "aape": chosen.aape,
    }


def _in_threads(draw: Callable[[int], T], n: int, threads: int | None) -> Iterator[T]:
    """draw(0) to draw(n - 1), in order."""
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        try:
            yield from pool.map(draw, range(n))
        finally:
            pool.shutdown(cancel_futures=True)


def _stacked(each: Iterator[Values], like: Values, n: int) -> Values:
    drawn = {name: np.empty((n, *value.shape), value.dtype) for name, value in like.items()}
    for i, values in enumerate(each):
        for name, value in values.items():
            drawn[name][i] = value
    return drawn


def _evidence(sample: Sample, found: NDArray[Any], null: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """AAPE as evidence (neuron), and which neurons to test; the draws (draw, neuron) are turned in place.

    For P near a neuron's overall rate r, the deficit ln C - AAPE is about the variance of P over categories,
    divided by 2 r^2, and so in proportion to (1 - r) / r. Divided by that, which no shuffling changes, all neurons
    are on one scale.
    """
    (active,), (of,) = sample.counts(np.zeros_like(sample.codes), 1)
    scale = (active / np.maximum(of - active, 1)).astype(np.float32)
    most = np.float32(np.log(len(sample.categories)))
    np.subtract(most, null, out=null)
    null *= scale
    return (most - found) * scale, sample.evidence >= len(sample.categories)


def _result(asked: _Asked, theirs: _Asked | None, chosen: Selected, found: Values) -> xr.Dataset:
    """The selection, and every statistic as found."""
    sample = asked.sample
    counts, of = sample.counts(sample.codes, len(sample.categories))
    exact = aape(xr.DataArray(counts / of[:, None], dims=("category", "neuron"))).values
    other = sample if theirs is None else theirs.sample
    about = {"rule": asked.rule, "percentile": asked.percentile}
    if theirs is not None:
        about["against_percentile"] = theirs.percentile
    return selection_found(sample, other.categories, chosen, {**found, "aape": exact}).assign_attrs(about)
