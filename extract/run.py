"""Capture: plan, executor, report.

Goal: from an encoder and a corpus to a store, resumable by running the same call again.
Conventions: options left out are taken from what the store already has, else from the defaults; options given must
agree with it.
Contents: `capture`, `Report`, `changed_audio`.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from ..cluster.executor import Done, Executor, SerialExecutor
from ..cluster.progress import Progress
from ..store.blocks import Block, default_block_size
from ..store.group import nothing_at, open_root, read_identity, read_plan
from ..store.provenance import Identity, Plan, kept
from ..store.reader import open_store
from ..store.schema import sizes
from ..store.verify import task_status
from ..store.writer import ClipTable, add_task, create, pending_blocks
from .audio import content_digest
from .corpus import Clip, Corpus, read_manifest
from .encoder import Encoder, load_encoder, weights_digest
from .tap import match_sites
from .worker import UnreadableAudio, Worker

log = logging.getLogger(__name__)
DEFAULT_BATCH = 32


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
    corpus: Corpus | str,
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
    dry_run: say what would be done and how large it would be, and write nothing.
    Raises ValueError for options or files that do not fit together or with the store, FileNotFoundError for absent
    audio, OSError where reading or writing fails; committed blocks stay, and the same call goes on from there.
    """
    if not 0 <= max_failures <= 1:
        raise ValueError(f"max_failures is {max_failures}; expected a share between 0 and 1")
    corpus = read_manifest(corpus) if isinstance(corpus, str) else corpus
    stored_identity, stored_plan = _stored(url, task)
    encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
    encoder = encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    identity = identify(encoder, frames or (stored_identity.frames if stored_identity else "audio"))
    clips = clip_table(corpus)
    plan = make_plan(
        stored_plan, corpus, clips, unit_sec=unit_sec, variables=None if keep is None else kept(keep),
        mean_dtype=mean_dtype, block=block, batch=batch, threads=threads,
    )  # fmt: skip
    _refuse_impossible(encoder, identity, plan)
    log.info("%s", describe(url, task, identity, plan))
    if not allow_missing:
        _refuse_absent(corpus, committed=task_status(url, task).committed if stored_plan else None)
    if dry_run:
        return Report(n_clips=len(clips), n_ok=0, n_failed=0, n_extracted=0, failures=())
    create(url, identity)
    add_task(url, task, plan, clips)
    todo = pending_blocks(url, task)
    code = f"otoscope {version('otoscope')} torch {torch.__version__}"

    def make_worker() -> Worker:
        return Worker(
            url=url, corpus=corpus, encoder=encoder, identity=identity, plan=plan, code=code,
            allow_missing=allow_missing,
        )  # fmt: skip

    most = max_failures * len(clips) - task_status(url, task).n_failed
    failures = _run(executor or SerialExecutor(), make_worker, todo, f"{url} task {task}", most)
    status = task_status(url, task)
    return Report(
        n_clips=len(clips), n_ok=status.n_ok, n_failed=status.n_failed, n_extracted=sum(map(len, todo)),
        failures=failures,
    )  # fmt: skip


def changed_audio(url: str, audio_root: Path) -> Iterator[str]:
    """One line for each audio file that is no longer the one that was heard, or is gone.

    Raises OSError for a file that cannot be read.
    """
    for name, tree in open_store(url).children.items():
        ds = tree.to_dataset()[["path", "audio_digest"]].compute()
        heard = dict(zip(ds["path"].values.tolist(), ds["audio_digest"].values.tolist(), strict=True))
        for path, digest in heard.items():
            if not (audio_root / path).is_file():
                yield f"{name}: {path} is not under {audio_root}"
            elif digest and content_digest(audio_root, Clip(name=path, path=path)) != digest:
                yield f"{name}: {path} is not the file that was heard"


def identify(encoder: Encoder, frames: str) -> Identity:
    """The identity of stores made with an encoder on its present device."""
    anatomy = encoder.anatomy()
    device = encoder.silence(1).device
    n_blocks = len(match_sites(encoder.module, encoder.blocks)) if encoder.blocks else 0
    return Identity(
        encoder=encoder.name,
        weights=weights_digest(encoder.module),
        front_end={"sample_rate": encoder.sample_rate, **encoder.front_end},
        sites=tuple((site.name, site.width) for site in anatomy.sites),
        embedding=anatomy.embedding,
        hidden=(n_blocks + 1, anatomy.hidden) if n_blocks else (0, 0),
        frames=frames,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )


def clip_table(corpus: Corpus) -> ClipTable:
    """A corpus as the store records it: without the audio root, which may differ from machine to machine."""
    table = corpus.table
    return ClipTable(
        name=table["name"].tolist(),
        path=table["path"].tolist(),
        start=table["start"].to_numpy(float),
        stop=table["stop"].to_numpy(float),
        labels={str(column): corpus.labels[column].tolist() for column in corpus.labels},
    )


def make_plan(stored: Plan | None, corpus: Corpus, clips: ClipTable, **given: Any) -> Plan:
    """The plan: options given, else those stored, else the defaults."""
    defaults: dict[str, Any] = {
        "unit_sec": corpus.unit_sec or "native",
        "variables": kept(None),
        "mean_dtype": "float16",
        "block": default_block_size(len(clips)),
        "batch": DEFAULT_BATCH,
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    for name, default in defaults.items():
        if given[name] is None:
            given[name] = getattr(stored, name) if stored else default
    if given["unit_sec"] == "native":
        given["unit_sec"] = None
    return Plan(n_clips=len(clips), names=clips.digest, **given)


def describe(url: str, task: str, identity: Identity, plan: Plan) -> str:
    """One paragraph on what a plan stores and how large it is."""
    each = {name: n / plan.n_clips for name, n in sizes(identity, plan).items()}
    parts = ", ".join(f"{name} {_bytes(n)}" for name, n in each.items())
    length = "native length" if plan.unit_sec is None else f"{plan.unit_sec:g} s"
    return (
        f"{url} task {task}: {plan.n_clips} clips of {length} in {-(-plan.n_clips // plan.block)} blocks of {plan.block}; "
        f"{len(identity.sites)} layers, {sum(width for _, width in identity.sites)} neurons; "
        f"{_bytes(sum(each.values()) * plan.n_clips)} on disk, per clip {parts}"
    )


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def _stored(url: str, task: str) -> tuple[Identity | None, Plan | None]:
    if nothing_at(url):
        return None, None
    root = open_root(url, mode="r")
    return read_identity(root), read_plan(root, task)


def _refuse_impossible(encoder: Encoder, identity: Identity, plan: Plan) -> None:
    if "hidden" in plan.variables and not identity.hidden[0]:
        raise ValueError(
            f"encoder {encoder.name} names no blocks, so it has no hidden states to keep; expected `blocks=` on the "
            "encoder: leave hidden out of --keep"
        )
    if plan.unit_sec is not None and plan.unit_sec * encoder.sample_rate < encoder.min_samples:
        raise ValueError(
            f"--unit-sec {plan.unit_sec:g} is {round(plan.unit_sec * encoder.sample_rate)} samples at "
            f"{encoder.sample_rate} Hz; encoder {encoder.name} needs at least {encoder.min_samples}: choose a longer unit"
        )


def _refuse_absent(corpus: Corpus, committed: np.ndarray | None) -> None:
    """Look for the files of all clips that are not yet committed (bool per stored clip)."""
    clips = None if committed is None else [i for i in range(len(corpus)) if i >= len(committed) or not committed[i]]
    absent = corpus.absent(clips)
    if absent:
        names = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise FileNotFoundError(
            f"{len(absent)} of {len(corpus)} audio files are not under {corpus.root} ({names}); expected every file of the "
            "manifest: give the folder that holds them as --audio-root, or --allow-missing to record them as failed"
        )


def _run(
    executor: Executor, make_worker: Callable[[], Worker], todo: list[Block], where: str, most_failures: float
) -> tuple[tuple[str, str], ...]:
    """Run the blocks; (clip name, reason) of each clip that failed."""
    failures: list[tuple[str, str]] = []
    unread: list[str] = []
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
            if len(failures) > most_failures:
                name, reason = failures[-1]
                raise ValueError(
                    f"{where}: {len(failures)} clips failed in this run, the last {name} ({reason}); expected fewer: mend the "
                    "audio, or raise --max-failures; what is committed stays"
                )
    if unread:
        raise OSError(
            f"{where}: {len(unread)} of {len(todo)} blocks are still pending because audio could not be read, the first: "
            f"{unread[0]}; expected readable files: run the same command again"
        )
    return tuple(failures)


def _raise_for(block: Block, error: Exception, where: str) -> NoReturn:
    """The error of a block with where it happened and what to do."""
    place = f"{where}: block {block.index} (clips {block.start} to {block.stop - 1})"
    if isinstance(error, OSError):
        raise OSError(
            f"{place} could not be written ({error}); expected a writable store with free space: mend that and run the same "
            "command again, committed blocks are kept"
        ) from error
    if isinstance(error, ValueError | LookupError):
        raise ValueError(f"{place}: {error}") from error
    raise error
