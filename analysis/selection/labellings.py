"""Labellings of stores: found by name, and their neurons selected.

Goal: what commands, service and quickstart have in common, from a store's URL to computed selections.
Conventions: a labelling is named "task:label". Columns of splits or folds (`SPLIT_COLUMNS`), and columns that say which
clips belong together (`GROUPINGS`), are taken only by name, because nobody means to select neurons for the 1,200
sources of ESC-50.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import xarray as xr

from ...store.reader import open_store
from .. import accessor  # noqa: F401  registers ds.otoscope
from ..conditions import clips_where
from ..probe.splits import SPLIT_COLUMNS
from ..published.given import is_given, open_given, published_store
from ..published.paper import PERCENTILES
from .check import (
    NothingSelected,
    answers_of,
    cautions_on,
    check_categories,
    check_selection,
    relative_remedy,
    remedy_for,
    select,
)
from .selection import Selection, Selections

GROUPINGS = ("speaker", "source", "tone", "instrument", "audio", "wording", "replicate", "sentence")
"""As the data sets' manifests call them; see `extract/audio/corpora`."""


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
class SelectedLabelling(Labelling):
    """A labelling with its class-specific neurons, computed."""

    how: Selection
    selection: xr.Dataset
    """As of `class_specific`."""

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the selection, a line each; computed when it is asked for, since remedies are tried."""
        remedy = partial(relative_remedy, self.ds, self.label, self.how)
        lines = (*answers_of(self.selection, self.how), *cautions_on(self.selection, self.how, remedy))
        return tuple(f"{self.name}: {line}" for line in lines)


def notes_on(found: Iterable[SelectedLabelling]) -> list[str]:
    """The notes of selections, each once, with the names of their stores."""
    return list(dict.fromkeys(f"{each.store} {note}" for each in found for note in each.notes))


def labellings(trees: Mapping[str, xr.DataTree], wanted: Sequence[str] = ()) -> Iterator[Labelling]:
    """The labellings named ("task" for all of its labels, or "task:label"), in every store; none named is all.

    A grouping counts as a label of a task that has no other.
    Raises LookupError for a task or label that does not exist, naming those that do.
    """
    for store, tree in trees.items():
        for name in wanted or sorted(tree.children):
            task, _, label = name.partition(":")
            ds = task_of(tree, store, task)
            labels = [label] if label else analysed_labels(ds)
            if not labels:
                raise LookupError(f"task {task} of {store} has no label column; add one with `otoscope label`")
            for each in labels:
                if not label and len(ds.otoscope.categories(each)) < 2 and not wanted:
                    continue  # nothing to compare, and nobody named it
                yield Labelling(store=store, task=task, label=each, ds=ds)


def task_of(tree: xr.DataTree, store: str, task: str) -> xr.Dataset:
    """A task of a store. Raises LookupError naming the tasks that exist."""
    if task not in tree.children:
        known = ", ".join(sorted(tree.children)) or "none"
        raise LookupError(f"no task {task!r} in {store}; it holds {known}")
    return tree.children[task].to_dataset()


def left_out(trees: Mapping[str, xr.DataTree], wanted: Sequence[str] = ()) -> list[str]:
    """The groupings, as "task:label", that `labellings` leaves out for the same names, each once."""
    whole_tasks = {name for name in wanted if ":" not in name}
    skipped = [
        f"{task}:{label}"
        for tree in trees.values()
        for task, node in tree.children.items()
        if not wanted or task in whole_tasks
        for label in node.to_dataset().otoscope.labels
        if label in GROUPINGS and label not in analysed_labels(node.to_dataset()) and f"{task}:{label}" not in wanted
    ]
    return sorted(set(skipped))


def analysed_labels(ds: xr.Dataset) -> list[str]:
    """Label columns that are categories to analyse."""
    columns = [name for name in ds.otoscope.labels if name not in SPLIT_COLUMNS]
    return [name for name in columns if name not in GROUPINGS] or columns


def grouping_columns(label: str, labels: Iterable[str]) -> list[str]:
    """Of a task's label columns those by which a probe's training clips may belong together."""
    return [name for name in GROUPINGS if name in labels and name != label]


def check_where(labelling: Labelling, conditions: Sequence[str]) -> None:
    """Raise LookupError, which names the task, for conditions that cannot be asked of it, or that no clip satisfies."""
    try:
        if conditions:
            clips_where(labelling.ds, conditions)
    except LookupError as error:
        raise LookupError(f"{labelling.store} task {labelling.task}: {error}") from error


def command_of(ds: xr.Dataset | xr.DataTree) -> str:
    """What makes a task, and goes on with it: one of latents of clips, as a rule, is made of stored states."""
    return "`otoscope sae encode` (or `extract`)" if ds.attrs.get("rows") == "clip" else "`otoscope extract`"


def check_finished(about: xr.Dataset | xr.DataTree, store: str, task: str, incomplete: bool) -> None:
    """Raise ValueError for a task that is not finished, unless it is to go by what is committed."""
    pending = about.attrs["n_pending"]
    if pending and not incomplete:
        raise ValueError(
            f"{store} task {task} is not finished, {pending} clips are pending; expected none: run its "
            f"{command_of(about)} again, or give --incomplete to go by what is committed"
        )


def select_neurons(labelling: Labelling, how: Selection) -> SelectedLabelling:
    """Compute a selection, from the clips that the labelling's data set has, whatever `how.clips` says.

    Raises NothingSelected with a remedy where it cannot mean anything, and as `check_where` does.
    """
    name, ds = f"{labelling.store} {labelling.name}", labelling.ds
    if not ds.sizes.get("clip", 1):
        if n_failed := ds.attrs.get("n_failed", 0):
            raise NothingSelected(
                f"{name} has no clip that could be extracted, {n_failed} failed; expected some: `otoscope "
                "status --failures` says why they did"
            )
        raise NothingSelected(f"{name} has no committed clip yet; expected some: run its {command_of(ds)} again")
    check_where(labelling, how.where)
    check_categories(ds.otoscope.categories(labelling.label, how), name, how)
    found = select(ds, labelling.label, how)
    check_selection(found, name, how, partial(remedy_for, ds, labelling.label, how))
    return SelectedLabelling(**vars(labelling), how=how, selection=found)


def select_each(
    asked: Sequence[Labelling], selections: Selections
) -> tuple[list[SelectedLabelling], list[NothingSelected]]:
    """The labellings that something is selected from, and why the others are left out.

    Raises NothingSelected where all are; a task that a condition cannot be asked of is an error, as in
    `select_neurons`.
    """
    found, left_out = [], []
    for labelling in asked:
        try:
            found.append(select_neurons(labelling, selections.of(labelling.task)))
        except NothingSelected as error:
            left_out.append(error)
    if left_out and not found:
        raise left_out[0]
    return found, left_out


def select_against(
    found: Sequence[SelectedLabelling],
    stores: Sequence[str],
    against: str | None,
    selections: Selections,
    incomplete: bool,
) -> dict[str, SelectedLabelling]:
    """By store, the selection that those found there are held against; empty if `against` names none.

    Raises as `against_labellings`, `check_one_encoder` and `select_neurons` do.
    """
    others = {} if against is None else against_labellings(stores, against, incomplete)
    for one in found if others else ():
        check_one_encoder(one, others[one.store])
    names = dict.fromkeys(one.store for one in found if others)
    return {name: select_neurons(others[name], selections.of(others[name].task)) for name in names}


def open_stores(stores: Sequence[str], failed: str = "hide") -> dict[str, xr.DataTree]:
    """Stores by a short name: the folder's, or the whole path where two are alike.

    failed: as for `otoscope.open`.
    Published folders of one encoder, such as esc50_analysis and gtzan_analysis, are one store, "analysis".
    Raises what opening a store, or published files in the place of one, raises; ValueError for a task given twice.
    """
    short = {store: Path(store.rstrip("/")).stem for store in stores}
    opened: dict[str, xr.DataTree] = {}
    for store, name in short.items():
        tree = open_given(store) if is_given(store) else open_store(store, failed)
        whole = published_store(store) if is_given(store) else None
        if whole is None:
            opened[store if list(short.values()).count(name) > 1 else name] = tree
            continue
        tasks = {name: node.to_dataset() for name, node in opened.get(whole, xr.DataTree()).children.items()}
        for task, node in tree.children.items():
            if task in tasks:
                raise ValueError(f"{store} is {task} of {whole} once more; expected every task once: name one of them")
            tasks[task] = node.to_dataset()
        opened[whole] = xr.DataTree.from_dict(tasks)
    return opened


def open_labellings(
    stores: Sequence[str], tasks: Sequence[str], selections: Selections, incomplete: bool, against: str | None = None
) -> tuple[list[Labelling], list[str]]:
    """The labellings named, or all, of finished tasks; and the groupings left out, as "task:label".

    incomplete: whether tasks that are not finished go by what is committed. selections, against: whose percentiles of
    single tasks, but the paper's, must be for these tasks or that of the labelling `against`.
    Raises ValueError for a task that is not finished, LookupError for names that do not exist.
    """
    trees = open_stores(stores)
    wanted = {name.partition(":")[0] for name in tasks}
    for store, tree in trees.items():
        for task in wanted & set(tree.children) or tree.children:
            check_finished(tree.children[task], store, task, incomplete)
    found = list(labellings(trees, tasks))
    if not found:
        raise LookupError(
            f"{', '.join(stores)} hold no labelling with at least 2 categories; add one with `otoscope label`"
        )
    named = {labelling.task for labelling in found} | {(against or "").partition(":")[0]}
    for task, percentile in selections.percentiles.items():
        if task not in named and percentile != PERCENTILES.get(task):
            raise LookupError(f"--percentile {task}=... names no task that was asked for; give it as one of --task")
    return found, left_out(trees, tasks)


def against_labellings(stores: Sequence[str], against: str, incomplete: bool) -> dict[str, Labelling]:
    """The labelling of a name in each store. Raises as `open_labellings`."""
    found, _ = open_labellings(stores, (against,), Selections(), incomplete)
    return {store: only([x for x in found if x.store == store]) for store in dict.fromkeys(x.store for x in found)}


def check_one_encoder(one: Labelling, *others: Labelling) -> None:
    """Raise ValueError where labellings are of tasks of unlike encoders: a neuron of one is none of the other's."""
    for other in others:
        (a, our_sites), (b, their_sites) = ((x.ds.attrs, x.ds.get("site")) for x in (one, other))
        same_sites = our_sites is None or their_sites is None or our_sites.equals(their_sites)
        if a.get("weights") != b.get("weights") or not same_sites:
            raise ValueError(
                f"{one.store} task {one.task} is of the encoder {a.get('encoder')}, task {other.task} of "
                f"{b.get('encoder')} with other weights or sites; expected tasks of one encoder, as neurons of two are "
                "not the same ones: name another task"
            )


def only(labellings: Sequence[Labelling]) -> Labelling:
    """The one labelling there is. Raises ValueError for none or several."""
    if len(labellings) != 1:
        names = ", ".join(f"{x.store} {x.name}" for x in labellings)
        raise ValueError(f"found {len(labellings)} labellings ({names}); expected one: name it as TASK:LABEL")
    return labellings[0]
