"""The command that makes latents of stored states neurons of a store: sae encode."""

import click

from ..store.provenance import MEAN_DTYPES
from .options import of_saes
from .printing import echo, log_progress


@click.command()
@click.argument("store")
@click.option("--task", required=True, metavar="NAME", help="Whose hidden states are encoded (extract --keep hidden).")
@click.option(
    "--sae", "saes", required=True, multiple=True, metavar="DIR", help="Folder of an SAE of clips; a layer for each."
)
@of_saes("LATENTS", "Store to write to; may be STORE itself.")
@click.option("--as", "out_task", metavar="TASK", help="Name of the task of latents [that of --task].")
@click.option("--mean-dtype", type=click.Choice(MEAN_DTYPES), help="Stored type of the codes [the source's].")
def encode(
    store: str, task: str, saes: tuple[str, ...], output: str, out_task: str | None, mean_dtype: str | None
) -> None:
    """A layer per SAE, a neuron per latent; every asking command takes them.

    Neither encoder nor audio is needed. Run it again to resume, or to append what the source gained. Labels are carried
    over once, when the task is made; later ones are added to it by `otoscope label`.
    """
    from ..sae.encoding import encode as encode_task

    log_progress()
    report = encode_task(store, task, saes, output, out_task=out_task, mean_dtype=mean_dtype)
    if report.other_labels:
        echo(
            f"note: {', '.join(report.other_labels)} of {store} task {task} came later, or changed: take them over by "
            f"`otoscope label {output} --task {report.task} TABLE --replace`",
            err=True,
        )
    layers = ", ".join(map(str, report.latents))
    echo(
        f"{output} task {report.task}: {report.n_clips} clips, {report.n_ok} ok, {report.n_failed} failed, "
        f"{report.n_encoded} encoded now; layers of {layers} latents"
    )
