"""Whole studies of latents, one of them planted: extract, select, ablate, in Python, by commands and over HTTP."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import otoscope
from otoscope.ablate.effects import clip_scores
from otoscope.ablate.request import Request
from otoscope.ablate.result import read_result, write_result
from otoscope.ablate.study import LEARNING_RATES, OpenStore, look_up, run_study
from otoscope.analysis.selection.selection import Selection
from otoscope.extract.audio.decoding import read_clip
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.models.dictionary import write_dictionary
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.plan import origin_of
from otoscope.serve.client import Client
from otoscope.serve.routes import make_app
from otoscope.store.provenance import digest_of

from ..support import planted_encoder as planted
from ..support.commands import call, done, refused
from ..support.counting import count_calls
from ..support.dictionaries import by_hooks
from ..support.planted_corpus import write_sounds
from ..support.planted_encoder import HOP, RATE
from ..support.planted_latents import LATENTS, PLANTED_LATENT, planted_dictionary
from ..support.running_service import HereProcess, ServedStore, listening

BASE = f"module:{planted.__file__}:planted"
ASKED: dict = {"task": "t", "label": "letter", "set": "only(d)", "selection": Selection(percentile=2.5, clips="all")}


def made(
    folder: Path, rows: str, precision: str | None = None, unit_sec: float | None = None, **how: object
) -> tuple[str, str, Path]:
    """Spec, store and manifest of a task of latents, trained as far as one can tell on the same encoder's states."""
    manifest = write_sounds(folder, **how)
    base = digest_of(origin_of(load_encoder(BASE).to("cpu").at(precision), "audio").identity.to_json())
    write_dictionary(planted_dictionary(rows, base), folder / "sae")
    spec, url = f"latents:{folder / 'sae'}@{BASE}", str(folder / "s.zarr")
    capture(spec, manifest, url, task="t", threads=1, batch=16, device="cpu", precision=precision, unit_sec=unit_sec)
    return spec, url, manifest


@pytest.fixture(scope="module", params=["frame", "clip"])
def here(request, tmp_path_factory):
    return made(tmp_path_factory.mktemp(request.param), request.param)


PROBES: dict = {}
"""By store: fitted once."""


def run(here, **more):
    spec, url, manifest = here
    study = look_up(Request(**{**ASKED, "controls": 20, **more}), url, PROBES.get(url))
    PROBES[url] = study.probe
    return run_study(study, spec, read_manifest(manifest), device="cpu")


def check_hurt_alone(result):
    """All of d is lost, and no other clip moves at all."""
    before, after = (values(result, "accuracy", when) for when in ("before", "after"))
    assert (before["d"], after["d"]) == (1, 0)
    assert values(result, "margin", "change") == {**dict.fromkeys("abc", 0), "d": pytest.approx(-5, abs=4.9)}


def values(result: xr.Dataset, measure: str, value: str) -> dict[str, float]:
    found = result[value].sel(measure=measure)
    return {category: float(found.sel(category=category)) for category in "abcd"}


def test_a_planted_latent_is_found_and_its_removal_hurts_its_class_alone(here):
    url = here[1]
    ds = otoscope.open(url)["t"].to_dataset()
    assert (ds["frame_count"] == (1 if "clip" in url else 8)).all()
    assert look_up(Request(**ASKED, controls=0), url).neurons.pairs == (PLANTED_LATENT,)
    result = run(here)
    assert result.attrs["method"] == ["replay"]
    check_hurt_alone(result)
    assert result["predicted_after"].sel(category="d", predicted="d") == 0
    assert values(result, "accuracy", "p_rank")["d"] == pytest.approx(1 / 21)
    assert result["control_change"].sel(measure="accuracy", category="d").min() > -0.5


@pytest.mark.slow
def test_all_modes_do_to_a_latent_what_they_do_to_neurons(here):
    assert values(run(here, mode="gain", gain=0.02), "accuracy", "after")["d"] == 0
    assert values(run(here, mode="gain", gain=1.0), "margin", "change") == dict.fromkeys("abcd", 0)
    assert values(run(here, mode="category-mean", category="c"), "accuracy", "after")["d"] == 0  # where it is silent
    assert values(run(here, mode="category-mean", category="d"), "predicted", "after")["c"] >= 0.9
    assert values(run(here, mode="transplant", category="d"), "predicted", "after")["c"] >= 0.9
    assert values(run(here, mode="mean"), "margin", "change")["d"] < -1
    kept = run(here, mode="keep")
    assert values(kept, "accuracy", "after")["d"] == 1
    assert kept.attrs["method"] == ["replay"]
    assert values(run(here, mode="keep-mean"), "accuracy", "after")["d"] == 1


def test_wrong_latents_and_clips_too_long_for_them_are_refused_before_anything_is_said_to_happen(
    here, tmp_path, monkeypatch, caplog
):
    spec, url, manifest = here
    study, corpus = look_up(Request(**ASKED, controls=0), url), read_manifest(manifest)
    latents = load_encoder(spec)
    assert latents.base is not None
    cuts = [replace(latents, base=replace(latents.base, longest=longest)) for longest in (8 * HOP - 1, 8 * HOP)]
    runs = count_calls(monkeypatch, "otoscope.ablate.study.AblationWorker")
    caplog.set_level("INFO")
    if "clip" in url:
        with pytest.raises(ValueError, match=r"encoder module runs its layers several times in a pass over clips"):
            run_study(study, cuts[0], corpus, device="cpu")
        assert not runs
        assert study.summary() not in caplog.text
    run_study(study, cuts[1], corpus, device="cpu")
    assert runs
    assert study.summary() in caplog.text
    other = planted_dictionary("clip" if "clip" in url else "frame")
    write_dictionary(replace(other, decoder=2 * other.decoder), tmp_path / "sae")
    given = ("ablate", "run", url, "--corpus", manifest, "--task", "t:letter", "--set", "(0,7)", "--controls", 0)
    result = call(*given, "--encoder", f"latents:{tmp_path / 'sae'}@{BASE}", "-o", tmp_path / "r.parquet")
    *before, error = result.stderr.splitlines()
    assert (result.exit_code, error[:37]) == (2, "Error: the encoder is not the store's")
    assert not [line for line in before if "test clips" in line]


def test_named_sets_of_latents_are_made_and_removed_by_commands(here, tmp_path):
    spec, url, manifest = here
    asked = ("--task", "t:letter", "--percentile", 2.5, "--clips", "all", "--set", "only(d)")
    done("ablate", "set", url, *asked, "-o", tmp_path / "set.json")
    assert json.loads((tmp_path / "set.json").read_text())["pairs"] == [list(PLANTED_LATENT)]
    given = ("ablate", "run", url, "--encoder", spec, "--corpus", manifest, "--task", "t:letter", "--controls", 5)
    named = ("--set", f"@{tmp_path / 'set.json'}")
    done(*given, *named, "--device", "cpu", "-o", tmp_path / "r.parquet")
    frame = pd.read_parquet(tmp_path / "r.parquet")
    after = frame[frame["measure"] == "accuracy"].set_index("category")["after"]
    assert after["d"] == 0 < after[list("abc")].min()
    refused(
        r"the encoder is not the store's \(derived_from: .*; encoder: \"latents\", not \"module\"",
        *("ablate", "run", url, "--encoder", BASE, *given[5:], *named, "-o", tmp_path / "other.parquet"),
        watched=tmp_path,
    )


def test_a_service_gives_what_the_study_gives(here, tmp_path):
    spec, url, manifest = here
    settings = ServedStore(url=url, manifest=manifest).settings(tmp_path / "state", encoder=spec)
    asked = Request(**ASKED, controls=3)
    with listening(make_app(settings, HereProcess(settings))) as address:
        found = Client(address).run(asked, timeout=300)
    write_result(run(here, controls=3), tmp_path / "r.parquet")
    xr.testing.assert_identical(found, read_result(tmp_path / "r.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["frame", "clip"])
def test_padding_counts_in_an_ablation_as_little_as_in_the_store(rows, tmp_path):
    """Codes of a clip are of its own frames, whatever it is padded to: plain hooks with those frames' weights agree."""
    spec, url, manifest = made(tmp_path, rows, unit_sec=8 * HOP / RATE, lengths=(8, 3, 5, 6))
    study = look_up(Request(**{**ASKED, "set": "(0,7)", "mode": "keep", "controls": 0}), url)
    corpus, encoder = read_manifest(manifest), load_encoder(BASE).to("cpu")
    result = run_study(study, spec, corpus, device="cpu")
    sounds = [read_clip(corpus.clips.root, corpus.clips.clip(int(i)), RATE).samples for i in study.clips]
    waveforms = torch.from_numpy(np.stack([np.pad(sound, (0, 8 * HOP - len(sound))) for sound in sounds]))
    weights = np.array([np.arange(8) * HOP < len(sound) for sound in sounds]).astype(float)
    assert sorted(set(weights.sum(1))) == [3, 5, 6, 8]
    keep = {0: lambda codes: codes * (torch.arange(LATENTS) == PLANTED_LATENT[1])}
    of_clips = None if rows == "frame" else weights
    embedding = by_hooks(encoder, encoder.prepare(waveforms), [planted_dictionary(rows)], keep, of_clips)
    expected = clip_scores(study.probe.logits(embedding, study.heads), study.truth, None)[0]
    np.testing.assert_allclose(result["clip_after"], expected, atol=1e-3)
    assert result.attrs["method"] == ["replay"]
    assert result.attrs["base_deviation"] < 1e-6


def test_a_study_follows_the_precision_of_the_store(tmp_path):
    spec, url, manifest = made(tmp_path, "clip", precision="bfloat16")
    result = run((spec, url, manifest))
    assert result.attrs["method"] == ["replay"]
    accuracy = values(result, "accuracy", "change")
    assert accuracy == {**dict.fromkeys("abc", 0), "d": -1}
    assert OpenStore(url).record("t").identity.precision == "bfloat16"


@pytest.mark.slow
def test_a_probe_learns_at_the_rate_of_the_family_behind_the_latents(here, monkeypatch):
    rate = {"published": look_up(Request(**ASKED, probe="published"), here[1]).probe.about["recipe"]["learning_rate"]}
    monkeypatch.setitem(LEARNING_RATES, "module", 7e-4)
    rate["module"] = look_up(Request(**ASKED, probe="published"), here[1]).probe.about["recipe"]["learning_rate"]
    assert rate == {"published": 3e-4, "module": 7e-4}
