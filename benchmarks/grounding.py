"""Is what reads nothing called nothing, is GC what was planted, and what does it cost?

Null neurons with interactions of what was drawn (a wording suits one category of sounds, a sound one of texts), beside
a one-way correction, which takes sounds, or wordings, alone for the noise. Neurons of known GC in two designs. The
estimator over a store of random means, from the store to the table of neurons, in a fresh process.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from tests.support.crossed import Sizes, columns_of, responses, write_crossed

import otoscope
from otoscope.analysis.crossed import effects
from otoscope.analysis.crossed.coefficient import grounding
from otoscope.analysis.crossed.layout import Layout
from otoscope.analysis.crossed.table import grounding_table

from . import harness
from .dictionaries import process_seconds
from .harness import Figure, Measured, fresh_process, memory_rise

INTERACTIONS = {
    "both": {"sound": 0.5, "wording": 0.2, "sound_by_text": 0.5, "class_by_wording": 0.5, "rest": 0.3},
    "sound x wording": {"sound": 0.2, "wording": 0.1, "sound_by_text": 0.0, "class_by_wording": 0.5, "rest": 0.3},
    "clip x text": {"sound": 0.2, "wording": 0.1, "sound_by_text": 0.5, "class_by_wording": 0.0, "rest": 0.3},
}
"""Deviations of what is no effect, of null neurons."""
KINDS = ("normal", "skewed", "spiky")
TRUTHS = ((0.6, 0.0), (0.6, 0.3), (0.6, 0.6), (0.3, 0.3), (0.0, 0.6))
"""d of the sound and of the text."""
BATCH = 500  # neurons made at once


@dataclass(frozen=True, kw_only=True)
class Size:
    null: Sizes
    nulls: int
    """Neurons of each kind of noise."""
    designs: tuple[Sizes, ...]
    each: int
    """Neurons of a truth and a design."""
    cost: Sizes
    layers: int
    width: int
    repetitions: int


FULL = Size(
    null=(6, 8, 6, 4), nulls=3000, designs=((4, 8, 4, 4), (6, 8, 6, 4)), each=1500, cost=(6, 8, 6, 4), layers=12,
    width=3072, repetitions=3,
)  # fmt: skip
SMALL = Size(
    null=(2, 3, 2, 3), nulls=30, designs=((2, 3, 2, 3),), each=30, cost=(2, 3, 2, 2), layers=2, width=16, repetitions=1
)


def squares_of(sizes: Sizes, n: int, seed: int, **made: object) -> np.ndarray:
    """Mean squares (term, neuron) of neurons that are made some at a time."""
    parts = [
        effects.mean_squares(responses(sizes, min(BATCH, n - first), seed=seed + first, **made), sizes)
        for first in range(0, n, BATCH)
    ]
    return np.concatenate(parts, axis=1)


def found_in_nothing(sizes: Sizes, n: int) -> dict[str, dict[str, float]]:
    """Share of null neurons with p below 0.05, by noise and kind: of A and T, and by a one-way correction."""
    df, found = dict(zip(effects.TERMS, effects.degrees(sizes), strict=True)), {}
    for name, nuisance in INTERACTIONS.items():
        for kind in KINDS if name == "both" else KINDS[:1]:
            squares = squares_of(sizes, n, 0, nuisance=nuisance, kind=kind)
            by_name = dict(zip(effects.TERMS, squares, strict=True))
            shares = dict(zip("AT", (effects.p_values(squares, sizes)[:2] < 0.05).mean(axis=1).tolist(), strict=True))
            for own, noise in (("A", "C"), ("T", "W")):
                p = stats.f.sf(by_name[own] / by_name[noise], df[own], df[noise])
                shares[f"{own} one-way"] = float((p < 0.05).mean())
            found[f"{name}, {kind}"] = shares
    return found


def of_truths(sizes: Sizes, n: int) -> dict[str, dict[str, float]]:
    """Median of GC and coverage of its 95 % interval, by the truth."""
    found = {}
    for d_audio, d_text in TRUTHS:
        truth = d_audio / (d_audio + d_text)
        squares = squares_of(sizes, n, 1_000_000, d_audio=d_audio, d_text=d_text)
        d_a, d_t = np.sqrt(np.maximum(effects.variances(squares, sizes)[:2], 0))
        low, high = effects.intervals(squares, sizes, 0)
        found[f"{truth:.2f} ({d_audio}, {d_text})"] = {
            "truth": truth,
            "median": float(np.nanmedian(d_a / np.where(d_a + d_t > 0, d_a + d_t, np.nan))),
            "coverage": float(((low <= truth) & (truth <= high)).mean()),
        }
    return found


def whole_layout(sizes: Sizes) -> Layout:
    """Of pairs in their order."""
    names = [tuple(f"{kind}{i}" for i in range(n)) for kind, n in zip("ajtm", sizes, strict=True)]
    return Layout(
        pairs=np.arange(np.prod(sizes)).reshape(sizes), audio_classes=names[0], text_classes=names[2],
        sounds=(names[1],) * sizes[0], wordings=(names[3],) * sizes[2],
    )  # fmt: skip


def cost(url: str, sizes: list[int]) -> dict[str, float]:
    """CPU seconds of all neurons of a store, bytes by which memory rises, and of the table, code read before."""
    whole: Sizes = tuple(sizes)  # type: ignore[assignment]
    ds = otoscope.open(url)["emotion"].to_dataset()

    def ask(ds: xr.Dataset) -> pd.DataFrame:
        valid = ds["neuron_valid"]
        return grounding_table(grounding(ds["mean"], whole_layout(whole), valid=valid), valid)

    ask(ds.isel(neuron=slice(8)))
    taken: list[tuple[float, pd.DataFrame]] = []
    rise = memory_rise(lambda: taken.append(process_seconds(lambda: ask(ds))))
    ((seconds, found),) = taken
    return {"seconds": seconds, "bytes": rise, "results": int(found.memory_usage(index=False).sum())}


def measure(scratch: Path, size: Size) -> Measured:
    nulls = found_in_nothing(size.null, size.nulls)
    truths = {" x ".join(map(str, sizes)): of_truths(sizes, size.each) for sizes in size.designs}
    seconds, results = [], {}
    rises: dict[str, list[float]] = {"once": [], "twice": []}
    n_pairs, rng = int(np.prod(size.cost)), np.random.default_rng(0)
    for name, times in (("once", 1), ("twice", 2)):
        means = rng.standard_normal((size.layers, n_pairs, times * size.width), np.float32)
        write_crossed(str(scratch / name), means, columns_of(size.cost))
    del means
    for _ in range(size.repetitions):
        for name, each in rises.items():
            taken = fresh_process("grounding:cost", url=str(scratch / name), sizes=size.cost)
            each.append(taken["bytes"])
            results[name] = taken["results"]
            if name == "once":
                seconds.append(taken["seconds"])
    worst = max((shares[name], which, name) for which, shares in nulls.items() for name in "AT")
    one_way = {name: max(shares[f"{name} one-way"] for shares in nulls.values()) for name in "AT"}
    rows = [row for of in truths.values() for row in of.values()]
    designs = " and ".join(truths)
    once, twice = (median(each) for each in rises.values())
    n_neurons = size.layers * size.width
    layout = " x ".join(map(str, size.null))
    how_null = (
        f"{size.nulls:,} neurons of {layout} with interactions, normal, skewed and spiky noise; the worst, {worst[2]} "
        f"of {worst[1]}. A one-way correction: up to {one_way['A']:.2f} and {one_way['T']:.2f}"
    )
    how_planted = f"truths 1, 2/3, 1/2 (twice), 0; {designs}; {size.each:,} neurons each"
    how_cost = f"{n_neurons:,} neurons x {n_pairs:,} pairs in float32, in a fresh process; median of {size.repetitions}"
    how_memory = (
        f"{twice / 1e6:.0f} MB over {once / 1e6:.0f} MB, tables {results['twice'] / 1e6:.0f} over "
        f"{results['once'] / 1e6:.0f} MB, responses {8 * n_neurons * n_pairs / 1e6:.0f} over "
        f"{4 * n_neurons * n_pairs / 1e6:.0f} MB; medians of {size.repetitions}"
    )
    off, coverage = max(abs(r["median"] - r["truth"]) for r in rows), min(r["coverage"] for r in rows)
    figures = [
        Figure(
            name="null neurons with p of the sound or of the text below 0.05, at most", value=worst[0], unit="",
            bound=0.07, at_least=False, how=how_null,
        ),
        Figure(
            name="GC of planted neurons: median off by at most", value=off, unit="", bound=0.05, at_least=False,
            how=how_planted,
        ),
        Figure(
            name="coverage of its 95 % intervals, at least", value=coverage, unit="", bound=0.93, at_least=True,
            how="the same neurons",
        ),
        Figure(
            name="grounding of all neurons of a store, CPU time", value=median(seconds), unit="s", bound=10,
            at_least=False, how=how_cost,
        ),
        Figure(
            name="memory of grounding beyond its table: twice the neurons over once", unit="times", bound=1.25,
            value=(twice - results["twice"]) / (once - results["once"]), at_least=False, how=how_memory,
        ),
    ]  # fmt: skip
    costs = {"cpu_seconds": seconds, "rise_bytes": rises, "result_bytes": results}
    return Measured(figures=figures, raw={"nulls": nulls, "truths": truths, **costs})


def main() -> None:
    harness.main("grounding")


if __name__ == "__main__":
    main()
