"""Rerunning clips of a store: its own encoder, its own clips, and workers that take them piece by piece.

Goal: what studies of neurons share before and while anything runs.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..cluster.executor import Done, Executor, Failed
from ..extract.audio.corpus import Corpus
from ..extract.models.encoder import Encoder
from ..extract.models.registry import load_encoder
from ..extract.plan import clip_table, origin_of, to_device
from ..store.provenance import Identity, Plan, tolerance

log = logging.getLogger(__name__)

MAX_DEVIATION = (
    1e-3  # of the largest value, in float32: embeddings differ by more only if the encoder or its input does
)


class OfStore(Protocol):
    """What is asked of a task, whatever it is."""

    @property
    def request(self) -> Any:
        """With the task's name."""

    @property
    def identity(self) -> Identity:
        """The store's."""

    @property
    def plan(self) -> Plan:
        """The task's."""


def model_of_store(
    encoder: Encoder | str, study: OfStore, executor: Executor, device: str | None, identity: Identity | None = None
) -> Encoder:
    """The encoder on its device, in the store's precision. Otherwise as of `run_study`.

    Raises ValueError where it is not the store's.
    """
    stored = study.identity
    loaded = load_encoder(encoder) if isinstance(encoder, str) else encoder
    model = to_device(loaded, "cpu" if executor.remote else device).at(stored.precision)
    check_encoder(stored, identity or origin_of(model, stored.frames, stored.device).identity)
    if model.device.type != stored.device and not executor.remote:  # then the devices are the workers'
        log.info("the store was made on %s, the ablation runs on %s: last digits differ", stored.device, model.device)
    return model


def check_corpus(corpus: Corpus, study: OfStore) -> None:
    """Raise ValueError for a corpus of other clips than the task's."""
    if not clip_table(corpus).match(study.plan):
        raise ValueError(
            f"the corpus has not the clips that task {study.request.task} was extracted from ({len(corpus)} against "
            f"{study.plan.n_clips}, or other names, paths or prompts); expected the same manifest"
        )


def run_pieces(
    executor: Executor, make_worker: Callable[[], Any], n: int, size: int, check: Callable[[range, Any], object],
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:  # fmt: skip
    """What workers make of ranges of so many of n positions, in order.

    check: called with each range and its result; what it raises, as what a worker does, ends the run.
    """
    pieces = [range(start, min(start + size, n)) for start in range(0, n, size)]
    parts: dict[int, Any] = {}
    done = 0
    with closing(executor.run(make_worker, pieces)) as events:  # an error ends what is under way
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, Done):
                raise ValueError(f"clips {event.piece.start} to {event.piece.stop - 1} could not be rerun: {event.how}")
            check(event.piece, event.result)
            parts[event.piece.start] = event.result
            done += len(event.piece)
            if progress is not None:
                progress(done, n)
    return [parts[piece.start] for piece in pieces]


def check_deviation(found: NDArray[np.float32], stored: NDArray[np.float32], precision: str) -> None:
    """Raise ValueError for embeddings that are not the stored ones."""
    off, max_off = deviation(found, stored), tolerance(precision, MAX_DEVIATION)
    if not off <= max_off:
        raise ValueError(
            f"embeddings differ from the stored ones by {off:.2g} of the largest value; expected at most "
            f"{max_off:.2g}: use the encoder and the audio that the store was made from"
        )


def check_encoder(stored: Identity, found: Identity) -> None:
    """Raise ValueError for another encoder than the store's.

    found: as of `origin_of` for the store's kind of device, by which latents are told apart too.
    """
    if differences := stored.differences(found):
        raise ValueError(f"the encoder is not the store's ({'; '.join(differences)}); expected the same: use it")


def deviation(found: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    """Largest difference over the largest stored value."""
    return float(np.abs(found - stored).max() / max(float(np.abs(stored).max()), 1e-30))
