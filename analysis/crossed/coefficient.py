"""GC, the grounding coefficient: whether a neuron responds to the sound or to the words.

Goal: of every neuron the effects of both, corrected for the noise of sounds and of wordings, and a ratio only where a
test says that there is something to take the ratio of.
Conventions: results are (layer, neuron), float64; A is the sound's category, T the text's. `docs/grounding.md` has the
formulas in words. Memory: of a few thousand neurons the responses, and the results.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from ...messages import quoted
from ..contrast.ranks import read_means
from ..kinds import BLIND
from . import effects
from .effects import Floats
from .layout import Layout
from .power import smallest_effect

LEVEL = 0.05  # share of false findings that is allowed
LOW_CUT, HIGH_CUT = 0.3, 0.7  # of the note that asked
READ_BYTES = 8 << 20  # of responses at once, in a thread
ALIKE = 1e-10  # share of a neuron's squares: what batches of other shapes leave is no response
BLIND_SHARE = 0.5  # of a layer's neurons: of one that sees what is swapped not one is alike, but for rounding

NUMBERS = (
    *(f"MS_{term}" for term in effects.TERMS), "gc", "gc_low", "gc_high", "d_A", "d_T", "s_A", "s_T", "s_AT", "p_A",
    "p_T", "p_AT", "q", "q_AT", "smallest_d_A", "smallest_d_T",
)  # fmt: skip
CODES = {
    "state": ("construction", "interaction", "none", "audio", "text", "both"),
    "cut": ("", "audio-grounded", "text-grounded", "between"),
}
"""What is computed of each neuron, in this order; of the latter numbers of their names."""

LONG_NAMES = {
    "gc": ("grounding coefficient", "1"),
    "gc_low": ("lower end of the 95 % interval of GC", "1"),
    "gc_high": ("upper end of the 95 % interval of GC", "1"),
    "state": ("what the neuron responds to", ""),
    "cut": ("by the note's cuts", ""),
    "d_A": ("effect of the sound", "activation"),
    "d_T": ("effect of the text", "activation"),
    "s_A": ("variance between sound categories, corrected", "activation^2"),
    "s_T": ("variance between text categories, corrected", "activation^2"),
    "s_AT": ("variance of the interaction, corrected", "activation^2"),
    "p_A": ("p of the sound", "1"),
    "p_T": ("p of the text", "1"),
    "p_AT": ("p of the interaction", "1"),
    "q": ("q of either effect", "1"),
    "q_AT": ("q of the interaction", "1"),
    "smallest_d_A": ("effect of the sound that is found 8 times in 10", "activation"),
    "smallest_d_T": ("effect of the text that is found 8 times in 10", "activation"),
}


def grounding(
    mean: xr.DataArray,
    layout: Layout,
    *,
    valid: xr.DataArray | None = None,
    blind: str | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Effects of sound and text, and GC = d_A / (d_A + d_T), of each neuron: (layer, neuron, clip) -> (layer, neuron).

    `s_A`, `s_T`, `s_AT`: variances of category means, corrected (`effects.variances`), below 0 where there is less
    than noise; `d_A`, `d_T`: sqrt(max(s, 0)); `p_A`, `p_T`, `p_AT` (`effects.p_values`); `q`: Benjamini and Hochberg
    over all neurons of min(1, 2 min(p_A, p_T)), `q_AT` that of p_AT. `gc`, `gc_low`, `gc_high`: GC and its 95 %
    interval (`effects.intervals`), NaN where q is above 0.05. `smallest_d_A`, `smallest_d_T`: the effect that passes
    this gate 8 times in 10 (`power.smallest_effect`). `mean_square` (term, layer, neuron).
    `state`: "interaction" where q_AT is at most 0.05 and s_AT above max(s_A, 0) + max(s_T, 0); else "none" where q is
    above 0.05, "audio" with an interval of GC above 1/2, "text" below it, "both" around it; "construction" in layers
    that cannot see one of the two. `cut`: "audio-grounded" above 0.7, "text-grounded" below 0.3, "between", or "".

    layout: of `crossed_layout`. valid: bool (layer, neuron), False for neurons that do not exist.
    blind: what layers cannot see by construction, "audio" or "text", of all layers; "none": they see both. By default
        of each layer by its data: a layer is blind to the text where at least half of its neurons respond alike, to
        1e-5 of their deviation, to all wordings of each sound, and to the sound likewise. Its neurons count in no q.
    seed: of the draws behind intervals, which are the same for all neurons, in any chunks.
    Lazy in, lazy out. Raises ValueError for an unknown `blind`.
    Source: quasi-F of crossed random factors, Clark 1973; the ratio is our own.
    """
    if blind not in (None, *BLIND):
        raise ValueError(
            f"blind is {quoted(str(blind))}; expected one of {', '.join(BLIND)}, or None to go by the data"
        )
    mean = mean.transpose("layer", "neuron", "clip")
    coords = {name: c for name, c in mean.coords.items() if "clip" not in c.dims}
    values, blinded = _computed(mean, layout, valid, blind, seed)
    of = xr.DataArray(values, coords, dims=("computed", "layer", "neuron"))
    numbers, codes = of.isel(computed=slice(len(NUMBERS))), of.isel(computed=slice(len(NUMBERS), None))
    found = dict(zip(NUMBERS, numbers, strict=True)) | {
        name: _of_codes(code, names) for (name, names), code in zip(CODES.items(), codes, strict=True)
    }
    squares = numbers.isel(computed=slice(len(effects.TERMS))).rename(computed="term")
    squares = squares.assign_coords(term=list(effects.TERMS)).assign_attrs(
        long_name="mean square", units="activation^2"
    )
    about = {name: {"long_name": text, "units": units} for name, (text, units) in LONG_NAMES.items()}
    seen = xr.DataArray(blinded, {name: c for name, c in coords.items() if "neuron" not in c.dims}, dims="layer")
    return xr.Dataset(
        {**{name: found[name].assign_attrs(each) for name, each in about.items()}, "mean_square": squares},
        coords={"blind": seen.assign_attrs(long_name="what the layer cannot see")},
        attrs={
            **layout.sizes,
            "audio_classes": layout.audio_classes,
            "text_classes": layout.text_classes,
            "level": LEVEL,
            "seed": seed,
            "notes": layout.notes,
        },
    )


def ratio_of(of_sound: xr.DataArray, of_text: xr.DataArray) -> xr.DataArray:
    """The share of the sound in both, NaN where both are 0."""
    both = of_sound + of_text
    ratio: xr.DataArray = of_sound / both.where(both > 0)
    return ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """What takes all neurons together: (layer, neuron), NaN for those that are not tested."""

    exists: NDArray[np.bool_] | None
    """Whether a neuron does; None where all do."""
    q: Floats
    q_interaction: Floats
    level: float
    """The largest p of either effect that passes, or would."""
    blind: NDArray[np.object_]
    """What a layer cannot see (layer)."""


def _computed(
    mean: xr.DataArray, layout: Layout, valid: xr.DataArray | None, blind: str | None, seed: int
) -> tuple[Any, Any]:
    """`NUMBERS` and `CODES` of all neurons (computed, layer, neuron), and what layers cannot see (layer); lazy for lazy
    means.

    Some neurons at a time: first their mean squares and p, then, by the gate of all of them, the rest. What is held of
    the others in between is less than their results.
    """
    pairs, sizes = layout.pairs.ravel(), layout.pairs.shape
    width = max(effects.TILE, READ_BYTES // (4 * len(pairs)) // effects.TILE * effects.TILE)
    n_layers, n_neurons, _ = mean.shape
    parts = [slice(first, min(first + width, n_neurons)) for first in range(0, n_neurons, width)]
    n_computed = len(NUMBERS) + len(CODES)
    if not n_layers or not parts:
        return np.empty((n_computed, n_layers, n_neurons)), np.full(n_layers, blind or "none", object)
    lazy = isinstance(mean.data, da.Array)

    def later(step: Any) -> Any:
        return delayed(step, pure=False) if lazy else step

    # `partial` keeps the means out of the graph, so that no scheduler reads ahead of the arithmetic.
    first = [
        [later(partial(_squares_and_p, mean, pairs, sizes, layer, part))() for part in parts]
        for layer in range(n_layers)
    ]
    exists: Any = None
    if valid is not None:
        own = valid.transpose("layer", "neuron")
        exists = own.data if lazy else own.values
    gate = later(partial(_gate, blind=blind))(first, exists)
    answers = later(partial(_answers, sizes, seed))
    rest = [
        [answers(own, gate, layer, part) for own, part in zip(of_layer, parts, strict=True)]
        for layer, of_layer in enumerate(first)
    ]
    if not lazy:
        return np.concatenate([np.concatenate(of_layer, axis=2) for of_layer in rest], axis=1), gate.blind
    blocks = [
        [
            da.from_delayed(own, (n_computed, 1, part.stop - part.start), np.float64)
            for own, part in zip(of_layer, parts, strict=True)
        ]
        for of_layer in rest
    ]
    return da.block([blocks]), da.from_delayed(gate.blind, (n_layers,), object)


def _squares_and_p(
    mean: xr.DataArray, pairs: NDArray[np.intp], sizes: effects.Sizes, layer: int, neurons: slice
) -> Floats:
    """Mean squares and p (term and effect, 1, neuron)."""
    order = np.argsort(pairs)
    values = read_means(mean, layer, neurons, pairs[order])  # clips as they lie on disk
    if (np.diff(order) != 1).any():
        values = values[np.argsort(order)]
    squares = effects.mean_squares(values, sizes)
    return np.concatenate([squares, effects.p_values(squares, sizes)])[:, None]


def _gate(parts: list[list[Floats]], exists: NDArray[np.bool_] | None, *, blind: str | None) -> Gate:
    """What takes the mean squares and p of all neurons, part by part of each layer."""
    n_terms = len(effects.TERMS)
    sees, either, interaction = [], [], []
    for layer, of_layer in enumerate(parts):
        own = np.concatenate(of_layer, axis=2)[:, 0]
        if exists is not None:
            own[:, ~exists[layer]] = np.nan
        sees.append(blind or _blind(own[:n_terms]))
        if sees[-1] != "none":
            own[:] = np.nan
        p_a, p_t, p_both = own[n_terms:]
        either.append(np.minimum(2 * np.fmin(p_a, p_t), 1))
        interaction.append(p_both.copy())
    q = _benjamini_hochberg(np.stack(either))
    n_tested, n_passing = int(np.count_nonzero(~np.isnan(q))), int(np.count_nonzero(q <= LEVEL))
    return Gate(
        exists=exists, q=q, q_interaction=_benjamini_hochberg(np.stack(interaction)),
        level=LEVEL * max(n_passing, 1) / max(n_tested, 1), blind=np.array(sees, object),
    )  # fmt: skip


def _blind(squares: Floats) -> str:
    """What a layer of these mean squares (term, neuron) cannot see: audio, text or none."""
    total = squares.sum(axis=0)
    varies = total > 0
    for name, own in (("text", ("T", "W")), ("audio", ("A", "C"))):
        part = squares[[effects.TERMS.index(term) for term in (*own, "AT", "AW", "CT", "E")]].sum(axis=0)
        n_alike = np.count_nonzero((part <= ALIKE * total) & varies)
        if n_alike >= max(BLIND_SHARE * np.count_nonzero(varies), 1):
            return name
    return "none"


def _answers(sizes: effects.Sizes, seed: int, own: Floats, gate: Gate, layer: int, neurons: slice) -> Floats:
    """`NUMBERS` and `CODES` (computed, 1, neuron) of neurons, by their mean squares and p and the gate."""
    squares, (p_a, p_t, p_both) = own[: len(effects.TERMS), 0], own[len(effects.TERMS) :, 0]
    q, q_interaction = gate.q[layer, neurons], gate.q_interaction[layer, neurons]
    s_a, s_t, s_both = effects.variances(squares, sizes)
    d_a, d_t = np.sqrt(np.maximum(s_a, 0)), np.sqrt(np.maximum(s_t, 0))
    passes, both = q <= LEVEL, d_a + d_t
    gc = np.divide(d_a, both, out=np.full(len(both), np.nan), where=passes & (both > 0))
    low, high = np.where(passes, effects.intervals(squares, sizes, seed), np.nan)
    smallest = [smallest_effect(squares, sizes, name, gate.level / 2) for name in ("A", "T")]  # one of two effects
    mixed = (q_interaction <= LEVEL) & (s_both > d_a**2 + d_t**2)
    cannot_see = np.full(len(both), gate.blind[layer] != "none")
    state = np.select([cannot_see, mixed, ~passes, low > 0.5, high < 0.5], [0, 1, 2, 3, 4], 5)
    cut = np.select([np.isnan(gc), gc > HIGH_CUT, gc < LOW_CUT], [0, 1, 2], 3)
    numbers = (gc, low, high, d_a, d_t, s_a, s_t, s_both, p_a, p_t, p_both, q, q_interaction, *smallest)
    found = np.stack([*squares, *numbers, state, cut])
    if gate.exists is not None:
        found[: len(NUMBERS), ~gate.exists[layer, neurons]] = np.nan
    return found[:, None]


def _of_codes(codes: xr.DataArray, names: tuple[str, ...]) -> xr.DataArray:
    table = np.array(names, object)
    named: xr.DataArray = xr.apply_ufunc(
        lambda code: table[code.astype(np.intp)], codes, dask="parallelized", output_dtypes=[object]
    )
    return named


def _benjamini_hochberg(p: Floats) -> Floats:
    """q of all p together, NaN where p is."""
    from scipy.stats import false_discovery_control  # takes a second to load

    q, tested = np.full(p.shape, np.nan), ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q
