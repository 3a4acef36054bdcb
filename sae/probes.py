"""Layer probes: what can be read off each hidden state of a task, and off the latents of its SAEs.

Goal: which states hold the task, and whether codes keep it, on clips of singers that the probe never learnt from.
Conventions: accuracy is over the test clips of all folds together. Its interval comes of drawing groups of test clips
anew, and knows nothing of other folds or fits. Chance is what always answering the most frequent category would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.probe.cautions import cautions, chance_test
from ..analysis.probe.probe import Recipe, fit_probe
from ..analysis.probe.splits import Splits
from .labelled import Floats, Labelled
from .resampled import draw_groups, interval
from .stored_latents import LatentLayer

RECIPES = {"logistic": Recipe(kind="logistic"), "published": Recipe(kind="published-sae", learning_rate=1e-3)}
"""By the names of `otoscope sae probe`: ours, and that of the paper."""
DRAWS = 1000
COLUMNS = ("kind", "name", "state", "width", "l0", "sparsity", "accuracy", "low", "high", "chance", "clips", "groups")


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
    """The same probe of every hidden state, and of every layer of latents.

    recipe: one of `RECIPES`.
    Columns: kind ("state" or "latents"), name, state, width (values of the state, or latents), of latents l0 (mean
    number that fires in a clip) and sparsity (1 - k / width where the SAE is known and has a k, else 1 - l0 / width),
    accuracy in [0, 1] with low and high, chance, clips and groups tested; where SAEs are known also sae (its name),
    control and seed.
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
    rows: list[dict[str, Any]] = []
    notes: list[str] = []

    def probed(what: dict[str, Any], values: Floats) -> None:
        right, about, lines = _right(of, splits, values, tested, how)
        accuracy = float(right.mean())
        low, high = interval(accuracy, draws.sums(right) / sizes, 0, 1)
        found = {"accuracy": accuracy, "low": low, "high": high, **about, "groups": draws.n_groups}
        rows.append({**what, "width": values.shape[1], **found})
        notes.extend(f"{what['name']}: {line}" for line in lines)

    for state in range(of.n_states):
        probed({"kind": "state", "name": f"state {state}", "state": state}, of.state(state))
    for layer in latents:
        codes = layer.codes(of)
        l0 = float((codes > 0).sum(axis=1).mean())
        k = layer.sae.k if layer.sae is not None else 0
        what = {"kind": "latents", "name": layer.name, "state": layer.state, "l0": l0}
        probed({**what, "sparsity": 1 - (k or l0) / codes.shape[1], **_known(layer)}, codes)
    table = pd.DataFrame(rows)
    more = [name for name in ("sae", "control", "seed") if name in table]
    return Probed(table=table.reindex(columns=[*COLUMNS, *more]), notes=tuple(notes))


def _known(layer: LatentLayer) -> dict[str, Any]:
    """What the SAE's own folder says of it."""
    if layer.sae is None:
        return {}
    recipe = layer.sae.about.get("config")
    recipe = recipe if isinstance(recipe, dict) else {}  # of SAEs of other libraries there is none
    return {"sae": layer.sae.name, "control": recipe.get("control", ""), "seed": recipe.get("seed")}


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
