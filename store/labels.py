"""Label columns: category names to small integers and back.

Goal: one coding of categories for every label column, the same whether a store was grown or built at once.
Conventions: a column is one string per clip, "" where the clip has no label; codes are int32 in the order of
`categories`, -1 for no label.
"""

import re
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

LABEL_PREFIX = "label_"  # of the stored variables, so that a column may bear any name
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


def label_columns(variables: Iterable[Hashable]) -> list[str]:
    """Names of the label columns among variables' names, in their order."""
    return [str(name).removeprefix(LABEL_PREFIX) for name in variables if str(name).startswith(LABEL_PREFIX)]


def encode(column: Sequence[str] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes int32 (clip) and categories of one column.

    Categories are sorted as numbers when every one is an integer literal ("2" before "10"), else by code point.
    """
    values, inverse = np.unique(np.asarray(column, dtype=object), return_inverse=True)
    names = [str(value) for value in values]
    numeric = all(INTEGER.fullmatch(name) for name in names if name)
    order = sorted(
        (i for i, name in enumerate(names) if name), key=lambda i: (int(names[i]) if numeric else 0, names[i])
    )
    code_of = np.full(len(names), -1, dtype="<i4")
    code_of[order] = np.arange(len(order))
    return code_of[inverse.reshape(-1)], [names[i] for i in order]


def decode(codes: np.ndarray, categories: Sequence[str]) -> np.ndarray:
    """Column of category names (clip), "" where the code is -1."""
    names: np.ndarray = np.array([*categories, ""], dtype=object)
    column: np.ndarray = names[codes]
    return column
