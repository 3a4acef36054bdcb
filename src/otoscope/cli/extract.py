"""The commands that extract and say how far it has come: `extract`, `status`.

Conventions: as in `cli`.
"""

import io
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..cluster.executor import Executor
    from ..store.verify import TaskStatus

    Workers = Callable[[], AbstractContextManager[Executor]]

ENCODERS = (
    "tiny-ssl | tiny-sl | m2d:PATH | ast:DIR | hubert:DIR | wavlm:DIR | wav2vec2:DIR | data2vec:DIR | mert:DIR | "
    "whisper:DIR | module:FILE.py:factory | module:pkg.mod:factory"
)


@contextmanager
def executor_of(name: str, **cluster: Any) -> "Iterator[Executor]":
    """--executor and the options that only a cluster takes; those not given are left to it."""
    given = {option: value for option, value in cluster.items() if value is not None}
    if name == "serial":
        if given:
            options = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise ValueError(f"{options} given with --executor serial; expected --executor ray: add it")
        from ..cluster.executor import SerialExecutor

        yield SerialExecutor()
        return
    from ..cluster.ray import RayExecutor

    with RayExecutor(**given) as executor:
        yield executor


def on_workers(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where its workers run, and an argument `workers` that opens the executor."""

    @wraps(command)
    def with_workers(executor: str, **given: Any) -> None:
        names = ("address", "actors", "cpus_per_actor", "gpus_per_actor", "stuck_after")
        cluster = {name: given.pop(name) for name in names}
        command(workers=partial(executor_of, executor, **cluster), **given)

    for option in (
        click.option("--stuck-after", type=float, metavar="S",
                     help="Replace a worker that has answered nothing for S seconds [never]."),
        click.option("--gpus-per-actor", type=float, metavar="F", help="GPUs that each takes up, also fractions [0]."),
        click.option("--cpus-per-actor", type=float, metavar="F", help="CPUs that each takes up [1]."),
        click.option("--actors", type=int, metavar="N", help="Most workers at a time [as many as fit]."),
        click.option("--address", metavar="auto|HOST:PORT", help="Ray cluster [one of this machine alone]."),
        click.option("--executor", type=click.Choice(["serial", "ray"]), default="serial", show_default=True,
                     help="ray: workers in actors, on this machine or a cluster."),
    ):  # fmt: skip
        option(with_workers)
    return with_workers


@click.command(epilog=f"Encoders: {ENCODERS}")
@click.argument("store")
@click.option(
    "--encoder", required=True, metavar="SPEC", help="Listed below; DIR holds a model as transformers saves it."
)
@click.option("--corpus", "manifest", required=True, metavar="MANIFEST", help="CSV, TSV or Parquet: path, labels, ...")
@click.option("--task", required=True, metavar="NAME", help="Name of this corpus in the store.")
@click.option("--audio-root", metavar="DIR", help="Folder that relative paths start from [the manifest's].")
@click.option("--unit-sec", metavar="S|native", help="Crop or zero-pad to S seconds [the manifest's, else native].")
@click.option("--frames", type=click.Choice(["audio", "published", "all"]), help="Frames that count [audio].")
@click.option(
    "--keep",
    metavar="V,V",
    help="Variables [active_bits,mean,positive_frames,frame_count,embedding]; also hidden.",
)
@click.option("--mean-dtype", type=click.Choice(["float16", "float32"]), help="Stored type of the means [float16].")
@click.option("--block", type=int, metavar="N", help="Clips per block [clips / 8, from 32 to 2048].")
@click.option("--batch", type=int, metavar="N", help="Clips per forward pass [32].")
@click.option("--threads", type=int, metavar="N", help="Threads of the arithmetic [all cores, or those of an actor].")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where a worker has one].")
@click.option("--allow-missing", is_flag=True, help="Record absent files as failed instead of refusing to start.")
@click.option(
    "--max-failures",
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Stop above this share of bad clips.",
)
@click.option(
    "--parity",
    type=click.Choice(["refuse", "warn"]),
    default="refuse",
    show_default=True,
    help="On a model that gives clips in a batch other results than alone.",
)
@click.option("--replan", is_flag=True, help="Plan anew a task of which nothing is committed; no other run is at it.")
@click.option("--dry-run", is_flag=True, help="Check everything, print sizes, memory and time, write nothing.")
@click.option("--report", metavar="FILE", help="Write what the run did, and how long each stage took, as JSON.")
@on_workers
def extract(
    store: str,
    encoder: str,
    manifest: str,
    audio_root: str | None,
    unit_sec: str | None,
    keep: str | None,
    workers: "Workers",
    **options: Any,
) -> None:
    """Run an encoder over a corpus and store what every neuron did. Run it again to resume, or to append clips."""
    from ..extract.audio.manifest import read_manifest
    from ..extract.capture import capture

    say_progress()
    with workers() as executor:
        report = capture(
            encoder,
            read_manifest(manifest, audio_root),
            store,
            unit_sec=seconds(unit_sec),
            keep=None if keep is None else tuple(name.strip() for name in keep.split(",")),
            executor=executor,
            **options,
        )
    for name, reason in report.failures[:10]:
        click.echo(f"failed: {name}: {reason}", err=True)
    if len(report.failures) > 10:
        click.echo(f"... and {len(report.failures) - 10} more: otoscope status --failures {store}", err=True)
    if report.forecast is not None:
        click.echo("\n".join(report.forecast.lines()))
    else:
        click.echo(
            f"{store} task {options['task']}: {report.n_clips} clips, {report.n_ok} ok, {report.n_failed} failed"
        )


def seconds(text: str | None) -> float | str | None:
    """--unit-sec: a number, "native" or nothing."""
    if text is None or text == "native":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--unit-sec is {text!r}; expected seconds such as 2.5, or native") from None


def say_progress() -> None:
    """Log to standard error, as plain lines."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


@click.command()
@click.argument("store")
@click.option("--failures", is_flag=True, help="List every failed clip with its reason.")
@click.option("--watch", is_flag=True, help="Look again and again, with rate and time left, until all is done.")
@click.option("--interval", default=10.0, show_default=True, metavar="S", help="Seconds between looks of --watch.")
def status(store: str, failures: bool, watch: bool, interval: float) -> None:
    """How far each task has come."""
    from ..store.verify import failed_clips, store_status

    if watch:
        try:
            watched(store, interval)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
    tasks = store_status(store) if not watch or failures else []
    if not tasks and not watch:
        click.echo("no task yet")
    for task in tasks:
        if not watch:
            click.echo(standing(task))
        for name, reason in failed_clips(store, task.task) if failures else ():
            click.echo(f"  {name}: {reason}")


def standing(task: "TaskStatus") -> str:
    """How a task stands, as one line."""
    n_blocks = -(-task.plan.n_clips // task.plan.block)
    return (
        f"{task.task}: {task.plan.n_clips} clips, {task.n_ok} ok, {task.n_failed} failed, "
        f"{task.n_pending} pending; {len(task.blocks())} of {n_blocks} blocks committed"
    )


def watched(store: str, interval: float) -> None:
    """--watch: a line per task and look until nothing is pending, with the rate of the looks before."""
    from ..cluster.progress import Progress
    from ..store.verify import store_status

    if not interval > 0:
        raise ValueError(f"--interval is {interval:g}; expected seconds above 0")
    seen: dict[str, tuple[Progress, int]] = {}
    while True:
        tasks = store_status(store)
        for task in tasks:
            done = task.n_ok + task.n_failed
            since, before = seen.get(task.task) or (Progress(task.n_pending, stream=io.StringIO()), done)
            since.advance(done - before)
            seen[task.task] = since, done
            rate = since.rate()
            left = f", {timedelta(seconds=round(task.n_pending / rate))} left" if rate > 0 and task.n_pending else ""
            click.echo(f"{standing(task)}; {rate:.1f} clips/s{left}")
        if not any(task.n_pending for task in tasks):
            return
        time.sleep(interval)
