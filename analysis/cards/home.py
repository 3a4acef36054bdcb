"""What a store holds: its tasks, how far they are, and per labelling what was found."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ...store.schema import FAILED
from ..accessor import GIVEN
from ..probe.splits import SPLIT_COLUMNS
from ..selection.labellings import analysed_labels, command_of
from .labelling import LabellingStatistics


@dataclass(frozen=True, kw_only=True)
class TaskOverview:
    """A task at a glance; reads no activations."""

    task: str
    encoder: str
    n_clips: int
    """Clips that were extracted."""
    failed: dict[str, int]
    """Failed clips by reason, most first."""
    n_pending: int
    labels: tuple[str, ...]
    """Labellings with at least two categories, groupings left out as everywhere; by name they can still be asked."""
    left_out: dict[str, str]
    """Label columns that are not among them, each with why."""
    n_layers: int
    n_neurons: int
    """Neurons that exist, of all layers."""
    remedy: str
    """What to do next where nothing can be shown: the command that goes on; "" where something can."""


def task_overview(ds: xr.Dataset, task: str) -> TaskOverview:
    """A task at a glance.

    ds: as `otoscope.open(url, failed="keep")` or `otoscope.open(url)` shows it, or published probabilities. With failed
    clips hidden their reasons are not known: `failed` then counts them under "".
    """
    if "clip" not in ds.dims:
        return _published(ds, task)
    n_pending, n_clips = int(ds.attrs.get("n_pending", 0)), int(ds.otoscope.counted.values.sum())
    failed: dict[str, int] = {"": n} if (n := int(ds.attrs.get("n_failed", 0))) else {}
    if "status" in ds and "reason" in ds:
        reasons = ds["reason"].values[ds["status"].values == FAILED]
        failed = dict(Counter(map(str, reasons)).most_common())
    shown, others = [], {}
    taken = analysed_labels(ds)
    for name in ds.otoscope.labels:
        n = len(ds.otoscope.categories(name))
        if name in taken and n > 1:
            shown.append(name)
        elif name in taken:
            others[name] = f"{n} category with clips" if n == 1 else "no category with clips"
        else:
            others[name] = "a split or folds" if name in SPLIT_COLUMNS else "says which clips belong together"
    exists = ds["neuron_valid"].values if "neuron_valid" in ds else np.ones((ds.sizes["layer"], ds.sizes["neuron"]))
    remedy = ""
    if not n_clips:
        remedy = f"no clip was extracted: run {command_of(ds)}" if n_pending else "no clip could be extracted: see "
        remedy += " again" if n_pending else "`otoscope status --failures`"
    elif n_pending:
        remedy = f"{n_pending} clips are pending: run {command_of(ds)} again"
    elif not shown:
        remedy = "no label column has two categories with clips: add one with `otoscope label`"
    return TaskOverview(
        task=task,
        encoder=str(ds.attrs.get("encoder", "")),
        n_clips=n_clips,
        failed=failed,
        n_pending=n_pending,
        labels=tuple(shown),
        left_out=others,
        n_layers=ds.sizes["layer"],
        n_neurons=int(exists.sum()),
        remedy=remedy,
    )


def _published(ds: xr.Dataset, task: str) -> TaskOverview:
    p = ds["probability"]
    return TaskOverview(
        task=task, encoder=str(ds.attrs.get("encoder", "")), n_clips=0, failed={}, n_pending=0, labels=(),
        left_out={GIVEN: "probabilities made elsewhere, without clips"}, n_layers=p.sizes["layer"],
        n_neurons=int(p.notnull().any("category").sum()),
        remedy="probabilities made elsewhere have no clips to show: see `otoscope table` and `otoscope figure`",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class SpecificCounts:
    """Class-specific neurons of a labelling."""

    layers: NDArray[np.int64]
    """Numbers (layer)."""
    by_layer: NDArray[np.int64]
    """Neurons that are specific for some category (layer)."""
    by_category: NDArray[np.int64]
    """Neurons specific for it (category)."""
    cells: NDArray[np.int64]
    """(layer, category)."""
    nothing: str
    """Why there are none, and the command to try; ""."""


def specific_counts(statistics: LabellingStatistics) -> SpecificCounts:
    """Class-specific neurons by layer and category."""
    member = statistics.member
    return SpecificCounts(
        layers=statistics.layers,
        by_layer=np.count_nonzero(member.any(axis=2), axis=1),
        by_category=np.count_nonzero(member, axis=(0, 1)),
        cells=np.count_nonzero(member, axis=1),
        nothing=statistics.nothing,
    )


def neurons_frame(statistics: LabellingStatistics, neurons: NDArray[np.int64] | None = None) -> pd.DataFrame:
    """A row per neuron: layer, neuron, aape, normalised, rank, rate, top (category of the highest P), p (that P),
    categories (those it is specific for, joined by "; "). "" and NaN for a neuron that never fires.

    neurons: rows (layer number, neuron), as of `find_neurons`; the class-specific ones by default. In their order.
    """
    pairs = statistics.specific if neurons is None else neurons
    at = statistics.positions(pairs)
    p = np.nan_to_num(statistics.p[at], nan=-1)
    best = np.argmax(p, axis=1) if len(p) else np.zeros(0, int)
    highest = p[np.arange(len(p)), best]
    names = np.array([*statistics.categories, ""], object)
    specific = ["; ".join(names[:-1][row]) for row in statistics.member[at]]
    return pd.DataFrame(
        {
            "layer": pairs[:, 0],
            "neuron": pairs[:, 1],
            **{name: getattr(statistics, name)[at] for name in ("aape", "normalised", "rank", "rate")},
            "top": names[np.where(highest > 0, best, -1)],
            "p": np.where(highest >= 0, highest, np.nan),
            "categories": specific,
        }
    )
