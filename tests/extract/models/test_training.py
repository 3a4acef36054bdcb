"""The bundled encoders: the records beside them are true, and their training can be repeated."""

import hashlib
import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from otoscope.extract.audio.corpora import synth
from otoscope.extract.models.registry import load_encoder

HOME = Path(__file__).parents[3]
WEIGHTS = HOME / "extract" / "models" / "weights"
NAMES = ["tiny-ssl", "tiny-sl"]


def record(name: str) -> dict[str, Any]:
    return dict(json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_tiny", HOME / "examples" / "train_tiny.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_tiny"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_the_record_is_of_these_weights(name: str) -> None:
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    assert len(content) <= 2_000_000
    assert record(name)["sha256"] == hashlib.sha256(content).hexdigest()
    encoder = load_encoder(name)
    anatomy = encoder.anatomy()
    assert [site.width for site in anatomy.sites] == [384] * 4
    assert anatomy.embedding == 5 * 96
    np.testing.assert_allclose(encoder.front_end["norm_stats"], record(name)["norm_stats"], atol=1e-6)


def test_only_the_objective_differs(script: ModuleType) -> None:
    ssl, sl = (record(name) for name in NAMES)
    for key in ("settings", "pool", "norm_stats", "optimiser", "torch"):
        assert ssl[key] == sl[key], key
    assert ssl["settings"] == script.asdict(script.Settings())  # so the plain command gives these weights


def test_learning_went_somewhere_and_did_not_collapse(script: ModuleType) -> None:
    ssl, sl = (record(name)["outcome"] for name in NAMES)
    for outcome in (ssl, sl):
        assert outcome["loss_curve"][-1] < 0.7 * outcome["loss_curve"][0]
    assert min(ssl["target_std_curve"]) > 0.2
    for factor, values in script.FACTORS.items():
        assert sl[f"held_out_accuracy_{factor}"] > 1.5 / len(values)


def test_the_page_tells_the_numbers_of_the_records() -> None:
    """Rows of the page's table: | key of outcome or settings | tiny-ssl | tiny-sl |, "-" for none."""
    page = (HOME / "docs" / "tiny-encoders.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \|$", page, flags=re.MULTILINE)
    assert {"steps", "held_out_loss", "held_out_target_std", "held_out_accuracy_room", "seconds"} <= {
        row[0] for row in rows
    }
    for key, *found in rows:
        for name, value in zip(NAMES, found, strict=True):
            known = record(name)["settings"] | record(name)["outcome"]
            assert value == str(known.get(key, "-")), (name, key)
    for name in NAMES:
        assert record(name)["sha256"][:16] in page
    assert record("tiny-ssl")["pool"]["sha256"][:16] in page


def test_the_loss_of_masked_prediction_is_the_stated_one(script: ModuleType) -> None:
    """Against a plain statement, clip by clip: mean over masked patches of 2 - 2 cos(prediction, target)."""
    settings = script.Settings()
    torch.manual_seed(0)
    log_mel = torch.randn(6, 80, 101)
    pool = script.Pool(log_mel=log_mel, codes=torch.zeros(6, 4, dtype=torch.long), counts={}, sha256="")
    model = script.MaskedPrediction(script.new_encoder(pool, settings), settings)
    captured: list[torch.Tensor] = []
    model.decoder_pred.register_forward_hook(lambda _module, _inputs, output: captured.append(output))
    torch.manual_seed(1)
    with torch.no_grad():
        loss = float(model(log_mel, pool.codes))
        torch.manual_seed(1)
        order = torch.rand(6, 35).argsort(dim=1)
        targets = []
        masked = order[:, 11:]  # 30 % of 35 patches are visible
        for clip, positions in zip(log_mel, masked, strict=True):
            patches = model.target.embed_patches(model.target.normalise(clip[None]))[0]
            targets.append(model.target.encode(patches[positions][None])[0, 1:])
        wanted = torch.stack(targets).double().numpy()
    predicted = captured[0].double().numpy()
    assert predicted.shape == wanted.shape == (6, 24, 96)
    flat = wanted.reshape(-1, 96)
    wanted = (wanted - flat.mean(axis=0)) / flat.std(axis=0, ddof=1)
    cosine = (predicted * wanted).sum(axis=2) / np.linalg.norm(predicted, axis=2) / np.linalg.norm(wanted, axis=2)
    assert math.isclose(loss, float((2 - 2 * cosine).mean()), rel_tol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ssl", "sl"])
def test_training_again_briefly_lowers_the_loss(
    script: ModuleType, objective: str, request: pytest.FixtureRequest
) -> None:
    settings = script.Settings(steps=60, clips=300, batch=64)
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(settings.threads)
    pool, held_out = script.make_pool(settings.clips, 5), script.make_pool(100, 6)
    encoder, outcome = script.train(objective, pool, held_out, settings)
    curve = outcome["loss_curve"]
    assert sum(curve[-5:]) < 0.85 * sum(curve[:5])
    again, _ = script.train(objective, pool, held_out, settings)
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0, msg=key)


def ridge_accuracy(embedding: np.ndarray, names: np.ndarray, learn: np.ndarray) -> float:
    """Share of test clips named rightly by least squares on one-hot targets, standardised, penalty 10."""
    scaled = (embedding - embedding[learn].mean(axis=0)) / (embedding[learn].std(axis=0) + 1e-6)
    inputs = np.column_stack([scaled, np.ones(len(scaled))]).astype(np.float64)
    known = np.unique(names)
    square = inputs[learn].T @ inputs[learn] + 10.0 * np.eye(inputs.shape[1])
    weights = np.linalg.solve(square, inputs[learn].T @ (names[learn, None] == known))
    return float((known[(inputs[~learn] @ weights).argmax(axis=1)] == names[~learn]).mean())


@pytest.mark.slow
def test_the_page_tells_what_a_linear_probe_finds() -> None:
    """Rows | task label | tiny-ssl | tiny-sl |, on the default corpora of seed 0, by their own split."""
    page = (HOME / "docs" / "tiny-encoders.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (additive|fm|events) (\w+) \| ([\d.]+) \| ([\d.]+) \|", page, flags=re.MULTILINE)
    assert len(rows) == 5
    encoders = [load_encoder(name) for name in NAMES]
    for task, n in (("additive", 75), ("fm", 75), ("events", 24)):
        made = list(synth.clips(0, {task: n}))
        waves = torch.from_numpy(np.stack([samples for samples, _ in made]))
        with torch.inference_mode():
            seen = [np.concatenate([e(part).numpy() for part in waves.split(128)]) for e in encoders]
        learn = np.array([factors["split"] == "train" for _, factors in made])
        for row_task, label, *published in rows:
            if row_task == task:
                names = np.array([str(factors[label]) for _, factors in made])
                found = [ridge_accuracy(embedding, names, learn) for embedding in seen]
                np.testing.assert_allclose(found, [float(x) for x in published], atol=0.03, err_msg=f"{task} {label}")
