"""Which clips drive a neuron most, and which least.

Goal: the k clips of highest or lowest value for one neuron or for all of them, lazily and in bounded memory.
Conventions: values are (..., clip), for instance the mean activation (layer, neuron, clip). Equal values rank in the
order of the clips; failed clips and NaN rank nowhere. One chunk of values is read at a time per thread, in the order of
the clips, and reduced to k per neuron before the next, so memory does not grow with the number of clips.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from .conditions import clips_where
from .selection.selection import selection_of

Keys = NDArray[np.int64]
"""A value and the position of its clip in one integer: higher value first, then earlier clip. So no two are equal."""

NOTHING = np.iinfo(np.int64).min
LOW_WORD = (1 << 32) - 1


def exemplar_clips(
    values: xr.DataArray, counted: xr.DataArray | None = None, k: int = 10, lowest: bool = False
) -> xr.Dataset:
    """The clips of highest values: (..., clip) -> `position` and `value`, each (..., rank), rank 0 the highest.

    values: numbers (..., clip), compared in float32: `ds["mean"]` or a part of it, or a share such as
        ds["positive_frames"] / ds["frame_count"].
    counted: bool (clip), the clips that may appear, as status == OK; all if not given.
    lowest: the lowest values first.
    position is the index along clip, -1 where fewer than k clips count; value is NaN there. Lazy in, lazy out.
    Raises ValueError for k below 1, and where clips do not agree.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected the number of clips to show, at least 1")
    if counted is not None and counted.sizes != {"clip": values.sizes["clip"]}:
        raise ValueError(
            f"counted has {dict(counted.sizes)}, values {values.sizes['clip']} clips; expected one bool per clip: "
            "select clips of the data set, not of one variable"
        )
    values = values.transpose(..., "clip")
    allowed = np.ones(values.sizes["clip"], bool) if counted is None else counted.data
    keys = _highest(values.data, allowed, k, -1.0 if lowest else 1.0)
    dims = (*values.dims[:-1], "rank")
    position = xr.apply_ufunc(_position, xr.DataArray(keys, dims=dims), dask="parallelized", output_dtypes=[np.int64])
    value = xr.apply_ufunc(_value, xr.DataArray(keys, dims=dims), dask="parallelized", output_dtypes=[np.float32])
    about = values.attrs.get("long_name", values.name or "value")
    return xr.Dataset(
        {
            "position": position.assign_attrs(long_name="index of the clip"),
            "value": (-value if lowest else value).assign_attrs(long_name=str(about)),
        },
        coords={
            **{name: coord for name, coord in values.coords.items() if "clip" not in coord.dims},
            "rank": np.arange(k),
        },
        attrs={"order": "lowest first" if lowest else "highest first"},
    )


def exemplars_table(
    ds: xr.Dataset, neurons: Sequence[tuple[int, int]], k: int = 10, lowest: bool = False, where: Sequence[str] = ()
) -> pd.DataFrame:
    """One row per neuron and rank: layer, neuron, rank (from 1), clip, path, start, stop, mean, and each label column.

    A label column that is called as one of these is shown as "label NAME".

    ds: a task as the reader shows it; neurons: pairs (layer, neuron); where: conditions that the clips satisfy, as of
    `clips_where`. Computes; reads these neurons' means only, one layer at a time.
    Raises LookupError for a neuron that does not exist, a task that keeps no means or has no clips, and as
    `clips_where` does; ValueError for no neuron.
    """
    if not neurons:
        raise ValueError("found no neuron to show exemplars of; expected at least one pair (layer, neuron)")
    if "clip" not in ds.dims:
        raise LookupError("probabilities made elsewhere have no clips; expected a store that was extracted here")
    if "mean" not in ds:
        raise LookupError("this task keeps no 'mean', expected for exemplars: extract with --keep mean")
    _check_exist(ds, neurons)
    counted = xr.DataArray(clips_where(ds, selection_of(where=where).where), dims="clip")
    k = min(k, max(1, counted.size))  # no ranks without a clip
    found = {}
    for layer in dict.fromkeys(layer for layer, _ in neurons):
        wanted = sorted({neuron for of, neuron in neurons if of == layer})
        means = ds["mean"].sel(layer=layer, neuron=wanted)
        found[layer] = exemplar_clips(means, counted, k, lowest).compute(scheduler="synchronous")
    columns = ["clip", *(name for name in ("path", "start", "stop") if name in ds)]
    labels = ds.otoscope.labels
    rows = []
    for layer, neuron in dict.fromkeys(neurons):
        ranked = found[layer].sel(neuron=neuron)
        ranked = ranked.isel(rank=ranked["position"].values >= 0)
        rows.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "neuron": neuron,
                    "rank": ranked["rank"].values + 1,
                    "at": ranked["position"].values,
                    "mean": ranked["value"].values.astype(np.float64),
                }
            )
        )
    table = pd.concat(rows, ignore_index=True)
    at = np.asarray(table.pop("at"))
    shown, inverse = np.unique(at, return_inverse=True)
    clips = ds[[*columns, *labels]].isel(clip=shown).compute(scheduler="synchronous")
    for i, name in enumerate(columns):
        table.insert(3 + i, name, clips[name].values[inverse])
    for name in labels:
        column = f"label {name}" if name in table else name
        table[column] = clips[name].fillna("").astype(str).values[inverse]
    return table


def whole_paths(table: pd.DataFrame, audio_root: str) -> pd.DataFrame:
    """A table with a column `path`, which a store records relative to the audio root, with the root before each.

    audio_root: an absolute path or a URL. Raises LookupError for a table without paths.
    """
    if "path" not in table:
        raise LookupError("this task records no paths of clips; expected some for an audio root: leave it out")
    return table.assign(path=f"{audio_root.rstrip('/')}/" + table["path"].astype(object))


def _check_exist(ds: xr.Dataset, neurons: Sequence[tuple[int, int]]) -> None:
    layers, width = ds["layer"].values, ds["neuron"].values
    valid = ds["neuron_valid"].compute(scheduler="synchronous") if "neuron_valid" in ds else None
    for layer, neuron in neurons:
        exists = layer in layers and neuron in width
        if not exists or (valid is not None and not bool(valid.sel(layer=layer, neuron=neuron))):
            raise LookupError(
                f"no neuron ({layer}, {neuron}); expected layer {layers.min()} to {layers.max()}, "
                f"neuron {width.min()} to {width.max()} where the layer is so wide"
            )


def _highest(values: Any, counted: Any, k: int, sign: float) -> Any:
    """Keys of the k highest of sign * values, highest first: (..., clip) -> (..., k); lazy for lazy values."""
    if not isinstance(values, da.Array):
        return _merge(None, _keys(np.asarray(values), np.asarray(counted), 0, sign), k)
    other = values.chunks[:-1]
    blocks = np.empty([len(sizes) for sizes in other], object)
    # `partial` keeps the array out of the graph: a step reads its blocks by itself, one after the other, so that no
    # scheduler can read ahead of the ranking.
    for position in product(*map(range, blocks.shape)):
        step = delayed(partial(_rank_blocks, values.blocks[position], k, sign), pure=False)(counted)
        shape = (*(sizes[i] for sizes, i in zip(other, position, strict=True)), k)
        blocks[position] = da.from_delayed(step, shape, np.int64)
    return da.block(blocks[..., None].tolist())  # the innermost lists are along rank


def _rank_blocks(values: da.Array, k: int, sign: float, counted: NDArray[np.bool_]) -> Keys:
    """Keys (..., k) over all blocks along clip."""
    ranked, start = None, 0
    for i, size in enumerate(values.chunks[-1]):
        block = values.blocks[(..., i)].compute(scheduler="synchronous")
        ranked = _merge(ranked, _keys(block, counted[start : start + size], start, sign), k)
        start += size
    return _merge(ranked, np.empty((*values.shape[:-1], 0), np.int64), k)


def _keys(values: NDArray[Any], counted: NDArray[np.bool_], start: int, sign: float) -> Keys:
    numbers = np.ascontiguousarray(values, np.float32) * np.float32(sign) + np.float32(0)  # + 0: -0.0 becomes 0.0
    bits = numbers.view(np.int32)
    ordered = bits ^ (bits >> 31 & 0x7FFFFFFF)  # integers in the order of the floats
    positions = np.arange(start, start + values.shape[-1], dtype=np.int64)
    keys = ordered.astype(np.int64) << 32 | (LOW_WORD - positions)
    return np.where(counted & ~np.isnan(numbers), keys, NOTHING)


def _merge(ranked: Keys | None, keys: Keys, k: int) -> Keys:
    """The k highest of both, highest first; NOTHING where there are fewer."""
    ranked = np.full((*keys.shape[:-1], k), NOTHING) if ranked is None else ranked
    every = np.concatenate([ranked, keys], axis=-1)
    top = np.partition(every, every.shape[-1] - k, axis=-1)[..., -k:]
    return np.sort(top, axis=-1)[..., ::-1]


def _position(keys: Keys) -> NDArray[np.int64]:
    return np.where(keys == NOTHING, -1, LOW_WORD - (keys & LOW_WORD))


def _value(keys: Keys) -> NDArray[np.float32]:
    ordered = (keys >> 32).astype(np.int32)
    numbers = (ordered ^ (ordered >> 31 & 0x7FFFFFFF)).view(np.float32)
    return np.where(keys == NOTHING, np.float32(np.nan), numbers)
