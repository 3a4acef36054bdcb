"""Neurons against latents: whether latents are better units than those that cost nothing, or than untrained ones.

Goal: one answer per state, by all usual measures at once, with controls beside each, on equal terms.
Conventions: kinds of units are latents; controls, latents of other SAEs of the same state; the neurons of the layer
before the state, where the encoder has one layer of neurons per transformer layer, else all of them; single dimensions
of the state; and principal components of it, each as two halves, max(s, 0) and max(-s, 0), those of most variance first.

Equal terms: units that never fire, or never change, are left out; of each kind as many are compared as the smallest has,
drawn by a seed, several times; of principal components the first. Unit by unit, they are active in as many clips as the
latents are: the kind's units in the order of how often they are above 0, the rarest like the rarest latent, each above
a threshold of its own, an order statistic of its values. Codes that are 0 cannot be made active: such units stay rarer.
Probes of k units take values as they are.

Measures, over the units compared: aape, the median AAPE / ln C; effective, exp of the median AAPE, in categories;
serving, the share of units that serve a category; categories, the mean number that one of these serves; coverage, the
share of categories that any unit serves; k1, k2 and so on, the balanced accuracy of probes of so many units. A unit
serves a category where it is active in a larger share of the clips than of all others, by more than chance makes of any
unit and category: (P_c - P_others) / s > z, where s is the deviation of the difference over draws of groups, and a normal
value exceeds z in 0.05 / (units x categories) of cases. No published rule is taken: they assign a fixed share of cells,
whatever units know, and nothing where perfect ones tie.

SAEs of one state are taken for the same training with other seeds. Intervals draw groups of clips and SAEs anew.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from ..analysis.selection.from_counts import aape_of_counts
from .k_sparse import balanced_accuracy, k_sparse_right
from .labelled import Floats, Labelled
from .resampled import GroupDraws, draw_groups, interval
from .stored_latents import LatentLayer

LATENTS, NEURONS, DIMENSIONS, COMPONENTS = "latents", "neurons", "dimensions", "principal components"
OTHERS = (NEURONS, DIMENSIONS, COMPONENTS)
KS = (1, 2, 5, 10)
GROUP_DRAWS = 200
UNIT_DRAWS = 3
ERROR = 0.05  # chance that a unit that knows nothing serves a category, among all of a kind
MAX_UNLIKE = 1.5  # ratio of latents firing per clip, up to which SAEs may differ by their seeds
BETTER = {"aape": -1, "serving": 1, "categories": -1, "coverage": 1, **{f"k{k}": 1 for k in KS}}
"""Whether more of a measure is better, or less; of those of which answers speak."""
BOUNDS = {"aape": 1.0, "serving": 1.0, "coverage": 1.0, **{f"k{k}": 1.0 for k in KS}}
"""The most that a measure can be."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Measures of each kind of units, and the answer in words."""

    table: pd.DataFrame
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """Units of one kind."""

    kind: str
    values: list[Floats]
    """(clip, unit) of each SAE; of other kinds one."""
    ordered: bool = False
    """Whether the first are taken, not any."""

    @cached_property
    def n(self) -> int:
        """Units of the smallest SAE."""
        return min(values.shape[1] for values in self.values)

    def drawn(self, n: int, sae: int, seed: Sequence[int]) -> Floats:
        """So many of them, (clip, n)."""
        values = self.values[sae % len(self.values)]
        if self.ordered or values.shape[1] == n:
            return values[:, :n]
        rng = np.random.default_rng([*seed, zlib.crc32(self.kind.encode())])
        return values[:, np.sort(rng.choice(values.shape[1], n, replace=False))]


def compare(
    of: Labelled,
    latents: Sequence[LatentLayer],
    controls: Mapping[str, Sequence[LatentLayer]] | None = None,
    *,
    unit_draws: int = UNIT_DRAWS,
    progress: Callable[[str], object] = lambda name: None,
) -> Comparison:
    """A row per state that there are latents of, and kind of units.

    controls: by name, latents of other SAEs; those of a state without `latents` are left out. unit_draws: how often
    units are drawn. progress: is given what was measured. Columns: state, kind, saes, units (that fire, or change), compared, rate (median share of clips in which
    one counts as active), and each measure with its low and high.
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
        found: dict[str, dict[str, tuple[float, NDArray[np.float64]]]] = {}
        reference = [np.sort((kinds[0].drawn(n, *_of(of.seed, each)) > 0).sum(axis=0)) for each in repeats]
        for units in kinds:
            each = []
            for repeat, rates in zip(repeats, reference, strict=True):
                each.append(_measured(of, units.drawn(n, *_of(of.seed, repeat)), rates, draws))
            found[units.kind] = {name: _together([one[name] for one in each], n_saes, mixed) for name in each[0]}
            saes = None if units.kind in OTHERS else len(units.values)
            row: dict[str, Any] = {
                "state": state, "kind": units.kind, "saes": saes, "units": units.n, "compared": n,
            }  # fmt: skip
            for name, (value, drawn) in found[units.kind].items():
                low, high = interval(value, drawn, 0, BOUNDS.get(name, np.inf))
                row |= {name: value} if name == "rate" else {name: value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
            progress(f"state {state}: {units.kind}")
        answers += [_answer(state, found[LATENTS], other.kind, found[other.kind]) for other in kinds[1:]]
    table = pd.DataFrame(rows)
    return Comparison(table=table.astype({"saes": "Int64"}), answers=tuple(answers))


def units_of(
    of: Labelled, state: int, latents: Sequence[LatentLayer], controls: Mapping[str, Sequence[LatentLayer]]
) -> list[Units]:
    """All kinds of units of a state, latents first; those that never fire, or never change, left out."""
    found = []
    for kind, layers in {LATENTS: latents, **controls}.items():
        own = [layer for layer in layers if layer.state == state]
        if kind in OTHERS:
            raise ValueError(f"a control is called {kind!r}, as another kind of units is; expected another name")
        if not own:
            states = ", ".join(str(number) for number in sorted({layer.state for layer in layers}))
            raise ValueError(f"the control {kind} has latents of state {states}; expected some of state {state}")
        codes = [layer.codes(of) for layer in own]
        fire = [float((values > 0).sum(axis=1).mean()) for values in codes]
        if len({values.shape[1] for values in codes}) > 1 or max(fire) > MAX_UNLIKE * min(fire):
            listed = ", ".join(
                f"{layer.name}: {n:.3g} of {values.shape[1]} fire"
                for layer, n, values in zip(own, fire, codes, strict=True)
            )
            raise ValueError(
                f"SAEs of state {state} are unlike ({listed}); expected one training with several seeds: choose layers, "
                "as LATENTS@0,2"
            )
        found.append(Units(kind=kind, values=[values[:, (values > 0).any(axis=0)] for values in codes]))
    values = of.state(state)
    n_sites = of.ds.sizes["layer"]
    layers = [max(state - 1, 0)] if n_sites == of.n_states - 1 else list(range(n_sites))
    neurons = np.concatenate([of.activations(of.ds, layer, of.where) for layer in layers], axis=1)
    found.append(Units(kind=NEURONS, values=[_changing(neurons)]))
    found.append(Units(kind=DIMENSIONS, values=[_changing(values)]))
    found.append(Units(kind=COMPONENTS, values=[signed_components(values)], ordered=True))
    return found


def signed_components(values: Floats) -> Floats:
    """Principal components of values (clip, width), each as two halves (clip, 2 x components), largest variance first.

    max(s, 0) and max(-s, 0), s the component's score; components without variance are left out.
    """
    apart = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    kept = np.flatnonzero(variance > 1e-9 * variance.max(initial=0))[::-1]
    directions = directions[:, kept]
    at = np.abs(directions).argmax(axis=0)  # signs are nobody's choice: the largest weight is made positive
    scores = apart @ (directions * np.sign(directions[at, np.arange(len(kept))]))
    halves = np.stack([scores, -scores], axis=2).reshape(len(values), -1)
    return np.maximum(halves, 0).astype(np.float32)


def active_as_often(values: Floats, rates: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether units count as active, (clip, unit), each in as many clips as its rate says, or in fewer where it ties.

    rates: numbers of clips, ascending (unit). The unit that is above 0 most rarely has the lowest, and so on.
    """
    n = len(values)
    wanted = np.empty(values.shape[1], np.int64)
    wanted[np.argsort((values > 0).sum(axis=0), kind="stable")] = rates
    ordered = np.sort(values, axis=0)
    highest_left = ordered[n - 1 - np.minimum(wanted, n - 1), np.arange(len(wanted))]
    active: NDArray[np.bool_] = values > np.where(wanted < n, highest_left, -np.inf)
    return active


def _changing(values: Floats) -> Floats:
    return values[:, (values != values[0]).any(axis=0)]


def _of(seed: int, repeat: tuple[int, int]) -> tuple[int, list[int]]:
    """Number of the SAE, and the seed by which units are drawn."""
    return repeat[0], [seed, *repeat]


Measured = dict[str, tuple[float, NDArray[np.float64]]]
"""By measure, its value and what it is in each draw of groups."""


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
    z = norm.isf(ERROR / difference.size)
    line = z * drawn.std(axis=0)

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

    Measure by measure: of eight that nothing is behind one in three times stands out.
    """
    better, worse, open_ = [], [], []
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
