"""Label columns: strings on disk, names of categories and codes in memory.

Goal: one order of categories for every label column, the same whether a store was grown or built at once.
Conventions: a column is one string per clip, "" where the clip has no label; codes are int32 in the order of
`categories`, -1 for no label. On disk each generation of a column is an array of its own.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

LABEL_PREFIX = "label_"  # of the arrays, so that a column may bear a name that an array has
INTEGER = re.compile(r"[+-]?\d{1,300}", re.ASCII)


def next_arrays(columns: Iterable[str], present: Mapping[str, str]) -> dict[str, str]:
    """Names of the arrays of the columns' next generations: label_X, label_X.2, ...; none that is in use.

    present: name of the array of each column that there is. Nothing else is looked at, so that a change that was killed
    is staged the same when it begins again.
    """
    found: dict[str, str] = {}
    for column in sorted(columns):
        first = LABEL_PREFIX + column
        former = present.get(column, "").removeprefix(first)
        after = int(former[1:] or 1) if column in present else 0
        names = (first if n == 1 else f"{first}.{n}" for n in itertools.count(after + 1))
        found[column] = next(name for name in names if name not in {*present.values(), *found.values()})
    return found


def encode(column: Sequence[str] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes int32 (clip) and categories of one column; "" and missing values have code -1.

    Categories are sorted as numbers when every one is an integer literal ("2" before "10"), else by code point.
    """
    codes, found = pd.factorize(np.asarray(column, dtype=object))
    names = [str(name) for name in found]
    numeric = all(INTEGER.fullmatch(name) for name in names if name)
    order = sorted(
        (i for i, name in enumerate(names) if name), key=lambda i: (int(names[i]) if numeric else 0, names[i])
    )
    code_of = np.full(len(names) + 1, -1, dtype="<i4")  # the last is that of missing values
    code_of[order] = np.arange(len(order))
    return code_of[codes], [names[i] for i in order]


def decode(codes: np.ndarray, categories: Sequence[str], missing: object = "") -> np.ndarray:
    """Column of category names (clip), `missing` where the code is -1."""
    names: np.ndarray = np.array([*categories, missing], dtype=object)
    column: np.ndarray = names[codes]
    return column
