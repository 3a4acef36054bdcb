"""Latents against neurons: whether latents are better units than those that cost nothing, or than untrained ones.

Goal: one answer per state, by all usual measures at once, with controls beside each.
Conventions: kinds of units, and the equal terms on which they are compared, are those of `units`. SAEs of one state are
taken for one training with several seeds. Intervals draw groups of clips and SAEs anew.

Measures, over the units compared:
    aape        median AAPE / ln C
    effective   exp of the median AAPE, in categories
    serving     share of the units that serve a category
    categories  mean number of categories that one of these serves
    coverage    share of categories that any unit serves
    k1, k2, ... balanced accuracy of probes of so many units, of their values as they are; see `k_sparse`

A unit serves a category where it is active in a larger share of the clips than of all others, by more than chance makes
of any unit and category: (P_c - P_others) / s > t, with s the deviation of the difference over draws of groups, times
the root of n / (n - 1) for n groups, and t what Student's t of n - 1 exceeds in 0.05 / (units x categories) of cases.
No published rule is taken for that: they assign a fixed share of all cells, whatever units know, and nothing where
perfect units tie. Answers do not speak of `effective`, which is `aape` again, nor of `categories`, which is of few
units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from ..analysis.selection.from_counts import aape_of_counts
from .k_sparse import balanced_accuracy, k_sparse_right
from .labelled import Labelled
from .resampled import GroupDraws, draw_groups, interval
from .stored_latents import LatentLayer
from .stored_values import Floats
from .units import LATENTS, OTHERS, active_as_often, units_of

KS = (1, 2, 5, 10)
GROUP_DRAWS = 200
UNIT_DRAWS = 3
ERROR = 0.05  # chance that a unit that knows nothing serves a category, among all of a kind
BETTER = {"aape": -1, "serving": 1, "coverage": 1, **{f"k{k}": 1 for k in KS}}
"""Whether more of a measure is better, or less; of those of which answers speak."""
BOUNDS = {"aape": 1.0, "serving": 1.0, "coverage": 1.0, **{f"k{k}": 1.0 for k in KS}}
"""The most that a measure can be."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Measures of each kind of units, and the answer in words."""

    table: pd.DataFrame
    answers: tuple[str, ...]


Measured = dict[str, tuple[float, NDArray[np.float64]]]
"""By measure, its value and what it is in each draw of groups (draw)."""


def compare_units(
    of: Labelled,
    latents: Sequence[LatentLayer],
    controls: Mapping[str, Sequence[LatentLayer]] | None = None,
    *,
    unit_draws: int = UNIT_DRAWS,
) -> Comparison:
    """A row per state that there are latents of, and kind of units.

    controls: by name, latents of other SAEs, of each as many as there are in `latents`, in turn; those of other states
    are left out. unit_draws: how often units are drawn, of each SAE.
    Columns: state, kind, saes, units (that fire, or change), compared, rate (median share of clips in which one counts
    as active), and each measure with its low and high.
    Raises LookupError where states or means are not kept, ValueError for SAEs of one state that are unlike, controls
    without any of its states, names of controls that are kinds, and what intervals cannot be had of.
    """
    rows: list[dict[str, Any]] = []
    answers: list[str] = []
    draws = draw_groups(of.splits.groups, of.codes, GROUP_DRAWS, of.seed)
    for state in sorted({layer.state for layer in latents}):
        kinds = units_of(of, state, latents, controls or {})
        n_saes, n = len(kinds[0].values), min(units.n for units in kinds)
        if n < 1:
            idle = next(units.kind for units in kinds if units.n < 1)
            raise ValueError(f"state {state}: no unit of {idle} ever fires on these clips; expected some: train longer")
        repeats = [(sae, draw) for sae in range(n_saes) for draw in range(unit_draws)]
        mixed = np.random.default_rng([of.seed, n_saes]).integers(n_saes, size=(GROUP_DRAWS, n_saes))
        rates = {each: np.sort((kinds[0].drawn(n, each, of.seed) > 0).sum(axis=0)) for each in repeats}
        found: dict[str, Measured] = {}
        for units in kinds:
            measured = [_measured(of, units.drawn(n, each, of.seed), rates[each], draws) for each in repeats]
            own = {name: _together([one[name] for one in measured], n_saes, mixed) for name in measured[0]}
            saes = None if units.kind in OTHERS else len(units.values)
            row: dict[str, Any] = {"state": state, "kind": units.kind, "saes": saes, "units": units.n, "compared": n}
            row["rate"], _ = own.pop("rate")
            for name, (value, drawn) in own.items():
                low, high = interval(value, drawn, 0, BOUNDS.get(name, np.inf))
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
            found[units.kind] = own
        if single := [units.kind for units in kinds if units.kind not in OTHERS and len(units.values) == 1]:
            answers.append(
                f"state {state}: one SAE each of {', '.join(single)}: what other seeds give is in no interval; "
                "give several to say more than of these"
            )
        answers += [_answer(state, found[LATENTS], kind, own) for kind, own in found.items() if kind != LATENTS]
    return Comparison(table=pd.DataFrame(rows).astype({"saes": "Int64"}), answers=tuple(answers))


def _measured(of: Labelled, values: Floats, rates: NDArray[np.integer], draws: GroupDraws) -> Measured:
    """All measures of units (clip, unit)."""
    active = active_as_often(values, rates)
    found = _selectivity(of, active, draws)
    found["rate"] = (float(np.median(active.mean(axis=0))), np.full(len(draws.weights), np.nan))
    ks = [k for k in KS if k <= values.shape[1]]
    ours = of.codes[:, None] == np.arange(len(of.categories))
    tested = (of.splits.test_fold >= 0)[:, None]
    sides = [tested & ours, tested & ~ours]
    totals = [side.sum(axis=0).astype(np.float64) for side in sides]
    totals_drawn = [draws.sums(side) for side in sides]
    for k, right in zip(ks, k_sparse_right(values, of.codes, of.splits, ks), strict=True):
        answered = [right & side for side in sides]
        accuracy = balanced_accuracy(*(side.sum(axis=0).astype(np.float64) for side in answered), *totals)
        found[f"k{k}"] = (float(accuracy), balanced_accuracy(*map(draws.sums, answered), *totals_drawn))
    return found


def _selectivity(of: Labelled, active: NDArray[np.bool_], draws: GroupDraws) -> Measured:
    """Measures of when units are active (clip, unit)."""
    clips = [np.flatnonzero(of.codes == category) for category in range(len(of.categories))]
    counts = np.stack([active[own].sum(axis=0) for own in clips])  # (category, unit)
    sizes = np.array([len(own) for own in clips])
    counts_drawn = np.stack([draws.of_clips(own) @ active[own].astype(np.float32) for own in clips], axis=1)
    sizes_drawn = np.stack([draws.of_clips(own).sum(axis=1) for own in clips], axis=1)  # (draw, category)
    difference, drawn = _difference(counts, sizes), _difference(counts_drawn, sizes_drawn)
    n = draws.n_groups  # few groups know little of how much they differ
    line = student.isf(ERROR / difference.size, n - 1) * (n / (n - 1)) ** 0.5 * drawn.std(axis=0)

    def measured(own: NDArray[Any], size: NDArray[Any], serves: NDArray[np.bool_]) -> dict[str, float]:
        aape = aape_of_counts(own.astype(np.int64), size.astype(np.int64)).astype(np.float64)
        median = float(np.median(aape[~np.isnan(aape)])) if not np.isnan(aape).all() else float("nan")
        each = serves.sum(axis=0)
        return {
            "aape": median / float(np.log(len(size))),
            "effective": float(np.exp(median)),
            "serving": float((each > 0).mean()),
            "categories": float(each[each > 0].mean()) if each.any() else float("nan"),
            "coverage": float(serves.any(axis=1).mean()),
        }

    value = measured(counts, sizes, difference > line)
    of_draws = zip(counts_drawn, sizes_drawn, drawn > line, strict=True)
    each = [measured(own, size, serves) for own, size, serves in of_draws]
    return {name: (value[name], np.array([one[name] for one in each])) for name in value}


def _difference(counts: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float64]:
    """P_c - P_others (..., category, unit) of counts of active clips, and of how many clips (..., category)."""
    others = counts.sum(axis=-2, keepdims=True) - counts
    of_others = sizes.sum(axis=-1, keepdims=True) - sizes
    difference: NDArray[np.float64] = counts / sizes[..., None] - others / of_others[..., None]
    return difference


def _together(
    each: Sequence[tuple[float, NDArray[np.float64]]], n_saes: int, mixed: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """The mean over SAEs and draws of units, of those that know it; in each draw of groups over SAEs drawn anew, too.

    mixed: the SAEs of each draw (draw, SAE).
    """
    value = float(_mean(np.array([value for value, _ in each]), 0))
    by_sae = _mean(np.stack([drawn for _, drawn in each]).reshape(n_saes, -1, len(mixed)), 1)  # (SAE, draw)
    return value, _mean(by_sae[mixed, np.arange(len(mixed))[:, None]], 1)


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(axis=axis)
    return np.where(n > 0, np.where(known, values, 0).sum(axis=axis) / np.maximum(n, 1), np.nan)


def _answer(state: int, ours: Measured, kind: str, theirs: Measured) -> str:
    """Where latents are better than other units, where worse, and where the interval of the difference holds 0.

    Measure by measure: of seven that nothing is behind, one stands out in three of ten times.
    """
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    for name, sign in BETTER.items():
        if name not in ours:
            continue
        (value, drawn), (other, other_drawn) = ours[name], theirs[name]
        low, high = interval(sign * (value - other), sign * (drawn - other_drawn), -np.inf)
        text = f"{name} ({value:.3g}, {other:.3g})"
        (better if low > 0 else worse if high < 0 else open_).append(text if low > 0 or high < 0 else name)
    parts = [f"better by {', '.join(better)}"] * bool(better) + [f"worse by {', '.join(worse)}"] * bool(worse)
    parts += [f"not told apart by {', '.join(open_)}"] * bool(open_)
    verdict = "in part better" if better and worse else "better" if better else "worse" if worse else "not better"
    return f"state {state}: latents are {verdict} than {kind}: {'; '.join(parts)}"
