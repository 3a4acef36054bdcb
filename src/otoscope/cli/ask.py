"""The commands that ask a store: `neurons`, `table`. Like `cli`: parse, call, print. Figures are in `drawing`.

Conventions: labellings are named TASK:LABEL; a task that is not finished is refused unless --incomplete is given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..analysis.selection.labellings import Labelling
    from ..analysis.selection.selection import Selections

LABELLINGS = "Labellings [all; columns that only group clips (speaker, source, tone, instrument) by name alone]."
TABLES = ("stats", "paper", "overlap", "probability", "aape", "thresholds", "depth")


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which neurons are selected."""
    for option in (
        click.option(
            "--rule", type=click.Choice(["lape", "paper"]), default="lape", show_default=True, help="Selection rule."
        ),
        click.option("--incomplete", is_flag=True, help="Go by the committed clips of tasks that are not finished."),
        click.option("--threshold", type=float, metavar="X", help="With --reading clip: on the mean, instead of 0."),
        click.option(
            "--reading", type=click.Choice(["clip", "frame", "any"]), default="clip", show_default=True,
            help="clip: mean above 0; frame: share of positive frames; any: one positive frame.",
        ),
        click.option(
            "--percentile", "percentiles", multiple=True, metavar="P|TASK=P|paper",
            help="Share of neurons selected, in percent [1]; paper: 2 for esc50 and gise51, else 1.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def selections_of(percentiles: tuple[str, ...], **how: Any) -> "Selections":
    """The options as the analysis takes them."""
    from ..analysis.published.paper import PERCENTILES
    from ..analysis.selection.selection import Selection, Selections

    general, of_task = 1.0, dict(PERCENTILES) if "paper" in percentiles else {}
    for text in percentiles:
        if text == "paper":
            continue
        task, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise ValueError(
                f"--percentile is {text!r}; expected a number such as 1, a task's such as esc50=2, or paper"
            ) from None
        if equals:
            of_task[task] = value
        elif "paper" not in percentiles:
            general = value
    return Selections(selection=Selection(percentile=general, **how), percentiles=of_task)


def asked_for(
    stores: tuple[str, ...],
    tasks: tuple[str, ...],
    selections: "Selections",
    incomplete: bool,
    against: str | None = None,
) -> "list[Labelling]":
    """As `open_labellings`, reporting what is left out."""
    from ..analysis.selection.labellings import open_labellings

    found, skipped = open_labellings(stores, tasks, selections, incomplete, against)
    if skipped:
        click.echo(f"left out, since they say which clips belong together: {', '.join(skipped)}", err=True)
    return found


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def neurons(store: str, task: str, output: str | None, incomplete: bool, **how: Any) -> None:
    """Class-specific neurons: one row per category, layer and neuron, with probability and AAPE."""
    from ..analysis.selection.labellings import only, select_neurons
    from ..analysis.tables import neurons_table

    selections = selections_of(**how)
    labelling = only(asked_for((store,), (task,), selections, incomplete))
    put_table(neurons_table(select_neurons(labelling, selections.of(labelling.task)).selection), output)


@click.command()
@click.argument("kind", type=click.Choice(TABLES))
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option("--task", "tasks", multiple=True, metavar="TASK[:LABEL]", help=LABELLINGS)
@click.option("--against", metavar="TASK:LABEL", help="overlap: the categories along the other side.")
@selecting
@click.option(
    "--official", type=click.Choice(["ssl", "sl"]),
    help="stats: name the file as the paper's notebooks do for such an encoder; -o is its folder.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def table(
    kind: str,
    stores: tuple[str, ...],
    tasks: tuple[str, ...],
    against: str | None,
    official: str | None,
    output: str | None,
    incomplete: bool,
    **how: Any,
) -> None:
    """Tables: stats, thresholds and paper (Tables I and II) over all labellings; the others of one.

    Paper puts the stores side by side, with the paper's labellings and percentiles unless --task or --percentile say
    otherwise. A STORE may be a table of probabilities (`otoscope import`) or a folder of published files.
    """
    from ..analysis import tables
    from ..analysis.published import paper
    from ..analysis.selection.labellings import only, select_neurons
    from ..analysis.selection.rules import depth_histogram
    from ..analysis.selection.selectivity import aape

    if kind == "paper" and not how["percentiles"]:
        how["percentiles"] = ("paper",)
    if official is not None:
        if kind != "stats" or output is None or len(stores) != 1:
            raise ValueError("--official names the table stats of one STORE in a folder; expected one STORE and -o DIR")
        output = str(Path(output) / paper.official_table(official))
    selections = selections_of(**how)
    asked = asked_for(stores, tasks, selections, incomplete, against)
    if kind == "paper" and not tasks:
        rows = paper.paper_rows(x.name for x in asked)
        others = sorted({x.name for x in asked} - set(rows))
        asked = [x for x in asked if x.name in rows]
        if others:
            click.echo(f"not in the paper's tables: {', '.join(others)}; --task takes them in", err=True)
    frame: Any
    if kind in ("stats", "thresholds", "paper"):
        found = {(x.store, x.name): select_neurons(x, selections.of(x.task)).selection for x in asked}
        frame = (tables.thresholds_table if kind == "thresholds" else tables.stats_table)(found)
        frame = paper.paper_table(frame) if kind == "paper" else frame
    elif kind == "overlap":
        from ..analysis.null.overlaps import overlaps

        selected = select_neurons(only(asked), selections.of(only(asked).task))
        frame = tables.overlap_table(overlaps([selected], stores, against, selections, incomplete)[0][1])
    elif kind == "depth":
        selected = select_neurons(only(asked), selections.of(only(asked).task))
        depth = depth_histogram(selected.selection["member"], by_category=True)
        frame = depth.transpose("layer", "category").to_pandas().reset_index()  # type: ignore[call-arg]
    else:  # of every neuron, so that nothing needs to be selected
        labelling = only(asked)
        p = labelling.ds.otoscope.probability(labelling.label, selections.selection).compute()
        frame = tables.probability_table(p) if kind == "probability" else tables.aape_table(aape(p))
    put_table(frame, output)


def put_table(frame: Any, output: str | None) -> None:
    """Write a table to a file, or as Markdown to standard output."""
    from ..analysis.tables import markdown, write_table

    if output is None:
        click.echo(markdown(frame))
    else:
        write_table(frame, output)
        click.echo(output)
