"""A ReLU encoder of BYOL-A's layout from audio to ablation, step by step against plain torch and numpy.

What is compared with was computed here alone: files read by `wave`, one clip at a time through the bare network with
torch's own hooks, and every statistic by its formula.
"""

import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import otoscope
from otoscope.ablate.request import Request
from otoscope.ablate.study import look_up, run_study
from otoscope.ablate.worker import Study
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture

from .support.relu_encoder import HOP, POOLED, RATE, SITES, WIDTHS, build, log_mel
from .support.wav_corpora import write_manifest, write_wav_file

KINDS = ("high", "low", "noise")
N = 45
NEAR_ZERO = 1e-5  # within rounding, a sign may be another


@dataclass
class Plain:
    """One clip, by plain torch."""

    frames: dict[str, np.ndarray]
    """Site -> (counted frame, neuron), float64."""
    embedding: np.ndarray


@torch.no_grad()
def plain_pass(samples: np.ndarray, silenced: Mapping[int, Any] | None = None) -> Plain:
    """A clip through the bare network. silenced: neurons by layer that are 0 in every frame."""
    network, seen = build().module, {}

    def hook(layer: int, name: str) -> Any:
        def run(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            seen[name] = output[0].double().numpy().copy()
            keep = torch.ones(WIDTHS[layer])
            keep[list((silenced or {}).get(layer, ()))] = 0
            return output * keep

        return run

    for layer, name in enumerate(SITES):
        network.get_submodule(name).register_forward_hook(hook(layer, name))
    features = network(log_mel(torch.from_numpy(samples)[None]))[0].numpy()
    n_counted = -(-len(samples) // (POOLED * HOP))  # frames that start before the clip ends
    frames = {name: values[:n_counted] for name, values in seen.items()}
    return Plain(frames=frames, embedding=features.mean(axis=0) + features.max(axis=0))


@dataclass
class Stored:
    url: str
    manifest: Path
    kinds: np.ndarray
    clips: list[np.ndarray]
    plain: list[Plain]

    @property
    def ds(self) -> xr.Dataset:
        return otoscope.open(self.url)["t"].ds

    def plain_per_clip(self, function: Any) -> np.ndarray:
        """(layer, neuron, clip) of what a function makes of (frame, neuron); NaN beyond a layer's width."""
        out = np.full((len(SITES), max(WIDTHS), N), np.nan)
        for i, clip in enumerate(self.plain):
            for layer, name in enumerate(SITES):
                out[layer, : WIDTHS[layer], i] = function(clip.frames[name])
        return out


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder, rng = tmp_path_factory.mktemp("relu"), np.random.default_rng(0)
    kinds = np.array([KINDS[i % 3] for i in range(N)])
    for i, kind in enumerate(kinds):
        t = np.arange(2400 + 37 * (i % 7)) / RATE
        pitch = rng.uniform(0.8, 1.2) * {"high": 2500, "low": 400, "noise": 1000}[kind]
        loud = 10 ** rng.uniform(-2, -0.7) * np.exp(-6 * np.abs(t - rng.uniform(0, t[-1])) / t[-1])
        made = rng.standard_normal(len(t)) if kind == "noise" else np.sin(2 * np.pi * pitch * t)
        sound = loud * made + 10 ** rng.uniform(-4, -2.5) * rng.standard_normal(len(t))
        write_wav_file(folder / f"{i:02d}.wav", np.round(32767 * sound).clip(-32768, 32767), RATE)
    split = ["train" if i < 24 else "valid" if i < 30 else "test" for i in range(N)]
    paths = [f"{i:02d}.wav" for i in range(N)]
    write_manifest(folder / "m.csv", paths, {"kind": list(kinds), "split": split})
    url = str(folder / "s")
    assert capture(build(), folder / "m.csv", url, task="t", threads=1, batch=8, device="cpu").n_ok == N
    clips = []
    for path in paths:
        with wave.open(str(folder / path)) as file:
            pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        clips.append(pcm.astype(np.float32) / 32768)
    return Stored(url, folder / "m.csv", kinds, clips, [plain_pass(samples) for samples in clips])


def certain(stored: Stored) -> np.ndarray:
    """(layer, neuron, clip) where no frame's value is so small that rounding decides over its sign."""
    doubtful = stored.plain_per_clip(lambda frames: ((frames > 0) & (frames < NEAR_ZERO)).any(axis=0))
    exists = ~np.isnan(doubtful)
    assert (doubtful[exists] == 0).mean() > 0.99
    return exists & (doubtful == 0)


def test_what_is_stored_is_what_plain_hooks_see(stored: Stored) -> None:
    ds, settled = stored.ds.compute(), certain(stored)
    mean = stored.plain_per_clip(lambda frames: frames.mean(axis=0))
    found = ds["mean"].transpose("layer", "neuron", "clip").values
    assert found.dtype == np.float32  # as float16 is shown
    assert (np.isnan(found) == np.isnan(mean)).all()
    rounding = np.abs(mean) * 2.0**-11 + 2.0**-25  # half a step of float16
    at = ~np.isnan(mean)
    assert (np.abs(found.astype(float) - mean)[at] <= (rounding + 1e-6 * np.nanmax(mean))[at]).all()
    assert (ds["active"].transpose("layer", "neuron", "clip").values[settled] == (mean > 0)[settled]).all()
    positive = stored.plain_per_clip(lambda frames: (frames > 0).sum(axis=0))
    assert (ds["positive_frames"].transpose("layer", "neuron", "clip").values[settled] == positive[settled]).all()
    assert (ds["frame_count"].values == [len(clip.frames["flat"]) for clip in stored.plain]).all()
    np.testing.assert_allclose(ds["embedding"], [clip.embedding for clip in stored.plain], rtol=0, atol=1e-5)
    assert 0.1 < (mean[at] > 0).mean() < 0.98  # a ReLU that is never off would show nothing


def plain_probability(stored: Stored, reading: str) -> np.ndarray:
    """P (layer, neuron, category) by its formula."""
    positive = stored.plain_per_clip(lambda frames: (frames > 0).sum(axis=0))
    counts = np.array([len(clip.frames["flat"]) for clip in stored.plain])
    per_category = []
    for kind in KINDS:
        own = stored.kinds == kind
        if reading == "frame":
            per_category.append(positive[..., own].sum(axis=-1) / counts[own].sum())
        else:  # of ReLU outputs the mean is positive where any frame is
            per_category.append((positive[..., own] > 0).sum(axis=-1) / own.sum())
    return np.where(np.isnan(positive[..., :1]), np.nan, np.stack(per_category, axis=-1))


def plain_aape(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        q = p / p.sum(axis=-1, keepdims=True)
        return np.where(p.sum(axis=-1) > 0, -np.where(q > 0, q * np.log(q), 0).sum(axis=-1), np.nan)


@pytest.mark.parametrize("reading", ["clip", "frame", "any"])
def test_probability_and_entropy_are_their_formulas(stored: Stored, reading: str) -> None:
    found = stored.ds.otoscope.probability("kind", reading=reading).transpose("layer", "neuron", "category")
    assert found["category"].values.tolist() == list(KINDS)
    settled = certain(stored).all(axis=-1)
    expected = plain_probability(stored, reading)
    np.testing.assert_allclose(found.values[settled], expected[settled], rtol=1e-12)
    entropy = stored.ds.otoscope.aape("kind", reading=reading).values
    np.testing.assert_allclose(entropy[settled], plain_aape(expected)[settled], atol=1e-12)
    assert np.unique(expected[settled].round(3)).size > 10


def plain_lape(p: np.ndarray, percentile: float) -> np.ndarray:
    """Members (layer, neuron, category), cell by cell as the published lines go."""
    cells = sorted(p[~np.isnan(p)].tolist())
    line = cells[round(0.95 * len(cells)) - 1]
    entropy = plain_aape(p)
    active = [at for at in np.ndindex(*p.shape[:2]) if not np.isnan(p[at]).any() and p[at].max() > line]
    n = round(percentile / 100 * sum(WIDTHS))
    member = np.zeros(p.shape, bool)
    for at in sorted(active, key=lambda at: (entropy[at], at))[:n]:
        member[at] = p[at] > line
    return member


def test_selected_neurons_are_those_of_the_published_lines(stored: Stored) -> None:
    found = stored.ds.otoscope.class_specific("kind", reading="frame", percentile=10.0)
    p = stored.ds.otoscope.probability("kind", reading="frame").values  # itself compared above
    np.testing.assert_array_equal(found["member"].transpose("layer", "neuron", "category"), plain_lape(p, 10.0))
    assert found["member"].any()


def asked(**more: Any) -> Request:
    pairs = " ".join(f"({layer},{neuron})" for layer, width in enumerate(WIDTHS) for neuron in range(0, width, 3))
    given = {"task": "t", "label": "kind", "set": pairs, "selection": Selection(reading="frame"), "controls": 0, **more}
    return Request(**given)


def plain_logits(study: Study, embeddings: np.ndarray) -> np.ndarray:
    probe = study.probe
    mean, scale, weight, bias = (getattr(probe, name)[0].astype(float) for name in ("mean", "scale", "weight", "bias"))
    return (embeddings - mean) / scale @ weight.T + bias


def plain_scores(logits: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    own = logits[np.arange(len(truth)), truth]
    others = np.array([np.delete(row, at).max() for row, at in zip(logits, truth, strict=True)])
    log_sum = np.log(np.exp(logits).sum(axis=1))
    return {"accuracy": logits.argmax(axis=1) == truth, "margin": own - others, "log_loss": log_sum - own}


@pytest.mark.parametrize("mode", ["remove", "keep"])
def test_probe_and_ablation_are_whole_passes_and_a_product(stored: Stored, mode: str) -> None:
    study = look_up(asked(mode=mode), stored.url)
    result = run_study(study, build(), read_manifest(stored.manifest), device="cpu")
    tested = list(range(30, N))
    assert study.clips.tolist() == tested
    truth = np.array([KINDS.index(stored.kinds[i]) for i in tested])
    chosen = {layer: set(neurons.tolist()) for layer, neurons in study.neurons.by_layer.items()}
    if mode == "keep":
        chosen = {layer: set(range(width)) - chosen[layer] for layer, width in enumerate(WIDTHS)}
    embeddings = {
        "before": np.stack([stored.plain[i].embedding for i in tested]),
        "after": np.stack([plain_pass(stored.clips[i], chosen).embedding for i in tested]),
    }
    scores = {when: plain_scores(plain_logits(study, values), truth) for when, values in embeddings.items()}
    for when in scores:
        for measure, expected in scores[when].items():
            np.testing.assert_allclose(result[f"clip_{when}"].sel(measure=measure), expected, atol=1e-3, rtol=1e-4)
    for code, kind in enumerate(KINDS):
        for measure in ("accuracy", "margin", "log_loss"):
            own = truth == code
            change = scores["after"][measure][own].mean(dtype=float) - scores["before"][measure][own].mean(dtype=float)
            found = result["change"].sel(measure=measure, category=kind)
            np.testing.assert_allclose(found, change, atol=1e-3, rtol=1e-4)
    assert np.abs(embeddings["after"] - embeddings["before"]).max() > 0.1
    assert scores["before"]["accuracy"].mean() > 0.6  # of three categories: the probe has learnt something
