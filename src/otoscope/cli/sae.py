"""The commands of dictionaries: train, table."""

from typing import TYPE_CHECKING, Any

import click

from . import options
from .printing import echo, log_progress

if TYPE_CHECKING:
    from ..sae.config import Sweep
    from .options import Workers


def several(kind: Any, metavar: str, help: str) -> dict[str, Any]:
    """The attributes of an option that takes one value or more, A,B."""

    def values(_ctx: click.Context, param: click.Parameter, text: str | None) -> list[Any] | None:
        parts = options.several(_ctx, param, text)
        if parts is None:
            return None
        try:
            return [kind(part) for part in parts]
        except ValueError:
            raise ValueError(f"{param.opts[0]} is {text!r}; expected {metavar}") from None

    return {"callback": values, "metavar": metavar, "help": help}


def flag(name: str, help: str) -> options.Decorator:
    """An option that is on, off, or left to the recipe."""
    return click.option(f"--{name}/--no-{name}", default=None, help=help)


def sweep_from(config: str | None, **given: Any) -> "Sweep":
    """The options as a sweep; those that are given come before those of the file."""
    from ..sae.config import read_config, sweep_of

    own = {name: value for name, value in given.items() if value is not None and value != ()}
    return sweep_of({**(read_config(config) if config else {}), **own})


sweeping = options.gathered(
    "sweep", sweep_from,
    task={"metavar": "T", "help": "Task whose hidden states are used (extract --keep hidden). Required."},
    state=several(int, "N,...", "Hidden states, 0 the input of the first transformer layer. Required."),
    sparsity=several(str, "S,...", "Share of latents that are 0 for any clip [0.95]."),
    seed=several(int, "N,...", "Draw the first weights [0]."),
    control=several(str, "NAME,...", "What to compare with: untrained; random-decoder, which stays so [none]."),
    recipe=several(str, "NAME,...", "centred, or published: exactly as printed [centred]."),
    latents=several(int, "N,...", "Number of latents [2048]."),
    centre=flag("centre", "Take the training rows' mean from every row."),
    scale=flag("scale", "Divide rows by one number."),
    init=several(str, "NAME,...", "transposed: the encoder begins as the decoder's transpose; independent."),
    unit_norm=flag("unit-norm", "Keep the decoder's latents at norm 1."),
    auxk=flag("auxk", "Train dead latents on what the reconstruction leaves."),
    batch_topk=flag("batch-topk", "Keep the largest codes of a batch, not of each row."),
    lr=several(float, "R,...", "Learning rate of Adam [the recipe's]."),
    decay=several(str, "S,...", "Share of the steps, the last, in which that falls to 0 [the recipe's]."),
    batch=several(int, "N,...", "Rows per step [the recipe's]."),
    epochs=several(int, "N,...", "Passes over the rows [the recipe's]."),
    group={"metavar": "COLUMN", "help": "Hold out whole groups of clips, such as those of a singer."},
    held_out={
        "type": float, "callback": options.within(1e-6, 1 - 1e-6), "metavar": "SHARE",
        "help": "Share of the clips that is held out [0.2].",
    },
    where={"multiple": True, "metavar": "COLUMN=VALUE", "help": "Use clips with this label only; also !=."},
    order_seed={
        "type": int, "callback": options.within(0, 2**31 - 1), "metavar": "N",
        "help": "Draws the clips held out and the order of rows [0].",
    },
    memory={
        "metavar": "BYTES",
        "help": "Room for rows, as 4G; what does not fit is read anew each epoch [a quarter of the machine's].",
    },
    threads={
        "type": int, "callback": options.within(1, 2**16), "metavar": "N",
        "help": "Of the arithmetic; they decide over last bits [1].",
    },
    device={"metavar": "D", "help": "cpu, cuda, cuda:1, ... [cuda where there is one]."},
    config={"metavar": "FILE", "help": "These options as YAML or JSON, or an sae.json; those given here come first."},
)  # fmt: skip
"""What is trained, as `sweep`."""


@click.command()
@click.argument("store")
@sweeping
@options.on_workers
@options.of_saes("DIR", "A folder per SAE in it, on a disk that all workers share.")
def train(store: str, sweep: "Sweep", output: str, workers: "Workers") -> None:
    """Several values of an option are a sweep: SAEs of one state are trained side by side on the same rows.

    What is finished in DIR is not done again. Killed, the same command goes on and ends in the same files.
    """
    from ..cluster.progress import Progress
    from ..sae.sweep import run_sweep

    log_progress()
    with workers() as executor, Progress(0, unit="epochs", workers=executor.workers) as shown:

        def passed(done: int, total: int) -> None:
            shown.total = total
            shown.advance(done - shown.done)

        names = run_sweep(store, sweep, output, executor=executor, progress=passed)
    echo(f"{output}: {len(names)} SAE{'s' * (len(names) != 1)}, {', '.join(names)}")


@click.command()
@click.argument("saes", metavar="SAES")
@options.output
def table(saes: str, output: str | None) -> None:
    """One row per SAE in the folder SAES, which may be that of a single one."""
    from ..analysis.tables import put_table
    from ..sae.table import sae_table

    echo(put_table(sae_table(saes), output))
