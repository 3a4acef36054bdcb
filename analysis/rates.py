"""How often, and how much, a neuron is active on the clips of each category.

Goal: activation probabilities in every reading, and means, lazily from what the store keeps.
Conventions: `labels` are integer codes (clip) with the category names in attrs["categories"]; a negative code
means no label, and such clips count nowhere. Probabilities are float64 (layer, neuron, category) in [0, 1],
NaN for a category without clips; beside them travels `n_clips` (category), and `n_frames` where frames are counted.
Lazy in, lazy out, one chunk; any chunking of the input gives the same result.
"""

from typing import Any

import numpy as np
import xarray as xr

from .categories import category_names
from .totals import clips_per_category, count_above, count_bits, sum_values

RESULT_DIMS = ("layer", "neuron", "category")


def activation_counts(active: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Number of clips of each category in which a neuron is active: int32 (layer, neuron, category).

    active: packed bits, uint8 (layer, clip, byte) with attrs packed_dim, bitorder and n_neurons as in the
    store (fastest: they stay packed), or bools (layer, neuron, clip).
    Raises ValueError for anything else, and for labels that do not fit the clips.
    """
    categories = _categories(labels)
    if "packed_dim" in active.attrs:
        if active.dtype != np.uint8 or active.attrs.get("bitorder") != "little":
            raise ValueError(
                f"packed bits are {active.dtype} with bitorder {active.attrs.get('bitorder')!r}; expected uint8 and "
                "'little': take them from the store as they are, and of clips a selection, as in "
                "ds.sel(clip=ds['digit'] == '3'), for ds.where makes floats of them"
            )
        n_neurons = int(active.attrs["n_neurons"])
        (byte,) = (dim for dim in active.dims if dim not in ("layer", "clip"))
        bits = _arrange(active, labels, str(byte))
        counts = count_bits(bits.data, labels.data, len(categories), n_neurons)
    elif active.dtype == bool:
        bits = _arrange(active, labels)
        counts = sum_values(bits.data, labels.data, len(categories))
    else:
        raise ValueError(
            f"found {active.dtype} {active.name or 'values'}; expected bools or packed bits: "
            "compare numbers first, as in `above(mean, 0.1)`"
        )
    return _result(counts, bits, labels, categories, "number of clips in which the neuron is active", "clips")


def activation_probability(active: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Share of the clips of each category in which a neuron is active: (layer, neuron, category) in [0, 1].

        P = clips of the category in which the neuron is active / clips of the category

    active: packed bits or bools, as for `activation_counts`. The readings are a matter of what is given:
    "clip" the stored bits (mean over frames > 0), "any" `positive_frames > 0`, a threshold `above(mean, t)`.
    """
    counts = activation_counts(active, labels)
    return _share(counts, counts["n_clips"])


def probability_above(mean: xr.DataArray, threshold: float | xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Share of the clips of each category whose mean exceeds a threshold: (layer, neuron, category) in [0, 1].

    The same as `activation_probability(above(mean, threshold), labels)`, but in whole blocks as they are stored, and
    thresholds that are lazy are computed once instead of for each block.
    """
    categories, values = _categories(labels), _arrange(mean, labels)
    zeros = xr.zeros_like(values.isel(clip=0, drop=True), np.float64 if mean.dtype == np.float64 else np.float32)
    floors = zeros + _floor(mean, threshold)
    counts = count_above(values.data, floors.transpose("layer", "neuron").data, labels.data, len(categories))
    result = _result(counts, values, labels, categories, "number of clips in which the neuron is active", "clips")
    return _share(result, result["n_clips"])


def frame_probability(positive_frames: xr.DataArray, frame_count: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Share of the frames of each category with a positive activation: (layer, neuron, category) in [0, 1].

        P = sum of positive frames over the category's clips / sum of their frames

    positive_frames: integers (layer, neuron, clip); frame_count: integers (clip). This is the reading of
    LAPE, which counts tokens, and the one that saturates last: with ReLU encoders, or with few clips, many
    neurons are active in every clip, but not in every frame.
    """
    categories = _categories(labels)
    positive = _arrange(positive_frames, labels)
    sums = sum_values(positive.data, labels.data, len(categories))
    frames = _arrange(frame_count.expand_dims(layer=[0], neuron=[0]), labels)
    n_frames = sum_values(frames.data, labels.data, len(categories))[:, 0, 0]
    total = _result(sums, positive, labels, categories, "number of frames in which the neuron is positive", "frames")
    about = {"long_name": "frames", "units": "frames"}
    return _share(total, xr.DataArray(n_frames, dims="category")).assign_coords(n_frames=("category", n_frames, about))


def category_mean(mean: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Mean activation over the clips of each category: (layer, neuron, clip) -> float64 (..., category).

    Every clip weighs the same, however long. Sums are in float64, so the result depends on the chunking by
    its last digits only, and not at all for float16.
    """
    categories = _categories(labels)
    values = _arrange(mean, labels)
    sums = sum_values(values.data, labels.data, len(categories))
    total = _result(sums, values, labels, categories, "mean activation", mean.attrs.get("units", "1"))
    return (total / total["n_clips"].where(total["n_clips"] > 0)).assign_attrs(total.attrs)


def above(mean: xr.DataArray, threshold: float | xr.DataArray) -> xr.DataArray:
    """Whether the mean activation exceeds a threshold: (layer, neuron, clip) -> bool.

    threshold: a number, or one per neuron (layer, neuron). The comparison is exact: a stored float16 is
    compared with the threshold as given, not with the threshold rounded to float16. NaN is above nothing.
    """
    wide = mean if mean.dtype == np.float64 else mean.astype(np.float32)
    exceeds: xr.DataArray = (wide > _floor(mean, threshold)).transpose(*mean.dims)
    return exceeds.assign_attrs(long_name="mean activation above the threshold")


def _floor(mean: xr.DataArray, threshold: float | xr.DataArray) -> Any:
    """What means are compared with: x > t for float32 x if and only if x > the largest float32 at or below t.

    float32 compares much faster than float16, and float64 would take twice the memory.
    """
    if mean.dtype == np.float64:
        return threshold
    floor: Any = xr.apply_ufunc(_float32_at_or_below, threshold, dask="parallelized", output_dtypes=[np.float32])
    return floor


def _float32_at_or_below(threshold: Any) -> Any:
    exact = np.asarray(threshold, np.float64)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


def _categories(labels: xr.DataArray) -> list[str]:
    """The names behind the codes. Raises ValueError where they are absent."""
    if "categories" not in labels.attrs or labels.dims != ("clip",) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels are {labels.dtype} {labels.dims} with attributes {sorted(labels.attrs)}; expected "
            "integer codes along clip with attrs['categories']: take those of `ds.otoscope.codes(label)`"
        )
    return [str(name) for name in labels.attrs["categories"]]


def _arrange(values: xr.DataArray, labels: xr.DataArray, last: str = "neuron") -> xr.DataArray:
    """Values as (layer, clip, last), the order on disk. Raises ValueError for other dims or clips."""
    if set(values.dims) != {"layer", "clip", last}:
        lost = next((dim for dim in ("layer", last, "clip") if dim not in values.dims), None)
        at = values.coords[lost].values if lost in values.coords else 3
        remedy = f"a selection of one {lost} keeps its dimension as {lost}=[{at!s}]" if lost else "leave out the others"
        raise ValueError(f"found dimensions {', '.join(map(str, values.dims))}; expected layer, {last}, clip: {remedy}")
    n_values, n_labels = values.sizes["clip"], labels.sizes["clip"]
    named = "clip" in values.indexes and "clip" in labels.indexes
    if n_values != n_labels or (named and not values.indexes["clip"].equals(labels.indexes["clip"])):
        raise ValueError(
            f"values have {n_values} clips and labels {n_labels}, not the same ones in the same order; "
            "select clips of the data set, not of one variable"
        )
    return values.transpose("layer", "clip", last)


def _result(
    totals: Any, source: xr.DataArray, labels: xr.DataArray, categories: list[str], long_name: str, units: str
) -> xr.DataArray:
    """Totals (category, layer, neuron) as (layer, neuron, category) with the source's coordinates."""
    kept = {name: coord for name, coord in source.coords.items() if set(coord.dims) <= {"layer", "neuron"}}
    n_clips = xr.Variable(
        "category", clips_per_category(labels.data, len(categories)), {"long_name": "clips", "units": "clips"}
    )
    result = xr.DataArray(
        totals,
        dims=("category", "layer", "neuron"),
        coords={
            "neuron": np.arange(totals.shape[2]),
            **kept,
            "category": category_names(categories),
            "n_clips": n_clips,
        },
        attrs={"long_name": long_name, "units": units},
    )
    return result.transpose(*RESULT_DIMS)


def _share(counts: xr.DataArray, of: xr.DataArray) -> xr.DataArray:
    """Counts over their category's total, NaN where that is zero."""
    share = counts / of.drop_vars("n_clips", errors="ignore").where(of > 0)
    return share.rename("probability").assign_attrs(long_name="activation probability", units="1")
