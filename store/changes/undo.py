"""The undo log: label columns as they were, while a change rewrites them.

Goal: codes and categories are two objects and cannot be replaced at one instant; so whoever is about to rewrite columns
first writes what they were beside the lock, and who reads them meanwhile, to compare or to append, reads that.
Conventions: TASK/undo.STATE holds {column: {categories, codes}} as JSON, deflated; it goes with the lock on its state.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import zarr
from zarr.abc.store import Store

from ..group import array_of, values_of
from ..labels import LABEL_PREFIX, decode, encode
from ..objects import get, put_new
from .lock import undo_key


def read_columns(group: zarr.Group, state: str, names: Iterable[str]) -> dict[str, list[str] | None]:
    """Label columns of a task in a state, one string per clip; None for one that is damaged."""
    found: dict[str, list[str] | None] = {}
    for name in names:
        try:
            found[name] = read_column(group, name)
        except ValueError:
            found[name] = None
    # Read last: it was written before the others.
    data = get(group.store, undo_key(group.path, state))
    logged = {} if data is None else json.loads(zlib.decompress(data))
    for name in found.keys() & logged.keys():
        found[name] = list(decode(np.array(logged[name]["codes"], dtype="i4"), logged[name]["categories"]))
    return found


def read_column(group: zarr.Group, name: str) -> list[str]:
    """One label column as it is stored. Raises ValueError where it is damaged."""
    categories, codes = array_of(group, LABEL_PREFIX + name).attrs["categories"], values_of(group, LABEL_PREFIX + name)
    if not isinstance(categories, list) or ((codes < -1) | (codes >= len(categories))).any():
        raise ValueError(f"{group.path}/{LABEL_PREFIX}{name} is damaged: it has codes without a category")
    return list(decode(codes, [str(category) for category in categories]))


def write_undo_log(store: Store, task: str, state: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Write columns as they are before they are rewritten; who helps with the same change finds them there."""
    logged = {}
    for name, column in columns.items():
        codes, categories = encode(column)
        logged[name] = {"categories": categories, "codes": codes.tolist()}
    put_new(store, undo_key(task, state), zlib.compress(json.dumps(logged).encode(), level=1))
