"""The commands for the papers' own files: export, import."""

from pathlib import Path

import click

from ..analysis.selection.selection import Selection
from .options import Asked, incomplete, options_of, selections_of
from .printing import echo


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK[:LABEL]")
@click.argument("directory", metavar="DIR")
@click.option("--official", type=click.Choice(["ssl", "sl"]), help="Into DIR/{task}_analysis or DIR/{task}_vit.")
@click.option("--reading", **options_of(Selection, "reading")["reading"])
@incomplete
def export(store: str, task: str, directory: str, official: str | None, reading: str, incomplete: bool) -> None:
    """DIR then holds over_zero.pt, classes.txt, features.pt and gts.pt, as the paper's code names them."""
    from ..analysis.published.files import write_published
    from ..analysis.published.paper import official_folder
    from ..analysis.selection.labellings import only

    asked = Asked(stores=(store,), tasks=(task,), selections=selections_of(), incomplete=incomplete)
    labelling = only(asked.labellings())
    ds, label = labelling.ds, labelling.label
    folder = Path(directory) / official_folder(labelling.name, official) if official else Path(directory)
    p = ds.otoscope.probability(label, reading=reading).compute()
    codes = ds.otoscope.codes(label) if "clip" in ds.dims else None
    for path in write_published(folder, p, ds.get("embedding"), codes):
        echo(path)
    if "embedding" not in ds:
        echo("no features.pt: this task keeps no embedding; extract with --keep embedding", err=True)


@click.command("import")
@click.argument("directory", metavar="DIR")
@click.argument("output", metavar="FILE")
def import_(directory: str, output: str) -> None:
    """DIR holds over_zero.pt and classes.txt, or LAPE's files; FILE ends in .parquet or .csv.

    `table`, `figure`, `neurons` and `compare` take FILE, or DIR itself, in the place of a STORE. FILE's name is the
    task's, its labelling is called "class".
    """
    from ..analysis.published.files import read_published
    from ..analysis.tables import probability_table, write_table
    from ..store.frames import ENDINGS

    if Path(output).suffix.lower() not in ENDINGS:
        raise ValueError(f"FILE is {output}; expected a name ending in {', '.join(ENDINGS)}, such as esc50.parquet")
    p = read_published(directory)["probability"]
    write_table(probability_table(p), output)
    sizes = ", ".join(f"{size} {dim}" for dim, size in p.sizes.items())
    echo(f"{output}: {sizes}")
