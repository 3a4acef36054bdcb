"""Controls: sets of other neurons that are like the set in question.

Goal: to tell what these neurons do from what any neurons like them would do.
Conventions: every control has as many neurons in each layer as the set has. Draw i depends on the seed and on i alone,
so that more draws leave the earlier ones as they are; the seed and i are recorded in `why`. `widths` is the number of
neurons of each layer; features are (layer, neuron), NaN where there is no neuron.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..analysis.rates import activation_probability, category_mean
from ..store.neurons import NeuronSet
from .request import FEATURES

NEAREST = 20  # neurons that one neuron's control is drawn from at least
NEAREST_SHARE = 0.05  # and at least this share of its layer
MAX_DRAWS = 16  # for each control that is wanted

Floats = NDArray[np.floating]


def matched_controls(
    target: NeuronSet,
    widths: Sequence[int],
    draws: int = 200,
    *,
    seed: int = 0,
    features: Mapping[str, Floats] | None = None,
    avoid_target: bool = True,
) -> list[NeuronSet]:
    """Random sets with as many neurons in each layer as the target, `draws` of them.

    features: by name, (layer, neuron) each; neurons are then drawn for one another from the nearest of their layer
        (at least 20, at least 5 %), nearness being the distance of ranks within the layer, all features alike.
        Without, every neuron of the layer is as likely.
    avoid_target: neurons of the target are not drawn.
    Two draws may be the same set where a layer offers few neurons.
    Raises ValueError where a layer has too few neurons to draw from, LookupError for a target that the widths do
    not hold.
    """
    target.check(widths)
    if draws == 0:
        return []
    if draws < 0 or seed < 0:
        raise ValueError(f"found {draws} draws with seed {seed}; expected whole numbers from 0 on")
    pools = {}
    for layer, own in target.by_layer.items():
        free = np.setdiff1d(np.arange(widths[layer]), own) if avoid_target else np.arange(widths[layer])
        if len(free) < len(own):
            raise ValueError(
                f"layer {layer} has {widths[layer]} neurons and {target.name or 'the set'} takes {len(own)} of them, "
                f"so that {len(free)} are left; expected at least {len(own)} to draw from: use a smaller set"
                f"{', or no controls (0)' if avoid_target else ''}"
            )
        pools[layer] = _nearest(free, own, layer, widths[layer], features or {})
    sets = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        pairs = [(layer, int(n)) for layer, pool in pools.items() for n in _draw(pool, rng)]
        why = {"control of": target.digest, "seed": seed, "draw": draw, "matched": ["layer", *(features or {})]}
        sets.append(NeuronSet(pairs=tuple(pairs), name=f"control {draw}", why=why))
    return sets


def different_controls(
    target: NeuronSet,
    widths: Sequence[int],
    wanted: int = 200,
    *,
    seed: int = 0,
    features: Mapping[str, Floats] | None = None,
) -> list[NeuronSet]:
    """The first `wanted` of the matched controls that are of different neurons: one drawn twice is no second evidence.

    Fewer where a layer offers so few neurons that `MAX_DRAWS` times as many draws bring no more.
    Raises as `matched_controls`.
    """
    draws = wanted
    while True:
        found: dict[tuple[tuple[int, int], ...], NeuronSet] = {}
        for control in matched_controls(target, widths, draws, seed=seed, features=features):
            found.setdefault(control.pairs, control)
        if len(found) >= wanted or draws >= MAX_DRAWS * wanted:
            return list(found.values())[:wanted]
        draws *= 2


def published_control(target: NeuronSet, widths: Sequence[int]) -> list[NeuronSet]:
    """The one control of the published ablations: every neuron's right neighbour, index + 1 in the same layer."""
    return [target.shifted(1, widths)]


def neuron_features(ds: xr.Dataset, names: Sequence[str] = FEATURES) -> dict[str, Floats]:
    """Features of every neuron over a task's clips: float64 (layer, neuron) each. Reads and computes.

    "rate": share of clips in which it is active; "mean": its mean activation.
    Raises LookupError for an unknown feature, or a variable that the task does not keep.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise LookupError(f"no feature {unknown[0]!r} to match controls by; expected some of {', '.join(FEATURES)}")
    everyone = xr.zeros_like(ds["position"], "int32").assign_attrs(categories=["all"])
    found: dict[str, Floats] = {}
    for name in names:
        variable = {"rate": "active_bits", "mean": "mean"}[name]
        if variable not in ds:
            raise LookupError(f"this task keeps no {variable!r}, expected to match by {name}: extract with --keep mean")
        of = activation_probability if name == "rate" else category_mean
        values = of(ds[variable], everyone).isel(category=0).transpose("layer", "neuron")
        if "neuron_valid" in ds:
            values = values.where(ds["neuron_valid"])
        found[name] = values.values.astype(np.float64)
    return found


Pool = list[NDArray[np.int64]]
"""For each neuron of the set in a layer, the neurons that may stand for it, nearest first."""


def _nearest(
    free: NDArray[np.int64], own: NDArray[np.int64], layer: int, width: int, features: Mapping[str, Floats]
) -> Pool | tuple[NDArray[np.int64], int]:
    """Pools of a layer's neurons, or all that are free and how many to draw where nothing is to be matched."""
    if not features:
        return free, len(own)
    known = [np.nan_to_num(np.asarray(values)[layer, :width], nan=-np.inf) for values in features.values()]
    ranks = np.column_stack([(rankdata(values) - 1) / max(1, width - 1) for values in known])  # in [0, 1]; NaN lowest
    pool = []
    for neuron in own:
        distance = np.square(ranks[free] - ranks[neuron]).sum(axis=1)
        pool.append(free[np.argsort(distance, kind="stable")])
    return pool


def _draw(pool: Pool | tuple[NDArray[np.int64], int], rng: np.random.Generator) -> list[int]:
    """Neurons of one layer, each once."""
    if isinstance(pool, tuple):
        free, n = pool
        return [int(neuron) for neuron in rng.choice(free, n, replace=False)]
    taken: list[int] = []
    for i in rng.permutation(len(pool)):  # in random order: who comes last may find its nearest taken
        left = pool[i][~np.isin(pool[i], taken)]
        taken.append(int(rng.choice(left[: max(NEAREST, int(NEAREST_SHARE * len(pool[i])))])))
    return taken
