"""The command line: parse, call, print. No arithmetic; everything heavy is imported inside the commands.

Conventions: a user's mistake is one line on standard error and exit status 2; tables without -o go to standard
output; progress and notes go to standard error.
"""

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import click

from .data_sets import corpus
from .inspection import compare, exemplars, export, import_
from .questions import figure, neurons, table
from .sureness import null, selectors

ENCODERS = (
    "tiny-ssl | tiny-sl | m2d:PATH | ast:DIR | hubert:DIR | wavlm:DIR | wav2vec2:DIR | data2vec:DIR | mert:DIR | "
    "whisper:DIR | module:FILE.py:factory | module:pkg.mod:factory"
)


class Mistake(click.ClickException):
    """Something that the user can mend."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Control-C, or a scheduler's SIGTERM."""

    exit_code = 128 + signal.SIGINT


class Commands(click.Group):
    """Turns the errors that our functions raise for users into one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.ClickException):
            raise
        except KeyboardInterrupt as stop:
            raise Interrupted(
                "interrupted; whatever is committed is kept: run the same command again to go on"
            ) from stop
        except (ValueError, LookupError, OSError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            raise Mistake(" ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="otoscope")
def cli(debug: bool) -> None:
    """What the neurons of audio models listen to.

    Extract what every neuron did on every clip into a store, then ask it which neurons belong to which category.
    Start with `otoscope quickstart DIR`.
    """


def main() -> None:
    """Entry point of the `otoscope` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler that preempts is as good as Control-C
    cli(prog_name="otoscope")


@cli.command()
@click.argument("directory", metavar="DIR")
@click.option("--seed", default=0, show_default=True, help="Seed of the synthesised audio.")
@click.option("--shuffle-labels", is_flag=True, help="Control: labels dealt out anew; the structure must vanish.")
def quickstart(directory: str, seed: int, shuffle_labels: bool) -> None:
    """The whole method on bundled parts: audio, encoders, store, tables, figures, a summary. No download."""
    from .quickstart import run

    say_progress()
    click.echo(f"read {run(Path(directory), seed=seed, shuffle_labels=shuffle_labels)}")


@cli.command(epilog=f"Encoders: {ENCODERS}")
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
@click.option("--threads", type=int, metavar="N", help="Threads of the arithmetic [all cores].")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one].")
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
@click.option("--dry-run", is_flag=True, help="Check everything, print blocks and sizes, write nothing.")
def extract(
    store: str,
    encoder: str,
    manifest: str,
    audio_root: str | None,
    unit_sec: str | None,
    keep: str | None,
    **options: Any,
) -> None:
    """Run an encoder over a corpus and store what every neuron did. Run it again to resume, or to append clips."""
    from .extract.corpus import read_manifest
    from .extract.run import capture

    say_progress()
    clips = read_manifest(manifest, audio_root)
    report = capture(
        encoder,
        clips,
        store,
        unit_sec=seconds(unit_sec),
        keep=None if keep is None else tuple(name.strip() for name in keep.split(",")),
        **options,
    )
    for name, reason in report.failures[:10]:
        click.echo(f"failed: {name}: {reason}", err=True)
    if len(report.failures) > 10:
        click.echo(f"... and {len(report.failures) - 10} more: otoscope status --failures {store}", err=True)
    if not options["dry_run"]:
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


@cli.command()
@click.argument("store")
@click.option("--failures", is_flag=True, help="List every failed clip with its reason.")
def status(store: str, failures: bool) -> None:
    """How far each task has come."""
    from .store.verify import failed_clips, store_status

    for task in store_status(store):
        n_blocks = -(-task.plan.n_clips // task.plan.block)
        click.echo(
            f"{task.task}: {task.plan.n_clips} clips, {task.n_ok} ok, {task.n_failed} failed, "
            f"{task.n_pending} pending; {len(task.blocks())} of {n_blocks} blocks committed"
        )
        for name, reason in failed_clips(store, task.task) if failures else ():
            click.echo(f"  {name}: {reason}")


@cli.command()
@click.argument("store")
def info(store: str) -> None:
    """What made a store, and what is in it: identity, plans, label columns."""
    import json

    from .store.verify import describe

    click.echo(json.dumps(describe(store), indent=2, ensure_ascii=False))


@cli.command()
@click.argument("store")
@click.option("--audio", metavar="DIR", help="Audio root: check too that each file is still the one that was heard.")
@click.option(
    "--reset",
    is_flag=True,
    help="Put damaged blocks, and those of changed files, back for `extract` to do again.",
)
def verify(store: str, audio: str | None, reset: bool) -> None:
    """Read everything back: checksums, missing objects, blocks mixed of two writes. Exit status 2 on damage."""
    from .store import verify as checks
    from .store.writer import reset_block

    found = list(checks.verify(store))
    for damage in found:
        click.echo(str(damage))
    again = {damage.block for damage in found if damage.block}
    todo = checks.remedies(found)
    if audio is not None:
        from .extract.run import changed_audio

        changed = list(changed_audio(store, Path(audio)))
        for line in dict.fromkeys(what for _, what in changed):
            click.echo(line)
        again |= {block for block, _ in changed if block}
        if any(block for block, _ in changed):
            todo.append(
                f"put changed files' blocks back by `otoscope verify --audio {audio} --reset`, then extract again"
            )
        if any(not block for block, _ in changed):
            todo.append("put absent files back")
    if reset:
        for block in sorted(again, key=lambda block: (block.task, block.index)):
            reset_block(store, block)
            click.echo(f"{block.task} block {block.index} is pending again")
        todo = [remedy for remedy in todo if "--reset" not in remedy]
        if again:
            todo.insert(0, "run the same `otoscope extract` again")
    if todo:
        raise Mistake(f"{store} is not as it was written; {'; '.join(todo)}")
    click.echo("intact")


@cli.command()
@click.argument("store")
@click.option("--task", required=True, metavar="NAME")
@click.argument("table")
@click.option("--replace", is_flag=True, help="Overwrite columns that exist with other values.")
def label(store: str, task: str, table: str, replace: bool) -> None:
    """Add the label columns of TABLE (CSV, TSV, Parquet; keyed by clip, id or path) to a task."""
    from .extract.corpus import read_labels
    from .store.verify import clip_names
    from .store.writer import add_labels

    columns = read_labels(table, clip_names(store, task))
    add_labels(store, task, {str(name): columns[name].tolist() for name in columns}, overwrite=replace)
    click.echo(f"{store} task {task}: {', '.join(map(str, columns))}")


for command in (corpus, neurons, table, figure, exemplars, compare, null, selectors, export, import_):
    cli.add_command(command)
