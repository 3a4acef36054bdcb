"""Every layout in which M2D checkpoints come, and every way in which a file can be wrong."""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from otoscope.extract.models.checkpoint import read_checkpoint
from otoscope.extract.models.encoder import Encoder, weights_digest
from otoscope.extract.models.m2d import load
from otoscope.extract.models.m2d_files import Geometry, parse_geometry
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.models.tap import match_sites

from ...support.amounts import quick_sample
from ...support.m2d_in_numpy import encoder_state, frame_features

State = dict[str, torch.Tensor]
NAME = "m2d_vit_tiny-80x112p16x16-230101"
SIZES: dict[str, Any] = {"depth": 2, "width": 48, "hidden": 64, "n_patches": 35, "patch": (16, 16)}
STATE = encoder_state(**SIZES)
LOG_MEL = torch.randn(1, 80, 150, generator=torch.Generator().manual_seed(0)) * 4 - 7


def put(folder: Path, content: Any, file: str = "checkpoint-300.pth", **how: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / file, **how)
    return folder / file


def pretraining() -> State:
    """The whole model of pre-training: besides the encoder, a decoder, a target and a predictor."""
    full = dict(STATE)
    full |= {"mask_token": torch.ones(1, 1, 24), "decoder_pos_embed": torch.ones(1, 36, 24)}
    full |= {"decoder_embed.weight": torch.ones(24, 48), "decoder_embed.bias": torch.ones(24)}
    full |= {"decoder_pred.weight": torch.ones(48, 24), "decoder_pred.bias": torch.ones(48)}
    full |= {"offline_predictor.weight": torch.ones(9, 240), "offline_predictor.bias": torch.ones(9)}
    for name, value in STATE.items():
        if name.startswith(("blocks.", "norm.")):
            full[f"target_{name}"] = value + 1
            full[f"decoder_{name}"] = value[..., :24] + 1
            full[f"decoder_{name.replace('blocks.', 'blocks.layers.')}"] = value[..., :24] + 2
    return full


def clap() -> State:
    full = pretraining()
    full |= {"logit_scale": torch.ones(()), "text_encoder.embeddings.weight": torch.ones(7, 3)}
    full |= {f"audio_proj.sem_{name}": value for name, value in STATE.items() if name.startswith("blocks.")}
    full |= {"audio_proj.norm.weight": torch.ones(48), "text_proj.0.weight": torch.ones(3, 3)}
    return full


def finetuned() -> State:
    full = {f"module.ar.runtime.backbone.{name}": value for name, value in STATE.items()}
    full |= {
        "module.head.norm.running_mean": torch.ones(240),
        "module.head.norm.running_var": torch.ones(240),
    }
    full |= {
        "module.head.mlp.mlp.0.weight": torch.ones(50, 240),
        "module.head.mlp.mlp.0.bias": torch.ones(50),
    }
    return full | {"module.ar.runtime.to_spec.mel_basis": torch.ones(80, 201)}


def runtime() -> State:
    full = {f"backbone.{name}": value for name, value in STATE.items()}
    return full | {"to_spec.stft.wsin": torch.ones(201, 1, 400), "head_norm.running_mean": torch.ones(240)}


def supervised() -> State:
    """The same architecture trained on labels from scratch: the encoder, and a linear head."""
    return STATE | {"head.weight": torch.ones(527, 48), "head.bias": torch.ones(527)}


def training_container() -> dict[str, Any]:
    return {
        "model": OrderedDict(pretraining()),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(5)}},
            "param_groups": [{"lr": 1e-4}],
        },
        "epoch": 300,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="m2d_vit_tiny", input_size=[80, 112], output_dir="out", lr=None),
    }


LAYOUTS: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "encoder only": (f"{NAME}-mr7_enconly", "checkpoint-300.pth", lambda: STATE),
    "pre-training": (f"{NAME}-mr7", "checkpoint-300.pth", training_container),
    "pre-training, bare": (f"{NAME}-mr7", "checkpoint-300.pth", pretraining),
    "fine-tuned": (f"{NAME}-mr7", "weights_ep69it3124-0.48494.pth", finetuned),
    "runtime": (f"{NAME}-mr7", "runtime.pth", runtime),
    "clap": ("m2d_clap_vit_tiny-80x112p16x16p16kpBpTI-2025", "checkpoint-30.pth", clap),
    "supervised": ("vit_tiny-80x112p16x16-audioset", "checkpoint-1.pth", lambda: {"model": supervised()}),
    "supervised, in parallel": (
        NAME,
        "checkpoint-1.pth",
        lambda: {f"module.{name}": value for name, value in supervised().items()},
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("layout", quick_sample(LAYOUTS, 3))
def test_every_layout_gives_the_same_encoder(tmp_path: Path, layout: str, legacy: bool) -> None:
    folder, file, content = LAYOUTS[layout]
    put(tmp_path / folder, content(), file, _use_new_zipfile_serialization=not legacy)
    for path in (tmp_path / folder, tmp_path / folder / file):
        encoder = load_encoder(f"m2d:{path}")
        module = encoder.module
        assert sorted(module.state_dict()) == sorted(STATE)
        assert all(torch.equal(value, STATE[name]) for name, value in module.state_dict().items())
        assert match_sites(module, encoder.sites) == ("blocks.0.mlp.act", "blocks.1.mlp.act")
        assert match_sites(module, encoder.transformer_layers) == ("blocks.0", "blocks.1")
    expected, _ = frame_features(STATE, LOG_MEL[0].double().numpy(), heads=2, frames=112, grid=(5, 7))
    assert abs(module(LOG_MEL)[0].numpy() - expected).max() <= 1e-5 * abs(expected).max()
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_safetensors_hold_the_same_encoder(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    save_file(STATE, tmp_path / NAME / "model.safetensors")
    put(tmp_path / f"{NAME}-torch", STATE)
    one, other = load(str(tmp_path / NAME)), load(str(tmp_path / f"{NAME}-torch"))
    assert weights_digest(one.module) == weights_digest(other.module)
    assert one.front_end == other.front_end


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    encoder = load(str(put(tmp_path / NAME, {name: value.half() for name, value in STATE.items()})))
    assert {value.dtype for value in encoder.module.state_dict().values()} == {torch.float32}


def test_norm_stats_are_the_files_else_those_of_audioset(tmp_path: Path) -> None:
    def stats(encoder: Encoder) -> list[float]:
        assert encoder.front_end["norm_stats"] == encoder.module.norm_stats.tolist()
        return encoder.module.norm_stats.tolist()

    assert stats(load(str(put(tmp_path / NAME, STATE)))) == pytest.approx([-6.5, 3.9])
    older = {name: value for name, value in STATE.items() if name != "norm_stats"}
    assert stats(load(str(put(tmp_path / f"{NAME}-2022", older)))) == pytest.approx([-7.1, 4.2])


def test_weights_outlive_their_file(tmp_path: Path) -> None:
    file = put(tmp_path / NAME, STATE)
    encoder = load(str(file))
    before = encoder.module(LOG_MEL)
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    assert torch.equal(encoder.module(LOG_MEL), before)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m2d_vit_base-80x608p16x16-221006-mr7", (80, 608, (16, 16), 16_000)),
        ("m2d_vit_base-80x608p16x16-221006-mr7_enconly", (80, 608, (16, 16), 16_000)),
        ("m2d_vit_base-80x200p16x4p32k-240413", (80, 200, (16, 4), 32_000)),
        ("m2d_s_vit_base-80x512p80x2", (80, 512, (80, 2), 16_000)),
        (
            "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025",
            (80, 1001, (16, 16), 16_000),
        ),
    ],
)
def test_a_folders_name_tells_the_geometry(name: str, expected: tuple[Any, ...]) -> None:
    fields = ("mels", "frames", "patch", "sample_rate")
    assert parse_geometry(name) == Geometry(**dict(zip(fields, expected, strict=True)))


@pytest.mark.parametrize(
    "name", ["", "weights", "m2d_vit_base", "m2d-80x608", "m2d_vit_base-80x608p16", "checkpoint-300"]
)
def test_other_names_tell_nothing(name: str) -> None:
    assert parse_geometry(name) is None


def test_a_file_may_bear_the_name_its_folder_lacks(tmp_path: Path) -> None:
    encoder = load(str(put(tmp_path / "downloads", STATE, f"{NAME}.pth")))
    assert encoder.front_end["input_size"] == [80, 112]


def test_metadata_tell_more_than_names(tmp_path: Path) -> None:
    folder = tmp_path / "m2d_vit_base-80x608p16x16-221006"
    folder.mkdir()
    save_file(STATE, folder / "model.safetensors", {"geometry": "m2d_vit_tiny-80x112p16x16p32k", "heads": "3"})
    encoder = load(str(folder))
    assert (encoder.sample_rate, encoder.module.heads, encoder.input_length(32_000)) == (32_000, 3, 101)
    settings = {key: encoder.front_end[key] for key in ("n_fft", "hop", "n_mels", "fmin", "fmax")}
    assert settings == {"n_fft": 800, "hop": 320, "n_mels": 80, "fmin": 50.0, "fmax": 16_000.0}


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (384, 6), (192, 3), (96, 4), (48, 2)])
def test_heads_are_64_wide_else_24(tmp_path: Path, width: int, heads: int) -> None:
    state = encoder_state(**SIZES | {"width": width, "depth": 1})
    assert load(str(put(tmp_path / NAME, state))).module.heads == heads


def test_a_folder_gives_its_highest_checkpoint(tmp_path: Path) -> None:
    for epoch in (300, 90, 100):  # by name, 300 is neither first nor last
        put(tmp_path / NAME, STATE | {"norm_stats": torch.tensor([-7.0, epoch])}, f"checkpoint-{epoch}.pth")
    assert load(str(tmp_path / NAME)).module.norm_stats.tolist() == [-7.0, 300.0]


def test_a_relative_path_still_knows_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / NAME, STATE)
    monkeypatch.chdir(tmp_path / NAME)
    assert load("checkpoint-300.pth").front_end == load(".").front_end


def test_an_ambiguous_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path / NAME, STATE)
    put(tmp_path / NAME, STATE, "weights_ep69it3124-0.48494.pth")
    with pytest.raises(ValueError, match=r"holds checkpoint-300\.pth, weights_ep69it3124-0\.48494\.pth; expected one"):
        load(str(tmp_path / NAME))


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing at .*; expected an M2D checkpoint"):
        load(str(tmp_path / NAME))
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "readme.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no \.pth or \.safetensors file in"):
        load(str(tmp_path / NAME))


def without(name: str) -> State:
    return {key: value for key, value in STATE.items() if key != name}


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        (without("blocks.1.attn.qkv.bias"), "blocks.1.attn.qkv.bias (144,) is missing"),
        (without("pos_embed"), "pos_embed (1, 36, 48) is missing"),
        (without("cls_token"), "no cls_token or no blocks.0.mlp.fc1.weight"),
        ({"conv.weight": torch.ones(3)}, "expected an M2D encoder, found only conv.weight"),
        (STATE | {"norm.weight": torch.ones(47)}, "norm.weight is (47,), expected (48,)"),
        (STATE | {"pos_embed": torch.ones(1, 191, 48)}, "pos_embed is (1, 191, 48), expected (1, 36, 48)"),
        (
            STATE | {"patch_embed.proj.weight": torch.ones(48, 1, 16, 8)},
            "patch_embed.proj.weight is (48, 1, 16, 8), expected (48, 1, 16, 16)",
        ),
        (STATE | {"blocks.0.ls1.gamma": torch.ones(48)}, "blocks.0.ls1.gamma is not part of this encoder"),
        ({key: value for key, value in STATE.items() if "attn" not in key}, "and 3 more"),
        (STATE | {"dist_token": torch.ones(1, 1, 48)}, "dist_token is not part of this encoder"),
        (
            {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: v for key, v in STATE.items()},
            "norm.weight (48,) is missing; norm.bias (48,) is missing; fc_norm.weight is not part of this encoder",
        ),
        (
            {f"{side}.{key}": value for side in ("student", "teacher") for key, value in STATE.items()},
            "found encoders at student., teacher.; expected one",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, state: State, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        load(str(put(tmp_path / NAME, state)))
    assert "\n" not in str(caught.value)


def test_a_name_that_belongs_to_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"pos_embed is \(1, 36, 48\), expected \(1, 191, 48\).*folder's name to state"
    ):
        load(str(put(tmp_path / "m2d_vit_base-80x608p16x16-221006-mr7", STATE)))
    with pytest.raises(ValueError, match=r"neither folder 'mine' nor file 'checkpoint-300\.pth' tells"):
        load(str(put(tmp_path / "mine", STATE)))
    with pytest.raises(ValueError, match="M2D at 44000 Hz"):
        load(str(put(tmp_path / "m2d_vit_tiny-80x112p16x16p44k", STATE)))


class Malice:
    """Creates a file when unpacked."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path, legacy: bool) -> None:
    content = {"model": STATE, "args": Malice(tmp_path / "ran")}
    file = put(tmp_path / NAME, content, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"besides tensors, not unpacked because it could run code") as caught:
        load(str(file))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, suffix: str, damage: str) -> None:
    file = put(tmp_path / NAME, STATE)
    if suffix == ".safetensors":
        file.unlink()
        file = file.with_suffix(suffix)
        save_file(STATE, file)
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"not a checkpoint"}[damage])
    with pytest.raises(ValueError, match=r"checkpoint-300.* is not a whole .*; fetch it again") as caught:
        load(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"RIFF" + bytes(99), b"fLaC\0", b"\x80\x02.", b"\x80\x02K\1.", b"PK\3\4", b"0"])
@pytest.mark.parametrize("name", ["sound.wav", "checkpoint-300.pth", "checkpoint-300.safetensors"])
def test_foreign_files_are_no_checkpoint(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is not a whole .*; .*fetch it again") as caught:
        read_checkpoint(tmp_path / name)
    assert not re.search("\n|pop from|Errno", str(caught.value))
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / f"no-{name}")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), 7])
def test_something_else_than_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ValueError, match="expected a state dict, bare or under 'model'"):
        load(str(put(tmp_path / NAME, content)))
