"""Commands that say how sure a selection is: `null`, `selectors`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .ask import asked_for, put_table, selecting, selections_of

if TYPE_CHECKING:
    from ..analysis.null.overlaps import Exchange

ROWS = ("cells", "categories", "neurons")


def exchanging(permutations: int, given: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that say what is shuffled, handed to the command as one `exchange`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def gathered(**options: Any) -> Any:
            from ..analysis.null.overlaps import Exchange

            parts = {name: options.pop(name) for name in Exchange.__dataclass_fields__}
            return command(**options, exchange=Exchange(**parts))

        gathered.__doc__, gathered.__name__ = command.__doc__, command.__name__
        gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        wrapped: Callable[..., Any] = gathered
        for option in (
            click.option("--seed", default=0, show_default=True, help="Of what is shuffled."),
            click.option(
                "--level", default=0.05, show_default=True, help="Chance of any false finding in a statistic."
            ),
            click.option("--balanced", is_flag=True, help="Cut every category down to the size of the smallest."),
            click.option(
                "--within", metavar="COLUMN", help="Label column such as split: clips are exchanged only within one."
            ),
            click.option(
                "--group", metavar="COLUMN", help="Label column that clips share, as speaker: they move together."
            ),
            click.option("--permutations", default=permutations, show_default=True, metavar="N", help=given),
        ):
            wrapped = option(wrapped)
        return wrapped

    return decorate


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK:LABEL")
@click.option("--against", metavar="TASK:LABEL", help="Overlaps with the categories of another labelling [its own].")
@selecting
@exchanging(permutations=1000, given="Times that labels are shuffled.")
@click.option("--bootstrap", "draws", default=0, metavar="N", help="Also draw clips anew N times, for intervals [0].")
@click.option("--figure", metavar="FILE", help="Heat map; cells that do not exceed the null are struck out.")
@click.option(
    "--rows", type=click.Choice(ROWS), default="cells", show_default=True,
    help="cells: overlaps of two categories; categories: their neurons; neurons: the class-specific ones, their AAPE.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def null(
    store: str,
    task: str,
    against: str | None,
    incomplete: bool,
    exchange: "Exchange",
    draws: int,
    figure: str | None,
    rows: str,
    output: str | None,
    **how: Any,
) -> None:
    """How sure is it: a selection and its overlaps against shuffled labels, and a summary.

    Of --against, labels stay as they are, and --group and --within do not apply.
    """
    from ..analysis.figures.overlap import overlap_figure
    from ..analysis.figures.save import save_figure
    from ..analysis.null.overlaps import against_null, summary
    from ..analysis.null.permutation import with_null
    from ..analysis.overlap import labelled
    from ..analysis.selection.labellings import against_labellings, only, select_neurons
    from ..analysis.tables import null_table

    selections = selections_of(**how)
    asked = only(asked_for((store,), (task,), selections, incomplete, against))
    other = None
    if against is not None:
        (labelling,) = against_labellings((store,), against, incomplete).values()
        other = select_neurons(labelling, selections.of(labelling.task))
    one = select_neurons(asked, selections.of(asked.task))
    result = against_null(one, other, exchange, draws)
    click.echo(summary(asked.name, result), err=True)
    if figure:
        names = one.name, (other or one).name
        save_figure(overlap_figure([(asked.store, labelled(with_null(result), *names))]), figure)
        click.echo(figure)
    put_table(null_table(result, rows), output)


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def selectors(store: str, task: str, output: str | None, incomplete: bool, **how: Any) -> None:
    """How far other selectors agree with AAPE: mean common neuron ratio, each picking as many neurons per category."""
    from ..analysis.selection.labellings import only, select_neurons
    from ..analysis.selection.selectors import selector_agreement

    selections = selections_of(**how)
    labelling = only(asked_for((store,), (task,), selections, incomplete))
    found = select_neurons(labelling, selections.of(labelling.task))
    put_table(selector_agreement(found.ds, found.label, found.selection["member"]), output)
