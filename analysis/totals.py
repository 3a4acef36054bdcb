"""Totals over the clips of each category: the one reduction that every rate is made of.

Goal: lazy totals in bounded memory. The clips are walked in steps; a step reads its blocks one at a time,
inside itself, so that no scheduler can read ahead of the counting, and goes on from a copy of the totals of a step
before it: a task never changes what it was given, and so may be done twice. Peak memory is a block and three totals per
thread and a few totals, and does not grow with the number of clips.
Conventions: arrays are (layer, clip, neuron or byte), totals (category, layer, neuron); category codes are
integers (clip), negative for clips that count nowhere.
"""

# mypy: allow-untyped-calls
# (dask says that it is typed, but most of its array functions are not.)

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from ..store.direct import Part
from ..store.selected import Selected, selected_by

Totals = NDArray[Any]
Codes = NDArray[np.integer]
AddBlock = Callable[..., None]
"""Adds one block (layer, clip, ...): of (first layer and neuron, block, clips of the block by category, those of
category c from edges[c] to edges[c + 1]), and of floors (layer, neuron) where there are some.
"""
Adding = Callable[[Totals, int], AbstractContextManager[AddBlock]]
"""Of totals (category, layer, neuron) and how many clips come at most: adds blocks to them, in place, which then hold
all of them when the context ends.
"""

STEP_BYTES = 256 << 20  # read in one step, a block at a time; or four times its totals, if that is more
CHAINS = 4  # of steps, each with totals of its own: so many threads are kept busy, small inputs' too
CLIPS_PER_CATEGORY = 20  # enough for adding to outweigh unpacking; small chunks are joined up to it
JOINED_BYTES = 48 << 20  # but no further than this
SMALL_BYTES = 1 << 18  # of values; smaller blocks are joined up to it, for each costs milliseconds of its own
MAX_ROWS = 255  # bools of so many clips sum to a byte


def count_bits(bits: Any, codes: Any, n_categories: int, n_neurons: int) -> Any:
    """Clips of each category with the bit set: uint8 (layer, clip, byte) -> int32 (category, layer, neuron).

    codes: category of each clip (clip), below n_categories; clips with a negative code count nowhere. Of numpy arrays
    the workspace is a few KiB and the order of the clips; a layer whose bytes do not fill words of eight is copied.
    Raises ValueError for codes that do not fit the clips or the categories.
    """
    bits = _stored(bits, "neuron_byte")
    if isinstance(bits, da.Array):
        bytes_per_clip = max(1, bits.shape[0] * bits.shape[2])
        limit = min(CLIPS_PER_CATEGORY * n_categories, JOINED_BYTES // bytes_per_clip)
        bits = bits.rechunk({0: -1, 1: tuple(_joined(bits.chunks[1], limit)), 2: -1})
    return _total(
        bits,
        codes,
        partial(_bits_to, -(-bits.shape[2] // 8)),
        (n_categories, bits.shape[0], n_neurons),
        np.dtype(np.int32),
    )


def sum_values(values: Any, codes: Any, n_categories: int) -> Any:
    """Sum over the clips of each category: (layer, clip, neuron) -> (category, layer, neuron).

    Bools give int32, integers int64; floats are summed in float64.
    """
    dtype = np.dtype({"b": np.int32, "f": np.float64}.get(values.dtype.kind, np.int64))
    values = _not_small(_stored(values, "neuron"))
    return _total(
        values, codes, partial(_values_to, _add_values), (n_categories, values.shape[0], values.shape[2]), dtype
    )


def count_above(values: Any, floors: Any, codes: Any, n_categories: int) -> Any:
    """Clips of each category with a value above the floor: (layer, clip, neuron) -> int32 (category, layer, neuron).

    floors: (layer, neuron), of a type in which they are compared; lazy ones are computed once, before all clips.
    """
    shape = n_categories, values.shape[0], values.shape[2]
    values = _not_small(_stored(values, "neuron"))
    if isinstance(values, Selected) and values.dtype == np.float16:
        floors = da.map_blocks(_keys_of, floors, dtype=np.int16) if isinstance(floors, da.Array) else _keys_of(floors)
    return _total(values, codes, partial(_values_to, _add_above), shape, np.dtype(np.int32), floors)


def _keys_of(floors: NDArray[np.floating]) -> NDArray[np.int16]:
    from . import adders

    keys: NDArray[np.int16] = adders.keys_of(floors)
    return keys


def _stored(values: Any, last: str) -> Any:
    """What is stored, where these are values of it that can be walked as they lie on disk; else the values."""
    stored = selected_by(values, ("layer", "clip", last))
    return values if stored is None or not stored.in_order else stored


def _not_small(values: Any) -> Any:
    """The same in blocks that are not small."""
    if not isinstance(values, da.Array):
        return values
    layers, _, neurons = map(max, values.chunks)
    limit = SMALL_BYTES // max(1, layers * neurons * values.dtype.itemsize)
    return values.rechunk({1: tuple(_joined(values.chunks[1], limit))})


def clips_per_category(codes: Any, n_categories: int) -> Any:
    """Number of clips of each category: codes (clip) -> int64 (category); lazy for lazy codes."""
    if isinstance(codes, da.Array):
        count = partial(_count_codes, n_categories=n_categories)
        return da.map_blocks(count, codes.rechunk(-1), dtype=np.int64, chunks=((n_categories,),))
    return _count_codes(codes, n_categories)


def _count_codes(codes: Codes, n_categories: int) -> NDArray[np.int64]:
    return np.bincount(codes[codes >= 0], minlength=n_categories)


@contextmanager
def _bits_to(n_words: int, totals: Totals, n_clips: int) -> Iterator[AddBlock]:
    """Bits are added up in bit planes, which become numbers once, at the end."""
    from . import adders  # machine code that takes half a second to load: who only opens a store never waits for it

    n_categories, n_layers, _ = totals.shape
    planes = np.zeros((n_layers, n_categories, n_clips.bit_length(), n_words), np.uint64)

    def add(layer: int, _: int, bits: NDArray[np.uint8], clips: NDArray[np.intp], edges: NDArray[np.intp]) -> None:
        for i, rows in enumerate(bits):
            whole_words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))) if rows.shape[1] % 8 else rows
            words = np.ascontiguousarray(whole_words).view("<u8").astype(np.uint64, copy=False)
            adders.add_words(words, clips, edges, planes[layer + i])

    yield add
    for layer, own in enumerate(planes):
        adders.add_planes(own, adders.SPREAD, totals[:, layer])


@contextmanager
def _values_to(add: Callable[..., None], totals: Totals, _: int) -> Iterator[AddBlock]:
    yield partial(add, totals)


def _add_values(
    totals: Totals, layer: int, neuron: int, block: NDArray[Any], clips: NDArray[np.intp], edges: NDArray[np.intp]
) -> None:
    from . import adders

    add = adders.add_rows
    # Of at most 255 clips, bools sum to a byte and uint16 to 32 bits: narrow sums are several times faster.
    if block.dtype == np.float16:
        block, sums, add = block.view(np.uint16), np.zeros(block.shape[2]), adders.add_halves
    elif block.dtype == bool:
        block, sums = block.view(np.uint8), np.zeros(block.shape[2], np.uint8)
    elif block.dtype in (np.uint16, np.float32):
        sums = np.zeros(block.shape[2], np.uint32 if block.dtype == np.uint16 else np.float64)
    else:
        block, sums = block.astype(totals.dtype, copy=False), np.zeros(block.shape[2], totals.dtype)
    for i, rows in enumerate(np.ascontiguousarray(block)):
        add(rows, clips, edges, sums, totals, layer + i, neuron)


def _add_above(
    totals: Totals, layer: int, neuron: int, block: NDArray[Any], clips: Any, edges: Any, floors: NDArray[Any]
) -> None:
    from . import adders

    if floors.dtype == np.int16:  # keys, of float16
        block, add = block.view(np.int16), adders.add_keys_above
    else:
        block, add = block.astype(floors.dtype, copy=False), adders.add_above
    for i, rows in enumerate(np.ascontiguousarray(block)):
        add(rows, clips, edges, np.ascontiguousarray(floors[i]), totals, layer + i, neuron)


def _by_category(codes: Codes, n_clips: int, n_categories: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Clips ordered by category, ascending in each; those of category c lie from edges[c] to edges[c + 1]."""
    if codes.shape != (n_clips,):
        raise ValueError(f"codes of shape {codes.shape} for {n_clips} clips; expected one code per clip")
    if codes.size and codes.max() >= n_categories:
        raise ValueError(f"category code {codes.max()} found; expected codes below {n_categories}")
    order = np.argsort(codes, kind="stable")
    return order, np.searchsorted(codes[order], np.arange(n_categories + 1))


def _total(
    array: Any, codes: Any, adding: Adding, shape: tuple[int, int, int], dtype: np.dtype[Any], *floors: Any
) -> Any:
    """Totals by `adding` over all blocks; numpy for numpy, else one lazy dask chunk. array: also what is stored."""
    if not any(isinstance(each, da.Array | Selected) for each in (array, codes, *floors)):
        totals = np.zeros(shape, dtype)
        with adding(totals, array.shape[1]) as add:
            add(0, 0, np.asarray(array), *_by_category(codes, array.shape[1], len(totals)), *floors)
        return totals
    if not isinstance(array, da.Array | Selected):
        array = da.from_array(array, chunks=-1)
    if not isinstance(codes, da.Array):
        codes = da.from_array(codes, chunks=-1)
    codes = codes.rechunk(-1).to_delayed()[0]
    each = [floor.rechunk(-1).to_delayed()[0, 0] if isinstance(floor, da.Array) else floor for floor in floors]

    n_bytes = max(STEP_BYTES, 4 * dtype.itemsize * int(np.prod(shape)))
    bytes_per_clip = max(1, array.nbytes // max(1, array.shape[1]))
    enough = min(n_bytes // bytes_per_clip, array.shape[1] // CHAINS)
    rows = array.clips() if isinstance(array, Selected) else None
    lengths = [len(at) for _, _, at in rows] if rows is not None else array.chunks[1]
    # `partial` keeps the array out of the graph: a step computes its blocks by itself, one by one.
    step = delayed(partial(_step if rows is None else _stored_step, array, adding, shape, dtype), pure=True)
    chains: list[Any] = []
    for number, numbers in enumerate(_steps(lengths, enough)):
        blocks = numbers if rows is None else [rows[i] for i in numbers]
        if number < CHAINS:
            chains.append(step(codes, blocks, None, *each))
        else:
            chains[number % CHAINS] = step(codes, blocks, chains[number % CHAINS], *each)
    if not chains:
        chains = [step(codes, [], None, *each)]
    total = chains[0] if len(chains) == 1 else delayed(_sum, pure=True)(chains)
    return da.from_delayed(total, shape, dtype)


def _step(
    array: da.Array,
    adding: Adding,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    codes: Codes,
    clip_blocks: Sequence[int],
    before: Totals | None,
    *floors: NDArray[np.floating],
) -> Totals:
    """Totals of some blocks along clips, and of the step before."""
    totals = np.zeros(shape, dtype) if before is None else before.copy()
    layers, clips, neurons = (np.cumsum([0, *sizes]) for sizes in array.chunks)
    own = array.blocks[:, list(clip_blocks)].to_delayed()  # at once: slicing out each block costs a tenth of the time
    with adding(totals, sum(array.chunks[1][j] for j in clip_blocks)) as add:
        for i, n, k in product(*map(range, own.shape)):
            j = clip_blocks[n]
            block = own[i, n, k].compute(scheduler="synchronous")
            within = slice(layers[i], layers[i + 1]), slice(neurons[k], neurons[k + 1])
            ordered = _by_category(codes[clips[j] : clips[j + 1]], block.shape[1], len(totals))
            add(layers[i], neurons[k], block, *ordered, *(floor[within] for floor in floors))
    return totals


def _stored_step(
    stored: Selected,
    adding: Adding,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    codes: Codes,
    rows: Sequence[Part],
    before: Totals | None,
    *floors: NDArray[np.floating],
) -> Totals:
    """The same of some rows of stored chunks, as they lie on disk; clips that are not selected are passed over."""
    totals = np.zeros(shape, dtype) if before is None else before.copy()
    _by_category(codes, stored.shape[1], len(totals))
    row = -1
    with adding(totals, sum(len(at) for _, _, at in rows)) as add:
        for i, layer, neuron, block in stored.blocks(rows):
            if i != row:
                row, (_, inside, at) = i, rows[i]
                order, edges = _by_category(codes[at], len(at), len(totals))
                clips = inside[order]
            add(layer.start, neuron.start, block, clips, edges, *(floor[layer, neuron] for floor in floors))
    return totals


def _sum(chains: Sequence[Totals]) -> Totals:
    total = chains[0].copy()
    for other in chains[1:]:
        total += other
    return total


def _steps(lengths: Sequence[int], enough: int) -> Iterator[list[int]]:
    """Consecutive blocks along clips, in groups that end once they have enough clips."""
    group: list[int] = []
    n_clips = 0
    for block, length in enumerate(lengths):
        group.append(block)
        n_clips += length
        if n_clips >= enough or block == len(lengths) - 1:
            yield group
            group, n_clips = [], 0


def _joined(lengths: Sequence[int], limit: int) -> Iterator[int]:
    """Lengths along clips after joining chunks, to no more clips than the limit; a longer chunk stays as it is."""
    n_clips = 0
    for length in lengths:
        if n_clips and n_clips + length > limit:
            yield n_clips
            n_clips = 0
        n_clips += length
    yield n_clips
