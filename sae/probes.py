"""Layer probes: what can be read off each hidden state of a task, and off the latents of its SAEs.

Goal: which states hold the task, and whether codes keep it, on clips of singers that the probe never learnt from.
Conventions: accuracy is over the test clips of all folds together. Its interval comes of drawing groups of test clips
anew, and knows nothing of other folds or fits. Chance is what always answering the most frequent category would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.probe.cautions import cautions, chance_test
from ..analysis.probe.probe import Recipe, fit_probe
from ..analysis.probe.splits import Splits
from .labelled import Labelled
from .resampled import draw_groups, interval
from .stored_latents import LatentLayer
from .stored_values import Floats, n_states
from .units import COMPONENTS, LATENTS, NEURONS, neurons_before, signed_components

RECIPES = {"logistic": Recipe(kind="logistic"), "published": Recipe(kind="published-sae", learning_rate=1e-3)}
"""By the names of `otoscope sae probe`: ours, and that of the paper."""
DRAWS = 1000
STATE = "state"
KNOWN = ("l0", "sparsity", "sae", "control", "seed", "unexplained")
COLUMNS = ("kind", "name", "state", "width", *KNOWN, "accuracy", "low", "high", "chance", "clips", "groups", "how")


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Accuracies, and what is to be said of them."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def probe_states(
    of: Labelled,
    latents: Sequence[LatentLayer] = (),
    *,
    recipe: str = "logistic",
) -> Probed:
    """The same probe of every hidden state, and of every layer of latents beside what costs nothing.

    recipe: one of `RECIPES`.
    Columns: kind ("state", "latents", and of the states of latents "neurons", where means are kept, and "principal
    components", as of `units`), name, state, width (values of the state, or units), of latents what
    `LatentLayer.known` says, accuracy in [0, 1] with low and high, chance, clips and groups tested, and how: labelling,
    recipe and folds in words.
    Raises LookupError where no states are kept, ValueError for values that are not finite and for what a probe or an
    interval cannot be had of.
    """
    splits = of.splits
    if recipe == "logistic" and splits.valid_drawn:  # its strength is chosen by groups within the training clips
        splits = replace(splits, train=splits.train | splits.valid, valid=np.zeros_like(splits.valid))
    tested = np.flatnonzero(splits.test_fold >= 0)
    draws = draw_groups(splits.groups[tested], of.codes[tested], DRAWS, of.seed)
    sizes = draws.sums(np.ones(len(tested)))
    how = replace(RECIPES[recipe], seed=of.seed)
    about_all = {"groups": draws.n_groups, "how": f"{of.name}; {recipe} probe; {of.parted}"}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []

    def probed(kind: str, name: str, state: int, values: Floats, known: Mapping[str, Any] | None = None) -> None:
        right, about, lines = _right(of, splits, values, tested, how)
        accuracy = float(right.mean())
        low, high = interval(accuracy, draws.sums(right) / sizes, 0, 1)
        found = {"kind": kind, "name": name, "state": state, "width": values.shape[1], **(known or {})}
        rows.append({**found, "accuracy": accuracy, "low": low, "high": high, **about, **about_all})
        notes.extend(f"{name}: {line}" for line in lines)

    for state in range(n_states(of.source)):
        probed(STATE, f"state {state}", state, of.state(state))
    for state in sorted({layer.state for layer in latents}):
        if "mean" in of.source.plan.variables:
            probed(NEURONS, f"{NEURONS} of state {state}", state, neurons_before(of.source, state, of.at))
        probed(COMPONENTS, f"{COMPONENTS} of state {state}", state, signed_components(of.state(state)))
    for layer in latents:
        codes = layer.codes(of.at)
        probed(LATENTS, layer.name, layer.state, codes, layer.known(codes))
    return Probed(table=pd.DataFrame(rows).reindex(columns=COLUMNS), notes=tuple(notes))


def _right(
    of: Labelled, splits: Splits, values: Floats, tested: NDArray[np.intp], recipe: Recipe
) -> tuple[NDArray[np.bool_], dict[str, Any], list[str]]:
    """Which of the tested clips are right (clip), chance and number of clips, and what is to be said."""
    probe = fit_probe(
        values, of.codes, splits, categories=of.categories, identity=of.base, labelling=of.name, recipe=recipe
    )
    heads, truth = splits.test_fold[tested], of.codes[tested]
    chance = chance_test(probe, values[tested], heads, truth)
    right = probe.logits(values[tested], heads).argmax(axis=-1) == truth
    return right, {"chance": chance["by_chance"] / chance["n"], "clips": chance["n"]}, cautions(probe, chance)
