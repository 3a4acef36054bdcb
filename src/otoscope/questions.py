"""The commands that ask a store: `neurons`, `table`, `figure`. Like `cli`: parse, call, print.

Conventions: labellings are named TASK:LABEL; a task that is not finished is refused unless --incomplete is given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import xarray as xr

    from .analysis.survey import Answer, Labelling, Question

TABLES = ("stats", "overlap", "probability", "aape", "thresholds", "depth")


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
            "--percentile", "percentiles", multiple=True, metavar="P|TASK=P",
            help="Share of neurons selected, in percent [1].",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def question_of(percentiles: tuple[str, ...], reading: str, threshold: float | None, rule: str) -> "Question":
    """The options as the analysis takes them."""
    from .analysis.survey import Question

    general, of_task = 1.0, {}
    for text in percentiles:
        task, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise ValueError(
                f"--percentile is {text!r}; expected a number such as 1, or a task's such as esc50=2"
            ) from None
        if equals:
            of_task[task] = value
        else:
            general = value
    return Question(percentile=general, percentiles=of_task, reading=reading, threshold=threshold, rule=rule)


def open_stores(stores: tuple[str, ...]) -> "dict[str, xr.DataTree]":
    """Stores by a short name: the folder's, or the whole path where two are alike."""
    import otoscope

    short = [Path(store.rstrip("/")).stem for store in stores]
    names = short if len(set(short)) == len(short) else list(stores)
    return {name: otoscope.open(store) for name, store in zip(names, stores, strict=True)}


def asked_for(
    stores: tuple[str, ...], tasks: tuple[str, ...], question: "Question", incomplete: bool
) -> "list[Labelling]":
    """The labellings named, or all, of finished tasks."""
    from .analysis.survey import labellings

    found = list(labellings(open_stores(stores), tasks))
    if not found:
        raise LookupError(
            f"{', '.join(stores)} hold no labelling with at least 2 categories; add one with `otoscope label`"
        )
    for task in question.percentiles:
        if task not in {labelling.task for labelling in found}:
            raise LookupError(f"--percentile {task}=... names no task that was asked for; give it as one of --task")
    for labelling in found:
        pending = labelling.ds.attrs["n_pending"]
        if pending and not incomplete:
            raise ValueError(
                f"{labelling.store} task {labelling.task} is not finished, {pending} clips are pending; expected none: "
                "run its `otoscope extract` again, or give --incomplete to go by what is committed"
            )
    return found


def only(labellings: "list[Labelling]") -> "Labelling":
    """The one labelling that a command can show."""
    if len(labellings) != 1:
        names = ", ".join(f"{x.store} {x.name}" for x in labellings)
        raise ValueError(f"found {len(labellings)} labellings ({names}); expected one: name it as TASK:LABEL")
    return labellings[0]


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def neurons(store: str, task: str, output: str | None, incomplete: bool, **how: Any) -> None:
    """Class-specific neurons: one row per category, layer and neuron, with probability and AAPE."""
    from .analysis.selectivity import aape
    from .analysis.survey import answer
    from .analysis.tables import neurons_table

    question = question_of(**how)
    found = answer(only(asked_for((store,), (task,), question, incomplete)), question)
    put_table(neurons_table(found.selection["member"], found.probability, aape(found.probability)), output)


@click.command()
@click.argument("kind", type=click.Choice(TABLES))
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option("--task", "tasks", multiple=True, metavar="TASK[:LABEL]", help="Labellings [all].")
@click.option("--against", metavar="TASK:LABEL", help="overlap: the categories along the other side.")
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def table(
    kind: str,
    stores: tuple[str, ...],
    tasks: tuple[str, ...],
    against: str | None,
    output: str | None,
    incomplete: bool,
    **how: Any,
) -> None:
    """Tables: stats and thresholds over all labellings; overlap, probability, aape and depth of one."""
    from .analysis import tables
    from .analysis.select import depth_histogram
    from .analysis.selectivity import aape
    from .analysis.survey import answer

    question = question_of(**how)
    asked = asked_for(stores, tasks, question, incomplete)
    frame: Any
    if kind in ("stats", "thresholds"):
        selections = {(x.store, x.name): answer(x, question).selection for x in asked}
        frame = (tables.stats_table if kind == "stats" else tables.thresholds_table)(selections)
    elif kind == "overlap":
        answers = [answer(only(asked), question)]
        frame = tables.overlap_table(overlaps(answers, stores, against, question, incomplete)[0][1])
    elif kind == "depth":
        depth = depth_histogram(answer(only(asked), question).selection["member"], by_category=True)
        frame = depth.transpose("layer", "category").to_pandas().reset_index()  # type: ignore[call-arg]
    else:  # of every neuron, so that nothing needs to be selected
        labelling = only(asked)
        p = labelling.ds.otoscope.probability(labelling.label, question.reading, question.threshold).compute()
        frame = tables.probability_table(p) if kind == "probability" else tables.aape_table(aape(p))
    put_table(frame, output)


def overlaps(
    answers: "list[Answer]",
    stores: tuple[str, ...],
    against: str | None,
    question: "Question",
    incomplete: bool,
) -> "list[tuple[str, xr.DataArray]]":
    """(title, common neuron ratio) of each labelling with itself, or with another one of the same store."""
    from .analysis.overlap import common_neuron_ratio
    from .analysis.survey import answer

    members = {(a.labelling.store, a.labelling.name): a.selection["member"] for a in answers}
    if against is None:
        return [(f"{store} {name}", common_neuron_ratio(member)) for (store, name), member in members.items()]
    others = asked_for(stores, (against,), question, incomplete)
    other_of = {store: answer(only([x for x in others if x.store == store]), question) for store, _ in members}
    return [
        (
            f"{store} {name} / {other_of[store].labelling.name}",
            common_neuron_ratio(member, other_of[store].selection["member"]),
        )
        for (store, name), member in members.items()
    ]


@click.command()
@click.argument("kind", type=click.Choice(["overlap", "depth"]))
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option("--task", "tasks", multiple=True, metavar="TASK[:LABEL]", help="Labellings [all].")
@click.option("--against", metavar="TASK:LABEL", help="overlap: the categories along the other side.")
@selecting
@click.option("-o", "--output", required=True, metavar="FILE", help="PDF, PNG or SVG by its ending.")
def figure(
    kind: str,
    stores: tuple[str, ...],
    tasks: tuple[str, ...],
    against: str | None,
    output: str,
    incomplete: bool,
    **how: Any,
) -> None:
    """Figures: overlap (common neuron ratios, a heat map per labelling and store), depth (neurons per layer)."""
    from .analysis.figures import depth_figure, overlap_figure, save_figure
    from .analysis.select import depth_histogram
    from .analysis.survey import answer

    question = question_of(**how)
    answers = [answer(labelling, question) for labelling in asked_for(stores, tasks, question, incomplete)]
    if kind == "overlap":
        drawn = overlap_figure(overlaps(answers, stores, against, question, incomplete))
    else:
        drawn = depth_figure(
            [(f"{a.labelling.store} {a.labelling.name}", depth_histogram(a.selection["member"])) for a in answers]
        )
    save_figure(drawn, output)
    click.echo(output)


def put_table(frame: Any, output: str | None) -> None:
    """Write a table to a file, or as Markdown to standard output."""
    from .analysis.tables import markdown, write_table

    if output is None:
        click.echo(markdown(frame))
    else:
        write_table(frame, output)
        click.echo(output)
