"""Is what was planted found, and how often is something found where nothing is?

Planted: neurons fond of one category, and of the category of the same number in a second labelling, so that these two
overlap. `permutation_null` should call both significant. Nothing: labels dealt out at random, anew 200 times; a false
finding anywhere in a statistic should come in one of twenty, up to what chance allows of 200 (99 % binomial interval).
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import binom

from otoscope.analysis.null.permutation import permutation_null
from otoscope.analysis.null.resampling import Sample, take_sample
from otoscope.store.bits import pack

from . import harness
from .harness import Figure, Measured

STRENGTHS = ((0.95, 0.1), (0.9, 0.15), (0.85, 0.2))
"""Rates of planted neurons in their category and elsewhere. The first is judged; the others, in the raw results, tell
where AAPE's power ends: it asks about all categories at once, and these neurons stand out in one of many."""
STATISTICS = ("common_neuron_ratio", "aape", "neurons", "against")
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Size:
    layers: int
    width: int
    clips: int
    categories: int
    others: int
    overlapping: int
    """Categories that share their neurons with one of the other labelling."""
    each: int
    """Planted neurons of a category."""
    permutations: int
    repeats: int


FULL = Size(
    layers=12, width=3072, clips=2000, categories=50, others=51, overlapping=30, each=12, permutations=500, repeats=200
)
SMALL = Size(layers=2, width=512, clips=200, categories=5, others=6, overlapping=3, each=4, permutations=60, repeats=6)
NOTHING = {"n_clips": 180, "n_neurons": 400, "n_categories": 6, "permutations": 199, "percentile": 5}


def draw(rate: np.ndarray, codes: np.ndarray, layers: int, rng: np.random.Generator) -> Sample:
    """A sample of neurons that are active at rate (category, neuron)."""
    bits = []
    for part in np.array_split(codes, max(1, len(codes) // 500)):
        active = rng.random((len(part), rate.shape[1]), np.float32) < rate[part]
        bits.append(pack(active.reshape(len(part), layers, -1)).transpose(1, 0, 2))
    about = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": rate.shape[1] // layers}
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": [f"c{i:02}" for i in range(len(rate))]})
    return take_sample(
        xr.DataArray(np.concatenate(bits, axis=1), dims=("layer", "clip", "neuron_byte"), attrs=about), labels
    )


def planted(size: Size, fond: float, elsewhere: float) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of planted neurons and overlaps that are found, and how many others are."""
    rng = np.random.default_rng(0)
    n_neurons = size.layers * size.width
    base = rng.beta(2, 4, n_neurons).astype(np.float32)
    neurons_of = rng.permutation(n_neurons)[: size.categories * size.each].reshape(size.categories, -1)
    samples = []
    for n_categories, with_neurons in ((size.categories, size.categories), (size.others, size.overlapping)):
        rate = np.repeat(base[None], n_categories, axis=0)
        rate[:, neurons_of[:with_neurons].ravel()] = elsewhere
        for category in range(with_neurons):
            rate[category, neurons_of[category]] = fond
        codes = np.arange(size.clips) % n_categories
        samples.append(draw(rate, codes, size.layers, rng))
    percentile = 120 * neurons_of.size / n_neurons  # room for a few more than those planted
    began = time.perf_counter()
    result = permutation_null(samples[0], against=samples[1], permutations=size.permutations, percentile=percentile)
    seconds = time.perf_counter() - began
    neurons = np.zeros(n_neurons, bool)
    neurons[neurons_of.ravel()] = True
    significant = result["aape_significant"].values.ravel()
    cells = np.eye(size.categories, size.others, dtype=bool)
    cells[size.overlapping :] = False
    overlaps = result["common_neuron_ratio_side"].values == "above"
    found = {"neurons": significant[neurons].mean(), "overlaps": overlaps[cells].mean()}
    beside = {"neurons": significant[~neurons].sum(), "overlaps": overlaps[~cells].sum(), "seconds": seconds}
    return {k: float(v) for k, v in found.items()}, {k: float(v) for k, v in beside.items()}


def false_positives(repeats: int) -> dict[str, int]:
    """In how many of the repeats a statistic finds anything under labels that mean nothing."""
    found = dict.fromkeys(STATISTICS, 0)
    n_categories, permutations, percentile = (NOTHING[k] for k in ("n_categories", "permutations", "percentile"))
    for seed in range(repeats):
        rng = np.random.default_rng([7, seed])
        rate = np.repeat(rng.beta(1, 2, NOTHING["n_neurons"])[None], n_categories, axis=0)
        codes = rng.permutation(np.arange(NOTHING["n_clips"]) % n_categories)
        one, two = (draw(rate, codes, 1, rng) for _ in range(2))
        how = {"permutations": permutations, "percentile": percentile, "level": LEVEL, "seed": seed}
        within, across = permutation_null(one, **how), permutation_null(one, against=two, **how)
        for name in STATISTICS[:3]:
            found[name] += bool(within[f"{name}_significant"].any())
        found["against"] += bool(across["common_neuron_ratio_significant"].any())
    return found


def measure(scratch: Path, size: Size) -> Measured:
    found, beside = planted(size, *STRENGTHS[0])
    weaker = {f"{fond} and {elsewhere}": planted(size, fond, elsewhere)[0] for fond, elsewhere in STRENGTHS[1:]}
    false = false_positives(size.repeats)
    low, high = binom.interval(0.99, size.repeats, LEVEL)
    how = (
        f"{size.layers} x {size.width} neurons, {size.clips:,} clips, {size.categories} x {size.others} cells, "
        f"{size.permutations} permutations; rate {STRENGTHS[0][0]} in the category, {STRENGTHS[0][1]} elsewhere"
    )
    figures = [
        Figure(name=f"planted {what} found significant", value=found[what], unit="", bound=0.9, at_least=True, how=how)
        for what in ("neurons", "overlaps")
    ]
    rates = {name: n / size.repeats for name, n in false.items()}
    named = {"common_neuron_ratio": "overlaps", "aape": "AAPE", "neurons": "numbers of neurons",
             "against": "overlaps of two labellings"}  # fmt: skip
    shape = f"{size.repeats} data sets without structure, {NOTHING['permutations']} permutations each, level {LEVEL:g}"
    figures += [
        Figure(
            name=f"family-wise rate of false findings, {named[name]}", value=rate, unit="",
            bound=float(high + 0.5) / size.repeats, at_least=False, how=shape,
        )
        for name, rate in rates.items()
    ]  # fmt: skip
    figures.append(
        Figure(
            name="family-wise rate of false findings, lowest of these", value=min(rates.values()), unit="",
            bound=float(low) / size.repeats, at_least=True, how=shape,
        )
    )  # fmt: skip
    return Measured(figures=figures, raw={"planted": found, "beside": beside, "weaker": weaker, "false": false})


def main() -> None:
    harness.main("planted")


if __name__ == "__main__":
    main()
