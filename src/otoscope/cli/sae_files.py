"""The commands for SAEs of other libraries: sae export, sae import."""

from pathlib import Path

import click

from ..sae.formats import LIBRARIES
from .options import of_saes, within
from .printing import echo

DESCRIPTION = (
    "saelens: sae_weights.safetensors; sparsify: sae.safetensors; dictionary_learning: ae.pt; published: sae.pt."
)


@click.command("export", epilog=DESCRIPTION)
@click.argument("sae", metavar="SAE")
@click.option("--to", "library", required=True, type=click.Choice(LIBRARIES), help="The library that is to read it.")
@click.option("-o", "--output", required=True, metavar="DIR", help="A new folder.")
def export(sae: str, library: str, output: str) -> None:
    """Only what the library holds exactly: a threshold goes to saelens, or where all latents have one to
    dictionary_learning too; a centre to all but published.
    """
    from ..extract.models.dictionary import read_dictionary
    from ..sae.formats.files import export_dictionary

    dictionary = read_dictionary(sae)
    export_dictionary(dictionary, library, output)
    echo(f"{output}: {dictionary.n_latents} latents of state {dictionary.state}, as {library} keeps them")


@click.command("import", epilog=DESCRIPTION)
@click.argument("directory", metavar="DIR")
@click.option("--from", "library", required=True, type=click.Choice(LIBRARIES), help="The library that wrote DIR.")
@click.option(
    "--state", type=int, callback=within(0), metavar="N",
    help="The hidden state that it is of, 0 for the input of the first layer [as DIR says, or its name layer_N].",
)  # fmt: skip
@click.option(
    "--rows", type=click.Choice(["clip", "frame"]),
    help="Whether it was trained on clips' means or on frames [as DIR says; of layer_N frame].",
)  # fmt: skip
@click.option("--k", type=int, callback=within(1), metavar="K", help="Codes of a row; of published files alone.")
@click.option("--sae", type=int, callback=within(0), metavar="J", help="Which of the SAEs of a published file.")
@click.option(
    "--per-row", is_flag=True,
    help="Of a BatchTopK that has no threshold: keep the k largest of each row, as it does with one row.",
)  # fmt: skip
@click.option("--base", metavar="STORE", help="Check that it fits the states of this store, and note whose they are.")
@click.option("--task", metavar="TASK", help="Of --base.")
@of_saes("SAE", "A new folder.")
def import_(
    directory: str,
    library: str,
    state: int | None,
    rows: str | None,
    k: int | None,
    sae: int | None,
    per_row: bool,
    base: str | None,
    task: str | None,
    output: str,
) -> None:
    """Weights only, and only where they are exactly an SAE of raw states: no normalisation, layer norm, skip
    connection or other architecture.

    DIR with folders layer_N, as AudioSAE publishes them, gives an SAE for each: N counts transformer layers from 1,
    and is the state. Of published, DIR may be the file itself.
    """
    from ..sae.formats.files import import_dictionaries, write_imported
    from ..sae.formats.foreign import Given
    from ..store.changes.tasks import stored_origin

    if (base is None) != (task is None):
        raise ValueError(
            f"--{'task' if base is None else 'base'} was given alone; expected --base and --task, or neither"
        )
    origin = None if base is None or task is None else stored_origin(base, task)
    given = Given(state=state, rows=rows, k=k, sae=sae, per_row=per_row)
    found = import_dictionaries(Path(directory), library, given, origin)
    for path, dictionary in zip(write_imported(found, output), found, strict=True):
        echo(f"{path}: {dictionary.n_latents} latents of state {dictionary.state}, {dictionary.rows} rows")
