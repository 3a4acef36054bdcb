"""How long do the tests of the rule contrast take, with 1,000 permutations, and how much memory?

`contrast_tests` against the sums of ranks by float32 one-hot matrix products, on ranks that lie in memory already: the
sums alone, without ranking, z or p. Both have two threads: ours one per part of the neurons, the rival's inside its
matrix products.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr

from otoscope.analysis.contrast.rank_tests import Draws, contrast_tests
from otoscope.analysis.contrast.ranks import rank
from otoscope.analysis.null.resampling import Arrangement, arrange_clips
from otoscope.analysis.selection.selection import Selection

from . import harness
from .harness import Figure, Measured, fresh_process, memory_rise, seconds_of

THREADS = 2
TIMES_FASTER = 5
MEMORY = 2e9


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: int
    layers: int
    width: int
    categories: int
    permutations: int
    by_products: int
    """Permutations of the rival in one measurement."""
    repetitions: int


FULL = Size(clips=16_357, layers=12, width=3072, categories=50, permutations=1000, by_products=3, repetitions=3)
SMALL = Size(clips=200, layers=2, width=64, categories=5, permutations=19, by_products=2, repetitions=1)


def means_and_clips(size: Size) -> tuple[xr.DataArray, Arrangement]:
    """Means in float16 (layer, neuron, clip), in memory in the order on disk, a fiftieth of them fond of a category."""
    rng = np.random.default_rng(0)
    codes = np.arange(size.clips) % size.categories
    means = np.empty((size.layers, size.clips, size.width), np.float16)
    for layer in means:
        for first in range(0, size.clips, 1000):
            clips = slice(first, first + 1000)
            layer[clips] = rng.standard_normal((len(codes[clips]), size.width), np.float32)
            layer[clips, ::50] += codes[clips, None] == 0
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": [f"c{i:02}" for i in range(size.categories)]})
    mean = xr.DataArray(means, dims=("layer", "clip", "neuron")).transpose("layer", "neuron", "clip")
    return mean, arrange_clips(labels)


def rise(**size: int) -> int:
    """Bytes by which the tests raise the memory of this process, beside the means."""
    sizes = Size(**size)
    mean, arrangement = means_and_clips(sizes)
    warm(mean, arrangement)
    how = Selection(rule="contrast", permutations=sizes.permutations)
    return memory_rise(lambda: contrast_tests(mean, arrangement, how, threads=THREADS))


def warm(mean: xr.DataArray, arrangement: Arrangement) -> None:
    """Machine code is compiled, or read, once."""
    contrast_tests(mean[:, :4], arrangement, Selection(rule="contrast", permutations=19))


def measure(scratch: Path, size: Size) -> Measured:
    mean, arrangement = means_and_clips(size)
    warm(mean, arrangement)
    draws = Draws.of(arrangement, 0, range(1, 1 + size.by_products))
    one_hots = [
        (
            np.repeat(np.arange(size.categories), np.diff(edges))[np.argsort(order)]
            == np.arange(size.categories)[:, None]
        )
        for order, edges in zip(draws.orders, draws.edges, strict=True)
    ]
    one_hots = [one_hot.astype(np.float32) for one_hot in one_hots]
    ranks = [
        np.concatenate([each.ranks for each in rank(layer.T.astype(np.float32), 0, slice(0, size.width))], axis=1)
        for layer in mean.values
    ]
    check(draws, one_hots[0], mean, ranks[0])
    how = Selection(rule="contrast", permutations=size.permutations)
    ours, theirs = [], []
    for _ in range(size.repetitions):
        ours.append(seconds_of(lambda: contrast_tests(mean, arrangement, how, threads=THREADS)) / size.permutations)
        seconds = 0.0
        for layer in ranks:
            unpacked = layer.astype(np.float32)  # not counted
            began = time.perf_counter()
            for one_hot in one_hots:
                one_hot @ unpacked
            seconds += time.perf_counter() - began
        theirs.append(seconds / size.by_products)
    del ranks
    memory = fresh_process("contrast:rise", **vars(size))
    how_made = (
        f"{size.clips:,} clips, {size.layers * size.width:,} neurons, {size.categories} categories, {THREADS} threads; "
        f"median of {size.repetitions}"
    )
    figures = [
        Figure(
            name=f"{size.permutations:,} permutations of the rule contrast, times faster than float32 matrix products",
            value=median(b / a for a, b in zip(ours, theirs, strict=True)), unit="times", bound=TIMES_FASTER,
            at_least=True, how=f"{how_made} ratios; ours with ranking, z, AUC, intervals and p, theirs the sums alone",
        ),
        Figure(
            name=f"{size.permutations:,} permutations of the rule contrast", value=median(ours) * size.permutations,
            unit="s", bound=600, at_least=False, how=how_made,
        ),
        Figure(
            name="memory of the rule contrast", value=memory / 1e9, unit="GB", bound=MEMORY / 1e9, at_least=False,
            how=f"{how_made}; beside the means, fresh process",
        ),
    ]  # fmt: skip
    return Measured(figures=figures, raw={"seconds_each": ours, "by_products_each": theirs, "memory": memory})


def check(draws: Draws, one_hot: np.ndarray, mean: xr.DataArray, ranks: np.ndarray) -> None:
    """Both ways give the same sums, but for what float32 rounds."""
    first = next(rank(mean.values[0, :4].T.astype(np.float32), 0, slice(0, 4)))
    np.testing.assert_allclose(draws.sums(first, slice(1))[0], one_hot @ ranks[:, :4].astype(np.float32), rtol=1e-5)


def main() -> None:
    harness.main("contrast")


if __name__ == "__main__":
    main()
