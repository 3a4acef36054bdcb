"""Which clips drive a neuron most, and which least.

Goal: the k clips of highest or lowest value for one neuron or for all of them, lazily and in bounded memory.
Conventions: values are (..., clip), for instance the mean activation (layer, neuron, clip). Equal values rank in the
order of the clips; failed clips and NaN rank nowhere. One chunk of values is read at a time per thread, and the highest
of each neuron are kept before the next, so memory does not grow with the number of clips.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from ..store.schema import NEURON_CHUNK
from ..store.selected import Selected, selected_by
from .conditions import clips_where
from .selection.selection import selection_of

TASKS = 4  # at least, of what is stored in a folder: so many threads are kept busy


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
    keys = xr.DataArray(_highest(values, allowed, k, lowest), dims=(*values.dims[:-1], "rank"))
    position = xr.apply_ufunc(_position, keys, dask="parallelized", output_dtypes=[np.int64])
    value = xr.apply_ufunc(partial(_value, lowest=lowest), keys, dask="parallelized", output_dtypes=[np.float32])
    about = values.attrs.get("long_name", values.name or "value")
    return xr.Dataset(
        {
            "position": position.assign_attrs(long_name="index of the clip"),
            "value": value.assign_attrs(long_name=str(about)),
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
        means = ds["mean"].sel(layer=[layer], neuron=wanted)
        found[layer] = exemplar_clips(means, counted, k, lowest).isel(layer=0).compute(scheduler="synchronous")
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


def _highest(values: xr.DataArray, counted: Any, k: int, lowest: bool) -> Any:
    """Keys of the k highest values, highest first: (..., clip) -> (..., k); lazy for lazy values."""
    array = values.data
    if not isinstance(array, da.Array):
        return _rank_blocks([array], k, lowest, np.asarray(counted))
    stored = selected_by(array, ("layer", "neuron", "clip")) if values.dims == ("layer", "neuron", "clip") else None
    # `partial` keeps the array out of the graph: a step reads its blocks by itself, one after the other, so that no
    # scheduler can read ahead of the ranking.
    if stored is not None and stored.in_order and stored.dtype in (np.float16, np.float32):
        edges = [_edges(n, size) for n, size in zip(array.shape[:-1], _task_shape(stored), strict=True)]
        step: Any = partial(_rank_stored, stored, k, lowest)
    else:
        edges = [np.cumsum([0, *sizes]) for sizes in array.chunks[:-1]]
        step = partial(_rank_lazy, array, k, lowest)
    blocks = np.empty([len(edge) - 1 for edge in edges], object)
    for at in product(*map(range, blocks.shape)):
        part = tuple(slice(int(edge[i]), int(edge[i + 1])) for edge, i in zip(edges, at, strict=True))
        shape = (*(each.stop - each.start for each in part), k)
        blocks[at] = da.from_delayed(delayed(partial(step, part), pure=False)(counted), shape, np.int64)
    return da.block(blocks[..., None].tolist())  # the innermost lists are along rank


def _edges(n: int, size: int) -> NDArray[np.intp]:
    """Of parts of so many, the last one smaller; of one that is empty where there is nothing."""
    return np.append(np.arange(0, max(n, 1), size), n)


def _task_shape(stored: Selected) -> tuple[int, int]:
    """Layers and neurons of a task: parts of what lies in files; all of what is fetched, so none is fetched twice."""
    n_layers, _, n_neurons = (max(1, n) for n in stored.shape)
    if not stored.local:
        return n_layers, n_neurons
    each = -(-n_neurons * min(n_layers, TASKS) // TASKS)
    return -(-n_layers // TASKS), -(-each // NEURON_CHUNK) * NEURON_CHUNK


def _rank_stored(
    stored: Selected, k: int, lowest: bool, part: tuple[slice, slice], counted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Keys (layer, neuron, k) of layers and neurons, over all clips as they lie on disk."""
    from . import ranking

    own = stored.part(layer=part[0], neuron=part[1])
    n_layers, _, n_neurons = own.shape
    kept = np.full((n_layers, n_neurons, k), ranking.NOTHING)
    rows, row = own.clips(), -1
    later = bool((np.diff(own.at["clip"]) > 0).all())
    for i, layer, neuron, block in own.blocks(rows):
        if i != row:
            row, (_, inside, at) = i, rows[i]
            clips, positions = inside[counted[at]], at[counted[at]]
        for heaps, values in zip(kept[layer, neuron], block, strict=True):
            ranking.keep_highest(heaps, values, clips, positions, lowest, later)
    return ranking.ranked(kept, own.dtype)


def _rank_lazy(
    values: da.Array, k: int, lowest: bool, part: tuple[slice, ...], counted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    own = values[part]
    blocks = (own.blocks[(..., i)].compute(scheduler="synchronous") for i in range(own.numblocks[-1]))
    return _rank_blocks(blocks, k, lowest, counted)


def _rank_blocks(blocks: Iterable[NDArray[Any]], k: int, lowest: bool, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Keys (..., k) over all blocks (..., clip), one after the other."""
    from . import ranking  # machine code that takes half a second to load

    kept, start = None, 0
    for block in blocks:
        *shape, n = block.shape
        if kept is None:
            kept = np.full((int(np.prod(shape)), k), ranking.NOTHING)
        clips = np.flatnonzero(counted[start : start + n])
        values = np.ascontiguousarray(np.moveaxis(block, -1, 0).reshape(n, len(kept)), np.float32)
        ranking.keep_highest(kept, values, clips, clips + start, lowest, later=True)
        start += n
    assert kept is not None  # there is a block, be it of no clip
    return ranking.ranked(kept, np.dtype(np.float32)).reshape(*shape, k)


def _position(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    from . import ranking

    return ranking.position_of(keys)


def _value(keys: NDArray[np.int64], lowest: bool) -> NDArray[np.float32]:
    from . import ranking

    return ranking.value_of(keys, lowest)
