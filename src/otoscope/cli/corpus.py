"""The commands `corpus build` and `corpus list`: from a public data set's download to a manifest."""

from typing import Any

import click

# As in extract.corpora.build, repeated so that --help imports nothing heavy; a test compares them.
DATA_SETS = ("esc50", "gise51", "voxforge", "voxceleb1", "cremad", "gtzan", "surge", "nsynth", "vocalset")


@click.group()
def corpus() -> None:
    """Manifests of public data sets, from their downloads as they are unpacked."""


@corpus.command(epilog=f"Data sets: {' '.join(DATA_SETS)}. What each needs: otoscope corpus list")
@click.argument("name", metavar="NAME")
@click.argument("root", metavar="ROOT")
@click.option("-o", "--output", required=True, metavar="M.csv", help="Manifest to write.")
@click.option(
    "--subset", type=click.Choice(["all", "paper"]), default="all", show_default=True,
    help="paper: as many clips as the paper used, drawn by a rule of ours.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="With --subset paper: which clips are drawn.")
@click.option(
    "--splits", metavar="FILE", help="Published splits, if not in the download: a table, or GTZAN's folder of lists."
)
@click.option("--listed", is_flag=True, help="Keep only the clips that have a split (GTZAN: the fault-filtered ones).")
@click.option("--partial", is_flag=True, help="Leave out what is absent or unknown, and say so, instead of refusing.")
@click.option("--urls", metavar="FILE", help="voxforge: the list of archives [ROOT/voxforge_urls.txt].")
@click.option("--lowest", type=int, metavar="N", help="surge: the number in the file names of the lowest key, A0.")
def build(name: str, root: str, output: str, **options: Any) -> None:
    """Write the manifest of data set NAME, unpacked in ROOT."""
    from ..extract.audio.corpora import build as corpora

    built = corpora.build(name, root, output, **options)
    for note in built.notes:
        click.echo(f"note: {note}", err=True)
    labels = ", ".join(f"{label} ({count} categories)" for label, count in built.categories.items())
    click.echo(f"{built.manifest}: {built.n_clips} clips; {labels}")


@corpus.command("list")
def list_data_sets() -> None:
    """Data sets, their labels, and what the folder of each must hold."""
    from ..extract.audio.corpora.build import data_set

    for name in DATA_SETS:
        known = data_set(name)
        seconds = "native length" if known.unit_sec is None else f"{known.unit_sec:g} s"
        click.echo(f"{name}: {known.title}; {', '.join(known.labels)}; {seconds}\n    ROOT holds {known.layout}")
