"""What does our store cost on an object store, against plain zarr on it?

Blocks written and committed by `write_block`, and read block by block as xarray with `engine="otoscope"`, against
zarr-python alone with the same arrays, chunks and values on the same local S3 server (moto, in a process of its own).
No Dask on either side. And what is asked of a store of many blocks, if each answer takes 20 ms: means per category, and
one neuron's means, against xarray and Dask on plain zarr, two threads each.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from obstore.store import S3Store
from zarr.storage import ObjectStore

import otoscope
from otoscope.store.blocks import Block, blocks
from otoscope.store.writer import write_block

from . import harness
from .harness import ROOT, Figure, Measured, interleaved, median_ratio
from .synthetic import LABEL, LAYERS, TASK, WIDTH, block_values, write_store

BUCKET = "sounds"  # that the server has
KEEP = ("mean",)
ARRAYS = ("active_bits", "mean")  # that are read


@dataclass(frozen=True, kw_only=True)
class Size:
    blocks: int
    block: int
    repetitions: int
    far_blocks: int
    """Blocks of the store whose answers take `LATENCY`."""
    far_block: int


FULL = Size(blocks=4, block=1024, repetitions=7, far_blocks=64, far_block=64)
SMALL = Size(blocks=2, block=16, repetitions=1, far_blocks=2, far_block=16)
LATENCY = 0.02  # seconds
THREADS = 2


@contextmanager
def server(latency: float = 0) -> Iterator[dict[str, str]]:
    """A local S3 server that lets every request wait so many seconds; the environment that leads to it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.s3_server", str(latency)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark",
        }  # fmt: skip
    finally:
        process.communicate()


def plain_group(path: str) -> zarr.Group:
    """A group by zarr-python alone, in the manner of its documentation."""
    store = S3Store(BUCKET, prefix=path, client_options={"allow_http": True})
    return zarr.open_group(ObjectStore(store), mode="r+", path=TASK, use_consolidated=False)


def write_plainly(path: str, block: Block, values: dict[str, np.ndarray]) -> None:
    """Assign a block's values to the arrays, as a script would."""
    group = plain_group(path)
    for name, part in {**values, "status": np.ones(len(block), np.uint8)}.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        dims = array.metadata.dimension_names  # type: ignore[union-attr]
        array[tuple(block.clips if dim == "clip" else slice(None) for dim in dims)] = part


def measure(scratch: Path, size: Size) -> Measured:
    measured = []
    for latency, ask in ((0.0, _measure), (LATENCY, _measure_far)):
        with server(latency) as environment:
            before = dict(os.environ)
            os.environ.update(environment)
            try:
                measured.append(ask(size))
            finally:
                os.environ.clear()
                os.environ.update(before)
    near, far = measured
    return Measured(figures=[*near.figures, *far.figures], raw={**near.raw, "far_seconds": far.raw})


def _measure_far(size: Size) -> Measured:
    url, n_clips, n_categories = f"s3://{BUCKET}/far", size.far_blocks * size.far_block, 10
    write_store(url, n_clips=n_clips, n_categories=n_categories, keep=KEEP, block=size.far_block)
    ours = otoscope.open(url)[TASK].to_dataset()
    ours.otoscope.codes(LABEL)  # read once, as is the other's category
    store = ObjectStore(S3Store(BUCKET, prefix="far", client_options={"allow_http": True}), read_only=True)
    plain = xr.open_zarr(store, group=TASK)["mean"]
    category = np.arange(n_clips) % n_categories

    def means_ours() -> np.ndarray:
        return ours.otoscope.category_mean(LABEL).values

    def means_plain() -> np.ndarray:
        each = [plain.isel(clip=category == c).mean("clip", dtype=np.float64) for c in range(n_categories)]
        return np.stack([mean.values for mean in compute(*each)], axis=-1)

    def neuron_ours() -> np.ndarray:
        return ours["mean"].sel(layer=LAYERS // 2, neuron=WIDTH // 2).variable.values

    def neuron_plain() -> np.ndarray:
        return plain.isel(layer=LAYERS // 2, neuron=WIDTH // 2).variable.values

    cases = {
        "means ours": means_ours, "means plain": means_plain, "neuron ours": neuron_ours, "neuron plain": neuron_plain
    }  # fmt: skip
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        np.testing.assert_allclose(means_ours(), means_plain(), rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(neuron_ours(), neuron_plain())
        seconds = interleaved(cases, size.repetitions)
    how = (
        f"{size.far_blocks} blocks of {size.far_block} clips x {LAYERS * WIDTH:,} neurons, {THREADS} threads, warm; "
        f"median of {size.repetitions} ratios"
    )
    figures = [
        Figure(
            name=f"{words}, {1000 * LATENCY:.0f} ms to each answer, times faster than xarray on plain zarr",
            value=median_ratio(seconds[f"{case} plain"], seconds[f"{case} ours"]), unit="times", bound=bound,
            at_least=True, how=how,
        )
        for case, words, bound in (("means", "means per category", 1), ("neuron", "one neuron's means", 2))
    ]  # fmt: skip
    return Measured(figures=figures, raw=seconds)


def _measure(size: Size) -> Measured:
    ours, plain = f"s3://{BUCKET}/ours", "plain"
    n_clips = size.blocks * size.block
    for url in (ours, f"s3://{BUCKET}/{plain}"):
        write_store(url, n_clips=n_clips, n_categories=10, keep=KEEP, block=size.block)
    each = list(blocks(TASK, n_clips, size.block))
    rng = np.random.default_rng(0)
    liked = rng.integers(0, 256, (LAYERS, 10, WIDTH // 8), dtype=np.uint8)
    values = block_values(each[0], np.arange(n_clips) % 10, liked, rng, keep=("mean",))
    status = np.ones(size.block, np.uint8)

    def write_ours() -> None:
        for block in each:
            write_block(ours, block, values, status, "made up")

    def write_plain() -> None:
        for block in each:
            write_plainly(plain, block, values)

    def read_ours() -> list[np.ndarray]:
        ds = xr.open_dataset(ours, engine="otoscope", group=TASK)
        return [ds[name].isel(clip=block.clips).values for name in ARRAYS for block in each]

    def read_plain() -> list[np.ndarray]:
        group = plain_group(plain)
        return [np.asarray(group[name][:, block.clips]) for name in ARRAYS for block in each]

    cases = {"write ours": write_ours, "write plain": write_plain, "read ours": read_ours, "read plain": read_plain}
    write_ours()
    write_plain()
    for read, there in zip(read_ours(), read_plain(), strict=True):
        # The reader shows (layer, neuron, clip), which is a view of what is stored.
        np.testing.assert_array_equal(read, there if read.shape == there.shape else there.transpose(0, 2, 1))
    seconds = interleaved(cases, size.repetitions)
    n_bytes = size.blocks * (values["mean"].nbytes + values["active_bits"].nbytes)
    how = f"{size.blocks} blocks of {size.block:,} clips, {n_bytes / 1e6:.0f} MB; median of {size.repetitions} ratios"
    figures = [
        Figure(
            name=f"{verb} rate on a local S3 server, share of plain zarr's", at_least=True, bound=0.9, unit="",
            value=median_ratio(seconds[f"{verb} plain"], seconds[f"{verb} ours"]), how=how,
        )
        for verb in ("write", "read")
    ]  # fmt: skip
    rates = {name: [n_bytes / s / 1e6 for s in times] for name, times in seconds.items()}
    return Measured(figures=figures, raw={"seconds": seconds, "mb_per_second": rates})


def main() -> None:
    harness.main("object_store")


if __name__ == "__main__":
    main()
