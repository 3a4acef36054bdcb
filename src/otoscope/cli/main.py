"""The command line: parse, call, print. No arithmetic; everything heavy is imported inside the commands.

Conventions: a user's mistake is one line on standard error and exit status 2; tables without -o go to standard
output; progress and notes go to standard error.
"""

import signal
from pathlib import Path
from typing import Any

import click

from .ablate import ablate
from .ask import neurons, table
from .compare import compare, exemplars, export, import_
from .corpus import corpus
from .extract import extract, say_progress, status
from .figure import figure
from .interrupts import listen, rest
from .null import null, selectors


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
            from ..messages import clean

            text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
            raise Mistake(clean(" ".join(text.split()))) from error
        finally:
            rest()


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
    listen()
    cli(prog_name="otoscope")


@cli.command()
@click.argument("directory", metavar="DIR")
@click.option("--seed", default=0, show_default=True, help="Seed of the synthesised audio.")
@click.option("--shuffle-labels", is_flag=True, help="Control: labels dealt out anew; the structure must vanish.")
def quickstart(directory: str, seed: int, shuffle_labels: bool) -> None:
    """The whole method on bundled parts: audio, encoders, store, tables, figures, a summary. No download."""
    from ..quickstart import run

    say_progress()
    click.echo(f"read {run(Path(directory), seed=seed, shuffle_labels=shuffle_labels)}")


@cli.command()
@click.argument("store")
def info(store: str) -> None:
    """What made a store, and what is in it: identity, plans, label columns."""
    import json

    from ..store.verify import describe

    click.echo(json.dumps(describe(store), indent=2, ensure_ascii=False))


@cli.command()
@click.argument("store")
@click.option(
    "--audio", metavar="DIR", help="Audio root: check too that each file is still the one that was extracted."
)
@click.option(
    "--reset",
    is_flag=True,
    help="Put damaged blocks, and those of changed files, back for `extract` to do again.",
)
def verify(store: str, audio: str | None, reset: bool) -> None:
    """Read everything back: checksums, missing objects, blocks mixed of two writes. Exit status 2 on damage."""
    from ..store import verify as checks
    from ..store.writer import reset_block

    found = list(checks.verify(store))
    for damage in found:
        click.echo(str(damage))
    again = {damage.block for damage in found if damage.block}
    todo = checks.remedies(found)
    if audio is not None:
        from ..extract.audio.changed import changed_audio

        changed = list(changed_audio(store, audio))
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
    from ..extract.audio.manifest import read_labels
    from ..store.verify import clip_names
    from ..store.writer import add_labels

    columns = read_labels(table, clip_names(store, task))
    add_labels(store, task, {str(name): columns[name].tolist() for name in columns}, overwrite=replace)
    click.echo(f"{store} task {task}: {', '.join(map(str, columns))}")


for command in (
    corpus, extract, status, neurons, table, figure, exemplars, compare, null, selectors, export, import_, ablate,
):  # fmt: skip
    cli.add_command(command)
