"""Read a store as xarray: lazily, by name, committed clips only.

Goal: `otoscope.open(url)` gives a DataTree with one Dataset per task; `engine="otoscope"` gives one of them.
Conventions: dimensions are shown as (layer, neuron, clip); `active` is the bits as bool, decoded when asked for.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
import zarr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing
from xarray.indexes import PandasIndex
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.storage import LocalStore, StorePath, WrapperStore

from .direct import ShardBytes, can_read, read_shards, share_of_chunks
from .group import arrays_of, dims_of, open_root, open_task, read_identity, reading, task_names, values_of
from .schema import PENDING

SHOWN_DIMS: dict[tuple[str, ...], tuple[str, ...]] = {("layer", "clip", "neuron"): ("layer", "neuron", "clip")}
MAX_WHOLE_BYTES = 2**28  # of an object that is read whole
MIN_WHOLE_SHARE = 0.5  # share of an object's inner chunks from which on one request for all of it beats one for each
MAX_DOWNLOADS = 3  # objects under way from an object store at a time, for each reading thread
HIDDEN_VARIABLES = ("digest", "version")  # per block, not per clip


class Complete(WrapperStore[Store]):
    """A store of which every object that is asked for must be there: an absent one would read as fill values.

    Those would be inactive neurons that nobody measured. No request more is made than for reading.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of an object. Raises FileNotFoundError where there is none."""
        found = await super().get(key, prototype, byte_range)
        if found is None:
            raise FileNotFoundError(
                f"{key} is missing from {self._store}; expected every committed object: `otoscope verify` lists what "
                "is missing and says what to do"
            )
        return found

    def __str__(self) -> str:
        return str(self._store)


class StoredArray(BackendArray):
    """One Zarr array, its dimensions in the order shown; a damaged or missing object is an error that names it."""

    def __init__(self, array: zarr.Array[Any]):
        complete = StorePath(Complete(array.store_path.store), array.path)
        metadata: Any = array.metadata
        self.array: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(metadata, complete))
        disk = dims_of(array)
        self.dims: tuple[str, ...] = SHOWN_DIMS.get(disk, disk)
        self.order = [disk.index(d) for d in self.dims]  # order[i] is the disk axis of shown axis i
        self.shape = tuple(array.shape[axis] for axis in self.order)
        self.dtype = array.dtype
        self.files, self.encoded_plainly = array, can_read(array)
        self.local = isinstance(array.store_path.store, LocalStore)

    @property
    def preferred_chunks(self) -> dict[str, int]:
        """Dask chunks: whole stored objects; from local files one layer at a time of values per neuron.

        On an object store the layers of one object would be as many requests, each at the price of several of them.
        """
        shape = dict(zip(dims_of(self.array), self.array.shards or self.array.chunks, strict=True))
        if {"neuron", "clip"} <= set(self.dims) and not self.in_one_request:
            shape["layer"] = 1
        return {d: min(shape.get(d, n), n) for d, n in zip(self.dims, self.shape, strict=True)}

    @property
    def in_one_request(self) -> bool:
        """Whether an object is read as a whole: one that is not local, and not too large for memory."""
        n_values = int(np.prod(self.array.shards or self.array.chunks))
        return not self.local and n_values * self.array.dtype.itemsize <= MAX_WHOLE_BYTES

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
        with reading(f"{self.array.path} in {self.array.store_path.store}"):
            values = self.read_on_disk(on_disk)
        kept = [axis for axis in range(len(on_disk)) if not isinstance(on_disk[axis], int | np.integer)]
        return values.transpose([kept.index(axis) for axis in self.order if axis in kept])

    def read_on_disk(self, on_disk: list[Any]) -> np.ndarray:
        """The same in disk order; by zarr what is neither local nor worth whole objects, and what lacks a file."""
        if self.encoded_plainly and self.local:
            with contextlib.suppress(FileNotFoundError):
                return read_shards(self.files, on_disk)
        elif self.encoded_plainly and self.in_one_request and share_of_chunks(self.array, on_disk) >= MIN_WHOLE_SHARE:
            return read_shards(self.array, on_disk, ShardBytes, MAX_DOWNLOADS)
        return np.asarray(self.array.oindex[tuple(on_disk)])


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
        axes = [axis for axis in key if not isinstance(axis, int | np.integer)]
        if not wanted.size:
            return np.zeros([len(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True) if k in axes], bool)
        first, last = int(wanted.min()) // 8, int(wanted.max()) // 8
        packed = super().read((_as_slice(layer), _as_slice(clip), slice(first, last + 1)))
        bits = packed[..., wanted // 8 - first] >> (wanted % 8).astype(np.uint8) & 1  # (layer, clip, neuron)
        active = bits.astype(bool).transpose(0, 2, 1)  # (layer, clip, neuron) -> (layer, neuron, clip)
        single = tuple(0 if isinstance(axis, int | np.integer) else slice(None) for axis in key)
        return active[single]


def _as_slice(axis: Any) -> Any:
    return slice(int(axis), int(axis) + 1) if isinstance(axis, int | np.integer) else axis


def read_task(url: str, task: str) -> xr.Dataset:
    """One task as a lazy Dataset of its committed clips.

    Status is read first: a block that is committed afterwards is not shown, so that reading beside a running
    extraction gives no half-written values.
    """
    root = open_root(url, mode="r")
    group, plan = open_task(root, task)
    status = values_of(group, "status", slice(plan.n_clips))
    arrays = arrays_of(group)
    lost = [name for name in plan.variables if name not in arrays]
    if lost:
        raise ValueError(
            f"{url} task {task} has lost {', '.join(lost)}; expected all of its plan: `otoscope verify` says what to do"
        )
    variables: dict[str, xr.Variable] = {}
    for name, array in arrays.items():
        if name not in HIDDEN_VARIABLES:
            variables[name] = _variable(StoredArray(array), dict(array.attrs))
            if name == "active_bits":
                variables["active"] = _variable(ActiveArray(array), {"long_name": "mean activation above 0"})
    coordinates = {name: variables.pop(name) for name in ("layer", "site", "neuron", "clip", "neuron_valid")}
    clips = _index(coordinates["clip"])
    coordinates |= clips.create_variables(coordinates)
    n_pending = int((status == PENDING).sum())
    about = {"task": task, "encoder": read_identity(root).encoder, "n_pending": n_pending}
    dataset = xr.Dataset(variables, xr.Coordinates(coordinates, indexes={"clip": clips}), attrs=about)
    if len(status) < dataset.sizes["clip"]:  # the task is being grown at this moment
        dataset = dataset.isel(clip=slice(len(status)))
    if n_pending:
        dataset = dataset.isel(clip=np.flatnonzero(status != PENDING))
    return dataset


def _variable(array: StoredArray, attrs: dict[str, Any]) -> xr.Variable:
    lazy = indexing.LazilyIndexedArray(array)
    return xr.Variable(array.dims, lazy, attrs, {"preferred_chunks": array.preferred_chunks})


def _index(names: xr.Variable) -> PandasIndex:
    """The index of clips by name: the one that pandas makes of strings, without the ten times its size it takes to."""
    encoded = [name.encode() for name in names.values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    strings = pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
    array = pd.arrays.ArrowStringArray(strings, dtype=pd.StringDtype(na_value=np.nan))  # type: ignore[call-arg]  # stubs lag
    return PandasIndex(pd.Index(array), "clip", coord_dtype=names.dtype)


class OtoscopeBackend(BackendEntrypoint):
    """`xr.open_dataset(url, engine="otoscope", group=TASK)`; `xr.open_datatree(url, engine="otoscope")`."""

    description = "otoscope activation stores"
    supports_groups = True

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, group: str | None = None
    ) -> xr.Dataset:
        """One task; without `group`, the only one there is."""
        url = str(filename_or_obj)
        names = task_names(open_root(url, mode="r"))
        if group is None and len(names) != 1:
            raise ValueError(f"{url} holds {len(names)} tasks ({', '.join(names)}); name one: group={names[:1]}")
        dataset = read_task(url, (group or names[0]).strip("/"))
        return dataset.drop_vars(drop_variables or ())

    def open_groups_as_dict(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> dict[str, xr.Dataset]:
        """Every task by its path, and the root with the identity in its attributes."""
        url = str(filename_or_obj)
        root = open_root(url, mode="r")
        tree = {"/": xr.Dataset(attrs={"identity": read_identity(root).to_json()})}
        for name in task_names(root):
            tree[f"/{name}"] = read_task(url, name).drop_vars(drop_variables or ())
        return tree

    def open_datatree(self, filename_or_obj: Any, **kwargs: Any) -> xr.DataTree:
        """All tasks as a DataTree."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **kwargs))


def open_store(url: str) -> xr.DataTree:
    """A store as a lazy DataTree, one child per task; see `otoscope.open`."""
    return xr.open_datatree(url, engine=OtoscopeBackend, chunks={})
