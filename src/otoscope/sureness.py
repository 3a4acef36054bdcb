"""Commands that say how sure a selection is: `null`, `selectors`."""

from typing import TYPE_CHECKING, Any

import click

from .questions import asked_for, only, put_table, question_of, selecting

if TYPE_CHECKING:
    from .analysis.resampling import Sample
    from .analysis.survey import Labelling


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK:LABEL")
@click.option("--against", metavar="TASK:LABEL", help="Overlaps with the categories of another labelling [its own].")
@click.option("--percentile", "percentiles", multiple=True, metavar="P|TASK=P", help="As for `neurons` [1].")
@click.option("--incomplete", is_flag=True, help="Go by the committed clips of tasks that are not finished.")
@click.option("--permutations", default=1000, show_default=True, metavar="N", help="Times that labels are shuffled.")
@click.option("--bootstrap", "draws", default=0, metavar="N", help="Also draw clips anew N times, for intervals [0].")
@click.option("--group", metavar="COLUMN", help="Label column that clips share, such as speaker: they move together.")
@click.option("--within", metavar="COLUMN", help="Label column such as split: clips are exchanged only within one.")
@click.option("--balanced", is_flag=True, help="Cut every category down to the size of the smallest.")
@click.option("--level", default=0.05, show_default=True, help="Chance of any false finding in a statistic.")
@click.option("--seed", default=0, show_default=True)
@click.option("--figure", metavar="FILE", help="Heat map; cells that do not exceed the null are struck out.")
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def null(
    store: str,
    task: str,
    against: str | None,
    percentiles: tuple[str, ...],
    incomplete: bool,
    permutations: int,
    draws: int,
    group: str | None,
    within: str | None,
    balanced: bool,
    level: float,
    seed: int,
    figure: str | None,
    output: str | None,
) -> None:
    """How sure is it: overlaps against shuffled labels, one row per two categories, and a summary."""
    from .analysis.figures import overlap_figure, save_figure
    from .analysis.null import bootstrap, permutation_null, with_null

    question = question_of(percentiles, "clip", None, "lape")
    labelling = only(asked_for((store,), (task,), question, incomplete))
    one = sample_of(labelling, group, within, balanced, seed)
    other = None
    if against is not None:
        question_b = question_of(tuple(p for p in percentiles if "=" not in p), "clip", None, "lape")
        other = sample_of(only(asked_for((store,), (against,), question_b, incomplete)), None, None, balanced, seed)
    percentile = question.percentiles.get(labelling.task, question.percentile)
    about: dict[str, Any] = {"percentile": percentile, "against": other, "seed": seed}
    result = permutation_null(one, permutations=permutations, level=level, **about)
    parts = ["", "_null_mean", "_null_sd", "_p", "_p_corrected", "_significant"]
    if draws:
        drawn = bootstrap(one, draws=draws, **about)
        result = result.assign({name: drawn[name] for name in drawn.data_vars if name not in result})
        parts += ["_sd", "_bias", "_low", "_high"]
    ratio = "common_neuron_ratio"
    cells = result[[f"{ratio}{part}" for part in parts]].drop_vars("n_clips").to_dataframe().reset_index()
    tested = int(result[f"{ratio}_p"].notnull().sum())
    found = int(result[f"{ratio}_significant"].sum())
    neurons = int((result["aape_significant"] & result["selected"]).sum())
    click.echo(
        f"{labelling.name}: {found} of {tested} cells and {neurons} of {int(result['selected'].sum())} "
        f"selected neurons exceed shuffled labels at {level:g}, corrected; "
        f"largest category {result.attrs['imbalance']:.3g} times the "
        f"smallest; {result.attrs['units_exchanged']} units exchanged",
        err=True,
    )
    if figure:
        save_figure(overlap_figure([(labelling.name, with_null(result))]), figure)
        click.echo(figure)
    put_table(cells, output)


def sample_of(labelling: "Labelling", group: str | None, within: str | None, balanced: bool, seed: int) -> "Sample":
    """The clips of a labelling, with the columns that say what moves together."""
    from .analysis.resampling import take_sample

    ds = labelling.ds
    return take_sample(
        ds["active_bits"],
        ds.otoscope.codes(labelling.label),
        groups=ds.otoscope.label(group) if group else None,
        within=ds.otoscope.label(within) if within else None,
        balanced=balanced,
        valid=ds["neuron_valid"],
        seed=seed,
    )


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def selectors(store: str, task: str, output: str | None, incomplete: bool, **how: Any) -> None:
    """How far other selectors agree with AAPE: mean common neuron ratio, each picking as many neurons per category."""
    from .analysis import selectors as scores
    from .analysis.survey import answer

    question = question_of(**how)
    found = answer(only(asked_for((store,), (task,), question, incomplete)), question)
    ds, member = found.labelling.ds, found.selection["member"]
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
