"""The commands that say what dictionaries are worth: sae stability, sae disentangle."""

from pathlib import Path

import click

from . import options
from .printing import echo, log_progress


@click.command()
@click.argument("saes", metavar="SAES")
@click.option("--per-latent", is_flag=True, help="One row per latent that fires, with its match.")
@click.option(
    "--seed", type=int, default=0, callback=options.SEED, metavar="N", show_default=True,
    help="Draw the random directions.",
)  # fmt: skip
@options.output
def stability(saes: str, per_latent: bool, seed: int, output: str | None) -> None:
    """Every two SAEs in the folder that are of one state, by the latents that fire in training rows.

    pw_mcc is the mean cosine of the best one-to-one match, best_a and best_b that of each latent's nearest; chance_...
    what as many random directions come to.
    """
    from ..analysis.tables import put_table
    from ..sae.stability import latent_stability, sae_stability

    table = latent_stability(saes) if per_latent else sae_stability(saes, seed=seed)
    echo(put_table(table, output))


@click.command()
@click.argument("store")
@click.argument("latents", nargs=-1, metavar="[LATENTS]...")
@click.option(
    "--factors", required=True, type=click.Path(path_type=Path), metavar="F",
    help="Factors of the clips, as sae factors writes them.",
)  # fmt: skip
@click.option("--task", required=True, metavar="T", help="Task whose hidden states the latents are made of.")
@click.option("--group", default="", metavar="COLUMN", help="Hold out whole groups of clips, such as a singer's.")
@click.option("--state", "states", callback=options.several, metavar="N,...", help="Hidden states [the latents'].")
@click.option(
    "--folds", type=int, default=5, callback=options.within(3, 1000), metavar="N", show_default=True,
    help="Parts of the clips that are held out in turn.",
)  # fmt: skip
@options.output
def disentangle(
    store: str, latents: tuple[str, ...], factors: Path, task: str, group: str, states: tuple[str, ...] | None,
    folds: int, output: str | None,
) -> None:  # fmt: skip
    """One row per factor, of hidden states and of all latents of them in the stores LATENTS; give controls as such.

    r2 is of held-out clips; codes_until counts codes until 90 % of it, effective_codes is exp(entropy of |weights|);
    both are empty where r2 does not exceed 0 by two standard errors. published_... is the published arithmetic.
    """
    from ..analysis.tables import put_table
    from ..sae.against_factors import sae_disentangle

    try:
        numbers = [int(state) for state in states or ()]
    except ValueError:
        raise ValueError(f"--state is {','.join(states or ())!r}; expected numbers of hidden states, N,...") from None
    log_progress()
    table = sae_disentangle(store, latents, factors, task=task, group=group, states=numbers, folds=folds)
    echo(put_table(table, output))
