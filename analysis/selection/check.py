"""Whether a selection means anything; and if not, why, and what does.

Goal: an error that names its cause and a remedy that works: one that was tried on the same labelling.
Conventions: selections are those of `class_specific`, computed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from ...messages import quoted
from .. import accessor  # noqa: F401  registers ds.otoscope
from ..conditions import listed
from .confirm import confirmed
from .selection import PERCENTILE, Selection, threshold_text
from .selectivity import WEIGHTS, median_of, overall_rate, share_of_highest

QUANTILES = (0.8, 0.95)  # of the means of all categories: thresholds that are tried after the neuron's own
NEARLY_ALL, NEARLY_NONE = 0.95, 0.05  # of the clips, or frames
RELATIVE = "q80"  # a threshold that says when a neuron is more active than usual, not whether it is active at all
MAX_TRIED = 1 << 31  # bytes of means up to which a remedy is tried before it is named: some ten seconds


class NothingSelected(ValueError):
    """Nothing can be selected from a labelling as it was asked; the message says why and what to do."""


def select(ds: xr.Dataset, label: str, how: Selection) -> xr.Dataset:
    """Class-specific neurons, computed, from the clips that a data set has, whatever `how.clips` says."""
    found: xr.Dataset = ds.otoscope.class_specific(label, how, clips="all").compute()
    if how.confirm:
        beside = confirmed(ds, label, how, found)
        found = found.assign(beside.variables).assign_attrs(beside.attrs)
    return found


def check_categories(categories: Sequence[str], name: str, how: Selection) -> None:
    """Raise NothingSelected for fewer than two categories with clips; name: of the labelling."""
    if len(categories) < 2:
        found = f"1 category with clips ({quoted(categories[0])})" if categories else "no category with clips"
        other = ", or other clips" if how.where or how.confirm else ""
        raise NothingSelected(
            f"{_with_clips(name, how)} has {found}; expected at least 2 to compare: use another label column{other}"
        )


def _with_clips(name: str, how: Selection) -> str:
    parts = [f"with {listed(how.where)}"] * bool(how.where)
    parts += [f"but those that confirm ({listed(how.confirm)})"] * bool(how.confirm)
    return f"{name} of the clips {' '.join(parts)}" if parts else name


def check_selection(selection: xr.Dataset, name: str, how: Selection, remedy: Callable[[], str]) -> None:
    """Raise NothingSelected, with what to do about it, where a selection cannot mean anything.

    name: of the labelling, as in "cremad:gender". remedy: what to use instead where the probabilities are the cause, as
    of `remedy_for`; asked only then.
    """
    check_categories([str(category) for category in selection["category"].values], name, how)
    name = _with_clips(name, how)
    if how.rule == "contrast":
        return  # that nothing passes a test is an answer
    reading = selection["probability"].attrs.get("reading", "clip")
    by = f"by the reading {reading!r}{'' if how.line is None else f' and the threshold {threshold_text(how.line)}'}"
    if bool(selection["saturated"]):
        raise NothingSelected(
            f"{name}: {by} {_saturation(selection)}, so that no neuron stands out; expected probabilities that differ: "
            f"{remedy()}"
        )
    if not bool((selection["probability"] > 0).any()):
        raise NothingSelected(f"{name}: {by} no neuron is active in any clip; expected some: {remedy()}")
    percentile = how.percentile or PERCENTILE
    if (enough := _enough(selection)) > percentile:
        n_neurons = int(selection["probability"].notnull().any("category").sum())
        raise NothingSelected(
            f"{name}: no neuron is selected out of {n_neurons}; expected at least one at percentile "
            f"{percentile:g}: use --percentile {enough:g} or more"
        )


def _enough(selection: xr.Dataset) -> float:
    """The percentile of the selection, or if that is of no neuron at all the lowest one that is of one."""
    percentile: float = selection.attrs["percentile"]
    n_neurons = int(selection["probability"].notnull().any("category").sum())
    if selection.attrs["rule"] == "lape" and n_neurons and not round(n_neurons * percentile / 100):
        return math.ceil(1e4 / n_neurons) / 100
    return percentile


def _saturation(selection: xr.Dataset) -> str:
    """What saturates, in words: the line that nothing exceeds is itself the highest probability."""
    if bool(selection["selected"].any()):
        which, highest = "more than 5 % of the selected neurons' probabilities equal", "probability_threshold"
    elif selection.attrs["rule"] == "paper":
        which, highest = "at least 95 % of the neurons reach in some category", "activity_threshold"
    else:
        which, highest = "more than 5 % of the activation probabilities equal", "activity_threshold"
    return f"{which} the highest one, {float(selection[highest]):.4g}"


def answers_of(selection: xr.Dataset, how: Selection) -> tuple[str, ...]:
    """What tests that found nothing found, and how far other clips confirm a selection, a line each."""
    lines = []
    if how.rule == "contrast" and not bool(selection["selected"].any()):
        lines.append(_nothing_passed(selection, how))
    if "hold_up" in selection.attrs:
        share, chance, high = (selection.attrs[f"hold_up{part}"] for part in ("", "_shuffled", "_shuffled_high"))
        n = int(selection["holds_up"].notnull().sum())
        clips = f"{selection.attrs['hold_up_clips']} clips with {listed(how.confirm)}"
        beside = f"(shuffled labels: {chance:.1%}, in 95 of 100 at most {high:.1%})"
        lines.append(
            f"{share:.1%} of {n} selected cells hold up on {clips} {beside}" if n else f"nothing to test on {clips}"
        )
    return tuple(lines)


def _nothing_passed(selection: xr.Dataset, how: Selection) -> str:
    if not bool(selection["q"].notnull().any()):
        if bool(selection["z"].notnull().any()):
            return "no neuron can be tested: one of the two categories is of a single clip or group"
        return "no neuron can be tested: of each, all means are alike, or some are not known"
    away = np.maximum(selection["auc"], 1 - selection["auc"]) if how.sign == "both" else selection["auc"]
    largest = float(1 - away.min() if how.sign == "negative" else away.max())
    smallest, units = selection.attrs["smallest_p"], selection.attrs["units_exchanged"]
    few = f"; none can be below {smallest:.2g} with {units} clips or groups to exchange, expected more"
    return (
        f"no neuron is specific for a category: with {how.permutations:,} permutations the smallest q is "
        f"{float(selection['q'].min()):.2g} (level {how.level:g}{few * (smallest > how.level)}), the largest AUC "
        f"{largest:.3f} (min_effect {how.min_effect:g})"
    )


def cautions_on(selection: xr.Dataset, how: Selection, remedy: Callable[[], str]) -> tuple[str, ...]:
    """What speaks against a selection, in a line that ends with what to do; nothing where nothing does.

    Said are: that the median AAPE / ln C of the selected neurons is not below that of the others which fire; and that
    the selected are on for nearly all clips (or frames), median overall rate above `NEARLY_ALL`, or for nearly none,
    below `NEARLY_NONE` and below 1 / (4 C), since a neuron that fires for one category alone has a rate near 1 / C.
    Nothing is said of rates where probabilities were made elsewhere, without counts; nor of the AAPE of neurons that
    fall silent, which is high by nature.
    remedy: what to use instead, as of `relative_remedy`; asked only then.
    """
    falls_silent = how.rule == "contrast" and how.sign != "positive"
    found = [] if falls_silent else [_not_selective(selection)]
    if any(name in selection.coords for name in WEIGHTS):
        found.append(_hardly_ever(selection))
    if faults := " and ".join(filter(None, found)):
        return (f"the selected neurons ({int(selection['selected'].sum())}) are {faults}: {remedy()}",)
    return ()


def _not_selective(selection: xr.Dataset) -> str:
    share = share_of_highest(selection["aape"], selection["probability"])
    selected, others = (median_of(share, which) for which in (selection["selected"], ~selection["selected"]))
    if not selected >= others:  # NaN where there are none
        return ""
    return f"not more selective than the others (median AAPE / ln C {selected:.3f} against {others:.3f})"


def _hardly_ever(selection: xr.Dataset) -> str:
    """Whether the median selected neuron is nearly always or hardly ever on."""
    rate = median_of(overall_rate(selection["probability"]), selection["selected"])
    units = "frames" if "n_frames" in selection.coords else "clips"
    if rate > NEARLY_ALL:
        return f"on for nearly all {units} (median overall rate {rate:.3g})"
    if rate < min(NEARLY_NONE, 0.25 / selection.sizes["category"]):
        return f"on for nearly no {units} (median overall rate {rate:.2g})"
    return ""


def relative_remedy(ds: xr.Dataset, label: str, how: Selection, max_tried: int | None = None) -> str:
    """What to do about the cautions on a selection; thresholds of the neurons' own are tried before they are named.

    Means of more bytes than `max_tried` [MAX_TRIED] are not gone through for a line of advice: "try" then says so.
    """
    if "clip" not in ds.dims:
        return f"make the probabilities again, as `otoscope table probability --threshold {RELATIVE}` does"
    if "mean" not in ds:
        return f"extract with --keep mean, which --threshold {RELATIVE} and --rule contrast need"
    option = f"{'' if how.reading == 'clip' else '--reading clip '}--threshold {RELATIVE}"
    if isinstance(how.line, str) and how.line == RELATIVE:
        option = ""
    elif ds["mean"].nbytes > (MAX_TRIED if max_tried is None else max_tried):
        return f"try {option}, or --rule contrast"
    else:
        other = replace(how, reading="clip", threshold=RELATIVE)
        found = select(ds, label, other)
        if bool(found["member"].any()) and not cautions_on(found, other, str):
            return f"use {option}"
    if how.rule == "contrast":
        return "use another label column, for the neurons hardly tell these categories apart"
    return "use --rule contrast, which selects none but neurons that a test tells apart"


def remedy_for(ds: xr.Dataset, label: str, how: Selection) -> str:
    """What to do so that something is selected from the same clips; options are tried before they are named."""
    if "clip" not in ds.dims:
        return "make them again by another reading, as `otoscope export --reading frame` does"
    for options, other in _others(ds, label, how):
        found = select(ds, label, other)
        if (enough := _enough(found)) > (other.percentile or PERCENTILE):
            options = f"{options} --percentile {enough:g}"
            found = select(ds, label, replace(other, percentile=enough))
        if bool(found["selected"].any()) and not bool(found["saturated"]):
            return f"use {options}"
    kept = " and ".join(name for name in ("positive_frames", "mean") if name in ds) or "the bits alone"
    return f"use another label column, for no reading of what this task keeps ({kept}) tells these categories apart"


def _others(ds: xr.Dataset, label: str, how: Selection) -> Iterator[tuple[str, Selection]]:
    """Other selections and the options that make them: the kind of reading that was asked for comes first."""
    thresholds = _thresholds(ds, label, how)
    if how.threshold is not None:
        yield from thresholds
    if how.reading != "frame" and "positive_frames" in ds:
        without = "" if how.threshold is None else " without --threshold"
        yield f"--reading frame{without}", replace(how, reading="frame", threshold=None)
    yield from thresholds


def _thresholds(ds: xr.Dataset, label: str, how: Selection) -> Iterator[tuple[str, Selection]]:
    if "mean" in ds:
        reading = "" if how.reading == "clip" else "--reading clip "
        if how.line != RELATIVE:
            yield f"{reading}--threshold {RELATIVE}", replace(how, reading="clip", threshold=RELATIVE)
        for line in np.nanquantile(ds.otoscope.category_mean(label, how, clips="all").values, QUANTILES):
            threshold = float(f"{line:.2g}")
            yield f"{reading}--threshold {threshold:g}", replace(how, reading="clip", threshold=threshold)
