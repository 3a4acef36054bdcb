"""Survey: selections for many labellings of many stores, under one set of options.

Goal: what commands and the quickstart have in common, from opened stores to computed selections.
Conventions: a labelling is named "task:label". Columns that divide clips (`DIVISIONS`) or say which belong together
(`GROUPINGS`) are surveyed only by name, because nobody means to select neurons for the 1,200 sources of ESC-50.
Contents: `Question`, `Answer`, `labellings`, `left_out`, `answer`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import xarray as xr

from .. import accessor  # noqa: F401  registers ds.otoscope
from ..published.paper import paper_percentile
from ..tables import require_selection
from .rules import class_specific

DIVISIONS = ("split", "fold")
GROUPINGS = ("speaker", "source", "tone", "instrument")
"""As the data sets' manifests call them; see `extract/corpora`."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """How neurons are to be selected."""

    percentile: float = 1.0
    """Share of neurons of lowest AAPE, in percent."""
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """Percentiles of single tasks."""
    paper: bool = False
    """The paper's percentiles, where `percentiles` does not name the task."""
    rule: str = "lape"
    reading: str = "clip"
    threshold: float | None = None
    """On the mean activation, with the reading "clip"."""

    def percentile_of(self, task: str) -> float:
        """Share of neurons selected for a task, in percent."""
        return self.percentiles.get(task, paper_percentile(task) if self.paper else self.percentile)


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """One label column of one task of one store."""

    store: str
    task: str
    label: str
    ds: xr.Dataset

    @property
    def name(self) -> str:
        """As in "cremad:gender"."""
        return f"{self.task}:{self.label}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The selection for one labelling, computed."""

    labelling: Labelling
    probability: xr.DataArray
    """(layer, neuron, category)."""
    selection: xr.Dataset
    """As of `class_specific`."""


def labellings(trees: Mapping[str, xr.DataTree], wanted: Sequence[str] = ()) -> Iterator[Labelling]:
    """The labellings named ("task" for all of its labels, or "task:label"), in every store; none named is all.

    A grouping counts as a label of a task that has no other.
    Raises LookupError for a task or label that does not exist, naming those that do.
    """
    for store, tree in trees.items():
        for name in wanted or sorted(tree.children):
            task, _, label = name.partition(":")
            if task not in tree.children:
                known = ", ".join(sorted(tree.children)) or "none"
                raise LookupError(f"no task {task!r} in {store}; it holds {known}")
            ds = tree.children[task].to_dataset()
            labels = [label] if label else _labels(ds)
            if not labels:
                raise LookupError(f"task {task} of {store} has no label column; add one with `otoscope label`")
            for each in labels:
                if not label and len(ds.otoscope.categories(each)) < 2 and not wanted:
                    continue  # nothing to compare, and nobody asked for it by name
                yield Labelling(store=store, task=task, label=each, ds=ds)


def left_out(trees: Mapping[str, xr.DataTree], wanted: Sequence[str] = ()) -> list[str]:
    """The groupings, as "task:label", that `labellings` leaves out of the same question, each once."""
    asked = {name for name in wanted if ":" not in name}
    skipped = [
        f"{task}:{label}"
        for tree in trees.values()
        for task, node in tree.children.items()
        if not wanted or task in asked
        for label in node.to_dataset().otoscope.labels
        if label in GROUPINGS and label not in _labels(node.to_dataset()) and f"{task}:{label}" not in wanted
    ]
    return sorted(set(skipped))


def _labels(ds: xr.Dataset) -> list[str]:
    """Label columns that are categories to analyse."""
    columns = [name for name in ds.otoscope.labels if name not in DIVISIONS]
    return [name for name in columns if name not in GROUPINGS] or columns


def answer(labelling: Labelling, question: Question) -> Answer:
    """Compute a selection. Raises ValueError with a remedy where it cannot mean anything."""
    name = f"{labelling.store} {labelling.name}"
    ds = labelling.ds
    if not ds.sizes.get("clip", 1):
        raise ValueError(f"{name} has no committed clip yet; expected some: run its `otoscope extract` again")
    p = ds.otoscope.probability(labelling.label, question.reading, question.threshold).compute()
    selection = class_specific(p, question.percentile_of(labelling.task), question.rule).compute()
    require_selection(selection, name, p.attrs.get("reading", question.reading))
    return Answer(labelling=labelling, probability=p, selection=selection)
