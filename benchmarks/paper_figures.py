"""The paper's figures from made-up stores with its class lists and sizes, to be looked at: no number comes out.

    python -m benchmarks.paper_figures DIR [--small]

writes DIR/ssl.zarr and DIR/sl.zarr, 600 MB each, and into DIR/figures the figures of "What Do Neurons Listen To?" by
the commands that make them from real stores, and those that the paper lacks. What shows in them is planted: a neuron
likes one trait, a category has the traits of the words in its name, and the store "sl" has fewer such neurons.
"""

import argparse
import re
import zlib
from itertools import product
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from otoscope.cli.main import cli
from otoscope.extract.audio.corpora.build import data_set
from otoscope.store.bits import pack
from otoscope.store.blocks import blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.writer import write_block

LAYERS, WIDTH, TRAITS = 12, 3072, 60
Labels = dict[str, list[str]]
COUNTRIES = (
    "Argentina", "Australia", "Austria", "Belgium", "Brazil", "Canada", "Chile", "China", "Croatia", "Denmark",
    "France", "Germany", "Guyana", "India", "Iran", "Ireland", "Israel", "Italy", "Mexico", "Netherlands",
    "New Zealand", "Norway", "Pakistan", "Philippines", "Poland", "Portugal", "Russia", "South Africa", "South Korea",
    "Spain", "Sri Lanka", "Sudan", "Sweden", "Trinidad and Tobago", "UK",
)  # fmt: skip


def tasks(share: float) -> dict[str, Labels]:
    """Task -> label column -> category of each clip: the paper's data sets, and a share of its numbers of clips."""

    def clips(n: int) -> int:
        return max(300, round(n * share))

    def even(n: int, **columns: tuple[str, ...]) -> Labels:
        rows = list(product(*columns.values()))
        return {name: [rows[i % len(rows)][c] for i in range(clips(n))] for c, name in enumerate(columns)}

    def categories(name: str) -> dict[str, tuple[str, ...]]:
        return dict(data_set(name).categories)

    events = categories("gise51")["category"]
    weight = 0.95 ** np.arange(len(events))  # uneven, as isolated events are
    sizes = np.maximum(4, np.floor(clips(16_357) * weight / weight.sum()).astype(int))
    people = even(1500, gender=("f", "m"), nationality=COUNTRIES)
    joined = [" ".join(person) for person in zip(people["gender"], people["nationality"], strict=True)]
    keys = even(44_000, note=tuple(str(midi) for midi in range(21, 109)))["note"]
    return {
        "esc50": even(2000, **categories("esc50")),
        "gise51": {"category": [name for name, n in zip(events, sizes, strict=True) for _ in range(n)]},
        "surge": {"note": keys, "octave": [str(int(midi) // 12 - 1) for midi in keys]},
        "nsynth": even(22_000, **categories("nsynth"), octave=categories("surge")["octave"]),
        "voxforge": even(30_000, **categories("voxforge")),
        "voxceleb1": {**people, "gender_nationality": joined},
        "cremad": even(7442, **categories("cremad")),
        "gtzan": even(1000, **categories("gtzan")),
    }


def traits_of(column: str, category: str) -> set[int]:
    """Neighbouring octaves share a trait; otherwise categories that share a word, by its first five letters."""
    if column in ("note", "octave"):
        octave = int(category) // 12 - 1 if column == "note" else int(category)
        return {octave, octave + 1}
    words = re.findall(r"[a-z0-9]+", category.lower())
    return {10 + zlib.crc32((word[:1] if column == "gender" else word[:5]).encode()) % (TRAITS - 10) for word in words}


def write(url: str, *, each: int, depth: float, share: float, seed: int) -> None:
    """A finished store; `each` neurons like each trait, most of them at `depth`, from 0 to 1."""
    rng = np.random.default_rng(seed)
    rate = rng.beta(1, 2.5, (LAYERS, WIDTH))
    layer = np.clip(rng.normal(depth * LAYERS, 2, each * TRAITS).astype(int), 0, LAYERS - 1)
    neuron, taste = rng.integers(0, WIDTH, each * TRAITS), np.arange(each * TRAITS) % TRAITS
    strength = rng.uniform(0.4, 0.97, each * TRAITS)
    rate[layer, neuron] *= 0.3
    identity = Identity(
        encoder="synthetic", weights=f"{seed:064}", front_end={"sample_rate": 16_000},
        sites=tuple((f"blocks.{i}.mlp.act", WIDTH) for i in range(LAYERS)),
        embedding=768, hidden=(0, 0), frames="audio",
    )  # fmt: skip
    create(url)
    for task, labels in tasks(share).items():
        rows = list(zip(*labels.values(), strict=True))
        kinds = sorted(set(rows))
        levels = np.empty((len(kinds), LAYERS, WIDTH), np.uint8)  # chances of being active, in 256ths
        for level, kind in zip(levels, kinds, strict=True):
            liked = set().union(*(traits_of(*pair) for pair in zip(labels, kind, strict=True)))
            fond, chance = np.isin(taste, list(liked)), rate.copy()
            chance[layer[fond], neuron[fond]] = strength[fond]
            level[:] = (255 * chance).astype(np.uint8)
        kind_of = np.array([kinds.index(row) for row in rows])
        names = [f"{i:06}.wav" for i in range(len(rows))]
        never = np.full(len(rows), np.nan)
        clips = ClipTable(name=names, path=names, start=never, stop=never, labels=labels)
        plan = Plan(
            n_clips=len(rows), **clips.digests, block=1024, batch=32, threads=1, unit_sec=None, variables=kept(())
        )
        add_task(url, task, Origin(identity=identity, check=np.zeros(identity.n_check)), plan, clips)
        for block in blocks(task, len(rows), plan.block):
            dice = np.frombuffer(rng.bytes(len(block) * LAYERS * WIDTH), np.uint8).reshape(-1, LAYERS, WIDTH)
            values = {
                "active_bits": pack((dice < levels[kind_of[block.clips]]).transpose(1, 0, 2)),
                "frame_count": np.full(len(block), 320, np.uint16),
                "reason": np.full(len(block), "", dtype=object),
                "audio_digest": np.zeros(len(block), np.uint64),
            }
            write_block(url, block, values, np.ones(len(block), np.uint8), "made up")


GROUPS = """dog,animals\ncat,animals\nrooster,animals\ncow,animals\nrain,nature\nwind,nature\nthunderstorm,nature
sea_waves,nature\nDog,animals\nCricket,animals\nWind,nature\nThunder,nature\n"""
EVENTS = ("--task", "esc50:category", "--against", "gise51:category")
COMMANDS: dict[str, tuple[str, ...]] = {
    "cross-surge-nspitch.png": ("overlap", "--task", "surge:octave", "--against", "nsynth:octave"),
    "cross-esc50-gise51.png": ("overlap", *EVENTS),
    "cross-vc1-cremad_gender.png": ("overlap", "--task", "voxceleb1:gender", "--against", "cremad:gender"),
    "within-gtzan.png": ("overlap", "--task", "gtzan:genre"),
    "within-cremad.png": ("overlap", "--task", "cremad:emotion"),
    "within-voxforge.png": ("overlap", "--task", "voxforge:language"),
    "notes-octaves.png": ("overlap", "--task", "surge:note", "--against", "nsynth:octave"),
    "joined-gender.png": ("overlap", "--task", "voxceleb1:gender_nationality", "--against", "cremad:gender"),
    "joined.png": ("overlap", "--task", "voxceleb1:gender_nationality"),
    "arranged-esc50-gise51.png": ("overlap", *EVENTS, "--arrange", "groups.csv"),
    "depth.png": ("depth", "--task", "gtzan:genre"),
    "depth-two.png": ("depth", "--task", "esc50:category", "--task", "surge:note"),
    "selectivity.png": ("selectivity", "--task", "gtzan:genre"),
}


def draw(folder: Path) -> None:
    """Every figure, and the table of Tables I and II, into folder/figures."""
    stores = (str(folder / "ssl.zarr"), str(folder / "sl.zarr"))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    (figures / "groups.csv").write_text(GROUPS)
    runs: list[tuple[str, ...]] = [
        (
            "figure",
            kind,
            *stores,
            "--percentile",
            "paper",
            *(str(figures / o) if o.endswith(".csv") else o for o in more),
            "-o",
            str(figures / name),
        )
        for name, (kind, *more) in COMMANDS.items()
    ]
    runs.append(("table", "paper", *stores, "-o", str(figures / "tables.md")))
    null = ("--permutations", "200", "--percentile", "2", "--figure", str(figures / "null.png"))
    runs.append(("null", stores[0], *EVENTS, *null, "-o", str(figures / "null.csv")))
    for run in runs:
        result = CliRunner().invoke(cli, run)
        if result.exit_code:
            raise RuntimeError(f"{' '.join(run)}: {result.output}")
        print(run[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_figures")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--small", action="store_true", help="a twentieth of the clips")
    options = parser.parse_args()
    share = 0.05 if options.small else 1.0
    for name, each, depth, seed in (("ssl", 45, 0.65, 0), ("sl", 20, 0.9, 1)):
        if not (options.folder / f"{name}.zarr").exists():
            write(str(options.folder / f"{name}.zarr"), each=each, depth=depth, share=share, seed=seed)
    draw(options.folder)


if __name__ == "__main__":
    main()
