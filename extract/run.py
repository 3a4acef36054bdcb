"""Capture: plan, executor, report.

Goal: from an encoder and a corpus to a store, resumable by running the same call again.
Conventions: options left out are taken from what the store already has, else from the defaults; options given must
agree with it.
Contents: `capture`, `Report`, `changed_audio`.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import torch

from ..cluster.executor import Done, Executor, SerialExecutor
from ..cluster.progress import Progress
from ..store.blocks import Block
from ..store.group import nothing_at, one_line, open_root, read_identity, read_plan, refuse_name
from ..store.provenance import Identity, Plan, kept
from ..store.verify import heard_audio, store_status, task_status
from ..store.writer import ClipTable, add_task, create, pending_blocks
from .audio import content_digest
from .corpus import Clip, Corpus, read_manifest
from .encoder import Encoder, load_encoder
from .parity import check_parity
from .planning import clip_table, describe, identify, make_plan, placed, refuse_absent, refuse_impossible
from .worker import UnreadableAudio, Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did, and how its task stands now."""

    n_clips: int
    """Clips of the task."""
    n_ok: int
    n_failed: int
    n_extracted: int
    """Clips that this run committed, failed ones included."""
    failures: tuple[tuple[str, str], ...]
    """(clip name, reason) of the clips that failed in this run."""


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
    dry_run: bool = False,
    executor: Executor | None = None,
) -> Report:
    """Extract what every neuron did on every clip of a corpus into a task of a store; resume, or append, likewise.

    encoder: an Encoder, or its name as in `load_encoder`.
    corpus: a Corpus, or the path of its manifest.
    unit_sec: seconds that clips are cropped or zero-padded to, or "native".
    frames: "audio" (tokens that start before the clip's end; default), "published" (padding too) or "all" (CLS too).
    keep: variables to store, of `otoscope.store.provenance.VARIABLES`.
    mean_dtype: "float16" (default) or "float32".
    block, batch, threads: clips per block, clips per forward pass, threads of the arithmetic.
    device: "cpu", "cuda", ...; default CUDA where there is one.
    allow_missing: record absent files as failed instead of refusing to start.
    max_failures: stop once more than this share of the task's clips has failed, in [0, 1].
    parity: "refuse" a model that gives clips in a batch other results than alone, or only "warn".
    dry_run: say what would be done and how large it would be, and write nothing.
    Raises ValueError for options or files that do not fit together or with the store, FileNotFoundError for absent
    audio, OSError where reading or writing fails; committed blocks stay, and the same call goes on from there.
    """
    if not 0 <= max_failures <= 1:
        raise ValueError(f"max_failures is {max_failures}; expected a share between 0 and 1")
    corpus = corpus if isinstance(corpus, Corpus) else read_manifest(corpus)
    stored_identity, stored_plan = _stored(url, task)
    encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
    encoder = placed(encoder, device)
    identity = identify(encoder, frames or (stored_identity.frames if stored_identity else "audio"))
    clips = clip_table(corpus)
    plan = make_plan(
        stored_plan, corpus, clips, unit_sec=unit_sec, variables=None if keep is None else kept(keep),
        mean_dtype=mean_dtype, block=block, batch=batch, threads=threads,
    )  # fmt: skip
    refuse_impossible(encoder, identity, plan)
    log.info("%s", describe(url, task, identity, plan))
    if not allow_missing:
        refuse_absent(corpus, committed=task_status(url, task).committed if stored_plan else None)
    if dry_run:
        return Report(n_clips=len(clips), n_ok=0, n_failed=0, n_extracted=0, failures=())
    code = f"otoscope {version('otoscope')} torch {torch.__version__}"

    def make_worker() -> Worker:
        return Worker(
            url=url, corpus=corpus, encoder=encoder, identity=identity, plan=plan, code=code,
            allow_missing=allow_missing,
        )  # fmt: skip

    if stored_plan != plan or not task_status(url, task).committed.all():
        code += check_parity(make_worker(), parity)
    _prepare_store(url, task, identity, plan, clips)
    todo = pending_blocks(url, task)
    pa.default_memory_pool().release_unused()  # Arrow keeps ten times what a manifest needs
    limit = FailureLimit(share=max_failures, n_clips=len(clips), n_failed=task_status(url, task).n_failed)
    failures = _run(executor or SerialExecutor(), make_worker, todo, f"{url} task {task}", limit)
    status = task_status(url, task)
    return Report(
        n_clips=len(clips), n_ok=status.n_ok, n_failed=status.n_failed, n_extracted=sum(map(len, todo)),
        failures=failures,
    )  # fmt: skip


def changed_audio(url: str, audio_root: Path) -> Iterator[tuple[Block | None, str]]:
    """Audio files that are no longer those that were heard: one line each, with the block to extract again.

    A file that is gone has no block: there is nothing to extract again from. A file with clips in several blocks is
    named for each of them.
    Raises OSError for a file that cannot be read.
    """
    for task in store_status(url):
        present: dict[str, int] = {}  # digests of what is there now, 0 for nothing
        for block, path, digest in dict.fromkeys(heard_audio(url, task.task)):
            if path not in present:
                there = (audio_root / path).is_file()
                present[path] = content_digest(audio_root, Clip(name=path, path=path)) if there else 0
            if present[path] == digest:
                continue
            if not present[path]:
                yield None, f"{task.task}: {path} is not under {audio_root}"
            else:
                what = "is not the file that was heard" if digest else "was absent and now is there"
                yield block, f"{task.task}: {path} {what}"


def _stored(url: str, task: str) -> tuple[Identity | None, Plan | None]:
    refuse_name(task)
    if nothing_at(url):
        return None, None
    root = open_root(url, mode="r")
    plan = read_plan(root, task)
    begun = plan is not None and task_status(url, task).committed.any()
    return read_identity(root), plan if begun else None  # with nothing committed, the plan is made anew


def _prepare_store(url: str, task: str, identity: Identity, plan: Plan, clips: ClipTable) -> None:
    try:
        create(url, identity)
        add_task(url, task, plan, clips)
    except OSError as error:
        raise OSError(
            f"{url} could not be written ({one_line(error)}); expected a writable place with free space: mend that "
            "and run the same command again, or choose another place"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureLimit:
    """The share of a task's clips that may fail before a run stops."""

    share: float
    n_clips: int
    n_failed: int
    """Clips that had failed before the run."""

    def check(self, where: str, failures: list[tuple[str, str]]) -> None:
        """Raise ValueError once too many have failed, in this run and before."""
        n_failed = self.n_failed + len(failures)
        if n_failed > self.share * self.n_clips:
            example = f", the last {failures[-1][0]} ({failures[-1][1]})" if failures else ""
            raise ValueError(
                f"{where}: {n_failed} of {self.n_clips} clips failed{example}; expected at most a share of "
                f"{self.share:g}: see `otoscope status --failures`, then mend the audio and put its blocks back "
                "with `otoscope verify --audio DIR --reset`, or raise --max-failures; what is committed stays"
            )


def _run(
    executor: Executor, make_worker: Callable[[], Worker], todo: list[Block], where: str, limit: FailureLimit
) -> tuple[tuple[str, str], ...]:
    """Run the blocks; (clip name, reason) of each clip that failed."""
    failures: list[tuple[str, str]] = []
    unread: list[str] = []
    limit.check(where, failures)  # with nothing left to do as well: a refusal stands until something changes
    with Progress(sum(map(len, todo)), unit="clips") as progress:
        for event in executor.run(make_worker, todo):
            if isinstance(event, Done):
                failures.extend(event.result.failures)
                progress.advance(len(event.piece), f"{len(failures)} failed" if failures else "")
            elif isinstance(event.error, UnreadableAudio):
                unread.append(str(event.error))
                continue
            else:
                _raise_for(event.piece, event.error, where)
            limit.check(where, failures)
    if unread:
        raise OSError(
            f"{where}: {len(unread)} of {len(todo)} blocks are still pending because audio could not be read, "
            f"the first: {unread[0]}; expected readable files: run the same command again"
        )
    return tuple(failures)


def _raise_for(block: Block, error: Exception, where: str) -> NoReturn:
    """The error of a block with where it happened and what to do."""
    place = f"{where}: block {block.index} (clips {block.start} to {block.stop - 1})"
    if isinstance(error, OSError):
        raise OSError(
            f"{place} could not be written ({error}); expected a writable store with free space: mend that and "
            "run the same command again, committed blocks are kept"
        ) from error
    if isinstance(error, ValueError | LookupError):
        raise ValueError(f"{place}: {error}") from error
    raise error
