"""Which rule finds what was planted, and what else does it select?

Data sets are drawn. Half of the neurons are nearly always on, one in ten never; one in ten drifts, its rate being that
of the recording session; some are planted; the rest are on in a share of the clips that no category changes. Half of
those planted are on more often in one category, a quarter in two; the others are nearly always on, and stronger in one
category. They number 1, 5 or 20 % of all; categories are 6 or 50, of 40 clips each or of many and few. Means are
ReLU-like, mostly 0 when off, or GELU-like, a little below 0 when off and for some neurons when on too. No rule is told
how many are planted: all but `contrast` select 5 % of the neurons. What they find when told is in the raw results.

A finding is a cell (neuron, category). Precision and recall are of all repeats together, precision 0 where nothing is
selected; coverage is the share of the categories with planted neurons that have one of them selected; false
discoveries are the mean over repeats of the share of what was selected that was not planted, nothing being none.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import binom

from otoscope.analysis import above, activation_probability, class_specific
from otoscope.analysis.contrast.rank_tests import contrast_tests, members
from otoscope.analysis.null.resampling import arrange_clips
from otoscope.analysis.own_thresholds import neuron_thresholds
from otoscope.analysis.selection.other_selectors import highest_scores, mean_difference, probability, probability_margin
from otoscope.analysis.selection.selection import Selection

from . import harness
from .harness import Figure, Measured

PERCENTILE = 5.0  # of neurons, where a rule must be told how many
OWN = "q80"
PUBLISHED: dict[str, tuple[str, float | str]] = {
    "lape, 0": ("lape", 0.0), "lape, q80": ("lape", OWN), "paper, 0": ("paper", 0.0), "paper, q80": ("paper", OWN),
}  # fmt: skip
SCORES = {"LAP": probability, "MAD": mean_difference, "CAS": probability_margin}
RULES = (*PUBLISHED, "contrast", *SCORES)
ALWAYS, NEVER, DRIFTING, SESSION = 0.5, 0.1, 0.1, 20  # shares of neurons; clips of a session
NEARLY = (0.85, 0.97)  # rates of being nearly always on
EACH = 40  # clips of a category, or that many on average
SHARES = (1, 5, 20)
CATEGORIES = (6, 50)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is planted, in what."""

    categories: int
    percent: float
    """Of the neurons, planted."""
    gelu: bool = False
    tailed: bool = False
    rates: tuple[float, float] = (0.8, 0.1)
    """In its category and elsewhere."""
    alike: bool = False
    """All planted neurons are on more often in one category."""


@dataclass(frozen=True, kw_only=True)
class Size:
    layers: int
    width: int
    categories: tuple[int, ...]
    shares: tuple[float, ...]
    repeats: int
    group_repeats: int


FULL = Size(layers=4, width=512, categories=CATEGORIES, shares=SHARES, repeats=3, group_repeats=200)
SMALL = Size(layers=1, width=200, categories=(4,), shares=(5,), repeats=1, group_repeats=4)


def clips_of(condition: Condition, rng: np.random.Generator) -> xr.DataArray:
    """Codes (clip) in no order: equally many of each category, or from five times the average down to an eighth."""
    n = condition.categories
    weight = 40.0 ** -(np.arange(n) / (n - 1)) if condition.tailed else np.ones(n)
    sizes = np.maximum(EACH // 8, np.round(EACH * n * weight / weight.sum())).astype(int)
    codes = rng.permutation(np.repeat(np.arange(n), sizes))
    return xr.DataArray(codes, dims="clip", attrs={"categories": [f"c{i:02}" for i in range(n)]})


def data_set(condition: Condition, size: Size, seed: int) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Means (layer, neuron, clip), codes (clip), and what was planted, bool (layer, neuron, category)."""
    rng = np.random.default_rng([17, seed])
    labels = clips_of(condition, rng)
    codes, n = labels.values, size.layers * size.width
    n_planted = round(n * condition.percent / 100)
    kinds = np.cumsum([round(n * ALWAYS), round(n * NEVER), round(n * DRIFTING), n_planted])
    always, never, drifting, planted, _ = np.split(rng.permutation(n), kinds)
    rate = np.repeat(rng.beta(2, 4, n)[:, None], len(codes), axis=1)  # of being on
    rate[always], rate[never] = rng.uniform(*NEARLY, (len(always), 1)), 0
    sessions = rng.beta(0.5, 0.5, (len(drifting), -(-len(codes) // SESSION)))
    rate[drifting] = np.repeat(sessions, SESSION, axis=1)[:, : len(codes)]

    truth = np.zeros((n, condition.categories), bool)
    kind = np.zeros(n_planted, int) if condition.alike else np.arange(n_planted) % 4  # 0, 1: in one; 2: in two
    first = rng.permutation(np.arange(n_planted) % condition.categories)
    truth[planted, first] = True
    second = (first + rng.integers(1, condition.categories, n_planted)) % condition.categories
    truth[planted[kind == 2], second[kind == 2]] = True
    inside = truth[:, codes]
    rate[planted] = np.where(inside[planted], *condition.rates)
    graded = planted[kind == 3]
    rate[graded] = rng.uniform(*NEARLY, (len(graded), 1))

    # Levels in standard deviations of the noise.
    high = np.r_[always, graded]
    height = rng.uniform(2, 8, (n, 1))
    height[high] = rng.uniform(5, 9, (len(high), 1))
    level = np.where(rng.random(rate.shape) < rate, height, -rng.uniform(2, 4, (n, 1)))
    level[graded] += inside[graded] * rng.uniform(1.25, 3, (len(graded), 1))
    level += rng.normal(size=level.shape)
    if condition.gelu:
        offset = np.full((n, 1), -0.08)
        offset[high] = 0.02  # on, these are above 0 by any function
        mean = 0.02 * level + offset
    else:
        mean = np.maximum(0.3 * level, 0)
    shape = (size.layers, size.width, -1)
    means = xr.DataArray(mean.astype(np.float32).reshape(shape), dims=("layer", "neuron", "clip"))
    found = xr.DataArray(truth.reshape(shape), dims=("layer", "neuron", "category"))
    return means, labels, found


def contrast(mean: xr.DataArray, labels: xr.DataArray, how: Selection | None = None) -> xr.DataArray:
    """Members (layer, neuron, category) by the rule contrast, as the commands have it."""
    how = how or Selection(rule="contrast")
    return members(contrast_tests(mean, arrange_clips(labels), how), how)


def select(rule: str, mean: xr.DataArray, labels: xr.DataArray, percentile: float) -> xr.DataArray:
    """Members (layer, neuron, category) by a rule. LAP, MAD and CAS take as many neurons for every category."""
    if rule == "contrast":
        return contrast(mean, labels)
    if rule in SCORES:
        given = mean if rule == "MAD" else above(mean, 0)
        n_neurons = mean.sizes["layer"] * mean.sizes["neuron"]
        many = max(1, round(n_neurons * percentile / 100 / len(labels.attrs["categories"])))
        return highest_scores(SCORES[rule](given, labels), many)
    name, threshold = PUBLISHED[rule]
    line = neuron_thresholds(mean, labels.values >= 0, OWN) if threshold == OWN else threshold
    p = activation_probability(above(mean, line), labels)
    return class_specific(p, rule=name, percentile=percentile)["member"]


def scores(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Of pairs selected and planted (neuron, category), one of each repeat."""
    right = [int((selected & truth).sum()) for selected, truth in found]
    chosen = [int(selected.sum()) for selected, _ in found]
    covered = [(s & t).any(axis=0)[t.any(axis=0)].mean() for s, t in found]
    false = [1 - r / c if c else 0.0 for r, c in zip(right, chosen, strict=True)]
    return {
        "precision": sum(right) / max(1, sum(chosen)),
        "recall": sum(right) / sum(int(truth.sum()) for _, truth in found),
        "coverage": float(np.mean(covered)),
        "false": float(np.mean(false)),
    }


def ask(condition: Condition, size: Size, rules: Sequence[str] = RULES) -> dict[str, dict[str, float]]:
    """Scores of each rule; "lape, 0, told" is the rule that knows the share."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for seed in range(size.repeats):
        mean, labels, truth = data_set(condition, size, seed)
        planted = truth.values.reshape(-1, condition.categories)
        for rule in rules:
            ways = {rule: PERCENTILE} | ({} if rule == "contrast" else {f"{rule}, told": condition.percent})
            for name, percentile in ways.items():
                member = select(rule, mean, labels, percentile).transpose("layer", "neuron", "category")
                found.setdefault(name, []).append((member.values.reshape(planted.shape), planted))
    return {name: scores(pairs) for name, pairs in found.items()}


def conditions(size: Size) -> dict[str, Condition]:
    every = itertools.product(size.categories, size.shares, (False, True), (False, True))
    return {
        f"{n} categories, {percent:g} %, {'GELU' if gelu else 'ReLU'}, {'long-tailed' if tailed else 'balanced'}":
        Condition(categories=n, percent=percent, gelu=gelu, tailed=tailed)
        for n, percent, gelu, tailed in every
    }  # fmt: skip


def group_effects(repeats: int) -> dict[str, int]:
    """In how many repeats the rule finds any cell where groups differ and categories do not, by ways of asking.

    400 neurons, 6 categories of 5 groups of 8 clips; effects of groups as large as the noise. Whatever is found is
    false, so that for `bh` too this is the share of false discoveries.
    """
    found = {f"{correct}, {way}": 0 for correct in ("max", "bh") for way in ("grouped", "ungrouped")}
    group = np.repeat(np.arange(30), 8)
    labels = xr.DataArray(group // 5, dims="clip", attrs={"categories": list("abcdef")})
    groups = xr.DataArray(group.astype(str), dims="clip")
    for seed in range(repeats):
        rng = np.random.default_rng([23, seed])
        means = rng.normal(size=(1, 400, 30)).repeat(8, axis=2) + rng.normal(size=(1, 400, 240))
        mean = xr.DataArray(means.astype(np.float32), dims=("layer", "neuron", "clip"))
        for way in ("grouped", "ungrouped"):
            arrangement = arrange_clips(labels, groups=groups if way == "grouped" else None)
            for correct in ("max", "bh"):
                how = Selection(rule="contrast", correct=correct, min_effect=0.5, permutations=199, seed=seed)
                member = members(contrast_tests(mean, arrangement, how), how)
                found[f"{correct}, {way}"] += bool(member.any())
    return found


STRENGTHS = ((0.7, 0.2), (0.6, 0.2))
"""Rates of planted neurons in their category and elsewhere; true AUC 0.75 and 0.70. The first is judged."""


def measure(scratch: Path, size: Size) -> Measured:
    mixed = {name: ask(condition, size) for name, condition in conditions(size).items()}
    strengths = {
        f"{n} categories, {rates[0]} against {rates[1]}": ask(
            Condition(categories=n, percent=PERCENTILE, rates=rates, alike=True), size
        )
        for n in size.categories
        for rates in STRENGTHS
    }
    how = (
        f"{size.layers * size.width:,} neurons, half always on, {PERCENTILE:g} % planted; rate {STRENGTHS[0][0]} in "
        f"the category, {STRENGTHS[0][1]} elsewhere, {EACH} clips a category; {size.repeats} repeats"
    )
    figures = [
        Figure(
            name=f"{what} of `contrast`, {n} categories", value=found["contrast"][what], unit="", bound=bound,
            at_least=True, how=how,
        )
        for n in size.categories
        for found in [strengths[f"{n} categories, {STRENGTHS[0][0]} against {STRENGTHS[0][1]}"]]
        for what, bound in (("precision", 0.9), ("recall", 0.85))
    ]  # fmt: skip
    false = group_effects(size.group_repeats)
    high = float(binom.interval(0.99, size.group_repeats, 0.05)[1] + 0.5) / size.group_repeats
    figures += [
        Figure(
            name=f"`contrast`, any false finding where only groups differ, {correct}, grouped",
            value=false[f"{correct}, grouped"] / size.group_repeats, unit="", bound=high, at_least=False,
            how=f"{size.group_repeats} data sets of 400 neurons, 6 categories of 5 groups of 8 clips, 199 shuffles; "
            f"ungrouped: {false[f'{correct}, ungrouped'] / size.group_repeats:.3g}",
        )
        for correct in ("max", "bh")
    ]  # fmt: skip
    return Measured(figures=figures, raw={"mixed": mixed, "strengths": strengths, "group_effects": false})


def main() -> None:
    harness.main("selection")


if __name__ == "__main__":
    main()
