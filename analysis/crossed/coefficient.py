"""GC, the grounding coefficient: whether a neuron responds to the sound or to the words.

Goal: of every neuron the effects of both, corrected for the noise of sounds and of wordings, and a ratio only where a
test says that there is something to take the ratio of.
Conventions: results are (layer, neuron), float64; A is the sound's category, T the text's. `docs/grounding.md` has the
formulas in words. Memory: of a few thousand neurons the responses, and the results.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

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
from .layout import Layout
from .power import smallest_effect

LEVEL = 0.05  # share of false findings that is allowed
LOW_CUT, HIGH_CUT = 0.3, 0.7  # of the note that asked
READ_BYTES = 8 << 20  # of responses at once, in a thread
ALIKE = 1e-10  # share of a neuron's squares: what batches of other shapes leave is no response
BLIND_SHARE = 0.5  # of a layer's neurons: of one that sees what is swapped not one is alike, but for rounding

COMPUTED = (*(f"MS_{term}" for term in effects.TERMS), "s_A", "s_T", "s_AT", "p_A", "p_T", "p_AT", "low", "high")
"""What is computed of a neuron by itself."""

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
    computed = xr.DataArray(_computed(mean, layout, seed), coords, dims=("computed", "layer", "neuron"))
    if valid is not None:
        computed = computed.where(valid.reset_coords(drop=True))
    of = {name: computed.isel(computed=i) for i, name in enumerate(COMPUTED)}
    blinded = _blind(of, blind)
    sees = blinded == "none"
    either = np.minimum(2 * np.fmin(of["p_A"], of["p_T"]), 1).where(sees)
    q, threshold = _corrected(either)
    q_interaction, _ = _corrected(of["p_AT"].where(sees))
    d: dict[str, xr.DataArray] = {name: of[f"s_{name}"].clip(min=0) ** 0.5 for name in ("A", "T")}
    passes = q <= LEVEL
    gc = ratio_of(d["A"], d["T"]).where(passes)
    low, high = of["low"].where(passes), of["high"].where(passes)
    mixed = (q_interaction <= LEVEL) & (of["s_AT"] > d["A"] ** 2 + d["T"] ** 2)
    squares = computed.isel(computed=slice(len(effects.TERMS))).rename(computed="term")
    found: dict[str, xr.DataArray] = {
        "gc": gc,
        "gc_low": low,
        "gc_high": high,
        "state": _of_codes(
            _first_of(~sees, mixed, ~passes, low > 0.5, high < 0.5),
            ("construction", "interaction", "none", "audio", "text", "both"),
        ),
        "cut": _of_codes(
            _first_of(gc.isnull(), gc > HIGH_CUT, gc < LOW_CUT), ("", "audio-grounded", "text-grounded", "between")
        ),
        "d_A": d["A"],
        "d_T": d["T"],
        **{name: of[name] for name in ("s_A", "s_T", "s_AT", "p_A", "p_T", "p_AT")},
        "q": q,
        "q_AT": q_interaction,
        **{f"smallest_d_{name}": _smallest(squares, threshold, layout, name) for name in ("A", "T")},
    }
    about = {name: {"long_name": text, "units": units} for name, (text, units) in LONG_NAMES.items()}
    variables = {name: values.assign_attrs(about[name]) for name, values in found.items()}
    squares = squares.assign_coords(term=list(effects.TERMS)).assign_attrs(
        long_name="mean square", units="activation^2"
    )
    return xr.Dataset(
        {**variables, "mean_square": squares},
        coords={"blind": blinded.assign_attrs(long_name="what the layer cannot see")},
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


def _computed(mean: xr.DataArray, layout: Layout, seed: int) -> Any:
    """What is computed of each neuron by itself: (computed, layer, neuron); lazy for lazy means."""
    pairs = layout.pairs.ravel()
    width = max(effects.TILE, READ_BYTES // (4 * len(pairs)) // effects.TILE * effects.TILE)
    n_layers, n_neurons, _ = mean.shape
    step = partial(_of_neurons, mean, pairs, layout.pairs.shape, seed)
    parts = [slice(first, min(first + width, n_neurons)) for first in range(0, n_neurons, width)]
    if not n_layers or not parts:
        return np.empty((len(COMPUTED), n_layers, n_neurons))
    if not isinstance(mean.data, da.Array):
        return np.concatenate(
            [np.concatenate([step(layer, part) for part in parts], axis=2) for layer in range(n_layers)], axis=1
        )
    # `partial` keeps the means out of the graph, so that no scheduler reads ahead of the arithmetic.
    return da.block([[[_later(partial(step, layer, part), part) for part in parts] for layer in range(n_layers)]])


def _later(step: Any, part: slice) -> Any:
    shape = (len(COMPUTED), 1, part.stop - part.start)
    return da.from_delayed(delayed(step, pure=False)(), shape, np.float64)


def _of_neurons(
    mean: xr.DataArray, pairs: NDArray[np.intp], sizes: effects.Sizes, seed: int, layer: int, neurons: slice
) -> NDArray[np.float64]:
    order = np.argsort(pairs)
    values = read_means(mean, layer, neurons, pairs[order])  # clips as they lie on disk
    if (np.diff(order) != 1).any():
        values = values[np.argsort(order)]
    squares = effects.mean_squares(values, sizes)
    return np.concatenate(
        [squares, effects.variances(squares, sizes), effects.p_values(squares, sizes),
         effects.intervals(squares, sizes, seed)]
    )[:, None]  # fmt: skip


def _blind(of: dict[str, xr.DataArray], given: str | None) -> xr.DataArray:
    """What a layer cannot see (layer): audio, text or none."""
    squares = of["MS_A"]
    if given is not None:
        return xr.full_like(squares.isel(neuron=0, drop=True), given, dtype=object)
    total = _sum_of(of, *effects.TERMS)
    varies: xr.DataArray = total > 0
    n_vary = varies.sum("neuron")
    of_text, of_audio = (_sum_of(of, *own, "AT", "AW", "CT", "E") for own in (("T", "W"), ("A", "C")))
    to_text, to_audio = (
        ((part <= ALIKE * total) & varies).sum("neuron") >= np.maximum(BLIND_SHARE * n_vary, 1)
        for part in (of_text, of_audio)
    )
    return _of_codes(_first_of(to_text, to_audio), ("text", "audio", "none"))


def _sum_of(of: dict[str, xr.DataArray], *terms: str) -> xr.DataArray:
    """Sum of mean squares (layer, neuron), 0 only where all of them are."""
    first, *others = (of[f"MS_{term}"] for term in terms)
    for each in others:
        first = first + each
    return first


def _first_of(*conditions: xr.DataArray) -> xr.DataArray:
    """Number of the first condition that is met, or how many there are."""
    found = xr.zeros_like(conditions[0], dtype=np.int8) + np.int8(len(conditions))
    for i in reversed(range(len(conditions))):
        found = xr.where(conditions[i], np.int8(i), found)
    return found


def _of_codes(codes: xr.DataArray, names: tuple[str, ...]) -> xr.DataArray:
    table = np.array(names, object)
    named: xr.DataArray = xr.apply_ufunc(table.__getitem__, codes, dask="parallelized", output_dtypes=[object])
    return named


def _corrected(p: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """q (layer, neuron) of Benjamini and Hochberg, NaN where p is; and the largest p that would pass at `LEVEL` ()."""
    q = xr.apply_ufunc(
        _benjamini_hochberg, p, input_core_dims=[["layer", "neuron"]], output_core_dims=[["layer", "neuron"]],
        dask="parallelized", output_dtypes=[np.float64], dask_gufunc_kwargs={"allow_rechunk": True},
    )  # fmt: skip
    n = p.notnull().sum()
    passing = np.maximum((q <= LEVEL).sum(), 1)
    return q, LEVEL * passing / np.maximum(n, 1)


def _benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import false_discovery_control  # takes a second to load

    q, tested = np.full(p.shape, np.nan), ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def _smallest(squares: xr.DataArray, threshold: xr.DataArray, layout: Layout, effect: str) -> xr.DataArray:
    """d that passes the gate 8 times in 10: half of the largest p that does is what one of two effects may have."""

    def of_block(own: NDArray[np.float64], level: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = np.moveaxis(own, -1, 0).reshape(own.shape[-1], -1)
        return smallest_effect(flat, layout.pairs.shape, effect, float(level) / 2).reshape(own.shape[:-1])

    found: xr.DataArray = xr.apply_ufunc(
        of_block, squares, threshold, input_core_dims=[["term"], []], dask="parallelized", output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )  # fmt: skip
    return found
