"""Labelled clips: those of a task that states and latents are asked about, and which of them test what is learnt.

Goal: whoever asks states, neurons and latents asks the same clips, in the same parts, and no singer is on both sides.
Conventions: clips are in the order of their names, so that the order of a manifest changes nothing, to the last bit.
Groups are what clips have in common, as their singer; a clip without one is a group of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis import accessor  # noqa: F401  registers ds.otoscope
from ..analysis.conditions import clips_where
from ..analysis.probe.splits import SPLIT_COLUMNS, Splits, draw_folds, make_splits
from ..analysis.selection.labellings import grouping_columns, task_of
from ..messages import quoted
from ..store.provenance import digest_of
from ..store.reader import open_store
from ..store.stored_task import StoredTask
from .stored_values import Floats, Positions, finished_task, state_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """The clips of a task that have a category, and their splits."""

    name: str
    """As in "vocalset:technique"."""
    source: StoredTask
    at: Positions
    """(clip): the position of each in the task's plan."""
    codes: NDArray[np.int64]
    """(clip) into `categories`."""
    categories: tuple[str, ...]
    splits: Splits
    parted: str
    """How the clips are parted, in words."""
    seed: int
    """Of all that is drawn."""

    def __str__(self) -> str:
        groups = len(set(self.splits.groups.tolist()))
        return f"{self.name}: {len(self.codes)} clips in {groups} groups, {self.parted}"

    @property
    def base(self) -> str:
        """Digest of the task's identity."""
        return digest_of(self.source.record.identity.to_json())

    def state(self, state: int) -> Floats:
        """A hidden state of the clips (clip, width)."""
        return state_of(self.source, state, self.at)


def find_labelled(
    url: str,
    labelling: str,
    *,
    group: str = "",
    splits: str = "",
    folds: int | None = None,
    where: Sequence[str] = (),
    seed: int = 0,
) -> Labelled:
    """The clips of a labelling, "task:label", parted into training and test clips.

    splits: a label column of splits or folds, which are then honoured. Else, with `group`, folds are drawn by whole
    groups; without it those of the column split, or fold, are honoured, and where there is none folds are drawn by the
    column speaker, or another one that says which clips belong together, or clip by clip.
    group: a label column: no line divides the clips of one of its values. folds: how many are drawn [5, or as many as
    there are groups]. where: conditions on clips, as of `analysis.clips_where`. seed: draws folds and validation
    clips, and all that is drawn later.
    Raises LookupError for a task, column or value that does not exist; ValueError for a task that is not finished, for
    fewer than two categories, groups or folds, and for a group on both sides of a line.
    """
    task, _, label = labelling.partition(":")
    if not task or not label:
        raise ValueError(f"found the labelling {quoted(labelling)}; expected TASK:LABEL, as vocalset:technique")
    source = StoredTask.at(url, task)
    ds, here = task_of(open_store(url), url, task), str(source)
    columns = ds.otoscope.labels
    for column in (group, splits):
        if column and column not in columns:
            known = ", ".join(columns) or "none"
            raise LookupError(f"{here} has no label column {quoted(column)}; its columns: {known}")
    codes = ds.otoscope.codes(label)
    finished_task(source)
    counted = (codes.values >= 0) & clips_where(ds, where)
    found = np.unique(codes.values[counted])
    if len(found) < 2:
        raise ValueError(f"{here} has clips of {len(found)} categories of {label}; expected at least 2 to tell apart")
    categories = tuple(str(codes.attrs["categories"][code]) for code in found)
    every = ds["clip"].values.astype(str)
    at = np.array(sorted(np.flatnonzero(counted).tolist(), key=every.tolist().__getitem__), np.intp)
    names, own = every[at].tolist(), np.searchsorted(found, codes.values[at]).astype(np.int64)

    def of(column: str) -> list[str]:
        return [str(value) for value in ds.otoscope.label(column).values[at]]

    grouping = [name for name in grouping_columns(label, columns) if name not in (group, splits)]
    column = splits or ("" if group else next((name for name in SPLIT_COLUMNS if name in columns), ""))
    apart = group or ("" if column else next(iter(grouping), ""))
    groups = of(apart) if apart else None
    if column:
        parts = of(column)
        parted = f"the parts of {column}" + f", none of which divides a {apart}" * bool(apart)
    else:
        parts = draw_folds(own, names, groups or [""] * len(names), folds, seed)
        parted = f"{len(set(parts))} folds by {apart or 'clip: no column tells which clips belong together'}"
    try:
        made = make_splits(parts, own, names, seed, categories, [of(name) for name in grouping], groups)
    except ValueError as error:
        raise ValueError(f"{here}: {error}") from error
    takes_part = (made.train | made.valid).any(axis=0) | (made.test_fold >= 0)
    kept = np.flatnonzero(takes_part)
    of_clips: dict[str, Any] = {
        "train": made.train[:, kept], "valid": made.valid[:, kept], "test_fold": made.test_fold[kept],
        "groups": made.groups[kept],
    }  # fmt: skip
    return Labelled(
        name=labelling, source=source, at=ds["position"].values[at[kept]].astype(np.intp), codes=own[kept],
        categories=categories, splits=replace(made, **of_clips), parted=parted, seed=seed,
    )  # fmt: skip
