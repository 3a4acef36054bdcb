"""Swaps of a store: from a request to what the swaps did.

Goal: as of `ablate.study`: all that can be wrong is found before the encoder is loaded, and everything that numbers
depend on is recorded.
Conventions: the store is only read. Probes are the model's own head, on the answers that the request names.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ...analysis.conditions import listed
from ...cluster.executor import Executor, SerialExecutor
from ...extract.audio.corpus import Corpus
from ...extract.models.encoder import Encoder
from ...messages import quoted
from ...store.neurons import NeuronSet
from ...store.provenance import Identity, digest_of, tolerance
from ...store.reader import open_store
from ..controls import different_controls, neuron_features
from ..intervention import ALL, Intervention
from ..own_head import check_answers, own_head
from ..running import check_corpus, check_deviation, model_of_store, run_pieces
from ..study import OpenStore, named_neurons
from ..unused import check_used
from .pairs import aligned_pairs, check_sides, swaps_of
from .request import Swap
from .result import UNSEEN, table_of_margins
from .worker import Margins, SwapStudy, SwapWorker

log = logging.getLogger(__name__)

TEST, SPLIT, SPEAKER = "test", "split", "speaker"
BATCHES = 4  # of swaps in a piece: partners come in several layouts


def look_up_swaps(request: Swap, store: OpenStore | str) -> SwapStudy:
    """Look up everything that a request names in a store: partners, neurons, controls. Reads, and runs nothing.

    Raises LookupError for names that do not exist, ValueError for what does not fit together: a store without prompts,
    clips that are not crossed, answers for other categories, categories that differ on the two sides.
    """
    store = OpenStore(store) if isinstance(store, str) else store
    ds = store.labelling(request.task, request.audio_class).ds
    record = store.record(request.task)
    if ds.attrs["n_pending"]:
        raise ValueError(
            f"{store.url} task {request.task} is not finished, {ds.attrs['n_pending']} clips are pending; expected "
            "none: run its `otoscope extract` again"
        )
    missing = [name for name in ("prompt", "embedding") if name not in ds]
    if missing:
        remedy = {
            "prompt": "extract a crossed corpus, as `otoscope corpus cross` makes it",
            "embedding": "extract with --keep embedding",
        }
        raise LookupError(f"task {request.task} keeps no {missing[0]!r}, expected for swaps: {remedy[missing[0]]}")
    whole = open_store(store.url, failed="keep").children[request.task].to_dataset()
    where, notes = _measured(request, whole)
    columns = {name: getattr(request, name) for name in ("audio", "wording", "replicate")}
    layout = whole.otoscope.crossed_layout(request.audio_class, request.text_class, **columns, where=where)
    categories = check_sides(layout)
    answers = check_answers(request.answers, categories)
    pairs, left_out = aligned_pairs(layout, _column(whole, request.replicate))
    neurons, _, used, found = named_neurons(request.of_set(), store)
    notes += [*layout.notes, *left_out, *found]
    widths = [width for _, width in record.identity.sites]
    features = neuron_features(ds, request.match) if request.match else {}
    controls = different_controls(neurons, widths, request.controls, seed=request.seed, features=features)
    patch = partial(Intervention, mode="patch", tokens=request.at, keep=request.keep)
    interventions = [patch(neurons=each, name=each.name) for each in (neurons, *controls)]
    if request.keep:
        interventions.append(patch(neurons=NeuronSet(pairs=(), name="none of the neurons")))
    clips, inverse = np.unique(pairs, return_inverse=True)
    selected = None if used is None else ds["position"].values[used]
    notes += _used_before(request, whole, selected, clips)
    for note in notes:
        log.warning("%s", note)
    stored = whole[["embedding", "audio_digest", "prompt"]].isel(clip=clips).compute(scheduler="synchronous")
    return SwapStudy(
        request=request, identity=record.identity, plan=record.plan, categories=categories, answers=answers,
        interventions=tuple(interventions), n_controls=len(controls), swaps=swaps_of(inverse.reshape(pairs.shape)),
        clips=whole["position"].values[clips], names=tuple(map(str, stored["clip"].values)),
        prompts=tuple(map(str, stored["prompt"].values)), embedding=stored["embedding"].values,
        audio=stored["audio_digest"].values, notes=tuple(notes),
    )  # fmt: skip


def _column(ds: xr.Dataset, name: str) -> NDArray[np.object_]:
    values: NDArray[np.object_] = ds.otoscope.label(name).compute(scheduler="synchronous").values.astype(object)
    return values


def _measured(request: Swap, ds: xr.Dataset) -> tuple[tuple[str, ...], list[str]]:
    """Conditions on the clips that are swapped, and what is to be said where there are none."""
    column = request.splits or SPLIT
    if request.splits and column not in ds.otoscope.labels:
        ds.otoscope.label(column)  # which raises
    if column in ds.otoscope.labels and TEST in _column(ds, column):
        return (f"{column}={TEST}",), []
    return (), [f"no clip is of {listed([f'{column}={TEST}'])}: all clips are swapped"]


def _used_before(
    request: Swap, ds: xr.Dataset, selected: NDArray[np.int64] | None, clips: NDArray[np.intp]
) -> list[str]:
    """What is to be said of clips by which the neurons were chosen, and whose speakers are swapped again."""
    if selected is None:
        return [
            f"{request.set} was not selected here: choose on other clips, and speakers, than those that are swapped"
        ]
    both = np.isin(ds["position"].values[clips], selected)
    if both.any():
        return [
            f"neurons were selected on {both.sum()} of the {len(clips)} clips that are swapped: effects are inflated"
        ]
    if SPEAKER not in ds.otoscope.labels:
        return [f"no column {SPEAKER}: whether neurons were selected on other speakers is not known"]
    speaker = _column(ds, SPEAKER)
    shared = sorted({*speaker[np.isin(ds["position"].values, selected)]} & {*speaker[clips]} - {""})
    if not shared:
        return []
    some = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
    return [f"neurons were selected on clips of {len(shared)} speakers that are swapped too ({some})"]


def check_one_layout(prompts: Iterable[str], encoder: Encoder) -> None:
    """Raise ValueError for prompts whose tokens are not laid out alike around one sound."""
    n_samples, first = max(encoder.sample_rate, encoder.min_samples), ""
    for prompt in dict.fromkeys(prompts):
        first = first or prompt
        if encoder.layout(n_samples, prompt) != encoder.layout(n_samples, first):
            raise ValueError(
                f"prompts {quoted(first)} and {quoted(prompt)} have tokens of other layouts; expected one layout of "
                "all prompts where all tokens are swapped: give --at last, or prompts of equally many tokens"
            )


def run_swaps(
    study: SwapStudy,
    encoder: Encoder | str,
    corpus: Corpus,
    *,
    executor: Executor | None = None,
    device: str | None = None,
    identity: Identity | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Rerun clips with a set's values, and its controls', from their partners, and compare: see `result.swap_table`.

        run_swaps(look_up_swaps(request, url), encoder, corpus)

    Arguments, and what is raised, are as of `ablate.study.run_study`; and ValueError for answers that first tokens do
    not tell apart. Attributes of the table are the request, the sets, digests and notes.
    """
    executor = executor or SerialExecutor()
    model = model_of_store(encoder, study, executor, device, identity)
    check_corpus(corpus, study)
    about = {
        "identity": digest_of(study.identity.to_json()),
        "labelling": f"{study.request.task}:{study.request.audio_class}",
    }
    probe = own_head(model, study.answers, study.prompts, **about)
    if study.request.at == ALL:
        check_one_layout(study.prompts, model)
    check_used(study, model, corpus)
    make_worker = partial(SwapWorker, study, probe.weight[0], encoder if executor.remote else model, device, corpus)

    def check(_piece: range, found: Margins) -> None:
        check_deviation(found.embedding, study.embedding[found.clips], study.identity.precision)

    parts = run_pieces(executor, make_worker, len(study.swaps.clip), BATCHES * study.plan.batch, check, progress)
    margins = np.concatenate([part.margins for part in parts], axis=1)
    moved = np.concatenate([part.moved for part in parts], axis=1)
    table = table_of_margins(
        margins, study.swaps, study.categories, keep=study.request.keep, seed=study.request.seed,
        rounding=tolerance(study.identity.precision, UNSEEN),
    )  # fmt: skip
    table.attrs |= {
        "request": {**study.request.to_json(), "set": study.neurons.name}, "digest": study.digest,
        "identity": about["identity"], "neurons": study.neurons.to_json(), "probe": probe.digest,
        "controls": [list(map(list, control.pairs)) for control in study.controls], "notes": list(study.notes),
        "method": sorted({part.method for part in parts}), "n_swaps": len(study.swaps.clip),
        "n_moved": int(moved[0].sum()),
    }  # fmt: skip
    return table
