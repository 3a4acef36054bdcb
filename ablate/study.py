"""Study: from a request, through the store that it names things of, to what the ablation did.

Goal: one way behind the command, the service and the notebook: `look_up` makes a study of a request and finds all that
can be wrong with it before the encoder is loaded; `run_study` checks encoder and clips before it starts, and records
everything that its numbers depend on.
Conventions: the store is only read. Clips are tested in its order, in pieces of the plan's batch, so that executors
agree to the last bit where the machines do.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..analysis.conditions import clips_where, listed
from ..analysis.probe.cautions import cautions, chance_test
from ..analysis.probe.head import HEAD
from ..analysis.probe.probe import Probe, Recipe, fit_probe, load_probe, save_probe
from ..analysis.probe.splits import PARTS, Splits, make_splits, splits_column
from ..analysis.selection.check import NothingSelected
from ..analysis.selection.confirm import confirming
from ..analysis.selection.labellings import (
    Labelling,
    SelectedLabelling,
    check_one_encoder,
    check_where,
    grouping_columns,
    labellings,
    select_neurons,
)
from ..analysis.selection.selection import Selection
from ..analysis.selection.sets import find_set
from ..cluster.executor import Executor, SerialExecutor
from ..extract.audio.corpus import Corpus
from ..extract.audio.decoding import NO_LIMITS
from ..extract.loader import Loader
from ..extract.models.encoder import Encoder
from ..extract.models.latents import check_lengths
from ..extract.preflight import clip_lengths
from ..store.group import open_root, open_task
from ..store.neurons import NeuronSet
from ..store.provenance import Identity, TaskRecord, digest_of
from ..store.reader import open_store
from .controls import different_controls, neuron_features, published_control
from .effects import compare
from .intervention import Intervention, frame_mean
from .request import OWN_HEAD, Request
from .running import check_corpus, check_deviation, deviation, model_of_store, run_pieces
from .running import check_encoder as check_encoder  # for the service
from .unused import check_used
from .worker import AblationWorker, Scores, Study

log = logging.getLogger(__name__)

LEARNING_RATES = {"m2d": 3e-5}  # of the published evaluation
LEARNING_RATE = 3e-4  # of all its other encoders


class OpenStore:
    """A store as it was when this was made: opened once, for everything that is looked up in it."""

    def __init__(self, url: str) -> None:
        self.url, self.root, self.tree = url, open_root(url, mode="r"), open_store(url)

    def record(self, task: str) -> TaskRecord:
        """What the store says of a task. Raises LookupError naming the tasks that exist."""
        return open_task(self.root, task)[1]

    def labelling(self, task: str, label: str) -> Labelling:
        """Raises LookupError naming the tasks or labels that exist."""
        return next(labellings({self.url: self.tree}, [f"{task}:{label}"]))


def look_up(request: Request, store: OpenStore | str, probe: Probe | None = None) -> Study:
    """Look up everything that a request names in a store; fit the probe, unless one is given.

    Reads and computes, and needs neither encoder nor audio. Raises LookupError for names that do not exist, ValueError
    for what does not fit together, such as a probe of another store.
    """
    store = OpenStore(store) if isinstance(store, str) else store
    ds = store.labelling(request.task, request.label).ds
    record = store.record(request.task)
    identity = digest_of(record.identity.to_json())
    if ds.attrs["n_pending"]:
        raise ValueError(
            f"{store.url} task {request.task} is not finished, {ds.attrs['n_pending']} clips are pending; expected "
            "none: run its `otoscope extract` again"
        )
    codes = ds.otoscope.codes(request.label)
    categories = tuple(map(str, codes.attrs["categories"]))
    if request.category and request.category not in categories:
        raise LookupError(f"no category {request.category!r} in {request.labelling}; expected {', '.join(categories)}")
    splits, names = _splits(request, ds, codes)
    neurons, gain, used_to_select, notes = named_neurons(request, store)
    widths = [width for _, width in record.identity.sites]
    if request.control == "published":
        controls = published_control(neurons, widths)
    else:
        features = neuron_features(ds, request.match) if request.match else {}
        controls = different_controls(neurons, widths, request.controls, seed=request.seed, features=features)
    intervention = _intervention(request, gain, ds, codes, categories)
    used = splits.train | splits.valid
    train_digest = digest_of([[[names[i], int(codes.values[i])] for i in np.flatnonzero(own).tolist()] for own in used])
    if probe is None:
        if request.probe == OWN_HEAD:
            raise ValueError(
                "the model's own head is no probe that is fitted; expected it beside the request: give answers"
            )
        probe = _fit(request, ds, codes, splits, record.identity)
        probe = replace(probe, about={**probe.about, "train_digest": train_digest})
    probe.require(identity, request.labelling)
    if probe.about.get("train_digest", train_digest) != train_digest:
        raise ValueError(
            f"the probe of {probe.labelling} was trained on other clips than those that the store now has for "
            "training, perhaps on some that are tested; expected the same clips, splits and labels: fit another"
        )
    own = probe.heads == (HEAD,)  # which was trained on no clip, and answers about all
    if (probe.categories, probe.heads) != (categories, probe.heads if own else splits.heads):
        raise ValueError(
            f"the probe of {probe.labelling} knows {len(probe.categories)} categories by {', '.join(probe.heads)}; "
            f"expected {len(categories)} by {', '.join(splits.heads)}: fit one to the store as it is now"
        )
    tested = np.flatnonzero(splits.test_fold >= 0)
    stored = ds[["embedding", "audio_digest"]].isel(clip=tested).compute(scheduler="synchronous")
    donors = draw_donors(request, codes.values, categories, names, tested)
    donor_audio = ds["audio_digest"].isel(clip=donors).compute(scheduler="synchronous").values
    position = ds["position"].values
    heads, truth = (
        np.zeros(len(tested), np.int64) if own else splits.test_fold[tested],
        codes.values[tested].astype(np.int64),
    )
    chance = chance_test(probe, stored["embedding"].values, heads, truth)
    notes += cautions(probe, chance)
    selected = "" if used_to_select is None else _selected_note(neurons, used_to_select, splits)
    if splits.n_unlabelled:
        notes.append(f"{splits.n_unlabelled} clips marked for test have no {request.label} and are left out")
    for note in notes:
        log.warning("%s", note)
    return Study(
        request=request, identity=record.identity, plan=record.plan, categories=categories,
        interventions=tuple(intervention(neurons=each, name=each.name) for each in (neurons, *controls)), probe=probe,
        heads=heads, truth=truth, clips=position[tested], chance=chance, notes=tuple(notes),
        selected=selected,
        names=tuple(names[i] for i in tested), donors=position[donors], donor_audio=donor_audio,
        embedding=stored["embedding"].values, audio=stored["audio_digest"].values,
    )  # fmt: skip


def look_up_with_probe(request: Request, url: str, path: Path) -> Study:
    """As `look_up`, by the probe at a path; one that is not there yet is fitted and saved there."""
    if path.with_name(f"{path.name}.json").exists():
        return look_up(request, url, load_probe(path))
    study = look_up(request, url)
    save_probe(study.probe, path)
    return study


def find_neurons(request: Request, url: str) -> NeuronSet:
    """The neurons that a request names; what speaks against their selection is logged. Raises as `look_up` does."""
    store = OpenStore(url)
    neurons, *_, notes = named_neurons(request, store)
    for note in notes:
        log.warning("%s", note)
    neurons.check([width for _, width in store.record(request.task).identity.sites])
    return neurons


def _splits(request: Request, ds: xr.Dataset, codes: xr.DataArray) -> tuple[Splits, list[str]]:
    """Training, validation and test clips, and the names of all clips."""
    column = splits_column(ds.otoscope.labels, request.splits or None)
    names = [str(name) for name in ds["clip"].values]
    known = [str(category) for category in codes.attrs["categories"]]
    parts, *groupings = (
        ds.otoscope.label(name).compute(scheduler="synchronous").values.astype(str)
        for name in (column, *grouping_columns(request.label, ds.otoscope.labels))
    )
    return make_splits(parts, codes.values, names, request.probe_seed, known, groupings), names


def selecting_clips(clips: str, ds: xr.Dataset, label: str, splits: str = "") -> tuple[str, NDArray[np.bool_] | None]:
    """The label column that splits a task, and the clips (clip) that a selection is made from: None for all.

    clips: as of a `Selection`. label: its clips say whether the column is a split or folds. splits: the column [split,
    else fold]; "" comes back where there is none.
    Raises ValueError where "train" is asked of folds, LookupError where the column that is asked for does not exist.
    """
    try:
        column = splits_column(ds.otoscope.labels, splits or None)
    except LookupError:
        if splits or clips == "train":
            raise
        return "", None
    parts = ds.otoscope.label(column).values.astype(str)
    values = {*parts[ds.otoscope.codes(label).values >= 0].tolist()} - {""}
    if clips == "all" or (clips == "auto" and not {"train", "test"} <= values <= {*PARTS}):
        return column, None
    if not values <= {*PARTS}:
        raise ValueError(
            f"the selection was asked of training clips only, and each of {len(values)} folds is tested; expected a "
            "split train, valid, test for it, or a selection from all clips"
        )
    return column, np.isin(parts, ("train", "valid"))


def select_on(
    labelling: Labelling, how: Selection, clips: NDArray[np.bool_] | None
) -> tuple[SelectedLabelling, NDArray[np.bool_]]:
    """The neurons of a labelling by clips as of `selecting_clips`, and which clips (clip) counted.

    Those that confirm select nothing, and may be any of the task.
    Raises as `select_neurons`, and says where fewer than all clips are the cause.
    """
    how, among = replace(how, clips="all"), np.ones(labelling.ds.sizes["clip"], bool) if clips is None else clips
    alone = "selected on training clips alone, unless --clips all is given"
    if clips is not None and (how.where or how.confirm):
        # Conditions are those of the task: training clips may lack a value that they name.
        for conditions in (how.where, how.confirm):
            check_where(labelling, conditions)
        among = clips & clips_where(labelling.ds, how.where)
        if not among.any():
            raise NothingSelected(
                f"{labelling.store} {labelling.name}: no training clip has {listed(how.where)}; expected some: leave a "
                f"condition out ({alone})"
            )
        alone = f"with {listed(how.where)}, {alone}" if how.where else alone
        if how.confirm:
            among = among | clips_where(labelling.ds, confirming(how))
        clips, how = among, replace(how, where=())
    part = labelling if clips is None else replace(labelling, ds=labelling.ds.isel(clip=np.flatnonzero(clips)))
    try:
        found = select_neurons(part, how)
    except NothingSelected as error:
        if clips is None:
            raise
        raise NothingSelected(f"{error} ({alone})") from error
    counted = np.zeros_like(among)
    counted[among] = part.ds.otoscope.codes(part.label, how).values >= 0
    return found, counted


def named_neurons(
    request: Request, store: OpenStore
) -> tuple[NeuronSet, float | None, NDArray[np.bool_] | None, list[str]]:
    """The set that a request names, a published list's gain, the clips (clip) of the task by which it was selected, and
    what speaks against the selections that were made.

    Those clips are None where nothing was selected, and none of this task where the categories are all of another.
    """
    notes: list[str] = []
    asked, own = request.selection, store.labelling(request.task, request.label)
    column, learned = "", None
    if request.named_set.categories:
        column, learned = selecting_clips(asked.clips, own.ds, request.label, request.splits)
    used = np.zeros(own.ds.sizes["clip"], bool)
    on: dict[str, str] = {}

    @cache
    def members(task: str, label: str) -> xr.DataArray:
        found = store.labelling(task, label)
        check_one_encoder(own, found)
        clips = learned if task == request.task else None
        selected, counted = select_on(found, asked, clips)
        notes.extend(selected.notes)
        marked = "" if clips is None else f" (train and valid of {column})"
        on[found.name] = f"{counted.sum()} clips of {found.name}{marked}"
        if task == request.task:
            used[counted] = True
        member: xr.DataArray = selected.selection["member"]
        return member

    identity = digest_of(store.record(request.task).identity.to_json())
    made: dict[str, object] = {"selection": replace(asked, clips="all" if learned is None else "train").to_json()}
    neurons, gain = find_set(request.named_set, members, request.task, request.label, identity=identity, how=made)
    if not on:
        return neurons, gain, None, notes
    where = f" with {listed(asked.where)}" if asked.where else ""
    why = {**neurons.why, "selected_on": " and ".join(on.values()) + where}
    return replace(neurons, why=why), gain, used, notes


def _selected_note(neurons: NeuronSet, used: NDArray[np.bool_], splits: Splits) -> str:
    """On which clips a set was selected, and whether those that it is tested on are among them, in a line."""
    tested = splits.test_fold >= 0
    n, both = int(tested.sum()), int((tested & used).sum())
    on = f"neurons selected on {neurons.why['selected_on']}, tested on {n}"
    if not both:
        return f"{on} others"
    remedy = (
        f", as each of {len(splits.heads)} folds is" if len(splits.heads) > 1 else ": --clips train leaves them out"
    )
    return f"{on}, {'all' if both == n else both} of them among those{remedy}"


def _intervention(
    request: Request, gain: float | None, ds: xr.Dataset, codes: xr.DataArray, categories: tuple[str, ...]
) -> "partial[Intervention]":
    """What is done to a set; a published list's own gain holds for the mode "remove"."""
    mode, keep = request.mode, request.mode.startswith("keep")
    if mode == "transplant":
        return partial(Intervention, mode="patch")
    if mode not in ("mean", "category-mean", "keep-mean"):
        removed = request.gain if mode == "gain" else (gain or 0.0) if mode == "remove" else 0.0
        return partial(Intervention, gain=removed, keep=keep)
    if "mean" not in ds:
        raise LookupError(f"this task keeps no 'mean', expected for mode {mode!r}: extract with --keep mean")
    clips = codes == categories.index(request.category) if request.category else None
    return partial(Intervention, mode="mean", means=frame_mean(ds["mean"], ds["frame_count"], clips), keep=keep)


def _fit(request: Request, ds: xr.Dataset, codes: xr.DataArray, splits: Splits, identity: Identity) -> Probe:
    """The probe that a request asks for, fitted to the embeddings of a task."""
    if "embedding" not in ds:
        raise LookupError("this task keeps no 'embedding', expected for a probe: extract with --keep embedding")
    used = np.flatnonzero(splits.train.any(axis=0) | splits.valid.any(axis=0))
    read = ds["embedding"].isel(clip=used).compute(scheduler="synchronous").values
    embedding = np.full((ds.sizes["clip"], read.shape[1]), np.nan, np.float32)
    embedding[used] = read
    family = (
        identity.front_end["family"] if identity.derived_from else identity.encoder
    )  # latents': what is behind them
    rate = LEARNING_RATES.get(family, LEARNING_RATE)
    return fit_probe(
        embedding, codes.values, splits, categories=tuple(map(str, codes.attrs["categories"])),
        identity=digest_of(identity.to_json()), labelling=request.labelling,
        recipe=Recipe(kind=request.probe, seed=request.probe_seed, learning_rate=rate),
    )  # fmt: skip


def draw_donors(
    request: Request,
    codes: NDArray[np.integer],
    categories: tuple[str, ...],
    names: list[str],
    tested: NDArray[np.int64],
) -> NDArray[np.int64]:
    """A clip of the category for each tested clip, never itself; by clip names and seed. Empty if none are needed."""
    if request.mode != "transplant":
        return np.zeros(0, np.int64)
    offered = sorted(np.flatnonzero(codes == categories.index(request.category)).tolist(), key=lambda i: names[i])
    if len(offered) < 2:
        raise ValueError(f"category {request.category!r} has {len(offered)} clips; expected at least 2 to draw donors")
    chosen = {}
    rng = np.random.default_rng([request.seed, len(offered)])
    for i in sorted(tested.tolist(), key=lambda i: names[i]):
        pick = int(rng.integers(len(offered)))
        chosen[i] = offered[pick] if offered[pick] != i else offered[pick - 1]
    return np.array([chosen[i] for i in tested.tolist()], np.int64)


def run_study(
    study: Study,
    encoder: Encoder | str,
    corpus: Corpus,
    *,
    executor: Executor | None = None,
    device: str | None = None,
    identity: Identity | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Rerun the test clips with the set and with its controls, and compare: see `effects.compare` for what is found.

        run_study(look_up(request, url), encoder, corpus)

    encoder: the one that the store was made with, or its name, which an executor then has loaded where it runs.
    corpus: the manifest of the task, with its audio.
    identity: the encoder's, as of `origin_of` for the store's kind of device, if it is known: the weights are then not
        read again.
    progress: called with the clips done and all clips.
    Beside the effects the result holds, per tested clip, its category, and its predictions and scores before and after;
    and in its attributes the request, the sets of neurons, the digests of all that it depends on, and notes: how many
    clips changed, on which ones the set was selected, and what speaks against the probe, in plain lines.
    Raises ValueError where encoder, audio or clips are not those of the store, where the embedding does not depend on a
    layer of the set, or where clips are too long for SAEs of clip rows; OSError where audio cannot be read.
    """
    executor = executor or SerialExecutor()
    model = model_of_store(encoder, study, executor, device, identity)
    check_corpus(corpus, study)
    loader = Loader(corpus.clips, model, study.plan, limits=NO_LIMITS)
    check_lengths(model, loader.unit, clip_lengths(loader, [*study.clips.tolist(), *study.donors.tolist()]))
    check_used(study, model, corpus)
    log.info("%s", study.summary())  # what is refused is refused before anything is said to happen
    light = replace(study, embedding=study.embedding[:0])  # workers need none
    make_worker = partial(AblationWorker, light, encoder if executor.remote else model, device, corpus)
    n, batch = len(study.clips), study.plan.batch

    def check(piece: range, found: Scores) -> None:
        check_deviation(found.embedding, study.embedding[piece], study.identity.precision)

    return _result(study, run_pieces(executor, make_worker, n, batch, check, progress))


def changed_note(result: xr.Dataset) -> str:
    """How many of the tested clips have other embeddings under the intervention and its controls, in a line."""
    n, controls = result.attrs["n_changed"], result.attrs["controls_n_changed"]
    note = f"{n} clip{'s' * (n != 1)} changed of {result.attrs['n_clips']} tested"
    if controls:
        note += f", by controls {min(controls)} to {max(controls)}"
    return note if n else f"{note}: the set is silent in all of them, or left as it is"


def _result(study: Study, parts: list[Scores]) -> xr.Dataset:
    scores = np.concatenate([part.scores for part in parts], axis=2)
    predicted = np.concatenate([part.predicted for part in parts], axis=1)
    base = np.concatenate([part.embedding for part in parts])
    request, categories = study.request, np.array(study.categories, object)
    changed = np.concatenate([part.changed for part in parts], axis=1)
    how: dict[str, Any] = {"side": request.evidence, "seed": request.seed, "changed": changed}
    result = compare(scores, predicted, study.truth, study.categories, **how)
    per_clip: dict[str, Any] = {"truth": ("clip", categories[study.truth])}
    for i, when in enumerate(("before", "after")):
        per_clip[f"clip_{when}"] = (("measure", "clip"), scores[:, i])
        per_clip[f"clip_predicted_{when}"] = ("clip", categories[predicted[i]])
    about = {
        "request": {**request.to_json(), "set": study.neurons.name}, "digest": study.digest,
        "identity": digest_of(study.identity.to_json()), "neurons": study.neurons.to_json(),
        "gain": study.interventions[0].gain,  # a published list has its own
        "probe": {"digest": study.probe.digest, **study.probe.about, "chance": study.chance},
        "notes": [changed_note(result), *filter(None, [study.selected]), *study.notes],
        "controls": [list(map(list, control.pairs)) for control in study.controls],
        "method": sorted({part.method for part in parts}), "base_deviation": deviation(base, study.embedding),
    }  # fmt: skip
    return result.assign(per_clip).assign_coords(clip=np.array(study.names, object)).assign_attrs(**about)
