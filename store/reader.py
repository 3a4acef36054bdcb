"""Read a store as xarray: lazily, by name, extracted clips only.

Goal: `otoscope.open(url)` gives a DataTree with one Dataset per task; `engine="otoscope"` gives one of them.
Conventions: dimensions are shown as (layer, neuron, clip); `active` is the bits as bool, decoded when asked for. A
label column is a coordinate under its own name, NaN where a clip has no label; `position` is a clip's place in the
plan. Means stored as float16 are shown as float32, in which their sums do not overflow.
"""

import contextlib
import uuid
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
import zarr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing
from xarray.indexes import PandasIndex

from .direct import Opening, can_read, opened, read_shards, read_strings
from .fetched import Fetching
from .folder import Folder
from .group import (
    arrays_of,
    bounded,
    column_of,
    dims_of,
    open_root,
    open_task,
    reading,
    status_of,
    task_at,
    task_names,
)
from .labels import decode, encode
from .provenance import StoredLabel, digest_of
from .schema import FAILED, LONG_NAMES, OK, PENDING, anatomy_values
from .selected import Selected, chunked

SHOWN_DIMS: dict[tuple[str, ...], tuple[str, ...]] = {("layer", "clip", "neuron"): ("layer", "neuron", "clip")}
MAX_WHOLE_BYTES = 2**24  # of objects of all layers, of which a Dask chunk of what is not local is made
MAX_CHUNK_BYTES = 2**28  # of such a chunk as it is shown, of several objects
RECORDED = ("status", "reason")  # shown with the clips that failed
HIDDEN = ("digest", "version", "check", "layer", "site", "neuron", "neuron_valid", "clip")  # or made of the identity
MAX_DRAWN = 1000  # clips along an axis of a plot; each is a tick with its name
FAILED_CHOICES = ("hide", "keep")


class StoredArray(BackendArray):
    """One Zarr array, its dimensions in the order shown; a damaged or missing object is an error that names it."""

    def __init__(self, array: zarr.Array[Any]):
        self.array = bounded(array)
        disk = dims_of(array)
        self.dims: tuple[str, ...] = SHOWN_DIMS.get(disk, disk)
        self.order = [disk.index(d) for d in self.dims]  # order[i] is the disk axis of shown axis i
        self.shape = tuple(array.shape[axis] for axis in self.order)
        self.dtype = _shown_dtype(array.dtype)
        self.encoded_plainly, self.local = can_read(array), isinstance(array.store_path.store, Folder)
        self.opening: Opening = opened if self.local else Fetching()
        self.files = self.array if self.encoded_plainly and not self.local else array
        self.name = uuid.uuid4().hex

    def __dask_tokenize__(self) -> str:
        """Dask takes equal names for equal values, and the same location may hold others when it is opened again."""
        return self.name

    @property
    def preferred_chunks(self) -> dict[str, int]:
        """Dask chunks: whole stored objects; one layer at a time of values per neuron, but of small ones elsewhere.

        What is not local is shown in chunks of several objects, so that a task can ask for many at a time.
        """
        shape = dict(zip(dims_of(self.array), self.array.shards or self.array.chunks, strict=True))
        n_bytes = int(np.prod(list(shape.values()))) * self.array.dtype.itemsize
        if {"neuron", "clip"} <= set(self.dims) and (self.local or n_bytes > MAX_WHOLE_BYTES):
            shape["layer"] = 1
        chunk = {d: min(shape.get(d, n), n) for d, n in zip(self.dims, self.shape, strict=True)}
        if "clip" in chunk and not self.local:
            shown = max(1, int(np.prod(list(chunk.values()))) * self.dtype.itemsize)
            n_clips = self.shape[self.dims.index("clip")]
            chunk["clip"] = min(chunk["clip"] * max(1, MAX_CHUNK_BYTES // shown), n_clips)
        return chunk

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        values: np.ndarray = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )
        return values

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Values of an outer selection: one int, slice or int array per shown axis."""
        on_disk: list[Any] = [None] * len(key)
        for shown, axis in enumerate(self.order):
            on_disk[axis] = key[shown]
        values = self.as_stored(on_disk)
        kept = [axis for axis in range(len(on_disk)) if not isinstance(on_disk[axis], int | np.integer)]
        values = values.astype(_shown_dtype(values.dtype), copy=False)
        return values.transpose([kept.index(axis) for axis in self.order if axis in kept])

    def as_stored(self, on_disk: list[Any]) -> np.ndarray:
        """The same in the order on disk and the stored type, by one int, slice or int array per axis of that."""
        with self.reading():
            return self._read_on_disk(on_disk)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Inside, an error that says what is damaged says of which array."""
        return reading(f"{self.array.path} in {self.array.store_path.store}")

    def _read_on_disk(self, on_disk: list[Any]) -> np.ndarray:
        """The same; by zarr what is encoded otherwise, and what lacks a file."""
        if self.array.dtype.kind == "T":
            (where,) = on_disk
            strings = np.array(read_strings(self.files, where), object)
            return strings.reshape(()) if isinstance(where, int | np.integer) else strings
        if self.encoded_plainly:
            with contextlib.suppress(FileNotFoundError) if self.local else contextlib.nullcontext():
                return read_shards(self.files, on_disk, self.opening)
        return np.asarray(self.array.oindex[tuple(on_disk)])


def _shown_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """float32 for float16, sums of which overflow; objects for strings, so that xarray can mark some as missing."""
    if stored.kind == "T":
        return np.dtype(object)
    return np.dtype(np.float32) if stored == np.float16 else stored


class ActiveArray(StoredArray):
    """`active_bits` seen as bool (layer, neuron, clip); a selection decodes only the bytes it needs."""

    def __init__(self, array: zarr.Array[Any]):
        super().__init__(array)
        n_layers, n_clips, _ = self.shape
        self.dims, self.dtype = ("layer", "neuron", "clip"), np.dtype(bool)
        self.shape = (n_layers, int(str(array.attrs["n_neurons"])), n_clips)

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Bool values of an outer selection."""
        layer, neuron, clip = key
        wanted = np.atleast_1d(np.arange(self.shape[1])[neuron])
        if not wanted.size:
            selected = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
            return np.zeros([len(each) for each in selected if np.ndim(each)], bool)
        first, last = int(wanted.min()) // 8, int(wanted.max()) // 8
        packed = super().read((_as_slice(layer), _as_slice(clip), slice(first, last + 1)))
        bits = packed[..., wanted // 8 - first] >> (wanted % 8).astype(np.uint8) & 1  # (layer, clip, neuron)
        active = bits.astype(bool).transpose(0, 2, 1)  # (layer, clip, neuron) -> (layer, neuron, clip)
        single = tuple(0 if isinstance(axis, int | np.integer) else slice(None) for axis in key)
        return active[single]


def _as_slice(axis: Any) -> Any:
    return slice(int(axis), int(axis) + 1) if isinstance(axis, int | np.integer) else axis


class LabelColumn(BackendArray):
    """A label column as names of categories, NaN for none; read whole when first used, and compared with its digest."""

    def __init__(self, group: zarr.Group, label: StoredLabel, n: int):
        self.group, self.label = group, label
        self.shape, self.dtype = (n,), np.dtype(object)

    @cached_property
    def values(self) -> np.ndarray:
        """Names of categories (clip)."""
        try:
            column = column_of(self.group, self.label.array, self.label.digest)
        except (ValueError, FileNotFoundError) as error:
            now = task_at(self.group.store, self.group.path)
            if now is None or self.label not in now[1].labels.values():
                raise ValueError(
                    f"{self.group.path}/{self.label.array} is gone: its label column was replaced since the store was "
                    "opened; expected to be read before the change after next: open the store again"
                ) from error
            raise
        codes, categories = encode(column)
        return decode(codes, categories, missing=np.nan)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        values: np.ndarray = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )
        return values

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """A copy of some values, so that nobody changes those that are kept."""
        return np.array(self.values[key], dtype=object)


def read_task(url: str, task: str, failed: str = "hide") -> xr.Dataset:
    """One task as a lazy Dataset of its extracted clips; with `failed` "keep", of those that failed, too.

    Status is read first: a block that is committed afterwards is not shown, so that reading beside a running
    extraction gives no half-written values.
    """
    if failed not in FAILED_CHOICES:
        raise ValueError(f"failed is {failed!r}; expected {' or '.join(map(repr, FAILED_CHOICES))}")
    group, record = open_task(open_root(url, mode="r"), task)
    status = status_of(group, record.plan)
    position = np.flatnonzero(status != PENDING if failed == "keep" else status == OK)
    labels = {label.array: name for name, label in record.labels.items()}
    variables: dict[str, xr.Variable] = {}
    for name, array in arrays_of(group).items():
        if name in HIDDEN or (name in RECORDED and failed == "hide"):
            continue
        if name == "status":  # as it was read, whatever becomes of it
            variables[name] = xr.Variable(("clip",), status, dict(array.attrs))
            continue
        if name in labels:
            lazy = indexing.LazilyIndexedArray(LabelColumn(group, record.labels[labels[name]], len(status)))
            variables[labels[name]] = xr.Variable(("clip",), lazy)
            continue
        variables[name] = _variable(StoredArray(array), dict(array.attrs))
        if name == "active_bits":
            variables["active"] = _variable(ActiveArray(array), {"long_name": "mean activation above 0"})
    shown = {name: _shown(variable, position, len(status)) for name, variable in variables.items()}
    names = np.array(column_of(group, "clip", record.plan.names), dtype=object)
    clips, anatomy = _index(names[position]), anatomy_values(record.identity)
    valid = {"long_name": LONG_NAMES["neuron_valid"]}
    indexes = {"clip": clips, **{dim: PandasIndex(anatomy[dim], dim) for dim in ("layer", "neuron")}}
    coordinates = {
        **clips.create_variables(),
        "position": xr.Variable(("clip",), position, {"long_name": "place of the clip in the plan"}),
        "layer": xr.Variable(("layer",), anatomy["layer"]),
        "site": xr.Variable(("layer",), anatomy["site"]),
        "neuron": xr.Variable(("neuron",), anatomy["neuron"]),
        "neuron_valid": xr.Variable(("layer", "neuron"), anatomy["neuron_valid"], valid),
        **{name: shown.pop(name) for name in record.labels},
    }
    about = {
        "task": task,
        "encoder": record.identity.encoder,
        "weights": record.identity.weights,
        "identity": digest_of(record.identity.to_json()),
        "n_pending": int((status == PENDING).sum()),
        "n_failed": int((status == FAILED).sum()),
    }
    if rows := (record.identity.derived_from or {}).get("rows"):
        about["rows"] = str(rows)  # "clip": one value per clip, none per frame
    return xr.Dataset(shown, xr.Coordinates(coordinates, indexes=indexes), attrs=about)


def _variable(array: StoredArray, attrs: dict[str, Any]) -> xr.Variable:
    lazy = indexing.LazilyIndexedArray(array)
    encoding: dict[str, Any] = {"preferred_chunks": array.preferred_chunks}
    if type(array) is StoredArray:
        disk = zip(dims_of(array.array), array.array.shape, strict=True)
        encoding["selected"] = Selected(stored=array, at={dim: np.arange(n) for dim, n in disk})
    return xr.Variable(array.dims, lazy, attrs, encoding)


def _shown(variable: xr.Variable, position: np.ndarray, n: int) -> xr.Variable:
    """A variable at these clips of n; its chunks still hold whole stored objects, whatever is left of each."""
    if "clip" not in variable.dims or len(position) == n:
        return variable
    shown = variable.isel(clip=position)
    chunks = dict(variable.encoding.get("preferred_chunks", {}))
    if chunks:
        left = np.bincount(position // chunks["clip"])
        chunks["clip"] = tuple(left[left > 0].tolist()) or (0,)
    shown.encoding = {"preferred_chunks": chunks} if chunks else {}
    if selected := variable.encoding.get("selected"):
        shown.encoding["selected"] = selected.part(clip=position)
    return shown


def _index(names: np.ndarray) -> PandasIndex:
    """The index of clips by name: the one that pandas makes of strings, without the ten times its size it takes to.

    Names of a few clips have a fixed width, as an axis of a plot must; as one of many it would take minutes to draw.
    """
    strings = pa.array(names, pa.large_string())
    array = pd.arrays.ArrowStringArray(strings, dtype=pd.StringDtype(na_value=np.nan))  # type: ignore[call-arg]  # stubs lag
    few = len(names) <= MAX_DRAWN
    width = max(map(len, names), default=0) or 1 if few else 0
    return PandasIndex(pd.Index(array), "clip", coord_dtype=np.dtype(f"<U{width}" if few else object))


class OtoscopeBackend(BackendEntrypoint):
    """`xr.open_dataset(url, engine="otoscope", group=TASK)`; `xr.open_datatree(url, engine="otoscope")`."""

    description = "otoscope activation stores"
    supports_groups = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        failed: str = "hide",
    ) -> xr.Dataset:
        """One task; without `group`, the only one there is."""
        url = str(filename_or_obj)
        names = task_names(open_root(url, mode="r"))
        if group is None and len(names) != 1:
            raise ValueError(f"{url} holds {len(names)} tasks ({', '.join(names)}); name one: group={names[:1]}")
        dataset = read_task(url, (group or names[0]).strip("/"), failed)
        return dataset.drop_vars(drop_variables or ())

    def open_groups_as_dict(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, failed: str = "hide"
    ) -> dict[str, xr.Dataset]:
        """Every task by its path."""
        url = str(filename_or_obj)
        names = task_names(open_root(url, mode="r"))
        return {"/": xr.Dataset()} | {
            f"/{name}": read_task(url, name, failed).drop_vars(drop_variables or ()) for name in names
        }

    def open_datatree(self, filename_or_obj: Any, **kwargs: Any) -> xr.DataTree:
        """All tasks as a DataTree."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **kwargs))


def open_store(url: str, failed: str = "hide") -> xr.DataTree:
    """A store as a lazy DataTree, one child per task; see `otoscope.open`."""
    tasks = OtoscopeBackend().open_groups_as_dict(url, failed=failed)
    return xr.DataTree.from_dict({path: _chunked(dataset) for path, dataset in tasks.items()})


def _chunked(dataset: xr.Dataset) -> xr.Dataset:
    """A task in Dask's chunks, but for coordinates: xarray compares and groups by what it can read at once."""
    opening = uuid.uuid4().hex  # see `StoredArray.__dask_tokenize__`
    chunks = {}
    for name, variable in ((str(name), dataset.variables[name]) for name in dataset.data_vars):
        if "preferred_chunks" in variable.encoding:
            selected = variable.encoding.pop("selected", None)
            own = f"{name}-{opening}"
            sizes = variable.encoding["preferred_chunks"]
            chunks[name] = chunked(variable, selected, own) if selected else variable.chunk(sizes, name=own)
    return dataset.assign(chunks)
