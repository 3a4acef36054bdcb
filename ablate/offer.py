"""Offer: what may be asked of stores by name, and the id of each request.

Goal: everything in a request is a name that is looked up here before anything is computed; no path and no URL in it is
ever opened.
Conventions: stores are shown as they were when this was made. Ids are digests of the request and of all in the stores
that it reads, so that equal ids mean equal results, whoever computes them.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property, lru_cache

import numpy as np
import xarray as xr

from ..analysis.probe.splits import splits_column
from ..analysis.selection.labellings import Labelling, check_where, grouping_columns
from ..analysis.selection.selection import Selection
from ..analysis.selection.sets import offered, quoted
from ..store.neurons import NeuronSet
from ..store.provenance import TaskRecord, digest_of
from .request import Request
from .study import OpenStore, select_on, selecting_clips

FORMAT = 4  # raised when the same request would give another result
MAX_SELECTIONS = 64  # kept


class Offer(OpenStore):
    """The tasks of some stores, and what was asked about them so far.

    Raises what opening a store raises, ValueError where two have a task of the same name.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.url, self._store_of = ", ".join(urls), dict[str, OpenStore]()
        for store in map(OpenStore, urls):
            for task in store.tree.children:
                if task in self._store_of:
                    raise ValueError(f"two of the stores have a task {task}; expected other names: leave one store out")
                self._store_of[task] = store
        self._one_at_a_time = threading.Lock()
        self.categories, self.digest = cache(self._categories), cache(self._digest)
        self._offered = lru_cache(MAX_SELECTIONS)(self._sets)

    def task(self, task: str) -> xr.DataTree:
        """A task. Raises LookupError naming those that exist."""
        return self.store_of(task).tree.children[task]

    def record(self, task: str) -> TaskRecord:
        """What its store says of a task. Raises as `task`."""
        return self.store_of(task).record(task)

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """Label columns of each task."""
        return {task: list(self.task(task).to_dataset().otoscope.labels) for task in sorted(self._store_of)}

    def labelling(self, task: str, label: str) -> Labelling:
        """Raises LookupError naming the tasks or labels that exist."""
        store = self.store_of(task)
        if label not in self.labels[task]:
            raise LookupError(f"no label {label!r} in task {task}; expected one of {', '.join(self.labels[task])}")
        return store.labelling(task, label)

    def sets(self, task: str, label: str, selection: Selection) -> dict[str, int]:
        """Names of the sets that the selection of a labelling offers, and how many neurons each has.

        Raises LookupError for names, ValueError where nothing can be selected.
        """
        with self._one_at_a_time:
            return self._offered(task, label, selection)

    def check(self, request: Request) -> None:
        """Raise LookupError for names that do not exist, ValueError for a set of a file and neurons out of range."""
        named = request.named_set
        if named.kind == "file":
            raise ValueError("a set from a file was asked for; expected neurons by name or by hand: no file is opened")
        wanted = [(each.task or request.task, each.label or request.label, each.name) for each in named.categories]
        for task, label, name in [*wanted, (request.task, request.label, request.category)]:
            known = self.categories(task, label)
            if name and name not in known:
                exist = ", ".join(map(quoted, known))
                raise LookupError(f"no category {name!r} in {task}:{label}; expected one of {exist}")
        if named.kind == "hand":
            widths = [width for _, width in self.record(request.task).identity.sites]
            NeuronSet(pairs=named.pairs, name=named.text).check(widths)
        for selected in {each[:2] for each in wanted}:  # a name may be there thousands of times
            for conditions in (request.selection.where, request.selection.confirm):
                check_where(self.labelling(*selected), conditions)

    def id_of(self, request: Request) -> str:
        """The id of a request, 64 hexadecimal digits: of itself and of all it reads. Raises LookupError for names."""
        selected = {(each.task or request.task, each.label or request.label) for each in request.named_set.categories}
        read = {(task, column) for task, _ in selected for column in request.selection.columns}
        read |= selected | set(self._labellings(request))
        digests = {f"{task}:{label}": self.digest(task, label) for task, label in sorted(read)}
        asked = replace(request, side=request.evidence, set=request.named_set.text).to_json()
        return digest_of([FORMAT, asked, digests])

    def probe_of(self, request: Request) -> str:
        """A name for the probe that a request needs."""
        read = [self.digest(*name) for name in self._labellings(request)]
        return digest_of([FORMAT, request.label, read, request.probe, request.probe_seed])[:32]

    def store_of(self, task: str) -> OpenStore:
        """The store that a task is in. Raises as `task`."""
        if task not in self._store_of:
            raise LookupError(f"no task {task!r}; expected one of {', '.join(sorted(self._store_of))}")
        return self._store_of[task]

    def _labellings(self, request: Request) -> list[tuple[str, str]]:
        """Task and label of what the probe of a request tells apart, of its splits or folds, and of groups of clips."""
        labels = self.labels[request.task]
        read = request.label, splits_column(labels, request.splits or None), *grouping_columns(request.label, labels)
        return [(request.task, label) for label in read]

    def _categories(self, task: str, label: str) -> dict[str, int]:
        """Clips of each category of a labelling. Raises as `labelling` does."""
        codes = self.labelling(task, label).ds.otoscope.codes(label)
        counts = np.bincount(codes.values[codes.values >= 0], minlength=len(codes.attrs["categories"]))
        return dict(zip(map(str, codes.attrs["categories"]), counts.tolist(), strict=True))

    def _digest(self, task: str, label: str) -> str:
        """Digest of all that results read of a labelling: identity, plan, clips, audio, categories."""
        ds, record = self.labelling(task, label).ds, self.record(task)
        names = ds.otoscope.label(label).values.tolist()
        audio = ds["audio_digest"].compute(scheduler="synchronous").values.tolist()
        return digest_of(
            [record.identity.to_json(), record.plan.to_json(), ds["position"].values.tolist(), names, audio]
        )

    def _sets(self, task: str, label: str, selection: Selection) -> dict[str, int]:
        labelling = self.labelling(task, label)
        _, clips = selecting_clips(selection.clips, labelling.ds, label)
        return offered(select_on(labelling, selection, clips)[0].selection["member"])
