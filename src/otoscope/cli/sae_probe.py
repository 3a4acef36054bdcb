"""The commands that ask what latents are worth: sae probe, sae compare."""

from typing import TYPE_CHECKING, Any

import click

from . import options
from .printing import echo

if TYPE_CHECKING:
    from ..sae.labelled import Labelled

LATENTS = "LATENTS is a store that `sae encode` made, or one of its tasks and layers: STORE:TASK@LAYER,..."


def labelled_from(task: str, store: str, **how: Any) -> "Labelled":
    """The options of `labelling` as labelled clips."""
    from ..sae.labelled import find_labelled

    return find_labelled(store, task, **how)


labelling = options.gathered(
    "labelled", labelled_from, store=click.argument("store"),
    task={"required": True, "metavar": "TASK:LABEL", "help": "Whose states (extract --keep hidden), and of what."},
    group={
        "default": "", "metavar": "COLUMN",
        "help": "No line divides the clips of one value, as of a singer; folds are drawn by it, unless --splits.",
    },
    splits={"default": "", "metavar": "COLUMN", "help": "Splits or folds to go by [split, else fold, unless --group]."},
    folds={
        "type": int, "callback": options.within(2, 1000), "metavar": "N",
        "help": "Folds that are drawn [5, or as many as there are groups].",
    },
    where={"multiple": True, "metavar": "COLUMN=VALUE", "help": "Use clips with this label only; also !=."},
    seed={
        "type": int, "default": 0, "show_default": True, "callback": options.within(0, 2**31 - 1), "metavar": "N",
        "help": "Draws folds, and all else that is drawn.",
    },
)  # fmt: skip
"""Labelled clips, as `labelled`."""


@click.command(epilog=LATENTS)
@labelling
@click.argument("latents", nargs=-1, metavar="[LATENTS]...")
@click.option(
    "--recipe", type=click.Choice(["logistic", "published"]), default="logistic", show_default=True,
    help="published: the linear layer of the paper, as printed.",
)  # fmt: skip
@options.known_saes
@options.output
def probe(
    labelled: "Labelled",
    latents: tuple[str, ...],
    recipe: str,
    saes: tuple[str, ...],
    output: str | None,
) -> None:
    """One row per hidden state, and per layer of latents: accuracy of a linear probe on clips that are tested.

    Beside latents the neurons before their state, where means are kept, and its principal components in signed halves.
    `otoscope figure probes` draws the table.

    Intervals, of 95 %, draw groups of tested clips anew. Chance is to answer the most frequent category.
    """
    from ..analysis.tables import put_table
    from ..sae.probes import probe_states
    from ..sae.stored_latents import find_latents, read_saes

    layers = find_latents(latents, labelled.source, read_saes(saes))
    found = probe_states(labelled, layers, recipe=recipe)
    for note in (str(labelled), *found.notes):
        echo(note, err=True)
    echo(put_table(found.table, output))


@click.command(epilog=LATENTS)
@labelling
@click.argument("latents", nargs=-1, required=True, metavar="LATENTS...")
@click.option(
    "--control", "controls", multiple=True, metavar="NAME=LATENTS",
    help="Latents to compare with, as of an untrained SAE; several of a NAME are its seeds.",
)  # fmt: skip
@click.option(
    "--unit-draws", type=int, default=3, show_default=True, callback=options.within(1, 1000), metavar="N",
    help="How often as many units of each kind are drawn as the smallest has.",
)  # fmt: skip
@options.output
def compare(
    labelled: "Labelled",
    latents: tuple[str, ...],
    controls: tuple[str, ...],
    unit_draws: int,
    output: str | None,
) -> None:
    """One row per kind of units of a state: latents, controls, neurons, single dimensions, principal components.

    Equal numbers of units, active in as many clips. aape: median AAPE / ln C; effective: exp of AAPE, in categories;
    serving: share of units that are active more in a category than chance makes any; categories that such a one serves,
    and coverage, the share of them that any serves; k1, k2, k5, k10: balanced accuracy of probes of so many units,
    chosen on training clips. Intervals, of 95 %, draw groups of clips and SAEs anew. The answer is on standard error.
    """
    from ..analysis.tables import put_table
    from ..sae.compare import compare_units
    from ..sae.stored_latents import find_latents

    named: dict[str, list[str]] = {}
    for text in controls:
        name, _, of = text.partition("=")
        if not name.strip() or not of:
            raise ValueError(f"--control is {text!r}; expected NAME=LATENTS, as untrained=STORE")
        named.setdefault(name.strip(), []).append(of)
    found = compare_units(
        labelled, find_latents(latents, labelled.source),
        {name: find_latents(texts, labelled.source) for name, texts in named.items()},
        unit_draws=unit_draws,
    )  # fmt: skip
    for line in (str(labelled), *found.answers):
        echo(line, err=True)
    echo(put_table(found.table, output))
