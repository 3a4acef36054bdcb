"""Units: what latents are compared with, each kind in equal number and equally often active.

Goal: no kind is better for being larger, or for firing more rarely, than another.
Conventions: values are float32 (clip, unit). Kinds are latents; controls, latents of other SAEs of the same state; the
neurons of the layer before the state, where the encoder has one layer of neurons per transformer layer, else all of
them; single dimensions of the state; and principal components of it, each as two halves, max(s, 0) and max(-s, 0),
those of the largest variance first. Units that never fire, or never change, are left out.

Of each kind as many are compared as the smallest has, drawn by a seed; of principal components the first. Unit by unit
they count as active in as many clips as the latents are: the kind's units in the order of how often they are above 0,
the rarest like the rarest latent, each above a threshold of its own, an order statistic of its values. Codes that are 0
cannot be made active: such units stay rarer.

SAEs may have been trained on clips that are tested, and components are of all clips; neither knows a label.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..store.stored_task import StoredTask
from .labelled import Labelled
from .stored_latents import LatentLayer
from .stored_values import Floats, Positions, means_of, n_states

LATENTS, NEURONS, DIMENSIONS, COMPONENTS = "latents", "neurons", "dimensions", "principal components"
OTHERS = (NEURONS, DIMENSIONS, COMPONENTS)
MAX_UNLIKE = 1.5  # ratio of latents firing per clip, up to which SAEs may differ by their seeds
MIN_VARIANCE = 1e-9  # of a component, over that of the first


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
        return min(int(values.shape[1]) for values in self.values)

    def drawn(self, n: int, repeat: tuple[int, int], seed: int) -> Floats:
        """So many of them, (clip, n). repeat: number of the SAE, and of the draw."""
        values = self.values[repeat[0] % len(self.values)]
        if self.ordered or values.shape[1] == n:
            return values[:, :n]
        rng = np.random.default_rng([seed, *repeat, zlib.crc32(self.kind.encode())])
        return values[:, np.sort(rng.choice(values.shape[1], n, replace=False))]


def units_of(
    of: Labelled, state: int, latents: Sequence[LatentLayer], controls: Mapping[str, Sequence[LatentLayer]]
) -> list[Units]:
    """All kinds of units of a state, latents first; those that never fire, or never change, left out."""
    found = []
    if taken := {LATENTS, *OTHERS} & {*controls}:
        raise ValueError(f"a control is called {min(taken)!r}, as another kind of units is; expected another name")
    for kind, offered in {LATENTS: latents, **controls}.items():
        own = [layer for layer in offered if layer.state == state]
        if not own:
            states = ", ".join(str(number) for number in sorted({layer.state for layer in offered}))
            raise ValueError(f"the control {kind} has latents of state {states}; expected some of state {state}")
        codes = [layer.codes(of.at) for layer in own]
        fire = [float((values > 0).sum(axis=1).mean()) for values in codes]
        if len({values.shape[1] for values in codes}) > 1 or max(fire) > MAX_UNLIKE * min(fire):
            listed = ", ".join(
                f"{layer.name}: {n:.3g} of {values.shape[1]} fire"
                for layer, n, values in zip(own, fire, codes, strict=True)
            )
            raise ValueError(
                f"SAEs of state {state} are unlike ({listed}); expected one training with several seeds: choose "
                "layers, as LATENTS@0,2"
            )
        found.append(Units(kind=kind, values=[values[:, (values > 0).any(axis=0)] for values in codes]))
    dimensions = of.state(state)
    found.append(Units(kind=NEURONS, values=[_changing(neurons_before(of.source, state, of.at))]))
    found.append(Units(kind=DIMENSIONS, values=[_changing(dimensions)]))
    found.append(Units(kind=COMPONENTS, values=[signed_components(dimensions)], ordered=True))
    return found


def neurons_before(source: StoredTask, state: int, clips: Positions) -> Floats:
    """Means (clip, neuron) of the neurons of the layer before a state, or of all layers. Raises as `means_of`."""
    n_layers = len(source.record.identity.sites)
    return means_of(source, [max(state - 1, 0)] if n_layers == n_states(source) - 1 else range(n_layers), clips)


def signed_components(values: Floats) -> Floats:
    """Principal components of values (clip, width), each as two halves (clip, 2 x components), largest variance first.

    max(s, 0) and max(-s, 0), s the component's score; components without variance are left out.
    """
    apart = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    kept = np.flatnonzero(variance > MIN_VARIANCE * variance.max(initial=0))[::-1]
    directions = directions[:, kept]
    at = np.abs(directions).argmax(axis=0)  # signs are nobody's choice: the largest weight is made positive
    scores = apart @ (directions * np.sign(directions[at, np.arange(len(kept))]))
    halves: Floats = np.stack([scores, -scores], axis=2).reshape(len(values), -1).astype(np.float32)
    return np.maximum(halves, 0)


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
    changing: Floats = values[:, (values != values[0]).any(axis=0)]
    return changing
