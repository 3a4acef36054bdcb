"""The commands that say what dictionaries are worth: sae stability, sae disentangle."""

from pathlib import Path

import click

from . import options
from .printing import echo, log_progress
from .sae_probe import LATENTS


@click.command()
@click.argument("saes", metavar="SAES")
@click.option("--per-latent", is_flag=True, help="One row per latent that fires often enough, with its match.")
@click.option(
    "--min-rate", type=float, default=1e-3, callback=options.within(0, 1), metavar="SHARE", show_default=True,
    help="Of training rows, in which a latent must fire; 0 for any that ever does.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=0, callback=options.SEED, metavar="N", show_default=True,
    help="Draw the random directions.",
)  # fmt: skip
@options.output
def stability(saes: str, per_latent: bool, min_rate: float, seed: int, output: str | None) -> None:
    """Every two SAEs in the folder that are of one state, by the latents that fire often enough in training rows.

    pw_mcc is the mean cosine of the best one-to-one match, best_a and best_b that of each latent's nearest; chance_...
    what as many random directions come to.
    """
    from ..analysis.tables import put_table
    from ..sae.stability import latent_stability, sae_stability

    how = {"min_rate": min_rate}
    table = latent_stability(saes, **how) if per_latent else sae_stability(saes, **how, seed=seed)
    echo(put_table(table, output))


@click.command(epilog=LATENTS)
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
@options.known_saes
@options.output
def disentangle(
    store: str, latents: tuple[str, ...], factors: Path, task: str, group: str, states: tuple[str, ...] | None,
    folds: int, saes: tuple[str, ...], output: str | None,
) -> None:  # fmt: skip
    """One row per factor, of hidden states and all LATENTS of them, those of controls too.

    Beside them the neurons before each state, where means are kept, and its principal components in signed halves.
    `otoscope figure` draws the table.

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
    table = sae_disentangle(store, latents, factors, task=task, group=group, states=numbers, folds=folds, saes=saes)
    echo(put_table(table, output))
