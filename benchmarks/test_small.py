"""Every question can be asked at small size; what comes out is no measurement."""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tests.support.local_ray import local_ray

from otoscope.extract.models.tap import tap
from otoscope.store.blocks import blocks

from . import QUESTIONS, against_hooks
from .synthetic import write_audio

QUICK = ("quickstart", "throughput", "against_hooks", "planted", "encoders", "one_neuron", "dictionaries")


def in_this_process(function: str, **arguments: Any) -> Any:
    """Instead of a fresh one, which would start a Ray of its own."""
    module, name = function.split(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)


@pytest.fixture
def one_ray() -> Iterator[None]:
    with local_ray():
        yield


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # the library's own front end
@pytest.mark.parametrize(
    "question",
    [pytest.param(q, marks=[pytest.mark.slow] * (q not in QUICK)) for q in (*QUESTIONS, "precision", "explorer")],
)
def test_question_can_be_measured(
    question: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if question == "cluster":
        request.getfixturevalue("one_ray")
    module = importlib.import_module(f"benchmarks.{question}")
    if hasattr(module, "fresh_process"):
        monkeypatch.setattr(module, "fresh_process", in_this_process)  # of which each would import torch
    measured = module.measure(tmp_path, module.SMALL)
    assert measured.figures
    assert all(math.isfinite(figure.value) for figure in measured.figures)
    assert all(figure.holds for figure in measured.figures if figure.name.startswith("server under load"))


def test_every_token_is_kept_as_it_was(tmp_path: Path) -> None:
    """What ours is compared with is what it says: all tokens of all layers, the same numbers in both ways' files."""
    size = against_hooks.SMALL
    encoder, manifest = (
        against_hooks.made_encoder(size.depth),
        write_audio(tmp_path / "corpus", n_clips=4, seconds=size.seconds, n_categories=2),
    )
    (block,) = blocks("t", 4, 4)
    files = sorted(manifest.parent.rglob("*.wav"))
    for name, way in (("saved", against_hooks.Saved), ("mapped", against_hooks.Mapped)):
        way(encoder, files, size, tmp_path / name)(block)
    saved = [torch.load(file, weights_only=True) for file in sorted((tmp_path / "saved").iterdir())]
    tokens = np.concatenate([batch["blocks.0.mlp.act"].numpy() for batch in saved])
    (shard,) = (tmp_path / "mapped").iterdir()
    np.testing.assert_array_equal(np.fromfile(shard, np.float32).reshape(4, 1, *tokens.shape[1:])[:, 0], tokens)
    assert shard.stat().st_size == 4 * against_hooks.bytes_of_all_tokens(encoder, size)
    waveforms = torch.from_numpy(np.stack([soundfile.read(file, dtype="float32")[0] for file in files]))
    with torch.inference_mode(), tap(encoder.module, ["blocks.0.mlp.act"]) as seen:
        encoder(waveforms)
    np.testing.assert_allclose(tokens, seen["blocks.0.mlp.act"][0].numpy(), atol=1e-5)
