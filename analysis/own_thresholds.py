"""Thresholds of the neuron's own: a quantile of its means over the clips that count, or so many deviations above them.

Goal: lazily, in bounded memory for any number of clips: a task reads the means of some neurons of one layer, a stored
chunk wide, and keeps them if they are few enough, else it reads them once for each digit of a number that it looks for,
a block at a time.
Conventions: means are (layer, neuron, clip), thresholds float64 (layer, neuron), NaN for a neuron with a mean that is
NaN, and where no clip counts. Any chunking of the input gives the same result, to the last bit.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from ..store.schema import NEURON_CHUNK
from ..store.selected import Selected, selected_by

HELD_BYTES = 64 << 20  # of means that a task keeps
STORED_LAYERS = 2  # of a graph that only reads: the array, and its chunks
BLOCK_BYTES = 4 << 20  # of them that it reads at a time, if it does not

Values = NDArray[Any]
Rows = Callable[[], Iterator[tuple[Values, NDArray[np.intp]]]]
"""Goes through the means (clip, neuron), in a type of floats, block by block; and which clips of a block count."""


def neuron_thresholds(mean: xr.DataArray, counted: NDArray[np.bool_], how: str) -> xr.DataArray:
    """Threshold of each neuron by the clips that count: (layer, neuron, clip) -> float64 (layer, neuron).

        "q80"   value number floor(0.8 (n - 1)), counted from 0, of its n means in order: numpy's quantile "lower"
        "z1.5"  m + 1.5 s, their mean and standard deviation (divided by n)

    counted: bool (clip). how: as `threshold_of` writes it. Lazy for lazy means, in the chunks of these.
    Raises ValueError where `counted` is of other clips.
    """
    if counted.shape != (mean.sizes["clip"],):
        raise ValueError(f"counted is of {counted.size} clips, the means of {mean.sizes['clip']}; expected the same")
    mean = mean.transpose("layer", "neuron", "clip")
    values, stored = mean.data, selected_by(mean.data, ("layer", "neuron", "clip"))
    lazy = isinstance(values, da.Array)
    counts = delayed(counted) if lazy else counted
    rows = []
    for layers in _layers(values, stored):
        parts = []
        for chunk in _ranges(values, stored):
            # `partial` keeps the array out of the graph: a task reads its blocks by itself.
            if stored is None:
                find = partial(_of_layer, values[layers.start, chunk], how)
            else:
                find = partial(_by_column, stored.part(layer=layers, neuron=chunk), how)
            shape = layers.stop - layers.start, chunk.stop - chunk.start
            task = da.from_delayed(delayed(find, pure=True)(counts), shape, np.float64) if lazy else find(counts)
            parts.append(task)
        rows.append((da if lazy else np).concatenate(parts, axis=1) if parts else np.zeros((1, 0)))
    found = (da if lazy else np).concatenate(rows) if rows else np.zeros(values.shape[:2])
    if isinstance(found, da.Array):
        found = found.rechunk(values.chunks[:2])
    kept = {name: coord for name, coord in mean.coords.items() if set(coord.dims) <= {"layer", "neuron"}}
    return xr.DataArray(found, kept, ("layer", "neuron"), "threshold", {"long_name": f"threshold {how}"})


def _layers(values: Any, stored: Selected | None) -> Iterator[slice]:
    """Layers of a task: one, or of what is not local as many as are kept, so that an object is fetched once for all."""
    n = values.shape[0]
    each = 1 if stored is None or stored.local else max(1, HELD_BYTES * n // max(1, stored.nbytes))
    for first in range(0, n, each):
        yield slice(first, min(first + each, n))


def _ranges(values: Any, stored: Selected | None = None) -> Iterator[slice]:
    """Neurons of a task: so many that their means may be kept, or as many as a stored chunk has; a chunk at most.

    Of an array that something was done to, a chunk: what is not wanted of it would be read all the same.
    """
    lazy = isinstance(values, da.Array)
    itemsize = values.dtype.itemsize if stored is None else stored.dtype.itemsize
    held = max(1, HELD_BYTES // max(1, values.shape[2] * itemsize * NEURON_CHUNK))
    as_stored = stored is not None or (lazy and len(values.dask.layers) <= STORED_LAYERS)
    wide = NEURON_CHUNK * held if as_stored else max(1, values.shape[1])
    start = 0
    for size in values.chunks[1] if lazy else (values.shape[1],):
        for first in range(start, start + size, wide):
            yield slice(first, min(first + wide, start + size))
        start += size


def _of_layer(values: Any, how: str, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    return _thresholds(values, how, counted)[None]


def _by_column(values: Selected, how: str, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Thresholds of some neurons of layers, of one stored chunk's after the other: these stay in a core's cache."""
    n_layers, _, n_neurons = values.shape
    held = values.read() if not values.local and values.nbytes <= HELD_BYTES else None
    found = np.empty((n_layers, n_neurons))
    for i in range(n_layers):
        for start in range(0, n_neurons, NEURON_CHUNK):
            own = slice(start, start + NEURON_CHUNK)
            column = values.part(layer=slice(i, i + 1), neuron=own) if held is None else held[i, :, own].T
            found[i, own] = _thresholds(column, how, counted)
    return found


def _thresholds(values: Any, how: str, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Threshold of each neuron: (neuron, clip), or of a layer what is stored, -> float64 (neuron)."""
    from . import digit_counts  # machine code that takes half a second to load

    n, n_neurons, number = (
        int(counted.sum()),
        values.shape[-1 if isinstance(values, Selected) else 0],
        Fraction(how[1:]),
    )
    floats = np.dtype(values.dtype if values.dtype in (np.float16, np.float32) else np.float64)
    if how[0] == "z" and floats == np.float16:
        floats = np.dtype(np.float32)  # machine code does not add the others
    rows = _rows(values, floats, counted)
    if not n:
        return np.full(n_neurons, np.nan)
    if how[0] == "q":
        return _of_rank(digit_counts, rows, floats, n_neurons, int(number * (n - 1) // 100))
    center = np.zeros(n_neurons)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities have no deviation
        for _ in range(2):  # the second time around the mean, so that nothing cancels
            sums, squares = np.zeros(n_neurons), np.zeros(n_neurons)
            for block, clips in rows():
                digit_counts.add_powers(block, clips, center, sums, squares)
            center = center + sums / n
        deviation = np.sqrt(np.maximum(squares / n - (sums / n) ** 2, 0))
        return np.asarray(center + float(number) * deviation)


def _rows(values: Any, floats: np.dtype[Any], counted: NDArray[np.bool_]) -> Rows:
    if isinstance(values, Selected):
        return _stored_rows(values, floats, counted)
    lazy = isinstance(values, da.Array)
    blocks = values.to_delayed()[0] if lazy else [values]
    edges = np.cumsum([0, *(values.chunks[1] if lazy else values.shape[1:])])
    if lazy and values.nbytes <= HELD_BYTES:
        blocks = compute(*blocks, scheduler="synchronous")

    def rows() -> Iterator[tuple[Values, NDArray[np.intp]]]:
        for block, first, last in zip(blocks, edges[:-1], edges[1:], strict=True):
            read = block if isinstance(block, np.ndarray) else block.compute(scheduler="synchronous")
            yield np.ascontiguousarray(read.T, floats), np.flatnonzero(counted[first:last])

    return rows


def _stored_rows(values: Selected, floats: np.dtype[Any], counted: NDArray[np.bool_]) -> Rows:
    from .adders import widened

    n_clips, n_bytes = len(counted), floats.itemsize * int(np.prod(values.shape))
    n = n_clips if n_bytes <= HELD_BYTES else -(-n_clips * BLOCK_BYTES // n_bytes)
    held: list[Values] = []

    def read(first: int) -> Values:
        block: Values = values.part(clip=slice(first, first + n)).read()[0]
        return block if block.dtype == floats else widened(block)

    def rows() -> Iterator[tuple[Values, NDArray[np.intp]]]:
        for first in range(0, n_clips, n):
            block = held[0] if held else read(first)
            held.extend([block] if n == n_clips else [])
            yield block, np.flatnonzero(counted[first : first + n])

    return rows


def _of_rank(code: Any, rows: Rows, floats: np.dtype[Any], n_neurons: int, rank: int) -> NDArray[np.float64]:
    """The value of a rank, from 0, of each neuron: digit by digit, until no value has another bit."""
    integers, digit_bits = np.dtype(f"i{floats.itemsize}"), code.SHORT_DIGIT if floats.itemsize == 2 else code.DIGIT
    low, infinity = int(np.iinfo(integers).max), int(np.array(np.inf, floats).view(integers))
    ranks, known, neurons = np.full(n_neurons, rank), np.zeros(n_neurons, np.int64), np.arange(n_neurons)
    largest, last, rest = np.zeros(n_neurons, integers), 8 * floats.itemsize, low
    while rest & ((1 << last) - 1):
        above, last, rest = last, max(0, last - digit_bits), 0
        counts = np.zeros((n_neurons, 1 << (above - last)), np.int32)
        for block, clips in rows():
            bits = block.view(integers)
            rest |= int(code.add_digits(bits, clips, integers.type(low), above, last, known, counts, largest))
        up_to = counts.cumsum(axis=1)
        digit = (up_to <= ranks[:, None]).sum(axis=1)
        ranks -= up_to[neurons, digit] - counts[neurons, digit]
        negative = 1 << (above - last - 1) if above == 8 * floats.itemsize else 0  # of the first digits, half
        known = (known << (above - last)) + digit - negative
    key = known << last
    bits = (key ^ (key >> 63 & low)) & -(1 << last)
    thresholds = bits.astype(integers).view(floats).astype(np.float64) + 0  # + 0: of -0.0, 0.0
    return np.where(largest > infinity, np.nan, thresholds)
