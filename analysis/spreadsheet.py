"""Text in the cells of CSV files, so that no spreadsheet takes it for a formula.

Goal: a category or a clip named `=HYPERLINK(...)` by somebody else stays text in whatever opens the table.
Conventions: text that would begin a formula gets one "'" before it, as spreadsheets write text, and so does text that
could be mistaken for such a cell; what looks like a number does not. `undefused(defused(text)) == text` for any text.
"""

import csv
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

# What follows any number of "'": a sign that begins a formula, in full width too, or white space that is passed over.
FORMULA = re.compile(r"('*)(?![+-]?\d+(\.\d*)?([eE][+-]?\d+)?\Z)[=+\-@\t\r\n＝＋－＠]", re.ASCII)


def defused(text: str) -> str:
    """Text as a cell of CSV."""
    return f"'{text}" if FORMULA.match(text) else text


def undefused(cell: str) -> str:
    """The text of a cell that `defused` wrote."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV, its text defused, in cells and in names of columns; numbers as they are."""
    found = frame.rename(columns=lambda name: defused(name) if isinstance(name, str) else name)
    names = [str(name) for name in found.columns]
    returns = any("\r" in name for name in names)
    for i, dtype in enumerate(frame.dtypes):
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)):
            cells = [defused(cell) if isinstance(cell, str) else cell for cell in frame.iloc[:, i]]
            found.isetitem(i, np.array(cells, object))
            returns = returns or any(isinstance(cell, str) and "\r" in cell for cell in cells)
    # Else the module csv would leave a carriage return without quotes, at which others begin a row.
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    return found.to_csv(index=False, lineterminator="\n", quoting=quoting)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `csv_text`."""
    path.write_text(csv_text(frame), encoding="utf-8", newline="")
