"""Catalogue: what a service offers: one store, its encoder and its audio, chosen by whoever started it.

Goal: everything in a request is a name that is looked up here; no path and no URL in a request is ever opened.
Conventions: the store is shown as it was when it was opened, and opened again when a job finds it changed. Ids of jobs
are digests of the request and of all in the store that it reads, so that equal ids mean equal results.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..ablate.request import Request
from ..ablate.result import write_result
from ..ablate.study import OpenStore, check_encoder, look_up, run_study, select_on, selecting_clips
from ..analysis.probe.probe import Probe, load_probe, save_probe
from ..analysis.probe.splits import SPLIT_COLUMNS, splits_column
from ..analysis.selection.labellings import Labelling, check_where, grouping_columns
from ..analysis.selection.selection import Selection
from ..analysis.selection.sets import quoted
from ..cluster.executor import SerialExecutor, close
from ..extract.audio.corpus import Corpus
from ..extract.models.encoder import Encoder
from ..extract.plan import clip_table, origin_of
from ..store.neurons import NeuronSet
from ..store.provenance import Identity, digest_of
from .worker_loop import RunningJob

FORMAT = 3  # raised when the same request would give another result
MAX_SELECTIONS = 64  # kept


class Snapshot(OpenStore):
    """A store as it was when this was made, and what was asked about it so far."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._digests: dict[tuple[str, str], str] = {}
        self._categories: dict[tuple[str, str], dict[str, int]] = {}
        self._selections: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._one_at_a_time = threading.Lock()

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """Label columns of each task."""
        return {str(task): list(self.tree.children[task].to_dataset().otoscope.labels) for task in self.tree.children}

    def labelling(self, task: str, label: str) -> Labelling:
        """Raises LookupError naming the tasks or labels that exist."""
        if task not in self.labels:
            raise LookupError(f"no task {task!r}; expected one of {', '.join(sorted(self.labels))}")
        if label not in self.labels[task]:
            raise LookupError(f"no label {label!r} in task {task}; expected one of {', '.join(self.labels[task])}")
        return super().labelling(task, label)

    def categories(self, task: str, label: str) -> dict[str, int]:
        """Clips of each category of a labelling. Raises as `labelling` does."""
        if (task, label) not in self._categories:
            codes = self.labelling(task, label).ds.otoscope.codes(label)
            counts = np.bincount(codes.values[codes.values >= 0], minlength=len(codes.attrs["categories"]))
            self._categories[task, label] = dict(zip(map(str, codes.attrs["categories"]), counts.tolist(), strict=True))
        return self._categories[task, label]

    def digest(self, task: str, label: str) -> str:
        """Digest of all that results read of a labelling: identity, plan, clips, audio, categories."""
        key = task, label
        if key not in self._digests:
            ds, record = self.labelling(task, label).ds, self.record(task)
            names = ds.otoscope.label(label).values.tolist()
            audio = ds["audio_digest"].compute(scheduler="synchronous").values.tolist()
            about = [record.identity.to_json(), record.plan.to_json(), ds["position"].values.tolist()]
            self._digests[key] = digest_of([*about, names, audio])
        return self._digests[key]

    def job(self, request: Request) -> str:
        """Id of the job that a request is: of itself and of all it reads."""
        read = set(self._labellings(request))
        selected = self._selected(request)
        read |= selected | {(task, column) for task, _ in selected for column in request.selection.columns}
        digests = {f"{task}:{label}": self.digest(task, label) for task, label in sorted(read)}
        asked = replace(request, side=request.evidence, set=request.named_set.text).to_json()
        return digest_of([FORMAT, asked, digests])

    def probe(self, request: Request) -> str:
        """Name of the probe that a request needs."""
        read = [self.digest(*name) for name in self._labellings(request)]
        return digest_of([FORMAT, request.label, read, request.probe, request.probe_seed])[:32]

    def _selected(self, request: Request) -> set[tuple[str, str]]:
        """Task and label of each labelling whose neurons a request's set is named by."""
        named = request.named_set.categories
        return {(each.task or request.task, each.label or request.label) for each in named}

    def check_where(self, request: Request) -> None:
        """Raise LookupError for conditions that cannot be asked of a labelling whose neurons are selected."""
        for name in sorted(self._selected(request)):
            for conditions in (request.selection.where, request.selection.confirm):
                check_where(self.labelling(*name), conditions)

    def _labellings(self, request: Request) -> list[tuple[str, str]]:
        """Task and label of what the probe of a request tells apart, of its splits or folds, and of groups of clips."""
        labels = self.labels[request.task]
        read = request.label, splits_column(labels, request.splits or None), *grouping_columns(request.label, labels)
        return [(request.task, label) for label in read]

    def sets(self, task: str, label: str, selection: Selection) -> list[dict[str, Any]]:
        """Names of the sets that the selection of a labelling offers, and how many neurons each has.

        Raises LookupError for names, ValueError where nothing can be selected.
        """
        key = task, label, selection
        with self._one_at_a_time:
            if key not in self._selections:
                labelling = self.labelling(task, label)
                _, clips = selecting_clips(selection.clips, labelling.ds, label)
                member = select_on(labelling, selection, clips)[0].selection["member"]
                if len(self._selections) == MAX_SELECTIONS:
                    self._selections.pop(next(iter(self._selections)))
                self._selections[key] = _sets(member)
            return self._selections[key]


class Catalogue:
    """A store, its encoder, and the audio of those of its tasks that can be rerun.

    corpora: by task. probes: folder in which fitted probes are kept.
    Raises what opening the store raises, LookupError for a task that it does not have, ValueError for an encoder or a
    corpus that it was not made from.
    """

    def __init__(
        self, url: str, encoder: Encoder, corpora: Mapping[str, Corpus], *, probes: Path, device: str | None = None
    ) -> None:
        self.url, self.encoder, self.corpora, self.device = url, encoder, dict(corpora), device
        self.probe_folder = probes
        probes.mkdir(parents=True, exist_ok=True)
        self.now = Snapshot(url)
        identity_in = cache(lambda precision, *how: origin_of(encoder.at(precision), *how).identity)
        self.identities: dict[str, Identity] = {}
        for task, corpus in self.corpora.items():
            if task not in self.now.labels:
                raise LookupError(f"a corpus for task {task!r}; expected one of {', '.join(sorted(self.now.labels))}")
            record = self.now.record(task)
            stored = record.identity
            self.identities[task] = identity_in(stored.precision, stored.frames, stored.device)
            check_encoder(stored, self.identities[task])
            if not clip_table(corpus).match(record.plan):
                raise ValueError(
                    f"the corpus has other clips than task {task} of {url}; expected the manifest that the task was "
                    "extracted from"
                )

    def tasks(self) -> list[dict[str, Any]]:
        """Tasks of the store, with their label columns, and whether they can be rerun here."""
        return [
            {
                "task": task, "clips": self.now.tree.children[task].sizes["clip"], "labels": labels,
                "pending": int(self.now.tree.children[task].attrs["n_pending"]), "rerun": task in self.corpora,
            }
            for task, labels in sorted(self.now.labels.items())
        ]  # fmt: skip

    def labels(self, task: str) -> list[dict[str, Any]]:
        """Label columns of a task. Raises LookupError for one that does not exist."""
        if task not in self.now.labels:
            raise LookupError(f"no task {task!r}; expected one of {', '.join(sorted(self.now.labels))}")
        return [
            {"label": label, "categories": len(self.now.categories(task, label)), "divides": label in SPLIT_COLUMNS}
            for label in self.now.labels[task]
        ]

    def probes(self) -> list[dict[str, Any]]:
        """Probes that were fitted here: labelling, categories, heads, how."""
        found = []
        for path in sorted(self.probe_folder.glob("*.json")):
            probe = self._probe_at(path.with_suffix(""))
            if probe is not None:
                heads = probe.about.get("heads", [])
                found.append(
                    {
                        "probe": path.stem, "labelling": probe.labelling, "categories": len(probe.categories),
                        "heads": list(probe.heads), "recipe": probe.about.get("recipe", {}),
                        "valid_accuracy": [head.get("valid_accuracy") for head in heads],
                    }
                )  # fmt: skip
        return found

    def check(self, request: Request) -> str:
        """Id of the job that a request is, its names looked up.

        Raises LookupError for names that do not exist, ValueError for what cannot be done here.
        """
        now = self.now
        categories = now.categories(request.task, request.label)
        if request.task not in self.corpora:
            raise LookupError(
                f"task {request.task} has no audio here; expected one that has: {', '.join(sorted(self.corpora))}"
            )
        named = request.named_set
        if named.kind == "file":
            raise ValueError("a set from a file was asked for; expected neurons by name or by hand: no file is opened")
        if named.kind == "hand":
            widths = [width for _, width in now.record(request.task).identity.sites]
            NeuronSet(pairs=named.pairs, name=named.text).check(widths)
        wanted = [(each.task or request.task, each.label or request.label, each.name) for each in named.categories]
        if request.category:
            wanted.append((request.task, request.label, request.category))
        for task, label, name in wanted:
            known = categories if (task, label) == (request.task, request.label) else now.categories(task, label)
            if name not in known:
                exist = ", ".join(map(quoted, known))
                raise LookupError(f"no category {name!r} in {task}:{label}; expected one of {exist}")
        now.check_where(request)
        return now.job(request)

    def run(self, job: str, asked: Mapping[str, Any], target: Path, running: RunningJob) -> None:
        """Do a job and write its result: what a worker loop runs. Raises as `run_study` does."""
        request = Request.from_json(asked)
        now = Snapshot(self.url)
        if now.job(request) != job:
            self.now = now
            raise ValueError("the store is no longer as it was when this was asked; expected no change: ask again")
        executor = Stoppable()
        running.when_ended(executor.stop)
        probe_path = self.probe_folder / now.probe(request)
        known = self._probe_at(probe_path)
        study = look_up(request, now, known)
        if known is None:
            save_probe(study.probe, probe_path)
        running.progress(0, len(study.clips))
        result = run_study(
            study, self.encoder, self.corpora[request.task], executor=executor, device=self.device,
            identity=self.identities[request.task], progress=running.progress,
        )  # fmt: skip
        write_result(result, target)

    def redact(self, text: str) -> str:
        """A message without the locations that requests cannot name."""
        roots = [str(corpus.clips.root) for corpus in self.corpora.values()]
        for location, name in ((self.url, "the store"), *((root, "the audio") for root in roots)):
            text = text.replace(location, name)
        return text

    def _probe_at(self, path: Path) -> Probe | None:
        try:
            return load_probe(path)
        except (OSError, ValueError):  # not fitted yet, or being written at this moment by another process
            return None


class Stoppable(SerialExecutor):
    """The serial executor, whose worker can be told by another thread to end."""

    def __init__(self) -> None:
        self._stopped = False
        self._close: Callable[[], None] = lambda: None

    def run(self, make_worker: Any, pieces: Any) -> Any:
        """One event per piece, in order."""

        def make() -> Any:
            worker = make_worker()
            self._close = partial(close, worker)
            if self._stopped:
                self._close()
            return worker

        return super().run(make, pieces)

    def stop(self) -> None:
        """Make the piece under way end soon, by an exception."""
        self._stopped = True
        self._close()


def _sets(member: xr.DataArray) -> list[dict[str, Any]]:
    """Sets with at least one neuron, of member (layer, neuron, category)."""
    names = [quoted(str(name)) for name in member["category"].values]
    flat = member.transpose("category", "layer", "neuron").values.reshape(len(names), -1)
    alone = flat & (flat.sum(axis=0) == 1)
    common = flat.astype(np.float32) @ flat.T.astype(np.float32)  # exact up to 2^24 neurons
    found = [{"set": f"all({name})", "neurons": int(flat[i].sum())} for i, name in enumerate(names)]
    found += [{"set": f"only({name})", "neurons": int(alone[i].sum())} for i, name in enumerate(names)]
    found += [
        {"set": f"shared({names[i]},{names[j]})", "neurons": int(common[i, j])}
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    return [each for each in found if each["neurons"]]
