"""The command that measures acoustic features of clips: sae factors."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..files import check_target
from ..messages import visible
from . import options
from .printing import echo

if TYPE_CHECKING:
    from ..extract.audio.corpus import Corpus

MAX_NAMED = 10  # failed clips that are listed


def _parquet(_ctx: click.Context, _param: click.Parameter, path: str) -> Path:
    """The callback of --output: of the kinds of tables Parquet alone keeps what the numbers were measured with."""
    return check_target(path, [".parquet"])


@click.command()
@options.of_corpus(None)
@options.unit_sec("Measure the first S seconds, as extract was told to [the manifest's, else native].")
@options.max_file_mb
@options.max_clip_mb
@click.option("-o", "--output", required=True, callback=_parquet, metavar="F.parquet", help="Table to write.")
def factors(
    corpus: "Corpus", unit_sec: float | str | None, max_file_mb: float, max_clip_mb: float, output: Path
) -> None:
    """The 88 functionals of eGeMAPSv02 by opensmile, of what the encoder was given but at each file's own rate.

    A row per clip, with the digest of its file; one that is damaged, absent or shorter than 0.06 s has the reason
    instead. Needs the extra sae: opensmile is licensed for research, not for commercial use.
    """
    from ..analysis.tables import write_table
    from ..cluster.progress import Progress
    from ..extract.audio.decoding import Limits
    from ..sae.factors import factors_of, opensmile_module

    limits = Limits.of_megabytes(max_file_mb, max_clip_mb)
    opensmile_module()  # where it is absent, say that alone
    with Progress(len(corpus)) as shown:
        table = factors_of(corpus, unit_sec=unit_sec, limits=limits, progress=shown.advance)
    write_table(table, output)
    failed = table[table["reason"] != ""]
    for name, reason in failed[["clip", "reason"]].head(MAX_NAMED).itertuples(index=False):
        echo(visible(f"failed: {name}: {reason}"), err=True)
    if len(failed) > MAX_NAMED:
        echo(f"... and {len(failed) - MAX_NAMED} more: see the column reason", err=True)
    rates = table.attrs["sample_rates"]
    if len(rates) > 1:
        counts = ", ".join(f"{rate} Hz ({n})" for rate, n in rates.items())
        echo(f"note: clips at {counts}; features depend on the sample rate", err=True)
    n_features = table.shape[1] - 3
    echo(f"{output}: {n_features} factors of {len(table) - len(failed)} clips, {len(failed)} failed")
