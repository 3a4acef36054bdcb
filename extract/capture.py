"""Capture: plan, executor, report. The only file of this room that imports cluster.

Goal: from an encoder and a corpus to a store, resumable by running the same call again.
Conventions: options left out are taken from what the store already has, else from the defaults; options given must
agree with it. Where workers run elsewhere (Ray), encoders are loaded there alone, and identities asked for there.
Contents: `capture`.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..cluster.executor import Done, Executor, Failed, Killed, SerialExecutor
from ..cluster.progress import Progress
from ..cluster.resources import Needs, duration, refuse_what_cannot_fit, this_machine, worker_memory
from ..store.blocks import Block, blocks
from ..store.location import is_url
from ..store.provenance import Plan, kept
from ..store.schema import sizes
from ..store.verify import TaskStatus, task_status
from ..store.writer import add_task, create, pending_blocks
from .audio.corpus import Corpus
from .audio.manifest import read_manifest
from .dry_run import Forecast, bytes_of, largest_object, n_objects, queued_bytes
from .failures import Piece, Sparing, Suspects, Trial
from .loader import UnreadableAudio
from .models.encoder import Encoder
from .parity import refuse_choice
from .plan import clip_table, describe, make_plan, prepare_store, refuse_absent, refuse_other, stored_task
from .preflight import Findings, Model, Recipe, Survey
from .report import Report, Tally
from .stopping import FailureLimit, place, raise_for, refuse_pending
from .worker import BATCHES_AHEAD, CALLS

log = logging.getLogger(__name__)

FILE = 4096  # bytes that a file takes up at least
AT_REST = 500_000_000  # bytes of a worker's process before the model: torch and what comes with it


def capture(
    encoder: Encoder | str,
    corpus: Corpus | str | Path,
    url: str,
    *,
    task: str,
    unit_sec: float | str | None = None,
    frames: str | None = None,
    keep: tuple[str, ...] | None = None,
    mean_dtype: str | None = None,
    block: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    allow_missing: bool = False,
    max_failures: float = 0.1,
    parity: str = "refuse",
    replan: bool = False,
    dry_run: bool = False,
    report: str | Path | None = None,
    executor: Executor | None = None,
) -> Report:
    """Extract what every neuron did on every clip of a corpus into a task of a store; resume, or append, likewise.

    encoder: an Encoder, or its name as in `load_encoder`: then each worker loads its own.
    corpus: a Corpus, or the path of its manifest.
    unit_sec: seconds that clips are cropped or zero-padded to, or "native".
    frames: "audio" (tokens that start before the clip's end; default), "published" (padding too) or "all" (CLS too).
    keep: variables to store, of `otoscope.store.provenance.VARIABLES`.
    mean_dtype: "float16" (default) or "float32".
    block, batch, threads: clips per block, clips per forward pass, threads of the arithmetic.
    device: "cpu", "cuda", ...; default CUDA where a worker has one.
    allow_missing: record absent files as failed instead of refusing to start.
    max_failures: stop once more than this share of the task's clips has failed, in [0, 1].
    parity: "refuse" a model that gives clips in a batch other results than alone, or only "warn".
    replan: plan a task anew of which nothing is committed; no other run may be at work on it.
    dry_run: only tell what would be done, how large it would be and how long it would take; write nothing.
    report: file that says what the run did, as JSON, from its beginning on.
    executor: where workers run; default one in this process.
    Raises ValueError for options or files that do not fit together or with the store, FileNotFoundError for absent
    audio, OSError where reading or writing fails or there is no room; committed blocks stay, and the same call goes on
    from there. A finished task needs no encoder: one given by its name is not loaded, and its weights not compared.
    """
    if not 0 <= max_failures <= 1:
        raise ValueError(f"max_failures is {max_failures}; expected a share between 0 and 1")
    refuse_choice(parity)
    executor, where = executor or SerialExecutor(), f"{url} task {task}"
    corpus = corpus if isinstance(corpus, Corpus) else read_manifest(corpus)
    identity, stored, status = stored_task(url, task, replan)
    clips = clip_table(corpus)
    plan = make_plan(
        stored, corpus, clips, unit_sec=unit_sec, variables=None if keep is None else kept(keep),
        mean_dtype=mean_dtype, block=block, batch=batch,
        threads=_threads(executor, stored) if threads is None else threads,
    )  # fmt: skip
    if stored is not None and replace(plan, n_clips=stored.n_clips, names=stored.names) != stored:
        add_task(url, task, plan, clips)  # refuses, naming what differs, before an encoder is loaded
    code = f"otoscope {version('otoscope')} torch {torch.__version__}"
    about = {"store": url, "task": task, "executor": executor.name, "code": code, "plan": plan.to_json()}
    tally = Tally(path=None if report is None or dry_run else Path(report), about=about, batch=plan.batch)
    limit = FailureLimit(share=max_failures, n_clips=len(clips), n_failed=status.n_failed if status else 0)
    finished = status is not None and plan == stored and bool(status.committed.all())
    if finished and identity is not None and isinstance(encoder, str) and not dry_run:
        refuse_other(identity, family=encoder.partition(":")[0], frames=frames, device=device)
        log.info("%s", describe(url, task, identity, plan))
        add_task(url, task, plan, clips)  # refuses clips and labels that are not the store's
        limit.check(where, [])
        return _end(tally, url, task, executor)
    if not allow_missing:
        refuse_absent(corpus, committed=status.committed if status else None)
    model, unlabelled = Model(encoder=encoder, device=device), replace(corpus, labels=corpus.labels.iloc[:, :0])
    survey = Survey(
        model=model, url=url, corpus=unlabelled, plan=plan, allow_missing=allow_missing,
        frames=frames or (identity.frames if identity else "audio"),
        parity=None if finished or dry_run else parity, calibrate=dry_run and not finished,
    )  # fmt: skip
    found = _ask(executor, survey)
    if identity is not None:
        create(url, found.identity)  # refuses another identity
    log.info("%s", describe(url, task, found.identity, plan))
    forecast = _forecast(executor, found, plan, corpus, status)
    here = dry_run and (not _elsewhere(executor) or getattr(executor, "own_machine", False))
    disk = forecast.disk_left + FILE * forecast.n_objects if forecast.n_blocks else 0
    needs = Needs(disk=disk, memory=forecast.memory, workers=forecast.workers if here else 0)
    refuse_what_cannot_fit(needs, this_machine(None if is_url(url) else url), where)
    if dry_run:
        return Report(n_clips=len(clips), n_ok=0, n_failed=0, n_extracted=0, failures=(), forecast=forecast)
    tally.write("running")
    pa.default_memory_pool().release_unused()  # Arrow keeps ten times what a manifest needs
    recipe = Recipe(
        model=model, url=url, corpus=unlabelled, identity=found.identity,
        plan=plan, code=code + found.parity, allow_missing=allow_missing, check=_elsewhere(executor),
    )  # fmt: skip
    try:
        prepare_store(url, task, found.identity, plan, clips, replan)
        limit = replace(limit, n_failed=task_status(url, task).n_failed)
        course = Course(executor=executor, recipe=recipe, tally=tally, limit=limit, where=where)
        course.run(pending_blocks(url, task))
    except BaseException as error:
        tally.write("stopped", executor.workers(), error)
        raise
    return _end(tally, url, task, executor)


@dataclass(kw_only=True)
class Course:
    """The blocks of a run from the first to the last, those that kill their workers included."""

    executor: Executor
    recipe: Recipe
    tally: Tally
    limit: FailureLimit
    where: str
    """Store and task, for messages."""
    n_lost: int | None = 0
    """Pieces that killed their workers while none had come through; None once one has."""

    def run(self, todo: list[Block]) -> None:
        """Run the blocks. Raises ValueError or OSError where the run cannot go on, or blocks are left at the end."""
        self.tally.n_planned = sum(map(len, todo))
        self.limit.check(self.where, [])  # with nothing left to do as well: a refusal stands until something changes
        self.suspects = Suspects()
        killing: list[tuple[Block, str]] = []
        with Progress(self.tally.n_planned, unit="clips", workers=self.executor.workers) as self.progress:
            for event in self.go(todo):
                self.suspects.killed(event.piece, event.how)
            while parts := self.suspects.trials():
                for event in self.go(parts):
                    self.suspects.killed(event.piece, event.how)
            for part in self.suspects.alone():
                for event in self.go([part]):
                    self.suspects.condemned(part, event.how)
            for event in self.go(self.suspects.again()):
                for last in self.go([event.piece]):  # with nothing beside it
                    killing.append((last.piece.block, last.how))
        refuse_pending(self.where, len(todo), self.tally.unread, killing)

    def go(self, pieces: Sequence[Piece]) -> list[Killed[Any]]:
        """Run pieces, count what they did, and give those that killed their workers."""
        killed: list[Killed[Any]] = []
        if not pieces:
            return killed
        with _events(self.executor, self.recipe, pieces) as events:
            for event in events:
                block = event.piece if isinstance(event.piece, Block) else event.piece.block
                self.n_lost = self.n_lost + 1 if isinstance(event, Killed) and self.n_lost is not None else None
                if isinstance(event, Killed):
                    killed.append(event)
                    clips = event.piece.clips if isinstance(event.piece, Trial) else range(block.start, block.stop)
                    self.tally.killed.append({"clips": [clips.start, clips.stop], "how": event.how})
                    log.warning("%s: clips %d to %d %s", self.where, clips.start, clips.stop - 1, event.how)
                    if self.n_lost is not None:
                        self.limit.check_lost(self.where, self.n_lost, event.how)
                elif isinstance(event, Failed) and isinstance(event.error, UnreadableAudio):
                    self.tally.unread.append(str(event.error))
                    self.suspects.dismissed(block)
                elif isinstance(event, Failed):
                    raise_for(block, event.error, self.where)
                elif isinstance(event.piece, Block | Sparing):
                    self.done(block, event)
        return killed

    def done(self, block: Block, event: Done[Any, Any]) -> None:
        """A block was committed."""
        tally = self.tally
        tally.done(block, event.result)
        if event.result.batch < tally.batch:
            log.warning(
                "%s: the device's memory had room for %d of the %d clips of a batch in %s",
                self.where, event.result.batch, tally.batch, place(block),
            )  # fmt: skip
        self.progress.advance(len(block), f"{len(tally.failures)} failed" if tally.failures else "")
        self.limit.check(self.where, tally.failures)


@contextmanager
def _events(executor: Executor, recipe: Recipe, pieces: Iterable[Piece]) -> Iterator[Iterator[Any]]:
    """An executor's events, which end with the `with` block: then nothing is at work any more."""
    events = executor.run(recipe, pieces)
    try:
        yield events
    finally:
        getattr(events, "close", lambda: None)()


def _elsewhere(executor: Executor) -> bool:
    """Whether workers run in other processes, which may see other devices than this one."""
    return executor.name == "ray"


def _threads(executor: Executor, stored: Plan | None) -> int | None:
    """Threads of a worker's arithmetic, where neither options nor store say it and workers are not to have all."""
    needs = getattr(executor, "needs", None)
    return None if stored or needs is None else max(1, int(needs["CPU"]))


def _ask(executor: Executor, survey: Survey) -> Findings:
    """What the survey finds out, where workers run."""
    if not _elsewhere(executor):
        return survey.look()
    with _events(executor, survey, [""]) as events:  # type: ignore[arg-type, list-item]
        (event,) = events
    if isinstance(event, Failed):
        raise event.error
    if isinstance(event, Killed):
        raise OSError(
            f"an encoder that was only tried on a few clips {event.how}; expected a worker that survives it: try "
            "it with --executor serial, or give the worker more memory"
        )
    found: Findings = event.result
    return found


def _forecast(executor: Executor, found: Findings, plan: Plan, corpus: Corpus, status: TaskStatus | None) -> Forecast:
    identity, pace = found.identity, found.pace
    committed = np.zeros(plan.n_clips, bool)
    if status is not None:
        committed[: len(status.committed)] = status.committed
    pending = [b for b in blocks("", plan.n_clips, plan.block) if not committed[b.clips].all()]
    left = sum(map(len, pending))
    each = pace.seconds / pace.n_clips if pace else 0.0
    workers = max(1, min(getattr(executor, "actors", None) or getattr(executor, "capacity", lambda: 1)(), len(pending)))
    block = bytes_of(identity, plan, plan.block)
    rate = int(identity.front_end["sample_rate"])
    return Forecast(
        n_clips=left,
        n_blocks=len(pending),
        n_objects=n_objects(identity, plan, map(str, corpus.labels)),
        disk=sizes(identity, plan),
        disk_left=bytes_of(identity, plan, left),
        memory=worker_memory(
            at_rest=AT_REST + found.weights_bytes, piece=block, in_flight=CALLS,
            largest_object=largest_object(identity, plan), queued=queued_bytes(identity, plan, rate, BATCHES_AHEAD + 2),
        ),
        device_memory=pace.device_bytes if pace else 0,
        clips_per_second=1 / each if each else 0.0,
        seconds=duration(left, each, workers),
        workers=workers,
    )  # fmt: skip


def _end(tally: Tally, url: str, task: str, executor: Executor) -> Report:
    """The report of a run that came to its end."""
    status = task_status(url, task)
    tally.write("finished", executor.workers())
    if tally.n_blocks:
        log.info("%s", tally.in_words())
    return Report(
        n_clips=len(status.status), n_ok=status.n_ok, n_failed=status.n_failed, n_extracted=tally.n_done,
        failures=tuple(tally.failures),
    )  # fmt: skip
