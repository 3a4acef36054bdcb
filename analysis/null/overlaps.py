"""Selections and their overlaps against shuffled labels, for labellings of stores.

Goal: what commands, figures and tables need of `permutation` in common.
Conventions: as in `selection.labellings`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from ..overlap import common_neuron_ratio, labelled
from ..selection.labellings import SelectedLabelling
from ..selection.selection import MAX_PERMUTATIONS as MAX_DRAWS
from ..selection.selection import Selection
from .permutation import bootstrap, permutation_null, with_null
from .resampling import Sample
from .significance import fewest_draws, fewest_permutations

CONFIDENCE = 0.95


def check_draws(draws: int) -> None:
    """Raise ValueError for draws of a bootstrap, if any, that are too few for a 95 % interval, or too many."""
    fewest = fewest_draws(CONFIDENCE)
    if draws and not fewest <= draws <= MAX_DRAWS:
        raise ValueError(
            f"found {draws} draws of a bootstrap; expected {fewest} to {MAX_DRAWS}: fewer have no {CONFIDENCE:.0%} "
            "interval"
        )


def check_permutations(how: Selection) -> None:
    """Raise ValueError for permutations too few for anything to be found at the level, however clear it is."""
    if how.permutations < (fewest := fewest_permutations(how.level)):
        raise ValueError(
            f"found {how.permutations} permutations with level {how.level:g}, by which no p is below "
            f"{1 / (1 + how.permutations):.2g}; expected at least {fewest} permutations, or a higher --level"
        )


def against_null(
    one: SelectedLabelling,
    other: SelectedLabelling | None,
    balanced: bool = False,
    draws: int = 0,
    side: str = "both",
) -> xr.Dataset:
    """The permutation null of a selection and its overlaps, and `draws` of a bootstrap, for 95 % intervals.

    other: another labelling; the same one once more is none, for what it has in common with itself is no finding. Its
    labels stay as they are. balanced: every category is cut down to the size of the smallest.
    side: as for `permutation_null`.
    Raises what `check_draws` and both functions raise.
    """
    check_draws(draws)
    sample = _sample(one, one.how, balanced)
    about: dict[str, Any] = {}
    if other is not None and other.name != one.name:
        held = replace(other.how, group="", within=())
        about = {"against": _sample(other, held, balanced), "against_selection": other.how}
    result = permutation_null(sample, one.how, side=side, **about)
    if draws:
        drawn = bootstrap(sample, one.how, draws=draws, confidence=CONFIDENCE, **about)
        result = result.assign({name: drawn[name] for name in drawn.data_vars if name not in result})
    return result


def with_stability(one: SelectedLabelling, found: xr.Dataset, draws: int) -> xr.Dataset:
    """A selection with its `stability` (layer, neuron, category) over draws of a bootstrap. Raises as `bootstrap`."""
    drawn = bootstrap(_sample(one, one.how, balanced=False), one.how, draws=draws, confidence=CONFIDENCE)
    return found.assign(stability=drawn["stability"].variable)


def _sample(one: SelectedLabelling, how: Selection, balanced: bool) -> Sample:
    sample: Sample = one.ds.otoscope.sample(one.label, how, balanced=balanced, found=one.selection)
    return sample


def overlaps(
    found: Sequence[SelectedLabelling],
    others: Mapping[str, SelectedLabelling],
    shuffled: bool = False,
    balanced: bool = False,
    side: str = "both",
    show: str = "observed",
) -> list[tuple[str, xr.DataArray]]:
    """(store, common neuron ratio) of each labelling with itself, or with another one of the same store.

    Its dimensions bear the labellings' names. others: of `select_against`. shuffled: cells are marked as within the
    null, above it or below; balanced, side: as for `against_null`; show: as for `with_null`.
    """
    panels = []
    for one in found:
        other = others.get(one.store)
        if shuffled:
            ratio = with_null(against_null(one, other, balanced, side=side), show)
        else:
            ratio = common_neuron_ratio(one.selection["member"], None if other is None else other.selection["member"])
        panels.append((one.store, labelled(ratio, one.name, (other or one).name)))
    return panels


def summary(name: str, result: xr.Dataset) -> str:
    """What is beyond shuffled labels, and what was shuffled, in one line; result: of `against_null`."""
    ratio, side = "common_neuron_ratio", result.attrs["side"]
    tested = int(result[f"{ratio}_p"].notnull().sum())
    above, below = (int((result[f"{ratio}_side"] == way).sum()) for way in ("above", "below"))
    neurons, selected = (int((x & result["selected"]).sum()) for x in (result["aape_significant"], result["selected"]))
    level, smallest = result.attrs["level"], result.attrs["smallest_p"]
    whole = ", ".join(
        f"{label} {float(result[statistic]):.3g}" + (f" (p {p:.2g})" if p == p else "")
        for statistic, label in (("coverage_ratio", "coverage"), ("neurons_per_category", "neurons per category"))
        for p in [float(result[f"{statistic}_p"])]
    )
    cells = f"{below} of {tested} cells lie below shuffled labels"
    if side != "below":
        cells = f"{above} of {tested} cells exceed shuffled labels" + f", {below} lie below" * (side == "both")
    compared = f"{cells}, and {neurons} of {selected} selected neurons exceed them, at {level:g}"
    if smallest > level:
        compared = (
            f"none of {tested} cells and {selected} selected neurons can be beyond shuffled labels at {level:g}, for "
            f"with {result.attrs['permutations']} permutations of {result.attrs['units_exchanged']} units no p is "
            f"below {smallest:.2g} (expected: at least {fewest_permutations(level)} permutations, and units enough)"
        )
    return (
        f"{name}: {compared}, corrected; {whole}; largest category {result.attrs['imbalance']:.3g} times the smallest; "
        f"{result.attrs['units_exchanged']} units exchanged"
    )
