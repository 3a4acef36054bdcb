"""AST and Whisper's encoder against the library's own classes, modules and feature extractors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from otoscope.extract.models.audio_spectrogram_transformer import FilterBank, band_filters
from otoscope.extract.models.encoder import Encoder, weights_digest
from otoscope.extract.models.registry import load_encoder

from ...support.transformers_folders import (
    LAYERS,
    NEURONS,
    SIZES,
    WIDTH,
    assert_close,
    capture_sounds,
    edit_config,
    edit_weights,
    library_run,
    noise,
    write_model,
)

# 128 bands over 257 bins leave the lowest bands empty, with the authors as well; the library says so.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
RATE = 16_000
AST_FRONT_END = {
    "feature_extractor_type": "ASTFeatureExtractor", "do_normalize": True, "feature_size": 1, "max_length": 1024,
    "mean": -4.2677393, "num_mel_bins": 128, "padding_value": 0.0, "sampling_rate": RATE, "std": 4.5689974,
}  # fmt: skip
WHISPER_FRONT_END = {
    "feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 30, "feature_size": 80, "hop_length": 160,
    "n_fft": 400, "sampling_rate": RATE, "padding_value": 0.0, "mel_filters": [[0.0]],
}  # fmt: skip
SMALL_AST = {"max_length": 96, "frequency_stride": 16}  # 8 x 9 patches


def write_ast(folder: Path, **changes: Any) -> tuple[str, Path]:
    """(spec, folder) of a tiny AST with a head."""
    config = transformers.ASTConfig(**{**SIZES, **SMALL_AST, **changes})
    front_end = {**AST_FRONT_END, "max_length": config.max_length}
    folder = write_model(folder / "ast", transformers.ASTForAudioClassification(config), front_end)
    return f"ast:{folder}", folder


def write_whisper(folder: Path) -> tuple[str, Path]:
    """(spec, folder) of a tiny Whisper with its decoder; its windows are the published 30 s."""
    config = transformers.WhisperConfig(
        d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=4, encoder_ffn_dim=NEURONS, decoder_layers=1,
        decoder_attention_heads=4, decoder_ffn_dim=16, vocab_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    folder = write_model(folder / "whisper", model, WHISPER_FRONT_END)
    return f"whisper:{folder}", folder


def samples_of(sounds: list[np.ndarray]) -> list[np.ndarray]:
    return [samples / np.float32(32768) for samples in sounds]


@pytest.mark.parametrize("normalise", [True, False])
def test_the_filter_bank_is_the_library_s(normalise: bool) -> None:
    theirs = transformers.ASTFeatureExtractor(do_normalize=normalise)
    ours = FilterBank(frames=1024, n_mels=128, norm=(theirs.mean, theirs.std) if normalise else None)
    sounds = samples_of(noise([400, 559, 560, 16_000, 170_000]))
    sounds += [np.zeros(5000, np.float32), np.where(np.arange(9000) > 4000, sounds[3][:9000], 0).astype(np.float32)]
    for sound in sounds:
        expected = theirs(sound, sampling_rate=RATE)["input_values"][0]
        assert_close(ours(torch.from_numpy(sound)[None])[0], expected)
    with pytest.raises(ValueError, match="at least 400 samples"):
        ours(torch.zeros(1, 399))


def test_bands_are_kaldi_s_by_its_own_formula() -> None:
    filters = band_filters(128)
    step = (1127 * np.log(1 + 8000 / 700) - 1127 * np.log(1 + 20 / 700)) / 129
    for band, k in ((60, 60), (60, 61), (100, 140), (127, 250)):
        mel, low = 1127 * np.log(1 + k * 31.25 / 700), 1127 * np.log(1 + 20 / 700) + band * step
        expected = max(0.0, 1 - abs(mel - low - step) / step)
        assert filters[band, k] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("published", [False, True])
def test_ast_captured_is_what_the_library_s_modules_give(tmp_path: Path, published: bool) -> None:
    spec, folder = write_ast(tmp_path, **({"max_length": 1024, "frequency_stride": 10} if published else {}))
    sounds = noise([16_000, 7000, 7001, 400, 20_000])
    ds = capture_sounds(spec, tmp_path, sounds, RATE)
    model = transformers.ASTModel.from_pretrained(folder).eval()
    front_end = transformers.ASTFeatureExtractor.from_pretrained(folder)
    acts = [layer.mlp.activation_fn for layer in model.layers]
    across = 101 if published else 9
    for i, samples in enumerate(samples_of(sounds)):
        run = library_run(model, acts, front_end(samples, sampling_rate=RATE, return_tensors="pt").input_values)
        # CLS and distillation token first, then rows of patches; one starts every 10 frames of 10 ms.
        counted = np.array(
            [False, False] + [(k % across) * 1600 < len(samples) for k in range(12 * across if published else 8 * 9)]
        )
        assert len(run["active"][0]) == len(counted)
        one = ds.isel(clip=i)
        assert int(one["frame_count"]) == counted.sum()
        assert_close(one["mean"].transpose("layer", "neuron"), np.stack([a[counted].mean(0) for a in run["active"]]))
        assert_close(one["embedding"], (run["last"][0] + run["last"][1]) / 2)
        hidden = one["hidden"].transpose("state", "hidden_dim").values
        assert_close(hidden, np.stack([state[counted].mean(0) for state in run["hidden"]]))
        assert not np.allclose(hidden[-1], run["last"][counted].mean(0), atol=1e-2)  # a norm comes after it


def test_ast_frames_are_where_patches_lie(tmp_path: Path) -> None:
    encoder = load_encoder(write_ast(tmp_path)[0])
    spans = encoder.spans(5000)
    assert spans.shape == (2 + 8 * 9, 4)
    assert np.isnan(spans[:2, :2]).all()
    # Patch 1 of row 1: frames 10 to 25, samples 1600 to 4000 + 400; bands 16 to 31.
    np.testing.assert_allclose(spans[2 + 9 + 1, :2], [0.1, 0.275])
    rows = np.flatnonzero(band_filters(128)[16:32].any(axis=0))
    assert spans[12, 2] <= rows[0] * 31.25
    assert spans[12, 3] >= rows[-1] * 31.25
    assert spans[12, 3] - spans[12, 2] < (rows[-1] - rows[0] + 2) * 31.25
    # Only frames of patches which a click touches change before attention: the projection's output.
    bank = FilterBank(frames=96, n_mels=128, norm=None)
    project: Any = encoder.module.embeddings.patch_embeddings  # type: ignore[union-attr]
    sound = torch.zeros(2, 16_000)
    sound[1, 4300] = 1.0
    plain, click = project(bank(sound))
    touched = (plain - click).abs().amax(dim=1).numpy() > 0
    inside = (spans[2:, 0] * RATE <= 4300) & (spans[2:, 1] * RATE > 4300)
    np.testing.assert_array_equal(touched, inside)


V4_NAMES = (
    ("layers.", "encoder.layer."), ("attention.q_proj.", "attention.attention.query."),
    ("attention.k_proj.", "attention.attention.key."), ("attention.v_proj.", "attention.attention.value."),
    ("attention.o_proj.", "attention.output.dense."), ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)  # fmt: skip


def test_ast_files_with_published_names_load_alike(tmp_path: Path) -> None:
    spec, folder = write_ast(tmp_path)
    encoder = load_encoder(spec)
    model = transformers.ASTModel.from_pretrained(folder)
    assert weights_digest(encoder.module) == weights_digest(model)

    def as_published(_tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {"classifier.dense.weight": torch.zeros(2, WIDTH), "classifier.layernorm.bias": torch.zeros(WIDTH)}
        for key, value in model.state_dict().items():
            for new, old in V4_NAMES:
                key = key.replace(new, old)
            renamed[f"audio_spectrogram_transformer.{key}"] = value.clone()
        return renamed

    edit_weights(folder, as_published)
    assert "audio_spectrogram_transformer.encoder.layer.2.output.dense.bias" in load_file(folder / "model.safetensors")
    assert weights_digest(load_encoder(f"{spec}/.").module) == weights_digest(encoder.module)


def test_a_front_end_of_another_size_is_refused(tmp_path: Path) -> None:
    spec, folder = write_ast(tmp_path)
    edit_config(folder, max_length=112)
    with pytest.raises(ValueError, match=r"'max_length': 96, .*; expected .*'max_length': 112"):
        load_encoder(spec)
    spec, folder = write_whisper(tmp_path)
    for change in ({"feature_size": 128}, {"dither": 0.1}, {"chunk_length": 20}):
        (folder / "preprocessor_config.json").write_text(json.dumps({**WHISPER_FRONT_END, **change}))
        with pytest.raises(ValueError, match=r"expected .*'chunk_length': 30.0, 'feature_size': 80, 'dither': 0"):
            load_encoder(spec)


@pytest.fixture
def whisper(tmp_path: Path) -> tuple[str, Path]:
    return write_whisper(tmp_path)


def test_whisper_captured_is_what_the_library_s_modules_give(tmp_path: Path, whisper: tuple[str, Path]) -> None:
    spec, folder = whisper
    sounds = noise([16_001, 16_250, 700, 480_000 + 3300])
    ds = capture_sounds(spec, tmp_path, sounds, RATE)
    model = transformers.WhisperModel.from_pretrained(folder).encoder.eval()
    front_end = transformers.WhisperFeatureExtractor(feature_size=80)
    acts = [layer.activation_fn for layer in model.layers]
    for i, samples in enumerate(samples_of(sounds)):
        windows = [samples[k : k + 480_000] for k in range(0, len(samples), 480_000)]
        runs = []
        for window in windows:
            mel = front_end(window, sampling_rate=RATE, return_tensors="pt").input_features
            run, kept = library_run(model, acts, mel), -(-len(window) // 320)
            runs.append(
                (kept, [a[:kept] for a in run["active"]], [h[:kept] for h in run["hidden"]], run["last"][:kept])
            )
        one = ds.isel(clip=i)
        assert int(one["frame_count"]) == sum(run[0] for run in runs) == -(-len(samples) // 320)
        means = [np.concatenate([run[1][layer] for run in runs]).mean(axis=0) for layer in range(LAYERS)]
        assert_close(one["mean"].transpose("layer", "neuron"), np.stack(means))
        assert_close(one["embedding"], np.concatenate([run[3] for run in runs]).mean(axis=0))
        # The library's last state is taken after the last norm, ours is the last layer's output.
        states = [np.concatenate([run[2][state] for run in runs]).mean(axis=0) for state in range(LAYERS)]
        hidden = one["hidden"].transpose("state", "hidden_dim").values
        assert_close(hidden[:-1], np.stack(states))
        normed = np.concatenate([run[3] for run in runs]).mean(axis=0)
        assert not np.allclose(hidden[-1], normed, atol=1e-2)


def test_whisper_s_padding_is_counted_only_if_asked(tmp_path: Path, whisper: tuple[str, Path]) -> None:
    counts = {
        frames: int(
            capture_sounds(whisper[0], tmp_path / frames, noise([5000]), RATE, frames=frames, unit_sec=0.5)[
                "frame_count"
            ][0]
        )
        for frames in ("audio", "published", "all")
    }
    assert counts == {"audio": 16, "published": 25, "all": 1500}


def test_whisper_s_frames(whisper: tuple[str, Path]) -> None:
    encoder: Encoder = load_encoder(whisper[0])
    spans = encoder.spans(480_000 + 321)
    assert spans.shape == (3000, 4)
    assert np.isnan(spans[1502:, :2]).all()
    np.testing.assert_allclose(spans[1501], [30.02, 30.04, 0, 8000])
    assert [encoder.input_length(n) for n in (1, 320, 321)] == [1, 1, 2]
    assert encoder(torch.zeros(2, 5)).shape == (2, WIDTH)
    assert not any("decoder" in name for name in encoder.module.state_dict())
