"""Figures of tables that commands wrote, by the names under which they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ...store.frames import read_frame
from . import factors, probes

TEXTS = ("kind", "of", "digest", "control", "family", "factor", "how")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A figure of a table."""

    draw: Callable[[pd.DataFrame, str], Figure]
    columns: tuple[str, ...]
    """That the table must have, beside `how`, what it was made of."""
    command: str
    """That writes such tables."""


KINDS = {
    "probes": Kind(draw=probes.probes_figure, columns=probes.COLUMNS, command="sae probe"),
    "disentanglement": Kind(draw=factors.disentanglement_figure, columns=factors.COLUMNS, command="sae disentangle"),
    "families": Kind(draw=factors.families_figure, columns=factors.COLUMNS, command="sae disentangle"),
    "entropy": Kind(draw=factors.entropy_figure, columns=factors.COLUMNS, command="sae disentangle"),
}


def figure_of_table(kind: str, path: str, *, caption: bool = True) -> Figure:
    """A figure of the table in a CSV or Parquet file, with what it was made of below it.

    Raises FileNotFoundError where there is none, ValueError for a file that holds no such table.
    """
    what = KINDS[kind]
    made = f"expected a table as `otoscope {what.command} ... -o FILE.csv` or FILE.parquet writes it"
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; {made}")
    try:
        table = read_frame(Path(path), dtype=dict.fromkeys(TEXTS, str))
        numbers = [name for name in what.columns if name in table and name not in TEXTS]
        table[numbers] = table[numbers].apply(pd.to_numeric)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a valid table ({error}); {made}") from error
    if missing := [name for name in (*what.columns, "how") if name not in table]:
        raise ValueError(f"{path} has no column {' nor '.join(missing)}; {made}")
    if table.empty:
        raise ValueError(f"{path} has no rows; {made}")
    return what.draw(table, "; ".join(table["how"].dropna().unique()) if caption else "")
