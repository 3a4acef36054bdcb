"""Which values of a stored array a Dask array shows, so that they can be read without a task for each of its chunks.

Goal: whoever goes through all of them reads objects as they are stored, in the stored type and in few long steps,
whatever clips, layers and neurons of the data set were selected before.
Conventions: positions are in the whole stored array, one array of them per dimension; together they are the outer
product. What has become of an array by anything but selecting and transposing is not followed.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol
from weakref import WeakValueDictionary

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.local import get_sync
from numpy.typing import NDArray

from .direct import Opening, Part, chunks_in, parts

FOLLOWED = ("getitem-", "transpose-")  # how Dask calls what only selects and transposes
MAX_FOLLOWED = 16  # of an open array, that are kept

Positions = NDArray[np.intp]
Axis = slice | Positions


class Stored(Protocol):
    """What is asked of the reader's `StoredArray`."""

    files: zarr.Array[Any]
    opening: Opening
    local: bool
    encoded_plainly: bool

    def as_stored(self, on_disk: list[Any]) -> NDArray[Any]:
        """Values of an outer selection in the order on disk and the stored type."""

    def reading(self) -> AbstractContextManager[None]:
        """Inside, an error that says what is damaged says of which array."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """Some of the values of a stored array."""

    stored: Stored
    at: Mapping[str, Positions]
    """Positions along each dimension, in the order on disk."""

    def part(self, **along: Axis) -> "Selected":
        """A selection of it, by dimension."""
        return replace(self, at={dim: at[along[dim]] if dim in along else at for dim, at in self.at.items()})

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the order on disk."""
        return tuple(map(len, self.at.values()))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type."""
        return np.dtype(self.stored.files.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def read(self) -> NDArray[Any]:
        """The values in the order on disk and the stored type. Raises as any reading of the array does."""
        return self.stored.as_stored(list(self.at.values()))

    @property
    def local(self) -> bool:
        """Whether it lies in files of this machine."""
        return self.stored.local

    @property
    def in_order(self) -> bool:
        """Whether `blocks` can give it: its layers and neurons are in order, and of bits all are there."""
        files, others = self.stored.files, [at for dim, at in self.at.items() if dim != "clip"]
        ascending = all(bool((np.diff(at) > 0).all()) for at in others)
        packed = self.at.get("neuron_byte")
        whole = packed is None or len(packed) == files.shape[-1]
        return self.stored.encoded_plainly and list(self.at)[1] == "clip" and ascending and whole

    def clips(self) -> list[Part]:
        """The clips of each row of stored chunks: its number, where in the row they lie, and where in the selection."""
        return list(parts(self.at["clip"], self.stored.files.chunks[1]))

    def blocks(self, rows: Sequence[Part]) -> Iterator[tuple[int, slice, slice, NDArray[Any]]]:
        """Stored chunks of such rows, one after the other, of a selection that is `in_order`.

        Gives the number of the row in `rows`, the layers, the neurons, and the values (layer, clip, neuron) of all
        clips that are stored in the row, in the stored type. They are there until the next chunk is asked for: all are
        read into one buffer. Of objects that are not local, those of the next rows are under way meanwhile.
        Raises as any reading of the array does.
        """
        files = self.stored.files
        shards, (_, n_rows, _) = files.shards or files.chunks, files.chunks
        layers, _, neurons = self.at.values()
        others = list(product(parts(layers, shards[0]), parts(neurons, shards[2])))
        wanted = [
            (layer, (number * n_rows // shards[1], inside + number * n_rows % shards[1], at), neuron)
            for number, inside, at in rows
            for layer, neuron in others
        ]
        i = -1
        try:
            with self.stored.reading():
                for i, (of_layer, _, of_neuron), values in chunks_in(files, wanted, self.stored.opening):
                    own = np.ascontiguousarray(values[of_layer[1]][..., of_neuron[1]])
                    yield i // len(others), of_layer[2], of_neuron[2], own  # type: ignore[misc]  # slices: in order
        except FileNotFoundError:
            for at in [at for _, (_, _, at), _ in wanted[max(0, i) :]]:
                self.part(clip=at).read()  # says what is missing
            raise


class Shown:
    """A variable as Dask reads it, by itself in each of its tasks, and what of a stored array it is."""

    def __init__(self, variable: xr.Variable, selected: Selected):
        self.variable, self.selected = variable, selected
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim
        self.chunks: tuple[tuple[int, ...], ...] = ()
        self.followed: dict[Any, Selected | None] = {}  # by an array's name, which says all that was done, and its dims

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        return np.asarray(self.variable[key].values)


_shown: WeakValueDictionary[str, Shown] = WeakValueDictionary()
"""What is open in this process, by the name of its Dask array, which no two openings share."""


def chunked(variable: xr.Variable, selected: Selected, name: str) -> xr.Variable:
    """A variable that shows this of a stored array, in Dask's chunks, by a name that is given once.

    `selected_by` follows what is selected of it.
    """
    shown = Shown(variable, selected)
    sizes = variable.encoding["preferred_chunks"]
    lazy = da.from_array(shown, tuple(sizes[dim] for dim in variable.dims), name=name, meta=np.empty(0, shown.dtype))
    shown.chunks = lazy.chunks
    _shown[name] = shown
    return variable.copy(data=lazy)


def selected_by(values: Any, dims: tuple[str, ...]) -> Selected | None:
    """What an array of these dimensions shows of a stored one of the same; None for any other array.

    Also for one that something was done to but selecting and transposing.
    """
    if not isinstance(values, da.Array):
        return None
    name = next((name for name in values.dask.layers if name in _shown), "")
    shown = _shown.get(name)
    if shown is None or values.ndim != len(dims):
        return None
    if (values.name, dims) not in shown.followed:
        if len(shown.followed) >= MAX_FOLLOWED:
            shown.followed.clear()
        shown.followed[values.name, dims] = _selected_by(values, dims, name, shown)
    return shown.followed[values.name, dims]


def _selected_by(values: da.Array, dims: tuple[str, ...], name: str, shown: "Shown") -> Selected | None:
    found = Axes(tuple(map(str, shown.variable.dims)), shown.selected.at)
    done = {each: layer for each, layer in values.dask.layers.items() if name not in each}  # neither own nor read by it
    if not all(each.startswith(FOLLOWED) for each in done):
        return None
    if done:
        try:
            found = _followed(values, list(done.values()), name, shown.chunks, found)
        except (TypeError, AttributeError, LookupError, ValueError):  # something that positions do not have
            return None
    return Selected(stored=shown.selected.stored, at=found.at) if found.dims == dims else None


class Axes:
    """Positions along some dimensions: they are selected and transposed as values are, and refuse all else."""

    __array_ufunc__ = None

    def __init__(self, dims: tuple[str, ...], at: Mapping[str, Positions]):
        self.dims, self.at = dims, at

    def __getitem__(self, key: Any) -> "Axes":
        axes = key if isinstance(key, tuple) else (key,)
        if len(axes) > len(self.dims) or sum(isinstance(axis, np.ndarray | list) for axis in axes) > 1:
            raise LookupError
        at = dict(self.at)
        for dim, axis in zip(self.dims, axes, strict=False):
            at[dim] = at[dim][axis]
            if np.ndim(at[dim]) != 1:
                raise LookupError
        return Axes(self.dims, at)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> "Axes":
        if function is np.transpose:
            axes: Any = [*args[1:], *kwargs.values()][0]
            return Axes(tuple(self.dims[axis] for axis in axes), self.at)
        axis = self.dims[kwargs["axis"]]
        if function is np.take:
            return Axes(self.dims, {**self.at, axis: self.at[axis][args[1]]})
        if function is np.concatenate:
            return Axes(self.dims, {**self.at, axis: np.concatenate([each.at[axis] for each in args[0]])})
        raise TypeError


def _followed(
    values: da.Array, layers: list[Mapping[Any, Any]], name: str, chunks: tuple[tuple[int, ...], ...], whole: Axes
) -> Axes:
    """Do what these layers of a graph do, with positions instead of values: along each axis with its first blocks."""
    edges = [np.cumsum([0, *sizes]) for sizes in chunks]
    graph: dict[Any, Any] = {key: task for layer in layers for key, task in layer.items()}
    for block in product(*(range(len(sizes)) for sizes in chunks)):
        within = tuple(slice(edge[i], edge[i + 1]) for i, edge in zip(block, edges, strict=True))
        graph[name, *block] = whole[within]
    corner = (0,) * values.ndim
    found = {}
    for axis, n in enumerate(values.numblocks):
        keys = [(values.name, *corner[:axis], i, *corner[axis + 1 :]) for i in range(n)]
        own: tuple[Axes, ...] = get_sync(graph, keys)
        found[own[0].dims[axis]] = np.concatenate([each.at[each.dims[axis]] for each in own])
        dims = own[0].dims
    return Axes(dims, {dim: found[dim] for dim in whole.at})
