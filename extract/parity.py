"""Padding parity: what a clip gives in a batch of many is what it gives alone.

Goal: a model whose batch leaks into its clips (statistics over the batch, padding that is attended to) is found before
a store is filled with it.
Conventions: differences are max |many - alone| / max |alone| per site and for the embedding, over a few clips of the
corpus that share a batch as they would in the run.
Contents: `Parity`, `measure_parity`, `check_parity`, `TOLERANCE`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .forward import arithmetic
from .loader import Heard, UnreadableAudio
from .worker import LARGEST_FLOAT16, Worker

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Rounding in float32 moves results by less than a tenth of this, a leak by a hundred times as much or more."""
CLIPS = 4
LOOKED_AT = 16
CHOICES = ("refuse", "warn")


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far results in a batch are from those of single clips."""

    n_clips: int
    difference: float
    """The largest relative difference, infinite where only the batch gives values that are not finite."""
    where: str
    """The site that shows it, or "embedding"."""


def refuse_choice(choice: str) -> None:
    """Raise ValueError for a choice that `check_parity` does not know."""
    if choice not in CHOICES:
        raise ValueError(f"no way {choice!r} to treat a model without parity; expected one of {', '.join(CHOICES)}")


def check_parity(worker: Worker, choice: str) -> str:
    """Refuse or warn about a model without parity; what to record with the blocks.

    The text states the tolerance, not the difference measured, so that it is the same wherever a run is resumed; it is
    empty where there was nothing to compare.
    Raises ValueError for a model without parity unless `choice` is "warn", and for a choice that is not known.
    """
    refuse_choice(choice)
    found = measure_parity(worker)
    if found is None:
        return ""
    log.info("%d clips in a batch and alone differ by at most %.2g", found.n_clips, found.difference)
    if found.difference <= TOLERANCE:
        return f" parity within {TOLERANCE:g}"
    text = (
        f"encoder {worker.encoder.name} gives {found.n_clips} clips in one batch other results than each alone: "
        f"{found.where} differs by {found.difference:.2g} of its largest value; expected at most {TOLERANCE:g}"
    )
    if choice == "refuse":
        raise ValueError(
            f"{text}: see that it is in evaluation mode and that nothing is computed over the batch, or run it with "
            'batch 1, or accept this with parity "warn"'
        )
    log.warning("%s", text)
    return f" parity not within {TOLERANCE:g}, accepted"


def measure_parity(worker: Worker) -> Parity | None:
    """Compare a few clips of the worker's corpus in one batch with each alone.

    None where there is nothing to compare: batches of one, fewer than two readable clips.
    Raises ValueError or LookupError for a model that fails on them, or whose means cannot be stored, while nothing has
    been written yet.
    """
    batch = _few(worker)
    with arithmetic(worker.plan.threads):
        many = _results(worker, batch) if batch else {}
        refuse_overflow(worker, many)
        if len(batch) < 2:
            return None
        alone = [_results(worker, [clip]) for clip in batch]
    differences = {
        name: _difference(values, np.concatenate([one[name] for one in alone])) for name, values in many.items()
    }
    where = max(differences, key=lambda name: differences[name])
    return Parity(n_clips=len(batch), difference=differences[where], where=where)


def refuse_overflow(worker: Worker, results: dict[str, np.ndarray]) -> None:
    """Raise ValueError where means are to be float16 and no clip's fit: one clip like that fails alone, later."""
    if "mean" not in worker.plan.variables or worker.plan.mean_dtype != "float16":
        return
    means = [values for name, values in results.items() if name != "embedding"]
    largest = np.max([np.abs(mean).max(axis=1, initial=0) for mean in means], axis=0) if means else np.zeros(1)
    if largest.min() > LARGEST_FLOAT16:
        raise ValueError(
            f"encoder {worker.encoder.name} has mean activations of {largest.min():g} on {len(largest)} clips; "
            f"float16 holds up to {LARGEST_FLOAT16:g}: keep them by --mean-dtype float32"
        )


def _few(worker: Worker) -> list[Heard]:
    """The corpus's first readable clips, up to `CLIPS`, such that they share a batch: too long ones are cut.

    The first, because they stay the first when clips are appended.
    """
    heard: list[Heard] = []
    for clip in _readable(worker):
        heard.append(clip)
        if len(heard) == min(CLIPS, worker.plan.batch):
            break
    if worker.listener.unit is not None or len(heard) < 2:
        return heard
    shortest = min(len(clip.samples) for clip in heard)
    length = worker.encoder.input_length
    alike = [
        clip
        if length(len(clip.samples)) == length(shortest)
        else replace(clip, samples=np.ascontiguousarray(clip.samples[:shortest]))
        for clip in heard
    ]
    return sorted(alike, key=lambda clip: len(clip.samples))  # clips of one length are prepared together


def _readable(worker: Worker) -> Iterator[Heard]:
    for number in range(min(LOOKED_AT, len(worker.corpus))):
        try:
            heard = worker.listener.hear(number, worker.corpus.clips.clip(number))
        except UnreadableAudio:
            continue
        if not heard.reason:
            yield heard


def _results(worker: Worker, batch: list[Heard]) -> dict[str, np.ndarray]:
    """Embedding and mean activations by site, (clip, width) each."""
    results, _ = worker.forward.fitting(batch, len(batch))
    summary, _, _ = results.land()
    sites = (site.name for site in worker.forward.anatomy.sites)
    return {"embedding": summary.embedding, **dict(zip(sites, summary.means, strict=True))}


def _difference(many: np.ndarray, alone: np.ndarray) -> float:
    """max |many - alone| / max |alone| over the clips that are finite alone: the others fail in either case."""
    good = np.isfinite(alone).all(axis=1)
    if not good.any():
        return 0.0
    difference = float(np.abs(many[good] - alone[good]).max())
    if not np.isfinite(difference):
        return float("inf")
    return difference / max(float(np.abs(alone[good]).max()), float(np.finfo(np.float32).tiny))
