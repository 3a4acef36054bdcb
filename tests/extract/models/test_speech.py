"""HuBERT, WavLM, wav2vec 2.0, data2vec-audio and MERT against the library's own classes, modules and front end."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import weights_digest
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.models.transformers_files import transformers_part

from ...support.transformers_folders import (
    LAYERS,
    SIZES,
    assert_close,
    capture_sounds,
    edit_config,
    edit_weights,
    library_run,
    noise,
    write_model,
)

CONVOLUTIONS = {"conv_dim": (8,) * 7, "vocab_size": 6}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SPEAKERS = {
    "tdnn_dim": [8] * 5, "xvector_output_dim": 8, "use_weighted_layer_sum": True, "classifier_proj_size": 8
}  # fmt: skip
MERT = {
    "model_type": "mert_model", "architectures": ["MERTModel"], "feature_extractor_cqt": False, "deepnorm": False,
    "attention_relax": -1.0, "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
}  # fmt: skip
FRONT_END = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16_000}
# family, configuration, class that is written (with a head, as published), class of the backbone, its settings
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hubert": ("Hubert", "HubertForCTC", {}),
    "hubert-large": ("Hubert", "HubertForCTC", LARGE),
    "wavlm": ("WavLM", "WavLMForCTC", {}),
    "wavlm-large": ("WavLM", "WavLMForCTC", LARGE),
    "wav2vec2": ("Wav2Vec2", "Wav2Vec2ForPreTraining", {}),
    "wav2vec2-large": ("Wav2Vec2", "Wav2Vec2ForCTC", LARGE),
    "data2vec": ("Data2VecAudio", "Data2VecAudioForCTC", {}),
    "mert": ("Hubert", "HubertModel", {}),
    # As published for speaker verification and classification: heads of several tensors beside the encoder.
    "wavlm-speakers": ("WavLM", "WavLMForXVector", SPEAKERS),
    "wav2vec2-speakers": ("Wav2Vec2", "Wav2Vec2ForXVector", SPEAKERS),
    "hubert-commands": ("Hubert", "HubertForSequenceClassification", {"use_weighted_layer_sum": True}),
    "wavlm-frames": ("WavLM", "WavLMForAudioFrameClassification", {}),
}
LIKE_OTHERS = ("hubert-large", "wav2vec2-large", "wav2vec2-speakers", "hubert-commands", "wavlm-frames")


def write(folder: Path, kind: str, front_end: dict[str, Any] = FRONT_END, **more: Any) -> tuple[str, Path]:
    """(spec, folder) of a tiny model."""
    stem, written, changes = MODELS[kind]
    settings = {**SIZES, **CONVOLUTIONS, **POSITIONS, **changes, **more}
    if stem == "Data2VecAudio":
        settings |= {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
    if written == "Wav2Vec2ForPreTraining":
        settings |= {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 4}
    config = getattr(transformers, f"{stem}Config")(**settings)
    family = kind.split("-")[0]
    folder = write_model(folder / family, getattr(transformers, written)(config), front_end)
    if family == "mert":
        edit_config(folder, **MERT)
    return f"{family}:{folder}", folder


def backbone(folder: Path, kind: str) -> torch.nn.Module:
    """The library's own model from the same folder, by the library's own loading."""
    stem = MODELS[kind][0]
    model_class = getattr(transformers, f"{stem}Model")
    if kind == "mert":  # what its own code does, by the class it inherits from
        config = transformers.HubertConfig(**{**SIZES, **CONVOLUTIONS, **POSITIONS})
        model = transformers.HubertModel(config)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
    return model_class.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow if k in LIKE_OTHERS else ()) for k in MODELS])
def test_what_is_captured_is_what_the_library_s_modules_give(tmp_path: Path, kind: str) -> None:
    rate = 24_000 if kind == "mert" else 16_000
    spec, folder = write(tmp_path, kind, {**FRONT_END, "sampling_rate": rate})
    sounds = noise([4000, 4000, 5190, 401])
    ds = capture_sounds(spec, tmp_path, sounds, rate)
    model = backbone(folder, kind)
    front_end = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    acts = [layer.feed_forward.intermediate_act_fn for layer in model.encoder.layers]
    for i, samples in enumerate(sounds):
        inputs = front_end(samples / np.float32(32768), sampling_rate=rate, return_tensors="pt").input_values
        run = library_run(model, acts, inputs)
        one = ds.isel(clip=i)
        n_frames = len(run["active"][0])
        assert int(one["frame_count"]) == n_frames == (len(samples) - 80) // 320
        assert_close(one["mean"].transpose("layer", "neuron"), np.stack([a.mean(0) for a in run["active"]]))
        assert_close(one["embedding"], run["last"].mean(0))
        hidden = one["hidden"].transpose("state", "hidden_dim").values
        assert_close(hidden, np.stack([state.mean(0) for state in run["hidden"]]))
        # In "large" models a norm comes after the last layer; otherwise its output is the model's.
        last_is_output = np.allclose(hidden[-1], run["last"].mean(0), atol=1e-5)
        assert last_is_output == (not kind.endswith("large"))
    assert ds.sizes["layer"] == LAYERS
    assert (ds["mean"] > 0).any()


def test_without_do_normalize_samples_are_taken_as_they_are(tmp_path: Path) -> None:
    spec, folder = write(tmp_path, "hubert", {**FRONT_END, "do_normalize": False})
    ds = capture_sounds(spec, tmp_path, noise([3000]), 16_000)
    with torch.inference_mode():
        wave = torch.from_numpy(noise([3000])[0] / np.float32(32768))[None]
        expected = backbone(folder, "hubert")(wave).last_hidden_state[0].mean(0)
    assert_close(ds["embedding"][0], expected)


def test_one_clip_s_loudness_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    encoder = load_encoder(write(tmp_path, "wavlm")[0])
    waves = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    together = encoder.prepare(waves * torch.tensor([[1.0], [50.0]]) + 3)
    assert_close(together[0], (waves[0] - waves[0].mean()) / waves[0].std(correction=0))
    assert_close(together.mean(dim=1) + 1, [1.0, 1.0])


def test_frames_are_where_the_convolutions_see(tmp_path: Path) -> None:
    encoder = load_encoder(write(tmp_path, "hubert")[0])
    assert encoder.min_samples == 400
    np.testing.assert_allclose(
        encoder.spans(1040), [[0, 0.025, 0, 8000], [0.02, 0.045, 0, 8000], [0.04, 0.065, 0, 8000]]
    )
    assert len(encoder.spans(399 + 320)) == 1
    assert len(encoder.spans(400 + 320)) == 2
    # A frame's feed-forward input depends on others, but its convolutions see only their span.
    features = encoder.module.feature_extractor
    wave = torch.randn(1, 1040, generator=torch.Generator().manual_seed(0), requires_grad=True)
    single = torch.nn.Sequential(*[layer.conv for layer in features.conv_layers])  # type: ignore[union-attr]
    single(wave[:, None])[0, :, 1].sum().backward()
    assert wave.grad is not None
    touched = wave.grad[0].nonzero().flatten()
    assert (int(touched.min()), int(touched.max()) + 1) == (320, 720)


def test_nothing_random_is_left_in_the_model(tmp_path: Path) -> None:
    _, folder = write(tmp_path, "wav2vec2")
    edit_config(folder, mask_time_prob=0.9, mask_feature_prob=0.9, layerdrop=0.9, apply_spec_augment=True)
    encoder = load_encoder(f"wav2vec2:{folder}")
    assert not any(part.training for part in encoder.module.modules())
    config: Any = encoder.module.config
    assert (config.mask_time_prob, config.mask_feature_prob, config.layerdrop) == (0, 0, 0)
    assert not config.apply_spec_augment


def test_another_family_s_checkpoint_is_refused(tmp_path: Path) -> None:
    _, folder = write(tmp_path, "wavlm")
    with pytest.raises(ValueError, match=r"type 'wavlm'; wav2vec2: expects 'wav2vec2': load it as wavlm:"):
        load_encoder(f"wav2vec2:{folder}")
    edit_config(folder, model_type="wav2vec2")  # relabelled: its gated position bias is not part of that class
    edit_weights(folder, lambda ts: {k.replace("wavlm.", "wav2vec2."): v for k, v in ts.items()})
    with pytest.raises(ValueError, match=r"gru_rel_pos_const is not part of this encoder"):
        load_encoder(f"wav2vec2:{folder}/.")
    edit_config(folder, model_type="unispeech")
    with pytest.raises(ValueError, match=r"type 'unispeech'.*known are ast"):
        load_encoder(f"hubert:{folder}")


def test_missing_misshapen_and_unknown_weights_are_named(tmp_path: Path) -> None:
    spec, folder = write(tmp_path, "hubert")
    dense = "hubert.encoder.layers.1.feed_forward.output_dense.bias"
    edit_weights(folder, lambda ts: {k: v for k, v in ts.items() if k != dense})
    with pytest.raises(ValueError, match=r"encoder.layers.1.feed_forward.output_dense.bias \(32,\) is missing"):
        load_encoder(spec)
    edit_weights(folder, lambda ts: {**ts, dense: torch.zeros(3)})
    with pytest.raises(ValueError, match=r"output_dense.bias is \(3,\), expected \(32,\)"):
        load_encoder(spec)
    edit_weights(folder, lambda ts: {**ts, dense: torch.zeros(32), "hubert.surprise": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"surprise is not part of this encoder"):
        load_encoder(spec)


def old_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As in the files that were published before torch had parametrizations."""
    pairs = (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v"))
    renamed = {}
    for key, value in tensors.items():
        for new, old in pairs:
            key = key.replace(new, old)
        renamed[key] = value
    return renamed


def test_old_names_torch_files_shards_and_half_precision_load_alike(tmp_path: Path) -> None:
    spec, folder = write(tmp_path, "hubert")
    digest = weights_digest(load_encoder(spec).module)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(old_names(tensors), folder / "pytorch_model.bin")
    assert weights_digest(load_encoder(f"{spec}/.").module) == digest
    (folder / "pytorch_model.bin").unlink()
    keys = sorted(old_names(tensors))
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": keys[i::2] for i in range(2)}
    for name, part in shards.items():
        torch.save({key: old_names(tensors)[key] for key in part}, folder / name)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, part in shards.items() for key in part}}))
    assert weights_digest(load_encoder(f"{spec}/./.").module) == digest
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.bin"}}))
    with pytest.raises(FileNotFoundError, match="expected all shards beside it"):
        load_encoder(f"{spec}/././.")
    index.unlink()
    torch.save({key: value.half() for key, value in tensors.items()}, folder / "pytorch_model.bin")
    values = load_encoder(f"{spec}/./././.").module.state_dict().values()
    assert {value.dtype for value in values} == {torch.float32}


def test_files_that_are_absent_or_no_json_are_named(tmp_path: Path) -> None:
    spec, folder = write(tmp_path, "hubert")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_encoder("hubert:nowhere")
    front_end = folder / "preprocessor_config.json"
    front_end.write_text("{}")
    with pytest.raises(ValueError, match="has sampling_rate None; expected a int"):
        load_encoder(spec)
    front_end.write_text("[")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is not JSON"):
        load_encoder(spec)
    front_end.unlink()
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json in"):
        load_encoder(spec)
    front_end.write_text(json.dumps(FRONT_END))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights in .*model.safetensors or pytorch_model.bin"):
        load_encoder(spec)


@pytest.mark.parametrize("switch", ["feature_extractor_cqt", "deepnorm"])
def test_mert_that_needs_its_own_code_is_explained(tmp_path: Path, switch: str) -> None:
    spec, folder = write(tmp_path, "mert")
    edit_config(folder, **{switch: True})
    with pytest.raises(ValueError, match=rf"switches on {switch}, layers that only the code.*never run"):
        load_encoder(spec)


def test_without_transformers_the_way_to_install_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = write(tmp_path, "hubert")

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"needs transformers .*checkout: pip install -e '\.\[hf\]'"):
        transformers_part()
    assert spec


def test_a_store_is_not_continued_with_another_front_end(tmp_path: Path) -> None:
    spec, folder = write(tmp_path, "hubert")
    capture_sounds(spec, tmp_path, noise([900, 900]), 16_000)
    (folder / "preprocessor_config.json").write_text(json.dumps({**FRONT_END, "do_normalize": False}))
    with pytest.raises(ValueError, match=r"front_end.normalise"):
        capture(load_encoder(f"{spec}/."), tmp_path / "m.csv", str(tmp_path / "s"), task="t", device="cpu")
