"""Uncertainty: permutation nulls and bootstrap intervals for selection, coverage, AAPE and common neuron ratios.

Goal: for every number of a selection, what it would be if labels meant nothing, and how far it moves with other
clips.
Conventions: in the reading of a `Sample` and by either rule; computed at once, not lazily, for the draws need all
clips thousands of times. Statistics are arrays over the neurons that exist until they become variables (layer, neuron).
Memory: the sample (one bit per clip and neuron, or one or two bytes by the reading "frame"), 4 bytes per draw and
neuron, and per thread 8 to 16 bytes per category and neuron (a bootstrap of bits: also the sample once more). A seed
gives the same result with any number of threads.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..categories import category_names
from ..kinds import SHOWN
from ..selection.from_counts import Selected, aape_of_counts, ratio_of, select_counts
from ..selection.selection import Selection, published_selection, selection_of
from ..selection.selectivity import entropy_of
from .resampling import Sample, check_drawable, redraw_clips, shuffle_labels
from .significance import check_side, exceedance, intervals, moments

T = TypeVar("T")
Values = dict[str, NDArray[Any]]
"""A statistic each, of one draw (cell...) or of all (draw, cell...)."""

STATISTICS = {
    "common_neuron_ratio": (("category", "other_category"), "common neuron ratio", "1"),
    "neurons": (("category",), "class-specific neurons", "neurons"),
    "coverage_ratio": ((), "class coverage ratio", "1"),
    "neurons_per_category": ((), "class-specific neurons per category", "neurons"),
    "aape": (("layer", "neuron"), "AAPE", "nat"),
}
PARTS = {
    "null_mean": "mean {} over shuffled labels",
    "null_sd": "standard deviation of the {} over shuffled labels",
    "p": "p of the {}",
    "p_corrected": "family-wise corrected p of the {}",
    "significant": "whether the {} is beyond the null",
    "side": "where the {} is beyond the null: above, below",
    "null_ratio": "{} over its mean over shuffled labels",
    "null_difference": "{} minus its mean over shuffled labels",
    "sd": "standard deviation of the {} over draws",
    "bias": "bias of the {} over draws",
    "low": "lower end of the interval of the {}",
    "high": "upper end of the interval of the {}",
}


def permutation_null(
    sample: Sample,
    selection: Selection | None = None,
    *,
    against: Sample | None = None,
    against_selection: Selection | None = None,
    side: str = "both",
    threads: int | None = None,
    **changes: Any,
) -> xr.Dataset:
    """What each number would be if the labels of the clips meant nothing, and whether it is beyond that.

    For each statistic s (common_neuron_ratio (category, other_category), neurons (category), coverage_ratio and
    neurons_per_category (), aape (layer, neuron)): s as found, s_null_mean and s_null_sd over the shuffled labels;
    s_p, the share of labellings, the one found included, that give as much or more (AAPE: as little or less; ratios
    by `side`); s_p_corrected, the same for the most extreme of all cells of s (see `exceedance`), so that the chance of
    a single false finding in s is at most `level`; s_significant, whether s_p_corrected <= level. Of the common neuron
    ratio also s_side, "above" or "below" where it is significant, else ""; s_null_ratio and s_null_difference, as found
    over and minus s_null_mean, NaN where it is not tested, the ratio also where both are 0. `member`, `selected`: the
    selection found. The attribute `smallest_p` is the p below which so many permutations, or so few
    units, cannot go: above `level`, nothing can be significant.

    selection, changes: as for `class_specific`, as in `permutation_null(sample, percentile=5)`; its `permutations`,
    `level` and `seed` are those of the null.
    against: another labelling, whose neurons, by against_selection (by default the same), are held as found: only
    the labels of `sample` are shuffled. Without it, the ratio is within the labelling, and its diagonal, always 1, is
    not tested; nor are, with it, two categories of the same clips. A ratio of two categories without neurons is
    none, and has no p.
    AAPE is tested for neurons that are active, and inactive, in as many clips as there are categories or more; the
    others have p NaN: a neuron that is active in one clip is always perfectly selective.
    side: which overlaps are evidence: "above" those higher than by chance; "below" the lower ones, of categories that
        avoid each other's neurons; "both" those far from their mean over labellings either way.
    threads: as many as there are cores by default.
    The AAPE of draws is to 1e-6 nats, the rest is exact.
    Raises ValueError where there is nothing to shuffle, and for a side that is none.
    """
    check_side(side)
    ours = _selection(sample, selection, changes)
    theirs = against_selection or ours
    permutations, level, seed = ours.permutations, ours.level, ours.seed
    _check(sample, against)
    other = None if against is None else _select(against, theirs)

    def draw(i: int) -> Values:
        return _statistics(_select(sample, ours, shuffle_labels(sample, seed, i)), other)

    chosen = _select(sample, ours)
    found = _statistics(chosen, other)
    drawn = _stacked(_in_threads(draw, permutations, threads), found, permutations)
    result = _result(sample, ours, against, theirs, chosen, found)
    smallest = sample.smallest_p(permutations)
    for name, value in found.items():
        null, tested = drawn[name], np.ones(value.shape, bool)
        mean, sd = moments(null if name == "aape" else np.nan_to_num(null))
        parts: Values = {"null_mean": mean, "null_sd": sd}
        of_ratios = name == "common_neuron_ratio"
        if of_ratios:
            tested = ~_same_clips(sample, against)
        if name == "aape":
            value, tested = _evidence(sample, value, null)
        elif not of_ratios and sample.ranked is not None:
            tested = np.zeros(value.shape, bool)  # draws take as many neurons as were found
        parts["p"], corrected = exceedance(value, null, tested, side if of_ratios else "above")
        parts["p_corrected"] = np.maximum(corrected, smallest)  # that few draws missed the one found is no evidence
        parts["significant"] = parts["p_corrected"] <= level
        if of_ratios:
            above = value > mean if side == "both" else np.full(value.shape, side == "above")
            where = np.where(above, "above", "below").astype(object)
            parts["side"] = np.where(parts["significant"], where, "")
            with np.errstate(divide="ignore", invalid="ignore"):
                beside = {"null_ratio": value / mean, "null_difference": value - mean}
            parts |= {each: np.where(np.isnan(parts["p"]), np.nan, values) for each, values in beside.items()}
        result = result.assign(_variables(sample, name, parts))
    return result.assign_attrs(
        permutations=permutations, seed=seed, level=level, smallest_p=smallest, side=side, group=ours.group,
        within=ours.within,
    )  # fmt: skip


def bootstrap(
    sample: Sample,
    selection: Selection | None = None,
    *,
    draws: int = 1000,
    against: Sample | None = None,
    against_selection: Selection | None = None,
    confidence: float = 0.95,
    threads: int | None = None,
    **changes: Any,
) -> xr.Dataset:
    """How far each number moves when clips, or groups of clips, are drawn anew from those that there are.

    For each statistic s of `permutation_null`: s as found, s_sd, s_bias (mean over draws minus s), s_low and
    s_high: the basic bootstrap interval (see `intervals`), which allows for the bias that drawing with replacement
    repeats, since noise makes entropies too low and sets of neurons too different.
    stability (layer, neuron, category): the share of draws in which a neuron is specific for a category;
    selected_stability (layer, neuron): that in which it is selected. `member`, `selected`: the selection found.

    selection, changes, against, against_selection: as for `permutation_null`, but the clips of `against` are drawn
    anew too, independently.
    Intervals are NaN with fewer than `fewest_draws(confidence)` draws, 39 for 0.95.
    Raises ValueError for a percentile, confidence or number of draws that cannot be, for groups too few to draw, and
    for a category that has one clip or group only.
    """
    ours = _selection(sample, selection, changes)
    theirs = against_selection or ours
    seed = ours.seed
    _check(sample, against)
    if draws < 1:
        raise ValueError(f"found {draws} draws; expected at least 1, and 1,000 for intervals")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95")
    for each in (sample, against or sample):
        check_drawable(each)
    n_categories, n_neurons = len(sample.categories), sample.existing.size
    times, times_selected = np.zeros((n_categories, n_neurons), np.int32), np.zeros(n_neurons, np.int32)

    def draw(i: int) -> tuple[Values, Selected]:
        one = _select(sample, ours, clips=redraw_clips(sample, seed, i, 0))
        if against is None:
            return _statistics(one, None), one
        return _statistics(one, _select(against, theirs, clips=redraw_clips(against, seed, i, 1))), one

    def counted() -> Iterator[Values]:
        for values, one in _in_threads(draw, draws, threads):
            times[:, one.neurons] += one.member
            times_selected[one.neurons] += 1
            yield values

    chosen = _select(sample, ours)
    found = _statistics(chosen, None if against is None else _select(against, theirs))
    drawn = _stacked(counted(), found, draws)
    result = _result(sample, ours, against, theirs, chosen, found)
    highest = {"aape": float(np.log(n_categories)), "neurons": np.inf, "neurons_per_category": np.inf}
    for name, value in found.items():
        parts = intervals(value, drawn[name], confidence, highest.get(name, 1.0))
        result = result.assign(_variables(sample, name, parts))
    stability = over_neurons(sample, times / draws, np.nan).assign_attrs(
        long_name="share of draws in which the neuron is class-specific", units="1"
    )
    selected_stability = over_neurons(sample, times_selected / draws, np.nan).assign_attrs(
        long_name="share of draws in which the neuron is selected", units="1"
    )
    result = result.assign(stability=stability, selected_stability=selected_stability)
    return result.assign_attrs(draws=draws, seed=seed, confidence=confidence)


def with_null(result: xr.Dataset, show: str = "observed") -> xr.DataArray:
    """The common neuron ratio of a permutation null, for `overlap_figure`, which marks cells by two coordinates.

    They are `within_null`, bool (category, other_category), and `null_side`, "above" or "below" for cells beyond the
    null; cells that were not tested are neither. The attribute `test` says in words how they were.
    show: "observed" the ratio itself; "ratio" and "difference" the ratio over and minus its mean over shuffled labels.
    Raises ValueError for something else to show.
    """
    if show not in SHOWN:
        raise ValueError(f"show is {show!r}; expected one of {', '.join(SHOWN)}")
    name, attrs = "common_neuron_ratio", result.attrs
    within = result[f"{name}_p_corrected"] > attrs["level"]
    sides = result[f"{name}_side"]
    ratio: xr.DataArray = result[name if show == "observed" else f"{name}_null_{show}"]
    ratio = ratio.assign_coords(within_null=within.drop_attrs(), null_side=sides.drop_attrs())
    way = "two-sided" if attrs["side"] == "both" else f"one-sided, {attrs['side']}"
    test = [f"{way}, corrected for all cells by the most extreme", f"{attrs['permutations']:,} permutations"]
    test += [f"groups by {attrs['group']} moved whole"] * bool(attrs["group"])
    test += [f"within {', '.join(attrs['within'])}"] * bool(attrs["within"])
    test += ["categories cut down to the smallest"] * bool(attrs["balanced"])
    about = {each: attrs[each] for each in ("level", "smallest_p")}
    return ratio.assign_attrs(about, show=show, test="; ".join(test))


def _selection(sample: Sample, selection: Selection | None, changes: dict[str, Any]) -> Selection:
    return (published_selection if sample.ranked is None else selection_of)(selection, **changes)


def _check(sample: Sample, against: Sample | None) -> None:
    if against is not None and not against.neurons.equals(sample.neurons):
        raise ValueError(
            "the two labellings are of different neurons; expected the same layers and neurons: "
            "only neurons of one encoder can be common"
        )


def _same_clips(sample: Sample, against: Sample | None) -> NDArray[np.bool_]:
    """Whether two categories (category, other category) are of the same clips, as far as activity tells."""
    if against is None:
        return np.eye(len(sample.categories), dtype=bool)
    ours, theirs = (np.column_stack(each.counts(each.codes, len(each.categories))[::-1]) for each in (sample, against))
    return np.array([(theirs == row).all(axis=1) for row in ours])


def _select(
    sample: Sample, selection: Selection, codes: NDArray[np.int64] | None = None, clips: NDArray[np.intp] | None = None
) -> Selected:
    """The selection as found, with other codes (clip), or with other clips (clip)."""
    own = sample.codes if codes is None else codes
    counts, of = sample.counts(own, len(sample.categories), clips)
    if sample.ranked is None:
        return select_counts(counts, of, selection)
    member = sample.ranked.member
    if codes is not None or clips is not None:
        member = sample.ranked.shuffled(own) if clips is None else sample.ranked.redrawn(clips)
    neurons = np.flatnonzero(member.any(axis=0))
    return Selected(aape=aape_of_counts(counts, of), neurons=neurons, member=member[:, neurons])


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
    largest = np.float32(np.log(len(sample.categories)))
    np.subtract(largest, null, out=null)
    null *= scale
    return (largest - found) * scale, sample.evidence >= len(sample.categories)


def _result(
    sample: Sample, ours: Selection, against: Sample | None, theirs: Selection, chosen: Selected, found: Values
) -> xr.Dataset:
    """What was selected, every statistic as found (AAPE exactly), and what was exchanged."""
    counts, of = sample.counts(sample.codes, len(sample.categories))
    exact = entropy_of((counts / of[:, None]).T)
    member = over_neurons(sample, chosen.dense(sample.existing.size), False)
    selected = over_neurons(sample, np.isin(np.arange(sample.existing.size), chosen.neurons), False)
    result = xr.Dataset(
        {
            "member": member.assign_attrs(long_name="class-specific"),
            "selected": selected.assign_attrs(long_name="selected"),
        }
    )
    for name, value in {**found, "aape": exact}.items():
        result = result.assign(_variables(sample, name, {"": value}))
    n_clips = xr.Variable("category", sample.clips_per_category, {"long_name": "clips", "units": "clips"})
    other_categories = (sample if against is None else against).categories
    result = result.assign_coords(
        category=category_names(sample.categories),
        other_category=category_names(other_categories, "other_category"),
        n_clips=n_clips,
    ).assign_attrs(
        balanced=int(sample.balanced),
        imbalance=sample.imbalance,
        units_exchanged=len(sample.first_and_unit[0]),
        rule=ours.rule,
        percentile=np.nan if ours.percentile is None else ours.percentile,
    )
    if against is None or theirs.percentile is None:
        return result
    return result.assign_attrs(against_percentile=theirs.percentile)


def _variables(sample: Sample, name: str, parts: Values) -> dict[str, xr.DataArray]:
    """Parts (cell...) of a statistic as variables "statistic_part", with its dimensions."""
    dims, long_name, units = STATISTICS[name]
    made = {}
    for part, values in parts.items():
        if name == "aape":
            array = over_neurons(sample, values, False if values.dtype == bool else np.nan)
        else:
            array = xr.DataArray(values, dims=dims)
        about = {"long_name": PARTS[part].format(long_name) if part else long_name}
        if part not in ("p", "p_corrected", "significant", "side"):
            about["units"] = units
        made[f"{name}_{part}" if part else name] = array.assign_attrs(about)
    return made


def over_neurons(sample: Sample, values: NDArray[Any], missing: Any) -> xr.DataArray:
    """Values (..., existing neuron) of a sample as (layer, neuron, ...), `missing` where no neuron is."""
    full = np.full((*values.shape[:-1], sample.neurons.size), missing, values.dtype)
    full[..., sample.neurons.values.ravel()] = values
    full = full.reshape(*values.shape[:-1], *sample.neurons.shape)
    dims = ("category", "layer", "neuron")[3 - full.ndim :]
    return xr.DataArray(full, sample.neurons.coords, dims=dims).transpose("layer", "neuron", ...)
