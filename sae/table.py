"""Table: all SAEs of a folder, with every setting and measure.

Conventions: a row per SAE, by name; columns are named as in `sae.json`, parts of parts joined by a dot.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..extract.models.dictionary import ABOUT, read_dictionary

SECTIONS = ("config", "source", "layout", "measures")
"""Of `sae.json`, in this order; those that the last part of a column's name says already are left out of it."""
BARE = ("config", "layout", "measures")


def sae_table(folder: str | Path) -> pd.DataFrame:
    """One row per SAE in a folder, or of it: what it is, every setting that it was trained by, every measure.

    Columns: name, state, latents, width, k, rows, digest; settings by the names of options; source.train.n and so on;
    epoch, the best one, from 1; train.mse, held_out.fve and so on, as of `measures.Measures`.
    Raises FileNotFoundError where there is none, ValueError for a damaged one.
    """
    rows: list[dict[str, Any]] = []
    for path in dictionary_folders(folder):
        own = read_dictionary(path)
        row: dict[str, Any] = {
            "name": own.name, "state": own.state, "latents": own.n_latents, "width": own.width, "k": own.k,
            "rows": own.rows, "digest": own.digest,
        }  # fmt: skip
        for section in SECTIONS:
            if section == "measures" and "epoch" in own.about:
                row["epoch"] = own.about["epoch"]
            cells = _cells(own.about.get(section, {}), "" if section in BARE else f"{section}.")
            row |= {name: value for name, value in cells if name not in row}
        rows.append(row)
    return pd.DataFrame(rows)


def dictionary_folders(folder: str | Path) -> list[Path]:
    """The SAEs in a folder, by name, or itself where it is one. Raises FileNotFoundError where there is none."""
    if (Path(folder) / ABOUT).is_file():
        return [Path(folder)]
    found = sorted(path.parent for path in Path(folder).glob(f"*/{ABOUT}"))
    if not found:
        raise FileNotFoundError(f"no SAE in {folder}; expected folders as `otoscope sae train -o {folder}` makes them")
    return found


def _cells(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Column and value of each part."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _cells(value, f"{prefix}{name}.")
    else:
        yield prefix.rstrip("."), " ".join(map(str, values)) if isinstance(values, list) else values
