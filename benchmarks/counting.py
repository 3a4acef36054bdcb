"""How fast are activations counted per category, lazily from disk, and in how much memory? Do failed clips slow it?

`ds.otoscope.probability` on packed bits against three other ways to the same counts from the same store: float32
one-hot matrix products on unpacked bits, flox on the lazy bool view, and unpacking with uint8 sums per category. All
have two threads; the hand-written ones walk half of the stored objects in each thread, and add up in place. And
against plainly reading the same objects' bytes in two threads, as are means per category, the reading "frame", and
exemplars: the ten clips of highest mean of every neuron.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import otoscope
import otoscope.analysis.accessor
import otoscope.store.reader
from otoscope.store.schema import NEURON_CHUNK

from . import harness
from .harness import Figure, Measured, fresh_process, interleaved, median_ratio, memory_rise, read_objects
from .synthetic import LABEL, LAYERS, TASK, WIDTH, write_store

THREADS = 2
FAILED_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    categories: int
    block: int
    repetitions: int
    flox_layers: int
    """Layers that flox counts; its time is scaled up to all twelve."""
    kept_clips: int
    """Clips of the store that keeps means and positive frames."""


FULL = Size(clips=98_304, categories=50, block=2048, repetitions=7, flox_layers=4, kept_clips=16_384)
SMALL = Size(clips=200, categories=3, block=64, repetitions=1, flox_layers=1, kept_clips=100)

AddBlock = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def by_otoscope(ds: xr.Dataset, threads: int = THREADS, reading: str = "clip") -> np.ndarray:
    """(layer, neuron, category) activation probability."""
    with dask.config.set(scheduler="threads", num_workers=threads):
        return ds.otoscope.probability(LABEL, reading=reading).values


def means(ds: xr.Dataset) -> np.ndarray:
    """(layer, neuron, category) means."""
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        return ds.otoscope.category_mean(LABEL).values


def exemplars(ds: xr.Dataset, layers: list[int]) -> np.ndarray:
    """(layer, neuron, rank) means of the ten clips that drive each neuron of some layers most."""
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        return ds.otoscope.exemplars(layers, list(range(WIDTH)))["value"].values


def by_flox(ds: xr.Dataset, n_layers: int) -> np.ndarray:
    """(layer, neuron, category) counts of the first layers."""
    from flox.xarray import xarray_reduce

    active = ds["active"].isel(layer=slice(n_layers))
    with dask.config.set(scheduler="threads", num_workers=THREADS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = xarray_reduce(active, ds.otoscope.codes(LABEL).rename("code"), func="sum")
        return counted.transpose("layer", "neuron", "code").values


def add_products(totals: np.ndarray, block: np.ndarray, codes: np.ndarray) -> None:
    """totals (category, layer, neuron) += one-hot (category, clip) @ unpacked (clip, neuron), in float32."""
    one_hot = (codes == np.arange(len(totals))[:, None]).astype(np.float32)
    for layer, bits in enumerate(block):
        totals[:, layer] += one_hot @ np.unpackbits(bits, axis=-1, bitorder="little").astype(np.float32)


def add_sums(totals: np.ndarray, block: np.ndarray, codes: np.ndarray) -> None:
    """totals (category, layer, neuron) += sums of unpacked bits in uint8, at most 255 clips of a category at a time."""
    for category in range(len(totals)):
        clips = np.flatnonzero(codes == category)
        for first in range(0, len(clips), 255):
            bits = np.unpackbits(block[:, clips[first : first + 255]], axis=-1, bitorder="little")
            totals[category] += bits.sum(axis=1, dtype=np.uint8)


def by_blocks(ds: xr.Dataset, add: AddBlock, dtype: type) -> np.ndarray:
    """(layer, neuron, category) counts: two threads, each with its totals and every second stored object."""
    bits, codes = ds["active_bits"].data, ds.otoscope.codes(LABEL)
    n_layers, _, n_bytes = bits.shape
    edges = np.cumsum([0, *bits.chunks[1]])

    def walk(thread: int) -> np.ndarray:
        totals = np.zeros((len(codes.attrs["categories"]), n_layers, 8 * n_bytes), dtype)
        for i in range(thread, len(edges) - 1, THREADS):
            block = bits.blocks[:, i].compute(scheduler="synchronous")
            add(totals, block, codes.values[edges[i] : edges[i + 1]])
        return totals

    # One thread of matrix arithmetic in each of ours: more only get into each other's way.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        totals = sum(pool.map(walk, range(THREADS)))
    return np.moveaxis(np.asarray(totals), 0, -1)


def rise(url: str) -> int:
    """Bytes by which opening the store and counting raise the memory of a process that has imported everything."""
    return memory_rise(lambda: by_otoscope(otoscope.open(url)[TASK].to_dataset()))


def check(ds: xr.Dataset, flox_layers: int) -> None:
    """All four ways give the same counts."""
    codes = ds.otoscope.codes(LABEL)
    counts = by_blocks(ds, add_sums, np.int32)
    np.testing.assert_array_equal(by_blocks(ds, add_products, np.float32), counts)
    np.testing.assert_array_equal(by_flox(ds, flox_layers), counts[:flox_layers])
    np.testing.assert_array_equal(by_otoscope(ds), counts / np.bincount(codes.values))


def measure(scratch: Path, size: Size) -> Measured:
    url = str(scratch / "store.zarr")
    write_store(url, n_clips=size.clips, n_categories=size.categories, block=size.block)
    ds = otoscope.open(url)[TASK].to_dataset()
    check(ds, 1)
    scale = ds.sizes["layer"] / size.flox_layers
    seconds = interleaved(
        {
            "otoscope": lambda: by_otoscope(ds),
            "product": lambda: by_blocks(ds, add_products, np.float32),
            "flox": lambda: by_flox(ds, size.flox_layers),
            "uint8": lambda: by_blocks(ds, add_sums, np.int32),
        },
        size.repetitions,
    )
    seconds["flox"] = [scale * s for s in seconds["flox"]]
    seconds |= interleaved(
        {
            "2 threads": lambda: by_otoscope(ds),
            "1 thread": lambda: by_otoscope(ds, 1),
            "reading": lambda: read_objects(url, f"{TASK}/active_bits", THREADS),
        },
        2 * size.repetitions,
    )
    kept_url = str(scratch / "kept.zarr")
    keep = ("mean", "positive_frames")
    write_store(kept_url, n_clips=size.kept_clips, n_categories=size.categories, keep=keep, block=size.block)
    kept = otoscope.open(kept_url)[TASK].to_dataset()
    chunk = 2 * size.block * NEURON_CHUNK
    kept_seconds = interleaved(
        {
            "means": lambda: means(kept),
            "frames": lambda: by_otoscope(kept, reading="frame"),
            "exemplars": lambda: exemplars(kept, list(range(LAYERS))),
            "exemplars of a layer": lambda: exemplars(kept, [LAYERS // 2]),
            "reading means": lambda: read_objects(kept_url, f"{TASK}/mean", THREADS, chunk, checked=True),
            "reading frames": lambda: read_objects(kept_url, f"{TASK}/positive_frames", THREADS, chunk, checked=True),
        },
        size.repetitions,
    )
    with_failed = str(scratch / "failed.zarr")
    write_store(with_failed, n_clips=size.clips, n_categories=size.categories, block=size.block, failed=FAILED_SHARE)
    holed = otoscope.open(with_failed)[TASK].to_dataset()
    hidden = interleaved(
        {"none failed": lambda: by_otoscope(ds), "some failed": lambda: by_otoscope(holed)}, size.repetitions
    )
    risen = [fresh_process("counting:rise", url=url) for _ in range(3)]

    n_neurons = ds.sizes["layer"] * WIDTH
    how = f"{size.clips:,} clips x {n_neurons:,} neurons x {size.categories} categories, lazily from disk, 2 threads"
    scaled = f"flox on {size.flox_layers} layers, scaled to {ds.sizes['layer']}; "
    ratios: dict[str, Any] = {
        "float32 one-hot matrix products on unpacked bits": ("product", 8),
        "flox on the lazy bool view": ("flox", 8),
        "unpacking with uint8 sums": ("uint8", 1),
    }
    figures = [
        Figure(
            name=f"counts on packed bits, times faster than {words}",
            value=median_ratio(seconds[case], seconds["otoscope"]),
            unit="times",
            bound=bound,
            at_least=True,
            how=f"{how}; {scaled if case == 'flox' else ''}median of {size.repetitions} ratios",
        )
        for words, (case, bound) in ratios.items()
    ]
    of = f"median of {2 * size.repetitions} ratios"
    figures += [
        Figure(
            name="counts on packed bits, against reading their bytes from page cache",
            value=median_ratio(seconds["2 threads"], seconds["reading"]), unit="times", bound=5, at_least=False,
            how=f"{how}, the reading too; {of}",
        ),
        Figure(
            name="counts on packed bits, two threads times faster than one",
            value=median_ratio(seconds["1 thread"], seconds["2 threads"]), unit="times", bound=1.25, at_least=True,
            how=f"{how}; {of}",
        ),
        *(
            Figure(
                name=f"{words}, against reading {their} bytes and checksums",
                value=median_ratio(kept_seconds[case], kept_seconds[f"reading {read}"]), unit="times", bound=bound,
                at_least=False,
                how=f"{size.kept_clips:,} clips, otherwise the same; median of {size.repetitions} ratios",
            )
            for case, read, words, their, bound in (
                ("means", "means", "means per category", "their", 4),
                ("frames", "frames", 'the reading "frame"', "their", 4),
                ("exemplars", "means", "10 exemplars of every neuron", "their", 8),
                ("exemplars of a layer", "means", "10 exemplars of every neuron of one layer", "all layers'", 1.5),
            )
        ),
    ]  # fmt: skip
    memory = Figure(
        name="counts on packed bits, rise of memory", value=max(risen) / 1e9, unit="GB", bound=0.5, at_least=False,
        how="the same, opening included, above the imported process; worst of 3 processes",
    )  # fmt: skip
    slower = Figure(
        name=f"counts on packed bits with {FAILED_SHARE:.1%} of clips failed, against none",
        value=median_ratio(hidden["some failed"], hidden["none failed"]), unit="times", bound=1.1, at_least=False,
        how=f"the same; {holed.attrs['n_failed']:,} clips here and there; median of {size.repetitions} ratios",
    )  # fmt: skip
    return Measured(
        figures=[*figures, slower, memory], raw={"seconds": {**seconds, **kept_seconds, **hidden}, "rise_bytes": risen}
    )


def main() -> None:
    harness.main("counting")


if __name__ == "__main__":
    main()
