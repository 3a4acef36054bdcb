"""The whole method on bundled parts: synthesised audio, two small encoders, stores, tables, figures, a summary.

Goal: in two minutes, without a download, a newcomer has seen every step and holds the command for each next one.
Conventions: everything lies under one folder; the same folder, run again, is completed or made again, with the same
result.
"""

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .analysis.figures.neurons import depth_figure
from .analysis.figures.overlap import overlap_figure
from .analysis.figures.save import save_figure
from .analysis.overlap import common_neuron_ratio
from .analysis.selection.labellings import labellings, notes_on, open_stores, select_neurons
from .analysis.selection.rules import depth_histogram
from .analysis.selection.selection import Selection
from .analysis.tables import SELECTIVITY, markdown, neurons_table, overlap_table, stats_table, write_table
from .documents import parse_json, read_document
from .extract.audio.corpora.synth import synthesise
from .extract.capture import capture

log = logging.getLogger(__name__)

Selected = Mapping[tuple[str, str], xr.Dataset]  # by store and labelling, as ("tiny-ssl", "fm:octave")

ENCODERS = {"tiny-ssl": "SSL", "tiny-sl": "SL"}
PUBLISHED = Selection(rule="lape", percentile=5)  # of 1,536 neurons: the paper's 1 % of 36,864 would leave 15
SHOWN = ("store", "task", "categories", "neurons_per_category", "coverage_ratio", "selected", *SELECTIVITY)
NOT_LABELS = ("path", "unit_sec", "split")

CONTROL = "**Control run: the labels were dealt out anew, so no structure should be left.**\n\n"
SUMMARY = """# What the neurons of two small encoders listen to

{control}{n_clips:,} clips of one second, made by this package: notes from additive and from FM synthesis, labelled by
octave and by timbre family, and everyday events. Two encoders of M2D's architecture were run over them: `tiny-ssl`
(SSL) was trained to predict masked patches, `tiny-sl` (SL) to name how a sound is played and where, never octave,
timbre or event. Each has {layers} layers of {neurons} neurons; what every neuron did on every clip is in
`tiny-ssl.zarr` and `tiny-sl.zarr`.

## Class-specific neurons

A neuron is specific for a category if its mean activation tends to be higher on the category's clips than on all
others: by the rule `contrast`, if the rank test of that has a false discovery rate of at most {level:g} among shuffled
labels, and the AUC, the chance that a clip of the category has the higher mean, is at least {min_effect:g}. *Coverage*
is the share of categories that have at least one such neuron.

How selective are the selected neurons? A neuron's *activation probability* for a category is the share of the
category's clips on which its mean is above its own 80th percentile. Its *AAPE* is the entropy of these probabilities
over the categories: low means that it fires for few of them. `aape_share_selected` is the median AAPE of the selected
neurons over its highest value, ln(number of categories), `aape_share_all` that of all, and `categories_per_neuron` says
how many categories a selected neuron has.

{stats}

{notes}
{comparison}

The published rule `lape` selects another way. It takes a neuron as active where its mean is above 0; drops every neuron
whose probability is for no category among the highest 5 % of all probabilities (one per neuron and category), however
low its AAPE; and of those that are left selects the ones of lowest AAPE, here {percentile:g} % of all, each for every
category for which its probability is among that highest 5 %. With P(n, c) the probability of neuron n for category c:
of N neurons, n is selected if it is among the round(r N / 100) of lowest AAPE that have max P(n, c) > a, the 95th
percentile of all P; it belongs to c if P(n, c) > a. The rule `paper` drops the 5 % of neurons that fire least and takes
r % of those that are left: max P(n, c) > b, AAPE(n) <= t, and to c belongs n if P(n, c) is above the 95th percentile of
the selected neurons' P. By `lape`, from the same stores:

{published}

{cautions}

## What octaves have in common

The *common neuron ratio* of two categories is the number of neurons specific for both, over the number specific for
either.

{overlaps}

| figure | shows |
|---|---|
| ![](figures/within-additive-octave.png) | octaves of additive notes with each other |
| ![](figures/across-additive-fm-octave.png) | octaves of additive notes (rows) with octaves of FM notes (columns) |
| ![](figures/depth.png) | in which layer the class-specific neurons sit |

The same for timbre, FM and events is in `figures/`; every number is in `tables/`.

## Next steps

Run these inside this folder.

| to | command |
|---|---|
{steps}
"""
SERVE = "otoscope serve tiny-ssl.zarr --audio-root audio"
NEXT_STEPS = {
    "see and hear what a neuron listens to": SERVE,
    "see what is in a store": "otoscope info tiny-ssl.zarr",
    "read all of it back": "otoscope verify tiny-ssl.zarr",
    "list the neurons of each octave": "otoscope neurons tiny-ssl.zarr --task fm:octave",
    "make the table above": "otoscope table stats tiny-ssl.zarr tiny-sl.zarr -o stats.tex",
    "see what holds up on clips that did not select": "otoscope neurons tiny-ssl.zarr --task fm:octave "
    "--confirm split=test",
    "select by the published rule": "otoscope table stats tiny-ssl.zarr --rule lape --percentile 5",
    "draw a heat map": "otoscope figure overlap tiny-ssl.zarr --task additive:octave --against fm:octave -o map.pdf",
    "use your own audio": "otoscope extract mine.zarr --encoder tiny-ssl --corpus MANIFEST.csv --task mine",
    "use your own model": "otoscope extract mine.zarr --encoder module:FILE.py:factory "
    "--corpus MANIFEST.csv --task mine",
    "ask in Python": 'import otoscope; otoscope.open("tiny-ssl.zarr")["fm"].ds.otoscope.aape("octave")',
}


def run(
    directory: Path,
    *,
    seed: int = 0,
    shuffle_labels: bool = False,
    notes_per_octave: int = 75,
    events_per_category: int = 24,
) -> Path:
    """Make everything under `directory`; return the path of its summary.md.

    shuffle_labels: the control in which each label column is dealt out anew over the clips of its task.
    Raises ValueError where the folder holds something else, or a quickstart with other settings.
    """
    sizes = {"notes_per_octave": notes_per_octave, "events_per_category": events_per_category}
    _prepare_folder(directory, {"seed": seed, "shuffle_labels": shuffle_labels, **sizes})
    log.info("synthesising audio under %s", directory / "audio")
    manifests = synthesise(directory / "audio", seed=seed, **sizes)
    if shuffle_labels:
        for manifest in manifests.values():
            _shuffle(manifest, seed)
    stores = [str(directory / f"{encoder}.zarr") for encoder in ENCODERS]
    for encoder, url in zip(ENCODERS, stores, strict=True):
        for task, manifest in manifests.items():
            capture(encoder, str(manifest), url, task=task)
    trees = open_stores(stores)
    found, by_lape = ([select_neurons(x, how) for x in labellings(trees)] for how in (Selection(), PUBLISHED))
    selected = {(x.store, x.name): x.selection for x in found}
    notes = notes_on(found)
    for note in notes:
        log.warning("%s", note)
    stats = _write_tables(directory / "tables", selected)
    overlaps = _write_figures(directory / "figures", selected)
    tasks = trees["tiny-ssl"].children
    summary = directory / "summary.md"
    text = SUMMARY.format(
        control=CONTROL if shuffle_labels else "",
        n_clips=sum(task.sizes["clip"] for task in tasks.values()),
        layers=tasks["additive"].sizes["layer"],
        neurons=tasks["additive"].sizes["neuron"],
        level=Selection.level,
        min_effect=Selection.min_effect,
        percentile=PUBLISHED.percentile,
        stats=markdown(stats[list(SHOWN)]),
        notes=_listed(notes),
        published=markdown(stats_table({(x.store, x.name): x.selection for x in by_lape})[list(SHOWN)]),
        cautions=_listed(notes_on(by_lape)),
        comparison=_comparison(stats),
        overlaps="\n".join(_structure(training, where, ratio) for (training, where), ratio in overlaps.items()),
        steps="\n".join(f"| {aim} | `{command}` |" for aim, command in NEXT_STEPS.items()),
    )
    summary.write_text(text, encoding="utf-8")
    return summary


def _listed(lines: list[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def near_and_far(ratio: xr.DataArray) -> tuple[float, float]:
    """Mean common neuron ratio of octaves at most one apart, and of octaves at least three apart.

    ratio: (category, other_category), categories whole numbers. A category is not compared with itself in one task.
    NaN pairs, where neither has a neuron, are left out; NaN where all are.
    """
    a, b = (np.array([int(c) for c in ratio[dim].values]) for dim in ("category", "other_category"))
    apart = np.abs(a[:, None] - b)
    values = ratio.transpose("category", "other_category").values
    same_task = np.array_equal(values, values.T, equal_nan=True) and np.array_equal(a, b)
    near = (apart <= 1) & ~(same_task & (apart == 0))
    return _mean(values[near]), _mean(values[apart >= 3])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _prepare_folder(directory: Path, settings: dict[str, int]) -> None:
    """Make the folder and note the settings; ValueError unless it is new, empty, or of the same quickstart."""
    note = directory / "quickstart.json"
    if note.is_file():
        try:
            found = parse_json(read_document(note))
        except ValueError as error:
            raise ValueError(
                f"{note} is damaged ({error}); expected that of a quickstart: choose another folder"
            ) from error
        if found != settings:
            raise ValueError(f"{directory} holds a quickstart with {found}; expected {settings}: choose another folder")
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} is not empty; expected a new folder: choose another name")
    directory.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings), encoding="utf-8")


def _shuffle(manifest: Path, seed: int) -> None:
    """Deal each label column of a manifest out anew."""
    with manifest.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = np.array(rows, dtype=object).T
    rng = np.random.default_rng(seed)
    for column, name in zip(columns, header, strict=True):
        if name not in NOT_LABELS:
            column[:] = rng.permutation(column)
    with manifest.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *columns.T])


def _write_tables(folder: Path, selected: Selected) -> pd.DataFrame:
    """The neurons and overlaps of each labelling, and the statistics of all, which are returned."""
    folder.mkdir(exist_ok=True)
    stats = stats_table(selected)
    write_table(stats, folder / "stats.csv")
    for (store, name), selection in selected.items():
        stem = f"{store}-{name.replace(':', '-')}"
        write_table(neurons_table(selection), folder / f"neurons-{stem}.parquet")
        write_table(overlap_table(common_neuron_ratio(selection["member"])), folder / f"overlap-{stem}.csv")
    return stats


def _write_figures(folder: Path, selected: Selected) -> dict[tuple[str, str], xr.DataArray]:
    """Heat maps and histograms; returns the common neuron ratios of octaves by (training, which notes)."""
    folder.mkdir(exist_ok=True)
    member = {(ENCODERS[store], name): selection["member"] for (store, name), selection in selected.items()}
    trainings = tuple(ENCODERS.values())
    for name in dict.fromkeys(name for _, name in selected):
        panels = [(f"{training}: {name}", common_neuron_ratio(member[training, name])) for training in trainings]
        save_figure(overlap_figure(panels), folder / f"within-{name.replace(':', '-')}.png")
    octaves = {training: (member[training, "additive:octave"], member[training, "fm:octave"]) for training in trainings}
    across = {training: common_neuron_ratio(*members) for training, members in octaves.items()}
    panels = [(f"{training}: additive (rows), FM (columns)", ratio) for training, ratio in across.items()]
    save_figure(overlap_figure(panels), folder / "across-additive-fm-octave.png")
    shown = [(training, name) for training in trainings for name in ("additive:octave", "events:event")]
    save_figure(depth_figure([(key, depth_histogram(member[key])) for key in shown]), folder / "depth.png")
    return {
        **{(s, "within additive notes"): common_neuron_ratio(additive) for s, (additive, _) in octaves.items()},
        **{(s, "between additive and FM notes"): ratio for s, ratio in across.items()},
    }


def _comparison(stats: pd.DataFrame) -> str:
    """The paper's comparison of SSL with SL, as it came out."""
    average = stats[stats["task"] == "average"].set_index("store").loc[list(ENCODERS)]
    (ssl, sl), (ssl_covers, sl_covers) = (
        average[name].astype(float) for name in ("neurons_per_category", "coverage_ratio")
    )
    more, wider = ("more" if ours > theirs else "not more" for ours, theirs in ((ssl, sl), (ssl_covers, sl_covers)))
    return (
        f"On average SSL has {ssl:.1f} neurons per category and covers {ssl_covers:.0%} of the categories; SL has "
        f"{sl:.1f}\nand covers {sl_covers:.0%}. The paper found more of both in its self-supervised encoder; here SSL "
        f"has {more}\nneurons per category and covers {wider} categories."
    )


def _structure(training: str, where: str, ratio: xr.DataArray) -> str:
    near, far = near_and_far(ratio)
    if np.isnan(near) and np.isnan(far):
        return f"- {training}, {where}: no octave has a neuron that could be shared."
    return f"- {training}, {where}: octaves at most one apart share {near:.2f}, octaves three or more apart {far:.2f}."
