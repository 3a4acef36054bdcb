"""The commands that make a store: quickstart, corpus, extract, status, info, verify, label."""

import json
import shlex
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..extract.audio.corpora import DATA_SETS, SUBSETS
from ..messages import visible
from ..store.provenance import FRAME_RULES, KEPT_BY_DEFAULT, MEAN_DTYPES, PRECISIONS
from .errors import Mistake
from .imports import without_collection
from .options import ENCODERS, SEED, max_clip_mb, max_file_mb, of_corpus, on_workers, several, unit_sec, within
from .printing import echo, log_progress

if TYPE_CHECKING:
    from ..extract.audio.corpus import Corpus
    from ..store.status import TaskStatus
    from .options import Workers

MAX_INTERVAL = 86_400  # seconds; what no machine can wait for ends in an error of its own


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--seed", default=0, show_default=True, callback=SEED, help="Seed of the synthesised audio.")
@click.option("--shuffle-labels", is_flag=True, help="Control: labels dealt out anew; the structure must vanish.")
def quickstart(directory: str, seed: int, shuffle_labels: bool) -> None:
    """Audio, encoders, stores, tables, figures, and a summary that says what to do next."""
    from ..quickstart import SERVE, run

    log_progress()
    echo(f"read {run(Path(directory), seed=seed, shuffle_labels=shuffle_labels)}")
    echo(f"see and hear it: cd {shlex.quote(directory)} && {SERVE}")


@click.command(epilog=f"Data sets: {' '.join(DATA_SETS)}. What each needs: otoscope corpus list")
@click.argument("name", metavar="NAME")
@click.argument("root", metavar="ROOT")
@click.option("-o", "--output", required=True, metavar="M.csv", help="Manifest to write.")
@click.option(
    "--subset", type=click.Choice(SUBSETS), default="all", show_default=True,
    help="paper: as many clips as the paper used, drawn by a rule of ours.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, callback=SEED, help="With --subset paper: which clips are drawn.")
@click.option(
    "--splits", metavar="FILE", help="Published splits, if not in the download: a table, or GTZAN's folder of lists."
)
@click.option("--listed", is_flag=True, help="Keep only the clips that have a split (GTZAN: the fault-filtered ones).")
@click.option("--partial", is_flag=True, help="Leave out what is absent or unknown, and say so, instead of refusing.")
@click.option("--urls", metavar="FILE", help="voxforge: the list of archives [ROOT/voxforge_urls.txt].")
@click.option(
    "--lowest", type=int, callback=within(0), metavar="N",
    help="surge: the number in the file names of the lowest key, A0.",
)  # fmt: skip
def build(name: str, root: str, output: str, **options: Any) -> None:
    """NAME is the data set, unpacked in ROOT."""
    from ..extract.audio.corpora import build as corpora

    built = corpora.build(name, root, output, **options)
    for note in built.notes:
        echo(f"note: {note}", err=True)
    labels = ", ".join(f"{label} ({count} categories)" for label, count in built.categories.items())
    echo(f"{built.manifest}: {built.n_clips} clips; {labels}")


@click.command()
@click.argument("manifest", metavar="MANIFEST")
@click.argument("prompts", metavar="PROMPTS.csv")
@click.option("--label", required=True, metavar="COLUMN", help="Column of MANIFEST that sorts its clips.")
@click.option(
    "--clips", required=True, type=int, callback=within(1), metavar="J",
    help="Clips of each category; of each split, where there are any.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, callback=SEED, help="Which clips are drawn.")
@click.option(
    "--same", callback=several, metavar="COLUMN,COLUMN",
    help="Clip j of every category has the same of these, as speaker,sentence.",
)  # fmt: skip
@click.option(
    "--silence", type=float, callback=within(0.001, 600), metavar="S",
    help="Control: S seconds of silence with every prompt.",
)  # fmt: skip
@click.option("--neutral", metavar="TEXT", help="Control: every clip with this prompt, too.")
@click.option("--audio-root", metavar="DIR", help="Where relative paths of MANIFEST start [its own folder].")
@click.option("-o", "--output", required=True, metavar="CROSS.csv", help="Manifest to write.")
def cross(manifest: str, prompts: str, output: str, same: tuple[str, ...] | None, **options: Any) -> None:
    """PROMPTS.csv has `prompt`, a text with one {audio}, and `text_class`; maybe `wording`, a name."""
    from ..extract.audio.corpora.cross import cross as crossed

    built = crossed(manifest, prompts, output, same=same or (), **options)
    labels = ", ".join(f"{label} ({count} categories)" for label, count in built.categories.items())
    echo(f"{built.manifest}: {built.n_clips} clips, {built.notes[0]}; {labels}")


@click.command("list")
def list_data_sets() -> None:
    """A line for each: name, title, labels, length of clips, and what the folder ROOT holds."""
    from ..extract.audio.corpora.build import data_set

    for name in DATA_SETS:
        known = data_set(name)
        seconds = "native length" if known.unit_sec is None else f"{known.unit_sec:g} s"
        echo(f"{name}: {known.title}; {', '.join(known.labels)}; {seconds}\n    ROOT holds {known.layout}")


@click.command(epilog=f"Encoders: {ENCODERS}")
@click.argument("store")
@click.option("--encoder", required=True, metavar="SPEC", help="Listed below.")
@of_corpus("CSV, TSV or Parquet: path, labels, ...")
@click.option("--task", required=True, metavar="NAME", help="Name of this corpus in the store.")
@unit_sec("Crop or zero-pad to S seconds [the manifest's, else native].")
@click.option("--frames", type=click.Choice(FRAME_RULES), help="Frames that count [audio].")
@click.option("--keep", callback=several, metavar="V,V", help=f"Variables [{','.join(KEPT_BY_DEFAULT)}]; also hidden.")
@click.option("--mean-dtype", type=click.Choice(MEAN_DTYPES), help="Stored type of the means [float16].")
@click.option(
    "--block", type=int, callback=within(1), metavar="N", help="Clips per block [clips / 8, from 32 to 2048]."
)
@click.option("--batch", type=int, callback=within(1), metavar="N", help="Clips per forward pass [32; CUDA: 1 to 256].")
@click.option(
    "--threads", type=int, callback=within(1), metavar="N",
    help="Threads of the arithmetic [all cores, or those of an actor].",
)  # fmt: skip
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where a worker has one].")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of matrix products; sums are float32 [float32].")
@click.option("--allow-missing", is_flag=True, help="Record absent files as failed instead of refusing to start.")
@click.option(
    "--max-failures", default=0.1, show_default=True, metavar="SHARE", help="Stop above this share of bad clips."
)
@max_file_mb
@max_clip_mb
@click.option(
    "--parity", type=click.Choice(["refuse", "warn"]), default="refuse", show_default=True,
    help="On a model that gives clips in a batch other results than alone.",
)  # fmt: skip
@click.option("--replan", is_flag=True, help="Plan anew a task of which nothing is committed; no other run is at it.")
@click.option("--same-device", is_flag=True, help="Refuse another device or kernel than that of the task's blocks.")
@click.option("--dry-run", is_flag=True, help="Check everything, print sizes, memory and time, write nothing.")
@click.option("--report", metavar="FILE", help="Write what the run did, and how long each stage took, as JSON.")
@on_workers
def extract(
    store: str, encoder: str, corpus: "Corpus", unit_sec: float | str | None, workers: "Workers", **options: Any
) -> None:
    """Run it again to resume, or to append clips."""
    with without_collection():
        from ..extract.capture import capture

    log_progress()
    with workers() as executor:
        report = capture(encoder, corpus, store, unit_sec=unit_sec, executor=executor, **options)
    for name, reason in report.failures[:10]:
        echo(visible(f"failed: {name}: {reason}"), err=True)
    if len(report.failures) > 10:
        echo(f"... and {len(report.failures) - 10} more: otoscope status --failures {store}", err=True)
    if report.forecast is not None:
        echo("\n".join(report.forecast.lines()))
    else:
        echo(f"{store} task {options['task']}: {report.n_clips} clips, {report.n_ok} ok, {report.n_failed} failed")


@click.command()
@click.argument("store")
@click.option("--failures", is_flag=True, help="List every failed clip with its reason.")
@click.option("--watch", is_flag=True, help="Look again and again, with rate and time left, until all is done.")
@click.option("--interval", default=10.0, show_default=True, metavar="S", help="Seconds between looks of --watch.")
def status(store: str, failures: bool, watch: bool, interval: float) -> None:
    """Its clips that are ok, failed and pending, and its committed blocks."""
    from ..store.status import failed_clips, store_status

    if not 0 < interval <= MAX_INTERVAL:
        raise ValueError(f"--interval is {interval:g}; expected seconds above 0, up to {MAX_INTERVAL}")
    if watch:
        try:
            watched(store, interval)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
    tasks = store_status(store) if not watch or failures else []
    if not tasks and not watch:
        echo("no task yet")
    for task in tasks:
        if not watch:
            echo(standing(task))
        for name, reason in failed_clips(store, task.task) if failures else ():
            echo(visible(f"  {name}: {reason}"))


def standing(task: "TaskStatus") -> str:
    """How a task stands, as one line."""
    n_blocks = -(-task.plan.n_clips // task.plan.block)
    return (
        f"{task.task}: {task.plan.n_clips} clips, {task.n_ok} ok, {task.n_failed} failed, "
        f"{task.n_pending} pending; {len(task.blocks())} of {n_blocks} blocks committed"
    )


def watched(store: str, interval: float) -> None:
    """--watch: a line per task and look until nothing is pending, with the rate of the looks before."""
    from ..cluster.progress import Rate
    from ..store.status import store_status

    rates: dict[str, Rate] = {}
    while True:
        tasks = store_status(store)
        for task in tasks:
            rate = rates.setdefault(task.task, Rate())
            rate.at(task.n_ok + task.n_failed)
            speed = rate.per_second()
            left = f", {timedelta(seconds=round(task.n_pending / speed))} left" if speed > 0 and task.n_pending else ""
            echo(f"{standing(task)}; {speed:.1f} clips/s{left}")
        if not any(task.n_pending for task in tasks):
            return
        time.sleep(interval)


@click.command()
@click.argument("store")
def info(store: str) -> None:
    """Per task: identity, plan, sizes, label columns, devices."""
    from ..store.status import describe

    echo(json.dumps(describe(store), indent=2, ensure_ascii=False))


@click.command()
@click.argument("store")
@click.option("--audio", metavar="DIR", help="Audio root: check too that each file is still the same.")
@click.option(
    "--reset",
    is_flag=True,
    help="Put back damaged blocks and those of changed files, for `extract` to do again; undo changes.",
)
def verify(store: str, audio: str | None, reset: bool) -> None:
    """Checksums, missing objects, blocks mixed of two writes."""
    from ..extract.audio.changed import check_store

    if remedies := check_store(store, audio, reset=reset, report=echo):
        raise Mistake(f"{store} is not as it was written; {'; '.join(remedies)}")
    echo("intact")


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="NAME")
@click.argument("table")
@click.option("--replace", is_flag=True, help="Overwrite columns that exist with other values.")
def label(store: str, task: str, table: str, replace: bool) -> None:
    """The columns are those of TABLE (CSV, TSV, Parquet; keyed by clip, id or path)."""
    from ..extract.audio.manifest import read_labels
    from ..extract.audio.tag_lists import list_warnings
    from ..store.changes.tasks import add_labels
    from ..store.status import clip_names

    columns = read_labels(table, clip_names(store, task))
    for warning in list_warnings(columns):
        echo(f"note: {warning}", err=True)
    add_labels(store, task, {str(name): columns[name].tolist() for name in columns}, overwrite=replace)
    echo(f"{store} task {task}: {', '.join(map(str, columns))}")
