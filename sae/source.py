"""Source: the clips of a task whose stored hidden states dictionaries are trained on, and those held out.

Goal: what can be wrong with a store, its columns and its clips is found before anything is trained.
Conventions: a clip is held out or trained on by its name, or its group's, and the order seed alone, so that the order
of a manifest changes nothing. Positions are places of clips in the task's plan, ascending.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..analysis import accessor  # noqa: F401  registers ds.otoscope
from ..analysis.conditions import clips_where
from ..messages import quoted
from ..store.group import open_root, open_task
from ..store.provenance import digest_of
from ..store.reader import open_store
from ..store.state_rows import StateRows, state_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A task whose hidden states are kept, its clips shared out."""

    where: str
    """Store and task, for messages."""
    hidden: xr.DataArray
    base: str
    """Digest of the task's identity."""
    train: NDArray[np.intp]
    """Positions of the clips that are trained on."""
    held_out: NDArray[np.intp]
    """Positions of the others."""
    about: dict[str, Any]
    """What `sae.json` says of the rows: how many clips of which names are on either side, and of which groups."""

    def state(self, state: int) -> StateRows:
        """The rows of a hidden state. Raises LookupError for one that is not there."""
        try:
            return state_rows(self.hidden, state)
        except LookupError as error:
            raise LookupError(f"{self.where} has {error}") from error


def find_source(
    url: str, task: str, *, order_seed: int = 0, held_out: float = 0.2, group: str = "", where: Sequence[str] = ()
) -> Source:
    """The clips of a task that were extracted, a share of them held out.

    held_out: share of the clips, above 0 and below 1; of groups as many are held out as it takes to reach it.
    group: a label column: the clips of one of its values are all held out, or none; those without a value are a group.
    where: conditions that all clips must satisfy, as of `analysis.clips_where`.
    Raises LookupError for a task, column or value that does not exist, or a task without hidden states, ValueError for
    one that is not finished, for fewer than two clips or groups, and for a share out of range.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"the share held out is {held_out}; expected more than 0 and less than 1")
    record = open_task(open_root(url, mode="r"), task)[1]
    ds, here = open_store(url)[task].to_dataset(), f"{url} task {task}"
    if "hidden" not in ds:
        raise LookupError(f"{here} keeps no hidden states; expected them: extract it anew with --keep hidden")
    if ds.attrs["n_pending"]:
        raise ValueError(
            f"{here} is not finished, {ds.attrs['n_pending']} clips are pending; expected none: run its `otoscope "
            "extract` again"
        )
    of = np.flatnonzero(clips_where(ds, where))
    names = ds["clip"].values[of].astype(str).tolist()
    if group and group not in ds.otoscope.labels:
        known = ", ".join(ds.otoscope.labels) or "none"
        raise LookupError(f"{here} has no label column {quoted(group)} to group clips by; its columns: {known}")
    values = ds.otoscope.label(group).values[of].astype(str).tolist() if group else names
    kinds, what = sorted(set(values)), f"groups by {group}" if group else "clips"
    if len(kinds) < 2:
        raise ValueError(
            f"{here} has {len(kinds)} {what}; expected two at least, one to train on and one to hold out: "
            + ("choose another column" if group else "extract more")
        )
    kinds.sort(key=lambda kind: hashlib.sha256(f"{order_seed}\n{kind}".encode()).digest())
    n_of = Counter(values)
    sizes = np.cumsum([n_of[kind] for kind in kinds])
    n = int(np.searchsorted(sizes, held_out * len(names))) + 1 if group else round(held_out * len(names))
    kept_out = set(kinds[: min(max(n, 1), len(kinds) - 1)])
    out = np.array([value in kept_out for value in values])
    position = ds["position"].values[of].astype(np.intp)
    sides = {"train": ~out, "held_out": out}
    about: dict[str, Any] = {
        side: {"n": int(mask.sum()), "digest": digest_of([name for name, own in zip(names, mask, strict=True) if own])}
        for side, mask in sides.items()
    }
    if group:
        about["held_out"] |= {"group": group, "n_groups": len(kept_out)}
    return Source(
        where=here,
        # An array as it was opened, of all clips: rows are read as whole objects.
        hidden=ds["hidden"].reset_coords(drop=True),
        base=digest_of(record.identity.to_json()),
        train=position[~out],
        held_out=position[out],
        about=about,
    )
