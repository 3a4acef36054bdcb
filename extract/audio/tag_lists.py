"""Label cells that look like lists of tags: "a,b" is one category, which whoever wrote it hardly meant.

Goal: a corpus with several labels per clip is noticed before it is extracted; plain text such as "Bark, dog" is not.
Conventions: a cell with a comma, semicolon or bar is taken for a list where one of its parts is a whole cell of the
column; where each of its parts is also a part of another cell of the column; or where a comma stands between two
letters without a space, as in no text.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd

from ...messages import quoted

SEPARATORS = (",", ";", "|")
MAX_CATEGORIES = 100_000  # different cells up to which a column is looked at: with more it names things
TIGHT = re.compile(r"[^\W\d_],[^\W\d_]")


def list_warnings(labels: pd.DataFrame) -> list[str]:
    """One line for each label column that seems to hold lists of tags: a cell, why it seems so, and what to do.

    labels: one text column per label column, as of `Corpus`.
    """
    found = []
    for column in labels:
        cells = labels[column].unique()
        if len(cells) > MAX_CATEGORIES:
            continue
        example = next(filter(None, (_list_among(np.asarray(cells, object), each) for each in SEPARATORS)), None)
        if example is not None:
            cell, reason = example
            found.append(
                f"label column {str(column)!r}: {quoted(cell)} is one category, and looks like a list of several "
                f"({reason}); expected one label per clip and column: make a column of each tag, with yes or no in it, "
                "or keep the one tag that is meant (`otoscope label` also adds columns later)"
            )
    return found


def _list_among(cells: np.ndarray, separator: str) -> tuple[str, str] | None:
    """The first cell that looks like a list, and why; None where there is none."""
    every = set(cells)
    parts = {cell: {part.strip() for part in cell.split(separator)} - {""} for cell in cells if separator in cell}
    cells_with = Counter(part for of_cell in parts.values() for part in of_cell)
    for cell, of_cell in parts.items():
        whole = sorted(of_cell & every - {cell})
        if whole:
            return cell, f"{quoted(whole[0])} is another category"
        if len(of_cell) > 1 and all(cells_with[part] > 1 for part in of_cell):
            return cell, "each of its parts is in another cell, too"
        if separator == "," and TIGHT.search(cell):
            return cell, "no space comes after the comma"
    return None
