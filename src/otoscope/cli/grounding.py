"""The command that asks whether neurons respond to the sound or to the words: grounding."""

import click

from ..analysis.kinds import BLIND
from ..analysis.selection.selection import Selection
from .options import Decorator, check_not_given, incomplete, options_of, output, record_of
from .printing import echo

ENTROPY = ("reading", "threshold", "permutations")  # fields of a selection that AAPE alone needs
OPTIONS = options_of(Selection, "where", "seed", *ENTROPY)


def column(name: str, default: str | None, help: str) -> Decorator:
    """An option that names a label column."""
    return click.option(f"--{name}", default=default, metavar="COLUMN", show_default=default is not None, help=help)


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="TASK", help="Of a crossed corpus: every sound with every text.")
@column("audio-class", "audio_class", "The sound's category.")
@column("text-class", "text_class", "The text's category.")
@column("audio", "audio", "Which sound it is.")
@column("wording", "wording", "Which of its category's texts it is.")
@column("replicate", None, "Number that matching sounds of several categories share [replicate, if it is there].")
@click.option(
    "--blind", type=click.Choice(BLIND),
    help="What no layer can see by construction, as text after the token that is read [told by each layer's data].",
)  # fmt: skip
@click.option("--aape", is_flag=True, help="Also by AAPE, with labels shuffled by sound and by wording.")
@click.option("--where", **OPTIONS["where"])
@click.option("--reading", **OPTIONS["reading"])
@click.option("--threshold", **OPTIONS["threshold"])
@click.option("--permutations", **OPTIONS["permutations"])
@click.option("--seed", **OPTIONS["seed"])
@incomplete
@output
def grounding(
    store: str, task: str, audio_class: str, text_class: str, audio: str, wording: str, replicate: str | None,
    blind: str | None, aape: bool, incomplete: bool, output: str | None, **how: object,
) -> None:  # fmt: skip
    """One row per neuron: GC = d_A / (d_A + d_T), effects d of sound and text corrected for the noise of both.

    GC is empty unless an effect passes at a share of 5 % of false findings. state: audio, text (the 95 % interval of GC
    is above, below 1/2), both (around it), interaction, none, or construction: the layer cannot see one of the two.
    smallest_d_A, smallest_d_T: effects that this corpus finds 8 times in 10. See docs/grounding.md.
    """
    from ..analysis.crossed.table import grounding_table
    from ..analysis.selection.labellings import check_finished, open_stores, task_of
    from ..analysis.tables import put_table

    if not aape:
        check_not_given(ENTROPY, "without --aape, which alone uses it")
    selection = record_of(Selection, {**how, "rule": "lape"})
    ((name, tree),) = open_stores((store,), failed="keep").items()
    ds = task_of(tree, name, task)
    check_finished(ds, name, task, incomplete)
    found = ds.otoscope.grounding(
        audio_class, text_class, selection, aape=aape, blind=blind, audio=audio, wording=wording, replicate=replicate
    )
    for note in found.attrs["notes"]:
        echo(f"{name} {task}: {note}", err=True)
    echo(put_table(grounding_table(found, ds.get("neuron_valid")), output))
