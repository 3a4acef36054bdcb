"""Runner: from a request to a result on disk, in the process of jobs, where nothing else uses the encoder."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...analysis.probe.probe import Probe, load_probe, save_probe
from ...cluster.executor import Executor
from ...extract.audio.manifest import read_manifest
from ...extract.models.registry import load_encoder
from ...extract.plan import clip_table, origin_of, to_device
from ..offer import Offer
from ..request import Request
from ..result import write_result
from ..study import check_encoder, look_up, run_study
from .results import Results
from .setup import Setup

PROBES = "probes"  # folder of those that were fitted


class Stale(ValueError):
    """The stores are no longer as they were when the job was asked for."""


class JobRunner:
    """Does jobs on an executor; the encoder is loaded, and compared with the stores, when this is made.

    Raises what opening stores, encoder and manifests raises, ValueError for an encoder or a corpus that a task was not
    made from.
    """

    def __init__(self, setup: Setup, executor: Executor) -> None:
        self.setup, self.executor, self.results = setup, executor, Results(setup.state / "results")
        encoder = to_device(load_encoder(setup.encoder), "cpu" if executor.remote else setup.device)
        self.encoder = setup.encoder if executor.remote else encoder  # workers elsewhere load it themselves
        self.corpora = {task: read_manifest(*given) for task, given in setup.corpora.items()}
        identity_in = cache(lambda precision, *how: origin_of(encoder.at(precision), *how).identity)
        self.identities, offer = {}, Offer(setup.stores)
        for task, corpus in self.corpora.items():
            record = offer.record(task)
            stored = record.identity
            self.identities[task] = identity_in(stored.precision, stored.frames, stored.device)
            check_encoder(stored, self.identities[task])
            if not clip_table(corpus).match(record.plan):
                expected = "expected the manifest that the task was extracted from"
                raise ValueError(f"the corpus has other clips than task {task}; {expected}")

    def __call__(self, job: str, asked: Mapping[str, Any], progress: Callable[[int, int], None]) -> None:
        """Do a job and keep its result. Raises Stale, and as `run_study` does."""
        request, offer = Request.from_json(asked), Offer(self.setup.stores)
        if offer.id_of(request) != job:
            raise Stale("the store is no longer as it was when this was asked; expected no change: ask again")
        path = self.setup.state / PROBES / offer.probe_of(request)
        known = probe_at(path)
        study = look_up(request, offer, known)
        if known is None:
            path.parent.mkdir(exist_ok=True)
            save_probe(study.probe, path)
        result = run_study(
            study, self.encoder, self.corpora[request.task], executor=self.executor, device=self.setup.device,
            identity=self.identities[request.task], progress=progress,
        )  # fmt: skip
        write_result(result, self.results.partial(job))
        self.results.keep(job)


def probe_at(path: Path) -> Probe | None:
    """The probe at a path, or None where it was not fitted yet, or is damaged."""
    try:
        return load_probe(path)
    except (OSError, ValueError):
        return None
