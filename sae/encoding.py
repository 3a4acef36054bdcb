"""Stored hidden states to latents as neurons: a derived task, an ordinary one, without encoder or audio.

Goal: what is asked of neurons is asked of latents, in the same words; whatever ends a run, the same call goes on from
what is committed and ends in the same bytes.
Conventions: a layer per SAE, in the order given; a neuron per latent. Blocks, and how many threads compute one, are
those of the source, so that a derived task that grew with it equals one made at once. SAEs of clips alone: a clip is
one row, which counts as one frame; a latent's mean is its code.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from ..extract.failures import raise_for
from ..extract.forward import arithmetic, processor
from ..extract.models.dictionary import Dictionary, read_dictionary
from ..extract.models.latents import latents_origin
from ..extract.plan import prepare_store, stored_task
from ..extract.worker import ON
from ..store.block_values import BlockValues, Summary
from ..store.blocks import Block
from ..store.changes.differences import is_stored
from ..store.changes.staged import ClipTable, Origin
from ..store.location import path_of
from ..store.provenance import Plan, kept
from ..store.schema import FAILED, OK, PENDING, object_clips
from ..store.status import task_status
from ..store.stored_task import StoredTask
from ..store.writer import pending_blocks, reset_block, write_block

log = logging.getLogger(__name__)

KEPT = ("mean", "embedding")  # beside what is always kept; the embedding where the source has it
NO_REASON = "it failed in the source, which gives no reason"


@dataclass(frozen=True, kw_only=True)
class EncodingReport:
    """What a derived task holds now, and what was done for it."""

    task: str
    n_clips: int
    n_ok: int
    n_failed: int
    n_encoded: int
    """Clips of the blocks that this run wrote, failed ones included."""
    latents: tuple[int, ...]
    """Of each layer."""
    other_labels: tuple[str, ...]
    """Label columns of the source that the derived task lacks, or has with other values: they came after it."""


def encode(
    source_url: str,
    task: str,
    saes: Sequence[Dictionary | str | Path],
    out_url: str,
    *,
    out_task: str | None = None,
    mean_dtype: str | None = None,
) -> EncodingReport:
    """Make a task of the latents of another task's stored hidden states, or go on with it; or append what that gained.

    saes: SAEs of single clips, or their folders. out_url: a store, which may be the source's own. out_task: default the
    source's name. mean_dtype: "float16" or "float32"; default the source's.
    Carried over are clips, prompts, embeddings, failures with their reasons, digests of the audio, and label columns:
    of clips that are appended those that the derived task has. Blocks whose audio in the source is another by now are
    encoded again.
    Raises LookupError or FileNotFoundError for a task, store or SAE that is not there; ValueError for a source that
    keeps no hidden states, is not finished or is damaged, for SAEs that do not fit it, and where the task that is there
    is another one; OSError where it cannot be written. Committed blocks stay, and the same call goes on from there.
    """
    dictionaries = [sae if isinstance(sae, Dictionary) else read_dictionary(sae) for sae in saes]
    source = StoredTask.at(source_url, task)
    name = task if out_task is None else out_task
    _check_apart(source, out_url, name)
    _check_source(source)
    _check_of_clips(dictionaries, out_url)
    origin = latents_origin(source.origin, dictionaries)
    stored = None if stored_task(out_url, name, replan=False) is None else StoredTask.at(out_url, name)
    plan = _plan(source.plan, mean_dtype or (stored or source).plan.mean_dtype)
    clips = source.clips
    if stored is not None:
        _check_stored(source, stored, origin, plan, dictionaries)
        clips = _labelled_as(stored, clips)
    folders = " ".join(f"--sae {dictionary.name or '...'}" for dictionary in dictionaries)
    command = f"`otoscope sae encode {source_url} --task {task} {folders} -o {out_url} --as {name}`"
    prepare_store(out_url, name, origin, plan, clips, command=command)
    if stored is not None:
        _reset_changed(source, stored)
    code = f"otoscope {version('otoscope')} torch {torch.__version__}{ON}{processor()}"
    todo = pending_blocks(out_url, name)
    for i, block in enumerate(todo):
        values = encode_block(source, dictionaries, origin, plan, block)
        try:
            write_block(out_url, block, values.arrays, values.status, code, plan=plan)
        except Exception as error:
            raise_for(block, error, f"{out_url} task {name}")
        log.info("%s task %s: %d of %d blocks encoded", out_url, name, i + 1, len(todo))
    status = task_status(out_url, name)
    other = [column for column, of in source.clips.labels.items() if not is_stored(status.record, column, of)]
    return EncodingReport(
        task=name, n_clips=len(status.status), n_ok=status.n_ok, n_failed=status.n_failed,
        n_encoded=sum(map(len, todo)), latents=tuple(dictionary.n_latents for dictionary in dictionaries),
        other_labels=tuple(other),
    )  # fmt: skip


def encode_block(
    source: StoredTask, dictionaries: Sequence[Dictionary], origin: Origin, plan: Plan, block: Block
) -> BlockValues:
    """The values of a block of the derived task, from the same clips of the source."""
    values = BlockValues(origin.identity, plan, len(block))
    digests, reasons = (source.values(name, block.clips) for name in ("audio_digest", "reason"))
    status = source.status[block.clips]
    failed = np.flatnonzero(status == FAILED)
    values.put(failed, digests[failed].tolist(), [str(reason) or NO_REASON for reason in reasons[failed]], None)
    with torch.inference_mode(), arithmetic(plan.threads):
        for at, summary in _encoded(source, dictionaries, plan, block, np.flatnonzero(status == OK)):
            values.put(at, digests[at].tolist(), [""] * len(at), summary)
    return values


def _encoded(
    source: StoredTask, dictionaries: Sequence[Dictionary], plan: Plan, block: Block, ok: np.ndarray
) -> Iterator[tuple[np.ndarray, Summary]]:
    """Positions in a block, and what the clips there give; those of one stored object at a time."""
    states, which = np.unique([dictionary.state for dictionary in dictionaries], return_inverse=True)
    embedding = np.empty((len(block), 0), np.float32)
    if "embedding" in plan.variables:
        embedding = source.values("embedding", block.clips)
    for start in range(0, len(block), object_clips(plan.block)):
        at = ok[(ok >= start) & (ok < start + object_clips(plan.block))]
        if not len(at):
            continue
        rows = torch.from_numpy(source.hidden(states.tolist(), block.start + at))  # (state, clip, width)
        codes = [d.encode(rows[i]).numpy() for d, i in zip(dictionaries, which.tolist(), strict=True)]
        yield at, Summary(
            embedding=embedding[at], frames=np.ones(len(at), np.float32), means=codes, positive=[],
            hidden=np.empty((0, len(at), 0), np.float32),
        )  # fmt: skip


def _plan(source: Plan, mean_dtype: str) -> Plan:
    """The source's, for latents."""
    variables = kept(tuple(name for name in KEPT if name != "embedding" or name in source.variables))
    return replace(source, variables=variables, mean_dtype=mean_dtype)


def _check_apart(source: StoredTask, out_url: str, name: str) -> None:
    """Raise ValueError where the derived task would be the source itself, or lie in its store as something else."""
    ours, theirs = path_of(source.url), path_of(out_url)
    if ours == theirs and name == source.task:
        raise ValueError(
            f"the latents of {source} were to be written to that task itself; expected another name, by --as, or "
            "another store"
        )
    if theirs.startswith(f"{ours}/"):
        raise ValueError(
            f"{out_url} lies within the store {source.url}; expected that store itself, and a name by --as, or another "
            "location"
        )


def _check_source(source: StoredTask) -> None:
    """Raise ValueError for a task without hidden states, or one that is not finished."""
    if "hidden" not in source.plan.variables:
        raise ValueError(
            f"{source} keeps no hidden states; expected a task that was extracted with --keep hidden: extract it "
            "so, into another task"
        )
    if n_pending := int((source.status == PENDING).sum()):
        raise ValueError(
            f"{source} is not finished, {n_pending} of {len(source.status)} clips are pending; expected none: "
            "finish its extraction first, by the same `otoscope extract` again"
        )


def _check_of_clips(dictionaries: Sequence[Dictionary], out_url: str) -> None:
    """Raise ValueError for SAEs of single frames, and for one that is given twice."""
    seen: dict[str, Dictionary] = {}
    for dictionary in dictionaries:
        if dictionary.rows != "clip":
            raise ValueError(
                f"{dictionary.label} is of single frames, and what is stored are means over clips; expected SAEs of "
                f"clips: for this one, run the encoder by `otoscope extract {out_url} --encoder latents:SAE@SPEC ...`"
            )
        first = seen.setdefault(dictionary.digest, dictionary)
        if first is not dictionary:
            raise ValueError(
                f"{dictionary.label} was given twice ({first.label} is the same); expected each once: its latents "
                "would be neurons of two layers"
            )


def _check_stored(
    source: StoredTask, stored: StoredTask, origin: Origin, plan: Plan, dictionaries: Sequence[Dictionary]
) -> None:
    """Raise ValueError where a task that is there is not this one, at an earlier time at most."""
    there, otherwise = stored.origin, "choose another task name by --as, or another store"
    ours, theirs = (x.identity.derived_from or {} for x in (origin, there))
    if not theirs:
        raise ValueError(
            f"{stored} holds activations of encoder {there.identity.encoder}, not latents; expected a task that "
            f"`otoscope sae encode` made, or none: {otherwise}"
        )
    if (ours["identity"], ours["rows"]) == (theirs.get("identity"), theirs.get("rows")) and ours != theirs:
        listed = ", ".join(f"{dictionary.label} ({dictionary.digest[:8]})" for dictionary in dictionaries)
        digests = ", ".join(str(digest)[:8] for digest in theirs.get("dictionaries", ()))
        raise ValueError(
            f"{stored} holds latents of other SAEs ({digests}), not of {listed}; expected the same in the same order: "
            f"{otherwise}"
        )
    if differences := origin.differences(there):
        raise ValueError(
            f"{stored} holds latents of another task's states ({'; '.join(differences)}); expected those of {source}: "
            f"{otherwise}"
        )
    if differences := plan.with_clips_of(stored.plan).differences(stored.plan):
        raise ValueError(
            f"{stored} was planned otherwise ({'; '.join(differences)}); expected what it was begun with: leave "
            f"--mean-dtype out, or {otherwise}"
        )
    n = stored.plan.n_clips
    if len(source.clips) < n or not source.clips.head(n).match(stored.plan):
        raise ValueError(
            f"{stored} holds latents of {n} clips that are not the first of the {len(source.clips)} of {source}; "
            f"expected a source that only gained clips since: {otherwise}"
        )


def _labelled_as(stored: StoredTask, clips: ClipTable) -> ClipTable:
    """The source's clips with the derived task's label columns: its own labels, of new clips those of the source."""
    unlabelled, n = [""] * len(clips), stored.plan.n_clips
    labels = {name: [*column, *clips.labels.get(name, unlabelled)[n:]] for name, column in stored.labels.items()}
    return replace(clips, labels=labels)


def _reset_changed(source: StoredTask, stored: StoredTask) -> None:
    """Put blocks back to pending that were encoded of other audio than the source has by now."""
    now, n = source.status, stored.plan.n_clips
    for block in task_status(stored.url, stored.task).blocks():
        if block.stop > n:
            continue
        digests = [each.values("audio_digest", block.clips) for each in (source, stored)]
        lost = (stored.values("status", block.clips) == OK) & (now[block.clips] == FAILED)
        if lost.any() or (digests[0] != digests[1]).any():
            log.info("%s: the audio of block %d is another by now", stored, block.index)
            reset_block(stored.url, block)
