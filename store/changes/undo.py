"""Label columns of a task as text, also where a writer was killed while it rewrote them.

Goal: codes and categories are two objects and cannot be replaced at one instant; so whoever is about to rewrite columns
first keeps what they were beside the claim, and who reads them meanwhile, to compare or to append, reads that.
Conventions: TASK/labels.STATE holds {column: {categories, codes}} as JSON, deflated; it goes with the claim on its
state.
Contents: `columns_of`, `read_column`, `keep_columns`.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from ..group import array_of, values_of
from ..labels import LABEL_PREFIX, decode, encode
from ..location import put_new
from .lock import kept_key


def columns_of(group: zarr.Group, state: str, names: Iterable[str]) -> dict[str, list[str] | None]:
    """Label columns of a task in a state, one string per clip; None for one that is damaged."""
    found: dict[str, list[str] | None] = {}
    for name in names:
        try:
            found[name] = read_column(group, name)
        except ValueError:
            found[name] = None
    return {**found, **_kept(group.store, group.path, state, found)}  # read last: it was written before the others


def read_column(group: zarr.Group, name: str) -> list[str]:
    """One label column as it is stored. Raises ValueError where it is damaged."""
    categories, codes = array_of(group, LABEL_PREFIX + name).attrs["categories"], values_of(group, LABEL_PREFIX + name)
    if not isinstance(categories, list) or ((codes < -1) | (codes >= len(categories))).any():
        raise ValueError(f"{group.path}/{LABEL_PREFIX}{name} is damaged: it has codes without a category")
    return list(decode(codes, [str(category) for category in categories]))


def keep_columns(store: Store, task: str, state: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Keep columns before they are rewritten; who helps with the same change finds them kept."""
    kept = {}
    for name, column in columns.items():
        codes, categories = encode(column)
        kept[name] = {"categories": categories, "codes": codes.tolist()}
    put_new(store, kept_key(task, state), zlib.compress(json.dumps(kept).encode(), level=1))


def _kept(store: Store, task: str, state: str, names: Iterable[str]) -> dict[str, list[str]]:
    data = sync(store.get(kept_key(task, state), default_buffer_prototype()))
    kept = {} if data is None else json.loads(zlib.decompress(data.to_bytes()))
    return {
        name: list(decode(np.array(kept[name]["codes"], dtype="i4"), kept[name]["categories"]))
        for name in names
        if name in kept
    }
