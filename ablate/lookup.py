"""Looking up a request in a store: every name becomes neurons, clips, interventions and a probe.

Goal: all that can be wrong with a request is found before the encoder is loaded.
Conventions: clips are tested in the order of the store, which is only read.
Contents: `Study`, `look_up`, `find_neurons`, `fit_store_probe`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..analysis.probe.probe import Probe, Recipe, fit_probe, load_probe, save_probe
from ..analysis.probe.splits import Splits, make_splits, splits_column
from ..analysis.selection.labellings import labellings, select_neurons
from ..analysis.selection.selection import Selection
from ..analysis.selection.sets import find_set, parse_set
from ..store.group import open_root, read_identity, read_plan
from ..store.neurons import NeuronSet
from ..store.provenance import Identity, Plan, digest_of
from ..store.reader import open_store
from .controls import matched_controls, neuron_features, published_control
from .intervention import Intervention, frame_mean
from .request import Request

LEARNING_RATES = {"m2d": 3e-5}  # of the published evaluation
LEARNING_RATE = 3e-4  # of all its other encoders


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A request with all names looked up: nothing has been run yet."""

    request: Request
    identity: Identity
    plan: Plan
    categories: tuple[str, ...]
    neurons: NeuronSet
    controls: tuple[NeuronSet, ...]
    interventions: tuple[Intervention, ...]
    probe: Probe
    division: Splits
    truth: NDArray[np.int64]
    """Codes of the clips that are tested."""
    clips: NDArray[np.int64]
    """Their numbers in the store."""
    names: tuple[str, ...]
    """Their names."""
    donors: NDArray[np.int64] | None
    """(clip) numbers of the clips that patches come from."""
    donated: NDArray[np.uint64] | None
    """(clip) digests of their audio in the store."""
    embedding: NDArray[np.float32]
    """(clip, embedding) as stored."""
    audio: NDArray[np.uint64]

    def summary(self) -> str:
        """What is about to happen, in a line."""
        layers = ", ".join(f"{n} in layer {layer}" for layer, n in self.neurons.counts.items())
        return (
            f"{self.neurons.name}: {len(self.neurons)} neurons ({layers}); {len(self.controls)} controls; "
            f"{len(self.clips)} test clips of {len(self.categories)} categories"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all that the result depends on: equal digests, equal results."""
        asked = {name: value for name, value in self.request.to_json().items() if name != "set"}  # its neurons count
        found = {
            "request": asked, "gain": self.interventions[0].gain, "identity": self.identity.to_json(),
            "probe": self.probe.digest, "neurons": self.neurons.digest, "clips": self.plan.names,
            "tested": digest_of(self.clips.tolist()), "truth": digest_of(self.truth.tolist()),
            "audio": digest_of(self.audio.tolist()),
        }  # fmt: skip
        if self.donated is not None:
            found["donated"] = digest_of(self.donated.tolist())
        return digest_of(found)


def look_up(request: Request, url: str, probe: Probe | None = None) -> Study:
    """Look up everything that a request names in a store; fit the probe, unless one is given.

    Reads and computes, and needs neither encoder nor audio. Raises LookupError for names that do not exist, ValueError
    for what does not fit together, such as a probe of another store.
    """
    root = open_root(url, mode="r")
    identity, plan = read_identity(root), read_plan(root, request.task)
    tree = open_store(url)
    ds = _asked_for(request, url, tree)
    assert plan is not None
    if ds.attrs["n_pending"]:
        raise ValueError(
            f"{url} task {request.task} is not finished, {ds.attrs['n_pending']} clips are pending; expected none: run "
            "its `otoscope extract` again"
        )
    codes = ds.otoscope.codes(request.label)
    categories = tuple(map(str, codes.attrs["categories"]))
    if request.category and request.category not in categories:
        raise LookupError(f"no category {request.category!r} in {request.labelling}; expected {', '.join(categories)}")
    division, names = _division(request, ds, codes)
    named = digest_of(identity.to_json())
    neurons, gain = _neurons(request, url, tree, named, division)
    widths = [width for _, width in identity.sites]
    if request.control == "published":
        controls = published_control(neurons, widths)
    else:
        features = neuron_features(ds, request.match) if request.match else {}
        controls = matched_controls(neurons, widths, request.controls, seed=request.seed, features=features)
    act = _act(request, gain, ds, codes, categories)
    if probe is None:
        probe = fit_store_probe(request, ds, codes, division, identity)
    probe.require(named, request.labelling)
    if probe.about.get("learnt", taught := _taught(division, codes, names)) != taught:
        raise ValueError(
            f"the probe of {probe.labelling} has learnt from other clips than those that the store now has for "
            "training, perhaps from some that are tested; expected the same clips, division and labels: fit another"
        )
    if (probe.categories, probe.heads) != (categories, division.heads):
        raise ValueError(
            f"the probe of {probe.labelling} knows {len(probe.categories)} categories by {', '.join(probe.heads)}; "
            f"expected {len(categories)} by {', '.join(division.heads)}: fit one to the store as it is now"
        )
    tested = np.flatnonzero(division.test_fold >= 0)
    stored = ds[["embedding", "audio_digest"]].isel(clip=tested).compute(scheduler="synchronous")
    donors = donors_of(request, codes.values, categories, names, tested)
    donated = None
    if donors is not None:
        donated = ds["audio_digest"].isel(clip=donors).compute(scheduler="synchronous").values
    return Study(
        request=request, identity=identity, plan=plan, categories=categories, neurons=neurons, controls=tuple(controls),
        interventions=tuple(act(neurons=each, name=each.name) for each in (neurons, *controls)), probe=probe,
        division=division, truth=codes.values[tested].astype(np.int64), clips=tested,
        names=tuple(names[i] for i in tested), donors=donors, donated=donated,
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
    """The neurons that a request names. Raises as `look_up` does."""
    tree = open_store(url)
    ds = _asked_for(request, url, tree)
    identity = read_identity(open_root(url, mode="r"))
    division = None
    if request.selected_on == "train":
        division, _ = _division(request, ds, ds.otoscope.codes(request.label))
    neurons, _ = _neurons(request, url, tree, digest_of(identity.to_json()), division)
    neurons.check([width for _, width in identity.sites])
    return neurons


def _asked_for(request: Request, url: str, tree: xr.DataTree) -> xr.Dataset:
    return next(iter(labellings({url: tree}, [request.labelling]))).ds


def _neurons(
    request: Request, url: str, tree: xr.DataTree, identity: str, division: Splits | None
) -> tuple[NeuronSet, float | None]:
    """The set that a request names, by the selection that it asks for, and a published list's gain."""
    selection = Selection(percentile=request.percentile, rule=request.rule, reading=request.reading)

    def member(task: str, label: str) -> xr.DataArray:
        found = next(iter(labellings({url: tree}, [f"{task}:{label}"])))
        if request.selected_on == "train" and task == request.task and division is not None:
            found = replace(found, ds=found.ds.isel(clip=np.flatnonzero(_learnt_from(division))))
        selected: xr.DataArray = select_neurons(found, selection).selection["member"]
        return selected

    how = {name: getattr(request, name) for name in ("percentile", "rule", "reading", "selected_on")}
    return find_set(parse_set(request.set), member, request.task, request.label, identity=identity, how=how)


def fit_store_probe(
    request: Request, ds: xr.Dataset, codes: xr.DataArray, division: Splits, identity: Identity
) -> Probe:
    """The probe that a request asks for, fitted to the embeddings of a task as the reader shows it.

    Raises LookupError where the task keeps no embedding.
    """
    if "embedding" not in ds:
        raise LookupError("this task keeps no 'embedding', expected for a probe: extract with --keep embedding")
    used = np.flatnonzero(division.train.any(axis=0) | division.valid.any(axis=0))
    read = ds["embedding"].isel(clip=used).compute(scheduler="synchronous").values
    embedding = np.full((ds.sizes["clip"], read.shape[1]), np.nan, np.float32)
    embedding[used] = read
    rate = LEARNING_RATES.get(identity.encoder, LEARNING_RATE)
    probe = fit_probe(
        embedding, codes.values, division, categories=tuple(map(str, codes.attrs["categories"])),
        identity=digest_of(identity.to_json()), labelling=request.labelling,
        recipe=Recipe(kind=request.probe, seed=request.probe_seed, learning_rate=rate),
    )  # fmt: skip
    learnt = _taught(division, codes, [str(name) for name in ds["clip"].values])
    return replace(probe, about={**probe.about, "learnt": learnt})


def _taught(division: Splits, codes: xr.DataArray, names: Sequence[str]) -> str:
    """Digest of the clips that each head learns from or is stopped by, with their categories."""
    taught = division.train | division.valid
    return digest_of([[[names[i], int(codes.values[i])] for i in np.flatnonzero(own).tolist()] for own in taught])


def _act(
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


def _division(request: Request, ds: xr.Dataset, codes: xr.DataArray) -> tuple[Splits, list[str]]:
    column = splits_column(ds.otoscope.labels, request.division or None)
    names = [str(name) for name in ds["clip"].values]
    parts = ds.otoscope.label(column).compute(scheduler="synchronous").values
    known = [str(category) for category in codes.attrs["categories"]]
    return make_splits([str(part) for part in parts], codes.values, names, request.probe_seed, known), names


def _learnt_from(division: Splits) -> NDArray[np.bool_]:
    """The clips (clip) that the probe of a split learns from or is stopped by."""
    if len(division.heads) > 1:
        raise ValueError(
            f"the selection was asked of training clips only, and each of {len(division.heads)} folds is tested; "
            "expected a split train, valid, test for it, or a selection from all clips"
        )
    learnt: NDArray[np.bool_] = division.train[0] | division.valid[0]
    return learnt


def donors_of(
    request: Request,
    codes: NDArray[np.integer],
    categories: tuple[str, ...],
    names: list[str],
    tested: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """A clip of the category for each tested clip, never itself; by clip names and seed."""
    if request.mode != "transplant":
        return None
    offered = sorted(np.flatnonzero(codes == categories.index(request.category)).tolist(), key=lambda i: names[i])
    if len(offered) < 2:
        raise ValueError(f"category {request.category!r} has {len(offered)} clips; expected at least 2 to draw donors")
    chosen = {}
    rng = np.random.default_rng([request.seed, len(offered)])
    for i in sorted(tested.tolist(), key=lambda i: names[i]):
        pick = int(rng.integers(len(offered)))
        chosen[i] = offered[pick] if offered[pick] != i else offered[pick - 1]
    return np.array([chosen[i] for i in tested.tolist()], np.int64)
