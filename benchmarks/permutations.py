"""How long do 1,000 permutations of a selection and of its 50 x 51 overlap matrix take, with 36,864 neurons?

`permutation_null` on packed bits, against the same by float32 one-hot matrix products on unpacked activations that
lie in memory already: counts, probabilities, LAPE's selection, and overlaps with the other labelling's neurons, all
in float32. Both have two threads: ours one per draw, the rival's inside its matrix products.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr

from otoscope.analysis.null.permutation import permutation_null
from otoscope.analysis.null.resampling import Sample, shuffle_labels, take_sample
from otoscope.analysis.selection.from_counts import select_counts
from otoscope.analysis.selection.selection import Selection
from otoscope.store.bits import pack

from . import harness
from .harness import Figure, Measured

THREADS = 2
PERCENTILE = 1.0


@dataclass(frozen=True, kw_only=True)
class Size:
    clips: tuple[int, ...]
    layers: int
    width: int
    categories: int
    others: int
    permutations: int
    at_once: int
    """Permutations of ours in one measurement of the ratio."""
    by_products: int
    """Permutations of the rival in the same."""
    repetitions: int


FULL = Size(
    clips=(2000, 16_357), layers=12, width=3072, categories=50, others=51,
    permutations=1000, at_once=40, by_products=3, repetitions=5,
)  # fmt: skip
SMALL = Size(
    clips=(200, 700), layers=2, width=64, categories=5, others=6,
    permutations=20, at_once=10, by_products=2, repetitions=1,
)  # fmt: skip
TIMES_FASTER = (8, 20)
SECONDS = 90  # "about a minute"


def make_sample(n_clips: int, n_categories: int, size: Size, seed: int) -> Sample:
    """Neurons of all rates; every 50th is fond of one category."""
    rng = np.random.default_rng(seed)
    n_neurons = size.layers * size.width
    rate = np.repeat((256 * rng.beta(1, 2, n_neurons)).astype(np.uint8)[None], n_categories, axis=0)
    fond = np.arange(0, n_neurons, 50)
    rate[fond % n_categories, fond] = 240
    codes = np.arange(n_clips) % n_categories
    bits = np.empty((size.layers, n_clips, size.width // 8), np.uint8)
    for first in range(0, n_clips, 1000):
        clips = slice(first, first + 1000)
        chance = np.frombuffer(rng.bytes(len(codes[clips]) * n_neurons), np.uint8).reshape(-1, n_neurons)
        active = (chance < rate[codes[clips]]).reshape(-1, size.layers, size.width)
        bits[:, clips] = pack(active).transpose(1, 0, 2)
    about = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": size.width}
    return take_sample(
        xr.DataArray(bits, dims=("layer", "clip", "neuron_byte"), attrs=about),
        xr.DataArray(codes, dims="clip", attrs={"categories": [f"c{i:02}" for i in range(n_categories)]}),
    )


def by_products(
    unpacked: np.ndarray, codes: np.ndarray, n_categories: int, other: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Selected neurons (ascending) and ratios (category, other) from unpacked float32 (clip, neuron)."""
    one_hot = (codes == np.arange(n_categories)[:, None]).astype(np.float32)
    p = (one_hot @ unpacked) / one_hot.sum(axis=1)[:, None]
    total = p.sum(axis=0)
    q = p / np.where(total > 0, total, 1)
    entropy = -(q * np.log(np.where(q > 0, q, 1))).sum(axis=0)
    k = round(p.size * 0.95)
    line = np.partition(p, k - 1, axis=None)[k - 1]
    high = p > line
    entropy[~high.any(axis=0)] = np.inf
    selected = np.sort(
        np.argpartition(entropy, round(p.shape[1] * PERCENTILE / 100))[: round(p.shape[1] * PERCENTILE / 100)]
    )
    member = np.zeros(p.shape, np.float32)
    member[:, selected] = high[:, selected]
    common = member @ other.T
    either = member.sum(axis=1)[:, None] + other.sum(axis=1) - common
    return selected, common / np.where(either > 0, either, 1)


def measure(scratch: Path, size: Size) -> Measured:
    figures, raw = [], {}
    others = make_sample(size.clips[0], size.others, size, seed=1)
    other = select_counts(counts_of(others, others.codes), others.clips_per_category, Selection(percentile=PERCENTILE))
    dense = other.dense(others.existing.size).astype(np.float32)
    for n_clips, bound in zip(size.clips, TIMES_FASTER, strict=True):
        sample = make_sample(n_clips, size.categories, size, seed=0)
        unpacked = np.unpackbits(sample.bits[0], axis=-1, bitorder="little").astype(np.float32)
        check(sample, unpacked, dense)
        ours, theirs = [], []
        for repetition in range(size.repetitions):
            began = time.perf_counter()
            permutation_null(sample, against=others, permutations=size.at_once, percentile=PERCENTILE, threads=THREADS)
            ours.append((time.perf_counter() - began) / size.at_once)
            began = time.perf_counter()
            for i in range(size.by_products):
                codes = shuffle_labels(sample, repetition, i)
                by_products(unpacked, codes, size.categories, dense)
            theirs.append((time.perf_counter() - began) / size.by_products)
        del unpacked
        began = time.perf_counter()
        permutation_null(sample, against=others, permutations=size.permutations, percentile=PERCENTILE, threads=THREADS)
        whole = time.perf_counter() - began
        how = (
            f"{n_clips:,} clips, {others.existing.size:,} neurons, {size.categories} x {size.others} overlaps, "
            f"{THREADS} threads"
        )
        times = median(b / a for a, b in zip(ours, theirs, strict=True))
        figures += [
            Figure(
                name=f"{size.permutations:,} permutations, {n_clips:,} clips", value=whole, unit="s", bound=SECONDS,
                at_least=False, how=f"{how}; p-values included; one run",
            ),
            Figure(
                name=f"permutations of {n_clips:,} clips, times faster than float32 matrix products",
                value=times, unit="times", bound=bound, at_least=True,
                how=f"{how}; median of {size.repetitions} ratios of {size.at_once} to {size.by_products} permutations",
            ),
        ]  # fmt: skip
        raw[str(n_clips)] = {"seconds_each": ours, "by_products_each": theirs, "seconds_all": whole}
    return Measured(figures=figures, raw=raw)


def counts_of(sample: Sample, codes: np.ndarray) -> np.ndarray:
    """(category, neuron), by plain sums."""
    active = np.unpackbits(sample.bits[0], axis=-1, bitorder="little")
    return np.stack([active[codes == c].sum(axis=0, dtype=np.int64) for c in range(len(sample.categories))])


def check(sample: Sample, unpacked: np.ndarray, other: np.ndarray) -> None:
    """Both ways select the same neurons, but for what float32 rounds at the cut."""
    codes = shuffle_labels(sample, 0, 0)
    ours = select_counts(counts_of(sample, codes), sample.clips_per_category, Selection(percentile=PERCENTILE))
    selected, _ = by_products(unpacked, codes, len(sample.categories), other)
    assert len(np.intersect1d(ours.neurons, selected)) >= 0.98 * len(selected) - 1


def main() -> None:
    harness.main("permutations")


if __name__ == "__main__":
    main()
