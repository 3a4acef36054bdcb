"""A crossed corpus, a tiny Qwen2-Audio with planted neurons, and a store of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.models.qwen2audio import load
from otoscope.extract.models.registry import load_encoder

from ...support.planted_grounding import FRAMES, extracted, plant, write_corpus


@dataclass
class Planted:
    folder: Path
    manifest: Path
    model: Path
    url: str
    encoder: Any
    """With a decoder in float64."""
    corpus: Any

    @property
    def spec(self) -> str:
        return f"qwen2audio:{self.model}"


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("grounding")
    manifest = write_corpus(folder)
    model = plant(folder / "model", manifest)
    encoder = load(str(model))  # not the one that all get who load it by its name
    encoder.module.language_model.double()
    url = extracted(manifest, encoder, str(folder / "lm.zarr"))
    return Planted(folder, manifest, model, url, encoder, read_manifest(manifest))


@pytest.fixture(scope="session")
def small(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The same model, in float32, and a smaller corpus."""
    folder = tmp_path_factory.mktemp("small")
    manifest = write_corpus(folder, 4, FRAMES[:2])
    encoder = load_encoder(planted.spec)
    url = extracted(manifest, encoder, str(folder / "lm.zarr"))
    return Planted(folder, manifest, planted.model, url, encoder, read_manifest(manifest))
