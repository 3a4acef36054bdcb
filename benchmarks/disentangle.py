"""How long do nested penalties take for every factor, do few codes count as few and noise as nothing, what comes back?

Ours against scikit-learn's LassoCV with its defaults on dense standardised codes, in the same outer folds, in turn on
parts of the factors, of which the rival, which takes one by one, is timed on a few and counted up; process time of one
thread, because cores are shared. The published completeness of noise and of five equal codes stands beside ours. Then
entropies whose truth is known, and two trainings of planted features, by other seeds, beside random directions.
"""

import statistics
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LassoCV
from sklearn.preprocessing import StandardScaler
from tests.support.planted_codes import planted_codes, planted_factors
from threadpoolctl import threadpool_limits

from otoscope.extract.models.dictionary import write_dictionary
from otoscope.sae.disentanglement import disentangle, folds_of
from otoscope.sae.entropy import nearest_neighbour_entropy
from otoscope.sae.stability import MIN_RATE, sae_stability
from otoscope.sae.training import to_dictionary, train

from . import dictionaries, harness
from .dictionaries import process_seconds
from .harness import Figure, Measured, median_ratio

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    groups: int
    codes: int
    factors: int
    parts: int
    """Of the factors, which are timed one after the other."""
    rival_factors: int
    """Of each part, that the rival is timed on."""
    widths: tuple[int, ...]
    repeats: int
    """Planted factors of each kind and width, and twenty times as many of noise."""
    rows: int
    """That two trainings of planted features see."""


FULL = Size(
    clips=400, groups=20, codes=2048, factors=88, parts=4, rival_factors=4, widths=(768, 2048), repeats=5, rows=20_000
)
SMALL = Size(clips=90, groups=9, codes=40, factors=4, parts=2, rival_factors=1, widths=(40,), repeats=1, rows=1500)
MADE_OF = (1, 3, 5, 10, 20)
"""Codes that a factor is made of, in turn."""
NOISE = (0.3, 1.0, 3.0, 10.0)
"""Deviation of its noise over that of the codes' sum, in turn: R2 up to 0.92, 0.5, 0.1 and 0.01."""
COUNTED = 0.3
ENTROPIES = {
    "uniform": (stats.uniform, 0.0), "normal": (stats.norm, 0.5 * np.log2(2 * np.pi * np.e)),
    "exponential": (stats.expon, np.log2(np.e)), "Laplace": (stats.laplace, np.log2(2 * np.e)),
}  # fmt: skip
"""By name, a distribution and its differential entropy in bits."""


def rival(codes: np.ndarray, factors: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """R2 (factor), the mean over folds."""
    r2 = np.empty((factors.shape[1], FOLDS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for i in range(FOLDS):
            fit, held_out = folds != i, folds == i
            scaler = StandardScaler().fit(codes[fit])
            x, x_held_out = (scaler.transform(codes[own]) for own in (fit, held_out))
            for j, y in enumerate(factors.T):
                r2[j, i] = LassoCV().fit(x, y[fit]).score(x_held_out, y[held_out])
    return r2.mean(axis=1)


def in_turn(size: Size) -> tuple[list[float], list[float], np.ndarray, np.ndarray]:
    """Seconds of ours and of the rival by part of the factors, and R2 of each (factor that the rival is timed on)."""
    groups = np.arange(size.clips) % size.groups
    codes = planted_codes(size.clips, size.codes)
    made = [
        planted_factors(codes, [MADE_OF[j % len(MADE_OF)]], NOISE[j % len(NOISE)], seed=j) for j in range(size.factors)
    ]
    factors, folds = np.hstack(made), folds_of(groups.astype(str), FOLDS)
    ours, theirs, r2, r2_rival = [], [], [], []
    for own in np.array_split(factors, size.parts, axis=1):
        few = own[:, : size.rival_factors]
        cases = {
            "ours": lambda own=own: disentangle(codes, own, groups, folds=FOLDS)["r2"].values,
            "rival": lambda few=few: rival(codes, few, folds),
        }
        order = ("ours", "rival") if len(ours) % 2 else ("rival", "ours")
        found = {name: process_seconds(cases[name]) for name in order}
        ours.append(found["ours"][0])
        theirs.append(found["rival"][0] * own.shape[1] / few.shape[1])
        r2.append(found["ours"][1][: few.shape[1]])
        r2_rival.append(found["rival"][1])
    return ours, theirs, np.concatenate(r2), np.concatenate(r2_rival)


def counted(size: Size) -> dict[int, dict[str, list[float]]]:
    """By width of the codes: what factors of 1, of 5 and of no codes come to."""
    groups, found = np.arange(size.clips) % size.groups, {}
    for width in size.widths:
        codes = planted_codes(size.clips, width)
        factors = planted_factors(codes, [1] * size.repeats + [5] * size.repeats, COUNTED)
        noise = np.random.default_rng(width).normal(size=(size.clips, 20 * size.repeats))
        of_codes, of_noise = (disentangle(codes, values, groups, folds=FOLDS) for values in (factors, noise))
        until, published = (of_codes[name].values for name in ("codes_until", "published_completeness"))
        found[width] = {
            "one": until[: size.repeats].tolist(),
            "five": until[size.repeats :].tolist(),
            "published five": published[size.repeats :].tolist(),
            "noise predicted": of_noise["predicted"].values.astype(float).tolist(),
            "noise published": of_noise["published_completeness"].values.tolist(),
        }
    return found


def entropy_errors(n: int = 4000) -> dict[str, float]:
    """By distribution, how far the estimate of so many values is from its entropy, in bits."""
    rng = np.random.default_rng(0)
    drawn = {name: distribution.rvs(size=n, random_state=rng) for name, (distribution, _) in ENTROPIES.items()}
    return {name: abs(nearest_neighbour_entropy(drawn[name]).bits - bits) for name, (_, bits) in ENTROPIES.items()}


def coming_back(size: Size, scratch: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Two trainings of the planted rows of `dictionaries`: of latents that fire often enough, and of all that do."""
    narrow = dictionaries.FULL.narrow
    rows, held_out, _ = dictionaries.rows_of(narrow, size.rows)
    recipes = [dictionaries.recipe_of(narrow, seed=seed) for seed in (0, 1)]
    for i, trained in enumerate(train(rows, held_out, recipes, device="cpu")):
        write_dictionary(to_dictionary(trained, state=0), scratch / "saes" / str(i))
    often, ever = (sae_stability(scratch / "saes", min_rate=rate).iloc[0].to_dict() for rate in (MIN_RATE, 0))
    return often, ever


def measure(scratch: Path, size: Size) -> Measured:
    with threadpool_limits(1):
        ours, theirs, r2, r2_rival = in_turn(size)
        of_width = counted(size)
        often, ever = coming_back(size, scratch)
    how = (
        f"{size.clips} clips of {size.groups} groups, {size.codes} codes, {size.factors} factors of 1 to 20 codes, "
        f"{FOLDS} folds; process time, median of {size.parts} parts in turn; "
        f"LassoCV's by {size.rival_factors} factors of each, counted up"
    )
    apart = np.abs(np.maximum(r2, 0) - np.maximum(r2_rival, 0))
    figures = [
        Figure(name="nested Lasso of factors, LassoCV / ours", value=median_ratio(theirs, ours), unit="x", bound=3,
               at_least=True, how=how),
        Figure(name="R2 of these against LassoCV's, largest distance", value=float(apart.max()), unit="", bound=0.02,
               at_least=False, how=f"{len(apart)} factors, what is below 0 counts as 0; mean {apart.mean():.3f}"),
    ]  # fmt: skip
    every = list(of_width.values())
    widths = " and ".join(map(str, size.widths))
    for name, n in (("one", 1), ("five", 5)):
        furthest = max((abs(statistics.fmean(found[name]) / n - 1) for found in every), default=0.0)
        figures.append(
            Figure(name=f"codes until 90 % of R2, factors of {n}: off by", value=furthest, unit="", bound=0.2,
                   at_least=False, how=f"{size.repeats} factors, noise {COUNTED}, widths {widths}, the worse one")
        )  # fmt: skip
    shares = [1 - statistics.fmean(found["noise predicted"]) for found in every]
    completeness = statistics.fmean(statistics.fmean(found["noise published"]) for found in every)
    figures.append(
        Figure(name="factors of noise that are undefined", value=min(shares), unit="", bound=0.95, at_least=True,
               how=f"{20 * size.repeats} factors, widths {widths}; their published completeness is {completeness:.2f}")
    )  # fmt: skip
    errors = entropy_errors()
    figures += [
        Figure(name="entropy by nearest neighbours, furthest from the truth", value=max(errors.values()), unit="bits",
               bound=0.1, at_least=False, how=f"{', '.join(errors)}; 4,000 values each"),
        Figure(name="planted, two seeds: PW-MCC of latents that fire", value=often["pw_mcc"], unit="", bound=0.95,
               at_least=True,
               how=f"{often['firing_a']} and {often['firing_b']} latents that fire in at least {MIN_RATE:g} of "
                   f"{size.rows:,} rows, by chance {often['chance_pw_mcc']:.2f}; of all that ever fire "
                   f"{ever['pw_mcc']:.2f}, by chance {ever['chance_pw_mcc']:.2f}"),
    ]  # fmt: skip
    raw = {
        "entropies": errors, "often": often, "ever": ever, "ours": ours, "rival": theirs, "r2": r2.tolist(),
        "r2_rival": r2_rival.tolist(), "widths": {str(width): found for width, found in of_width.items()},
    }  # fmt: skip
    return Measured(figures=figures, raw=raw)


def main() -> None:
    harness.main("disentangle")


if __name__ == "__main__":
    main()
