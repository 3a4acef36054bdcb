"""Study: a store, its encoder and audio, and a request, to what the ablation did.

Goal: one function behind the command, the service and the notebook, that checks everything before it starts and
records everything that its numbers depend on.
Conventions: clips run in pieces of the plan's batch; results are put together in the order of the store, so that
executors agree to the last bit where the machines do.
Contents: `run_study`, `require_encoder`.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..cluster.executor import Done, Event, Executor, Failed, SerialExecutor
from ..extract.audio.corpus import Corpus
from ..extract.models.encoder import Encoder
from ..extract.models.registry import load_encoder
from ..extract.plan import clip_table, identify, to_device
from ..store.provenance import Identity, digest_of
from .effects import compare, measures_of
from .lookup import Study, look_up
from .request import Request
from .worker import AblationWorker, Job, Scores

log = logging.getLogger(__name__)

DIFFERENT = 1e-3  # of the largest value: by so much embeddings differ only if the encoder or its input does


def run_study(
    request: Request | Study,
    url: str,
    encoder: Encoder | str,
    corpus: Corpus,
    *,
    executor: Executor | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Rerun the test clips with the set and with its controls, and compare: see `statistics.compare` for what is found.

    request: or what `look_up` made of one. encoder: the one that the store was made with, or its name, which an
        executor then has loaded where it runs. corpus: the manifest of the task, with its audio.
    progress: called with the clips done and all clips.
    Beside the statistics the result holds, per tested clip, its category and what it was named and scored before and
    after; and in its attributes the request, the sets of neurons, and the digests of all that it depends on.
    Raises ValueError where encoder, audio or clips are not those of the store, OSError where audio cannot be read.
    """
    study = request if isinstance(request, Study) else look_up(request, url)
    executor = executor or SerialExecutor()
    here = not executor.remote  # else the devices are the workers'
    loaded = load_encoder(encoder) if isinstance(encoder, str) else encoder
    require_encoder(study.identity, loaded, device if here else "cpu", said=here)
    if clip_table(corpus).digest != study.plan.names:
        raise ValueError(
            f"the corpus has not the clips that task {study.request.task} was extracted from ({len(corpus)} against "
            f"{study.plan.n_clips}, or other names or paths); expected the same manifest"
        )
    toward = study.categories.index(study.request.category) if study.request.category else None
    job = Job(
        encoder=encoder, device=device, corpus=corpus, identity=study.identity, plan=study.plan,
        interventions=study.interventions, probe=study.probe, clips=study.clips, truth=study.truth,
        heads=study.division.test_fold[study.clips], audio=study.audio, donors=study.donors,
        donated=study.donated, toward=toward,
    )  # fmt: skip
    n, batch = len(study.clips), study.plan.batch
    pieces = [range(start, min(start + batch, n)) for start in range(0, n, batch)]
    parts: dict[int, Scores] = {}
    done = 0
    with closing(executor.run(partial(AblationWorker, job), pieces)) as events:  # an error ends what is under way
        for event in events:
            part = _scores(event, study)
            parts[event.piece.start] = part
            done += len(event.piece)
            if progress is not None:
                progress(done, n)
    return _result(study, [parts[piece.start] for piece in pieces])


def _scores(event: Event[range, Scores], study: Study) -> Scores:
    """What a piece gave. Raises its error, or ValueError for embeddings that are not the store's."""
    if isinstance(event, Failed):
        raise event.error
    if not isinstance(event, Done):
        raise ValueError(f"clips {event.piece.start} to {event.piece.stop - 1} could not be rerun: {event.how}")
    off = _deviation(event.result.embedding, study.embedding[event.piece])
    if not off <= DIFFERENT:
        raise ValueError(
            f"embeddings differ from the stored ones by {off:.2g} of the largest value; expected at most "
            f"{DIFFERENT:g}: use the encoder and the audio that the store was made from"
        )
    return event.result


def require_encoder(identity: Identity, encoder: Encoder, device: str | None, *, said: bool = True) -> None:
    """Raise ValueError for another encoder than the store's; another device may be, and is said."""
    ours = identify(to_device(encoder, device), identity.frames)
    differences = [text for text in identity.differences(ours) if not text.startswith("device")]
    if differences:
        raise ValueError(f"the encoder is not the store's ({'; '.join(differences)}); expected the same: use it")
    if said and identity.device != ours.device:
        log.info("the store was made on %s, the ablation runs on %s: last digits differ", identity.device, ours.device)


def _deviation(found: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    return float(np.abs(found - stored).max() / max(float(np.abs(stored).max()), 1e-30))


def _result(study: Study, parts: list[Scores]) -> xr.Dataset:
    scores = np.concatenate([part.scores for part in parts], axis=2)
    named = np.concatenate([part.named for part in parts], axis=1)
    base = np.concatenate([part.embedding for part in parts])
    request = study.request
    result = compare(scores, named, study.truth, study.categories, side=request.evidence, seed=request.seed)
    per_clip: dict[str, Any] = {
        "truth": ("clip", np.array(study.categories, object)[study.truth]),
        "clip_before": (("measure", "clip"), scores[:, 0]), "clip_after": (("measure", "clip"), scores[:, 1]),
        "clip_named_before": ("clip", np.array(study.categories, object)[named[0]]),
        "clip_named_after": ("clip", np.array(study.categories, object)[named[1]]),
    }  # fmt: skip
    about = {
        "request": {**request.to_json(), "set": study.neurons.name}, "digest": study.digest,
        "identity": digest_of(study.identity.to_json()), "neurons": study.neurons.to_json(),
        "gain": study.interventions[0].gain,  # a published list has its own
        "probe": {"digest": study.probe.digest, **study.probe.about},
        "controls": [list(map(list, control.pairs)) for control in study.controls],
        "method": sorted({part.method for part in parts}), "base_deviation": _deviation(base, study.embedding),
        "measures": list(measures_of(bool(request.category))),
    }  # fmt: skip
    result = result.assign(per_clip).assign_coords(clip=np.array(study.names, object))
    return result.assign_attrs(**about)
