"""Capture: plan, preflight, run, report.

Goal: from an encoder and a corpus to a store, resumable by running the same call again.
Conventions: options left out are taken from what the store already has, else from the defaults; options given must
agree with it. Where workers run in other processes, encoders are loaded there alone, and identities asked for there.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from ..cluster.executor import Executor, Failed, Killed, SerialExecutor
from ..cluster.progress import Progress
from ..cluster.resources import this_machine
from ..store.blocks import Block
from ..store.changes.differences import check_origin, check_task
from ..store.changes.staged import Origin
from ..store.changes.tasks import add_task, stored_origin
from ..store.location import is_url
from ..store.provenance import PRECISIONS, kept
from ..store.status import block_versions, task_status
from ..store.writer import pending_blocks
from .audio.corpus import Corpus
from .audio.decoding import DEFAULT_LIMITS, Limits
from .audio.manifest import corpus_of
from .audio.tag_lists import list_warnings
from .failures import Bisection, FailureLimit, Piece, Trial, check_pending, describe_block, raise_for
from .loader import UnreadableAudio
from .models.encoder import Encoder
from .models.registry import source_of
from .plan import (
    Extraction,
    Model,
    check_files,
    check_options,
    check_precision,
    clip_table,
    describe,
    make_plan,
    prepare_store,
    stored_task,
)
from .preflight import Preflight, check_parity_choice, forecast
from .report import Report, RunRecorder
from .worker import ON, BlockReport, make_worker

log = logging.getLogger(__name__)

MIN_FILE_BYTES = 4096  # that a file takes up on a disk


def capture(
    encoder: Encoder | str,
    corpus: Corpus | str | Path | pd.DataFrame,
    url: str,
    *,
    task: str,
    audio_root: str | Path | None = None,
    unit_sec: float | str | None = None,
    frames: str | None = None,
    keep: tuple[str, ...] | None = None,
    mean_dtype: str | None = None,
    block: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    allow_missing: bool = False,
    max_failures: float = 0.1,
    max_file_mb: float = DEFAULT_LIMITS.file_bytes / 1e6,
    max_clip_mb: float = DEFAULT_LIMITS.clip_bytes / 1e6,
    parity: str = "refuse",
    replan: bool = False,
    same_device: bool = False,
    dry_run: bool = False,
    report: str | Path | None = None,
    executor: Executor | None = None,
) -> Report:
    """Extract what every neuron did on every clip of a corpus into a task of a store; resume, or append, likewise.

    encoder: an Encoder, or its name as in `load_encoder`: then each worker loads its own.
    corpus: a Corpus, the path of its manifest, or a DataFrame with a manifest's columns.
    audio_root: folder or URL that relative paths start from; default the manifest's own folder, of a DataFrame the
        current one. A Corpus has its own.
    unit_sec: seconds that clips are cropped or zero-padded to, or "native".
    frames: "audio" (frames that start before the clip's end; default), "published" (padding too), "all" (CLS too) or
        "last" (the last of "audio"; of a prompted encoder the last token of all, and then the default).
    keep: variables to store, of `otoscope.store.provenance.VARIABLES`.
    mean_dtype: "float16" (default) or "float32".
    block, batch, threads: clips per block, clips per forward pass, threads of the arithmetic. batch is 32 by default,
        on CUDA a power of two up to 256 of which half of the free memory has room.
    device: "cpu", "cuda", ...; default CUDA where a worker has one.
    precision: "float32" (default), "bfloat16" or "float16", in which matrix products are computed; sums are float32.
    allow_missing: record absent files as failed instead of refusing to start.
    max_failures: stop once more than this share of the task's clips has failed, in [0, 1].
    max_file_mb: largest audio file that is read, in MB; a larger one's clips fail.
    max_clip_mb: most that is decoded for a clip, in MB: 4 bytes per sample, mono, at the file's rate; longer ones fail.
    parity: "refuse" a model that gives clips in a batch other results than alone, or only "warn".
    replan: plan a task anew of which nothing is committed; no other run may be at work on it.
    same_device: refuse workers on another device, or with another kernel that reduces frames, than the task's blocks.
    dry_run: only report what would be done, how large it would be and how long it would take; write nothing.
    report: file that says what the run did, as JSON, from its beginning on.
    executor: where workers run; default one worker in this process.
    Raises ValueError for options or files that do not fit together or with the store, FileNotFoundError for absent
    audio, OSError where reading or writing fails or there is no room; committed blocks stay, and the same call goes on
    from there. A finished task needs no encoder: one given by its name, whose files are as they were, is not loaded.
    """
    if not 0 <= max_failures <= 1:
        raise ValueError(f"max_failures is {max_failures}; expected a share between 0 and 1")
    limits = Limits.of_megabytes(max_file_mb, max_clip_mb)
    check_parity_choice(parity)
    check_precision(precision)
    executor, where = executor or SerialExecutor(), f"{url} task {task}"
    corpus = corpus_of(corpus, audio_root)
    for warning in list_warnings(corpus.labels):
        log.warning("%s", warning)
    status = stored_task(url, task, replan)
    stored = None if status is None else status.plan
    origin = None if status is None else stored_origin(url, task)
    used = _one_hardware(url, task) if same_device and status else ""
    clips = clip_table(corpus)
    if threads is None:
        cpus = this_machine(None).cores if executor.cpus_per_worker is None else executor.cpus_per_worker
        threads = stored.threads if stored else max(1, int(cpus))
    variables = None if keep is None else kept(keep)
    plan = make_plan(
        stored, corpus, clips, unit_sec=unit_sec, variables=variables, mean_dtype=mean_dtype, block=block, batch=batch,
        threads=threads,
    )  # fmt: skip
    if stored is not None:
        check_task(url, task, plan, clips)  # before an encoder is loaded
    code = f"otoscope {version('otoscope')} torch {torch.__version__}"
    about = {"store": url, "task": task, "executor": executor.name, "code": code, "plan": plan.to_json()}
    recorder = RunRecorder(path=None if report is None or dry_run else Path(report), about=about, batch=plan.batch)
    limit = FailureLimit(share=max_failures, n_clips=len(clips), n_failed=status.n_failed if status else 0)
    finished = status is not None and plan == stored and bool(status.committed.all())
    extraction = Extraction(
        url=url, clips=corpus.clips, plan=plan, code=code, allow_missing=allow_missing, limits=limits,
        model=Model(encoder=encoder, device=device, precision=precision or _stored_precision(origin)),
    )  # fmt: skip
    preflight = partial(Preflight, extraction, frames or (origin.identity.frames if origin else None))
    if finished and origin is not None and isinstance(encoder, str) and not dry_run:
        check_options(
            origin.identity, family=encoder.partition(":")[0], frames=frames, device=device, precision=precision
        )
        log.info("%s", describe(url, task, origin.identity, plan))
        if source_of(encoder) != origin.source:
            now = preflight(None).run(executor).origin
            # Any device will do to compare by tolerance, where none is asked for.
            identity = now.identity if device else replace(now.identity, device=origin.identity.device)
            origin = replace(now, identity=identity)
        elif encoder.startswith("module:"):
            log.info("%s was not run: its source is as it was; what it reads besides is not compared", encoder)
        add_task(url, task, origin, plan, clips)  # refuses another encoder, clips and labels that are not the store's
        limit.check(where, [])
        return _end(recorder, url, task, executor)
    if not allow_missing:
        check_files(corpus.clips, committed=status.committed if status else None)
    found = preflight(
        None if finished or dry_run else parity,
        calibrate=dry_run and not finished,
        propose_batch=batch is None and stored is None,
    ).run(executor)
    plan = replace(plan, batch=found.batch)
    recorder.batch, about["plan"] = plan.batch, plan.to_json()
    if origin is not None:
        check_origin(url, task, origin, found.origin)
    log.info("%s", describe(url, task, found.origin.identity, plan))
    for warning in found.warnings:
        log.warning("%s", warning)
    expected = forecast(found, plan, map(str, corpus.labels), status, executor.max_workers())
    this_machine(None if is_url(url) else url).check_fits(
        where,
        disk=expected.disk_left + MIN_FILE_BYTES * expected.n_objects if expected.n_blocks else 0,
        memory=expected.memory,
        workers=expected.workers if dry_run and executor.on_this_machine else 0,
    )
    if dry_run:
        return Report(n_clips=len(clips), n_ok=0, n_failed=0, n_extracted=0, failures=(), forecast=expected)
    recorder.write("running")
    pa.default_memory_pool().release_unused()  # Arrow keeps ten times what a manifest needs
    hardware = (used or found.hardware) if same_device else ""
    extraction = replace(extraction, plan=plan, origin=found.origin, code=code + found.parity, hardware=hardware)
    try:
        prepare_store(url, task, found.origin, plan, clips, replan)
        limit = replace(limit, n_failed=task_status(url, task).n_failed)
        run = Run(executor=executor, extraction=extraction, recorder=recorder, limit=limit, where=where)
        run.all(pending_blocks(url, task))
    except BaseException as error:
        recorder.write("stopped", executor.workers(), error)
        raise
    return _end(recorder, url, task, executor)


def _stored_precision(origin: Origin | None) -> str | None:
    """The precision to go on in, None where the encoder itself decides."""
    return origin.identity.precision if origin is not None and origin.identity.precision in PRECISIONS else None


def _one_hardware(url: str, task: str) -> str:
    """The hardware that a task's blocks come from, "" where there are none. Raises ValueError for several."""
    found = {version.partition(ON)[2] for version in block_versions(url, task)}
    if len(found) > 1:
        raise ValueError(
            f"{url} task {task} has blocks from {' and '.join(sorted(found))}; expected one with --same-device: leave "
            "it out"
        )
    return found.pop() if found else ""


@dataclass(kw_only=True)
class Run:
    """The blocks of a run from the first to the last, those that kill their workers included."""

    executor: Executor
    extraction: Extraction
    recorder: RunRecorder
    limit: FailureLimit
    where: str
    """Store and task, for messages."""
    bisection: Bisection = field(default_factory=Bisection)
    n_lost: int | None = 0
    """Pieces that killed their workers while none had come through; None once one has."""

    def all(self, todo: list[Block]) -> None:
        """Run the blocks. Raises ValueError or OSError where the run cannot go on, or blocks are left at the end."""
        self.recorder.n_planned = sum(map(len, todo))
        self.limit.check(self.where, [])  # with nothing left to do as well: a refusal stands until something changes
        bisection, killing = self.bisection, list[tuple[Block, str]]()
        with Progress(self.recorder.n_planned, unit="clips", workers=self.executor.workers) as self.progress:
            pieces: Sequence[Piece] = todo
            while pieces:
                for event in self.pieces(pieces):
                    bisection.killed(event.piece)
                pieces = bisection.trials()
            for trial in bisection.single():
                for event in self.pieces([trial]):
                    bisection.found(trial, event.how)
            for event in self.pieces(bisection.remainders()):
                for last in self.pieces([event.piece]):  # with nothing beside it
                    killing.append((last.piece.block, last.how))
        check_pending(self.where, len(todo), self.recorder.unread, killing)

    def pieces(self, pieces: Sequence[Piece]) -> list[Killed[Any]]:
        """Run pieces, count what they did, and give those that killed their workers."""
        killed: list[Killed[Any]] = []
        if not pieces:
            return killed
        make = partial(make_worker, self.extraction, check=self.executor.remote)
        with closing(self.executor.run(make, pieces)) as events:
            for event in events:
                block = event.piece if isinstance(event.piece, Block) else event.piece.block
                self.n_lost = self.n_lost + 1 if isinstance(event, Killed) and self.n_lost is not None else None
                if isinstance(event, Killed):
                    killed.append(event)
                    clips = event.piece.clips if isinstance(event.piece, Trial) else range(block.start, block.stop)
                    self.recorder.killed.append({"clips": [clips.start, clips.stop], "how": event.how})
                    log.warning("%s: clips %d to %d %s", self.where, clips.start, clips.stop - 1, event.how)
                    if self.n_lost is not None:
                        self.limit.check_lost(self.where, self.n_lost, event.how)
                elif isinstance(event, Failed) and isinstance(event.error, UnreadableAudio):
                    self.recorder.unread.append(str(event.error))
                    self.bisection.drop(block)
                elif isinstance(event, Failed):
                    raise_for(block, event.error, self.where)
                elif not isinstance(event.piece, Trial):
                    self.committed(block, event.result)
        return killed

    def committed(self, block: Block, report: BlockReport) -> None:
        """A block was committed."""
        recorder = self.recorder
        recorder.done(block, report)
        if report.batch < recorder.batch:
            log.warning(
                "%s: the device's memory had room for %d of the %d clips of a batch in %s",
                self.where, report.batch, recorder.batch, describe_block(block),
            )  # fmt: skip
        self.progress.advance(len(block), f"{len(recorder.failures)} failed" if recorder.failures else "")
        self.limit.check(self.where, recorder.failures)


def _end(recorder: RunRecorder, url: str, task: str, executor: Executor) -> Report:
    """The report of a run that came to its end."""
    status = task_status(url, task)
    recorder.write("finished", executor.workers())
    if recorder.n_blocks:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in recorder.shares().items())
        log.info("shares of the workers' time: %s", shares)
    if recorder.n_silent:
        log.warning("%d of %d clips are digital silence: every sample is zero", recorder.n_silent, recorder.n_done)
    n_clips, failures = len(status.status), tuple(recorder.failures)
    return Report(
        n_clips=n_clips,
        n_ok=status.n_ok,
        n_failed=status.n_failed,
        n_extracted=recorder.n_done,
        failures=failures,
        n_silent=recorder.n_silent,
    )
