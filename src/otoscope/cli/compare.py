"""The commands that look closer: `compare`, `exemplars`, and the published files, `export` and `import`.

Conventions: as in `questions`.
"""

from pathlib import Path
from typing import Any

import click

from .ask import LABELLINGS, asked_for, put_table, selecting, selections_of


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--by", type=click.Choice(["labelling", "layer", "category", "neuron"]), default="labelling", show_default=True,
    help="labelling: two stores; layer, category: one labelling; neuron: which labellings of one store each serves.",
)  # fmt: skip
@click.option("--task", "tasks", multiple=True, metavar="TASK[:LABEL]", help=LABELLINGS)
@selecting
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def compare(
    stores: tuple[str, ...], by: str, tasks: tuple[str, ...], output: str | None, incomplete: bool, **how: Any
) -> None:
    """Models side by side (a model and its random initialisation, say), or what each neuron of one serves."""
    from ..analysis import compare as side_by_side
    from ..analysis.selection.labellings import only, select_neurons
    from ..analysis.tables import stats_table

    selections = selections_of(**how)
    asked = asked_for(stores, tasks, selections, incomplete)
    if by in ("layer", "category"):
        asked = [only([x for x in asked if x.store == store]) for store in dict.fromkeys(x.store for x in asked)]
    if by == "neuron" and len({x.store for x in asked}) != 1:
        raise ValueError(f"found {len(stores)} stores; expected one: neurons of one encoder serve its tasks")
    found = [select_neurons(x, selections.of(x.task)) for x in asked]
    members = {x.store: x.selection["member"] for x in found}
    if by == "labelling":
        stats = stats_table({(x.store, x.name): x.selection for x in found})
        frame = side_by_side.labellings_side_by_side(stats)
    elif by == "layer":
        frame = side_by_side.layers_side_by_side({x.store: x.selection for x in found})
    elif by == "category":
        frame = side_by_side.categories_side_by_side(members)
        if len(members) == 2:
            agreement = side_by_side.count_agreement(*members.values())
            click.echo(f"rank correlation of the counts: {agreement:.3f}", err=True)
    else:
        served = {x.name: x.selection["member"] for x in found}
        frame = side_by_side.serving_table(side_by_side.serving(served))
    put_table(frame, output)


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK")
@click.option("--neuron", "pairs", multiple=True, metavar="LAYER,NEURON", help="Such as 9,347; several times for more.")
@click.option("--neurons", "table", metavar="FILE", help="CSV or Parquet table, as of `otoscope neurons`.")
@click.option("-k", "--top", default=10, show_default=True, metavar="N", help="Clips per neuron.")
@click.option("--least", is_flag=True, help="The clips of lowest mean activation.")
@click.option("-o", "--output", metavar="FILE", help="CSV, Parquet, Markdown or LaTeX by its ending [standard output].")
def exemplars(
    store: str, task: str, pairs: tuple[str, ...], table: str | None, top: int, least: bool, output: str | None
) -> None:
    """The clips that drive a neuron most: one row per neuron and rank, by mean activation, with labels."""
    from ..analysis.exemplars import exemplars_table, read_neurons
    from ..analysis.selection.labellings import open_stores

    tree = next(iter(open_stores((store,)).values()))
    if task not in tree.children:
        raise LookupError(f"no task {task!r} in {store}; it holds {', '.join(sorted(tree.children)) or 'none'}")
    neurons = [neuron_of(pair) for pair in pairs] + (read_neurons(table) if table is not None else [])
    if not neurons:
        raise ValueError("no neuron was named; expected --neuron LAYER,NEURON or --neurons FILE")
    put_table(exemplars_table(tree.children[task].to_dataset(), neurons, top, least), output)


def neuron_of(text: str) -> tuple[int, int]:
    """--neuron: "9,347" as (9, 347)."""
    try:
        layer, neuron = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"--neuron is {text!r}; expected LAYER,NEURON such as 9,347") from None
    return layer, neuron


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@click.argument("directory", metavar="DIR")
@click.option("--official", type=click.Choice(["ssl", "sl"]), help="Into DIR/{task}_analysis or DIR/{task}_vit.")
@click.option(
    "--reading", type=click.Choice(["clip", "frame", "any"]), default="clip", show_default=True,
    help="clip: mean above 0; frame: share of positive frames; any: one positive frame.",
)  # fmt: skip
@click.option("--incomplete", is_flag=True, help="Go by the committed clips of tasks that are not finished.")
def export(store: str, task: str, directory: str, official: str | None, reading: str, incomplete: bool) -> None:
    """Write over_zero.pt, classes.txt, features.pt and gts.pt of a labelling, as the paper's code names them."""
    from ..analysis.published.files import write_published
    from ..analysis.published.paper import official_folder
    from ..analysis.selection.labellings import only
    from ..analysis.selection.selection import Selections

    labelling = only(asked_for((store,), (task,), Selections(), incomplete))
    ds, label = labelling.ds, labelling.label
    folder = Path(directory) / official_folder(labelling.name, official) if official else Path(directory)
    p = ds.otoscope.probability(label, reading=reading).compute()
    codes = ds.otoscope.codes(label) if "status" in ds else None
    written = write_published(folder, p, ds.get("embedding"), codes)
    for path in written:
        click.echo(path)
    if "embedding" not in ds:
        click.echo("no features.pt: this task keeps no embedding; extract with --keep embedding", err=True)


@click.command("import")
@click.argument("directory", metavar="DIR")
@click.argument("output", metavar="FILE")
def import_(directory: str, output: str) -> None:
    """Make a table of probabilities (.parquet, .csv) of published files (over_zero.pt and classes.txt, or LAPE's).

    `table`, `figure`, `neurons` and `compare` take FILE, or DIR itself, in the place of a STORE. FILE's name is the
    task's, its labelling is called "class".
    """
    from ..analysis.published.files import read_published
    from ..analysis.published.given import READERS
    from ..analysis.tables import probability_table, write_table

    if Path(output).suffix.lower() not in READERS:
        raise ValueError(f"FILE is {output}; expected a name ending in {', '.join(READERS)}, such as esc50.parquet")
    p = read_published(directory)["probability"]
    write_table(probability_table(p), output)
    sizes = ", ".join(f"{size} {dim}" for dim, size in p.sizes.items())
    click.echo(f"{output}: {sizes}")
