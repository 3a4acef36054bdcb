"""Commands that say how sure a selection is: `null`, `selectors`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .ask import against_of, asked_for, only, put_table, question_of, selecting

if TYPE_CHECKING:
    import xarray as xr

    from ..analysis.null.resampling import Sample
    from ..analysis.selection.labellings import Answer, Labelling, Question

ROWS = ("cells", "categories", "neurons")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What is shuffled, how often, and how surely a finding must exceed it."""

    permutations: int
    group: str | None
    within: str | None
    balanced: bool
    level: float
    seed: int


def exchanging(permutations: int, given: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that say what is shuffled, handed to the command as one `exchange`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def gathered(**options: Any) -> Any:
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
    exchange: Exchange,
    draws: int,
    figure: str | None,
    rows: str,
    output: str | None,
    **how: Any,
) -> None:
    """How sure is it: a selection and its overlaps against shuffled labels, and a summary.

    Of --against, labels stay as they are, and --group and --within do not apply.
    """
    from ..analysis.figures.selection import overlap_figure, save_figure
    from ..analysis.null.permutation import with_null
    from ..analysis.overlap import labelled
    from ..analysis.selection.labellings import answer
    from ..analysis.tables import null_table

    question = question_of(**how)
    asked = only(asked_for((store,), (task,), question, incomplete, against))
    other = None
    if against is not None:
        (labelling,) = against_of((store,), against, question, incomplete).values()
        other = answer(labelling, question)
    one = answer(asked, question)
    result = against_null(one, other, question, exchange, draws)
    click.echo(summary(asked.name, result, exchange), err=True)
    if figure:
        names = one.labelling.name, (one if other is None else other).labelling.name
        save_figure(overlap_figure([(asked.store, labelled(with_null(result), *names))]), figure)
        click.echo(figure)
    put_table(null_table(result, rows), output)


def against_null(
    one: "Answer", other: "Answer | None", question: "Question", exchange: Exchange, draws: int = 0
) -> "xr.Dataset":
    """The permutation null of a selection and its overlaps, and `draws` of a bootstrap."""
    from ..analysis.null.permutation import bootstrap, permutation_null

    sample = sample_of(one.labelling, question, exchange)
    about: dict[str, Any] = {
        "percentile": question.percentile_of(one.labelling.task), "rule": question.rule, "seed": exchange.seed,
    }  # fmt: skip
    if other is not None:
        about["against"] = sample_of(other.labelling, question, exchange, alone=True)
        about["against_percentile"] = question.percentile_of(other.labelling.task)
    result = permutation_null(sample, permutations=exchange.permutations, level=exchange.level, **about)
    if draws:
        drawn = bootstrap(sample, draws=draws, **about)
        result = result.assign({name: drawn[name] for name in drawn.data_vars if name not in result})
    return result


def sample_of(labelling: "Labelling", question: "Question", exchange: Exchange, alone: bool = False) -> "Sample":
    """The clips of a labelling, with the columns that say what moves together; `alone`: without these columns."""
    sample: Sample = labelling.ds.otoscope.sample(
        labelling.label,
        question.reading,
        question.threshold,
        group=None if alone else exchange.group,
        within=None if alone else exchange.within,
        balanced=exchange.balanced,
        seed=exchange.seed,
    )
    return sample


def summary(name: str, result: "xr.Dataset", exchange: Exchange) -> str:
    """What exceeds shuffled labels, and what was shuffled, in one line."""
    ratio = "common_neuron_ratio"
    tested, found = int(result[f"{ratio}_p"].notnull().sum()), int(result[f"{ratio}_significant"].sum())
    neurons = int((result["aape_significant"] & result["selected"]).sum())
    whole = ", ".join(
        f"{label} {float(result[statistic]):.3g} (p {float(result[f'{statistic}_p']):.2g})"
        for statistic, label in (("coverage_ratio", "coverage"), ("neurons_per_category", "neurons per category"))
    )
    return (
        f"{name}: {found} of {tested} cells and {neurons} of {int(result['selected'].sum())} selected neurons exceed "
        f"shuffled labels at {exchange.level:g}, corrected; {whole}; largest category "
        f"{result.attrs['imbalance']:.3g} times the smallest; {result.attrs['units_exchanged']} units exchanged"
    )


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def selectors(store: str, task: str, output: str | None, incomplete: bool, **how: Any) -> None:
    """How far other selectors agree with AAPE: mean common neuron ratio, each picking as many neurons per category."""
    from ..analysis.selection import selectors as scores
    from ..analysis.selection.labellings import answer

    question = question_of(**how)
    found = answer(only(asked_for((store,), (task,), question, incomplete)), question)
    ds, member = found.labelling.ds, found.selection["member"]
    if "active_bits" not in ds:
        raise LookupError("probabilities made elsewhere have no clips to score; expected a store extracted here")
    codes, valid = ds.otoscope.codes(found.labelling.label), ds["neuron_valid"]
    rated = [scores.rate_difference(ds["active_bits"], codes), scores.mutual_information(ds["active_bits"], codes)]
    if "mean" in ds:
        rated += [scores.d_prime(ds["mean"], codes), scores.point_biserial(ds["mean"], codes)]
    many = member.sum(["layer", "neuron"]).reset_coords(drop=True)
    members = {"aape": member}
    for score in rated:
        members[str(score.name)] = scores.highest_scores(score.where(valid).compute(), many)
    agreement = scores.agreement(members).mean("category")
    table: Any = agreement.to_pandas()
    put_table(table.reset_index(), output)
