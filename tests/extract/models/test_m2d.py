"""The M2D encoder against a second statement of its arithmetic, and against published values."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from otoscope.extract.models import m2d, tiny
from otoscope.extract.models.encoder import Encoder, weights_digest
from otoscope.extract.models.m2d import M2D, as_encoder, sincos_pos_embed
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.models.tap import match_sites, tap

from ...support.amounts import quick_sample
from ...support.m2d_in_numpy import encoder_state, frame_features

# Folder name, mel bands, frames of a full input, patch: the paper's model, the one for speech, and one whose
# length is no multiple of its patch.
GEOMETRIES = [
    ("m2d_vit_base-80x608p16x16-221006-mr7", 80, 608, (16, 16)),
    ("m2d_s_vit_base-80x512p80x2-230301", 80, 512, (80, 2)),
    ("m2d_as_vit_base-80x1001p16x16-240213_AS-FT_enconly", 80, 1001, (16, 16)),
]
SMALL = {"depth": 2, "width": 48, "hidden": 64}


def write(folder: Path, state: dict[str, torch.Tensor]) -> Encoder:
    folder.mkdir()
    torch.save(state, folder / "checkpoint-300.pth")
    return load_encoder(f"m2d:{folder}")


def noise(n_frames: int, mels: int = 80) -> torch.Tensor:
    return torch.randn(1, mels, n_frames, generator=torch.Generator().manual_seed(n_frames)) * 4 - 7


def run(encoder: Encoder, log_mel: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Features (t, f * width) and activations (frame, neuron) per layer of one spectrogram."""
    sites = match_sites(encoder.module, encoder.sites)
    with torch.inference_mode(), tap(encoder.module, sites) as seen:
        features = encoder.module(log_mel)
    return features[0], [torch.cat(seen[site], dim=1)[0] for site in sites]


def assert_close(found: torch.Tensor, expected: np.ndarray) -> None:
    """max |a - b| <= 1e-5 max |b|, the tolerance promised across machines."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_vit_base_as_published(tmp_path: Path) -> None:
    state = encoder_state(depth=12, width=768, hidden=3072, n_patches=190, patch=(16, 16))
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (151, 85_400_834)
    folder = tmp_path / "m2d_vit_base-80x608p16x16-221006-mr7_enconly"
    encoder = write(folder, state)
    (folder / "checkpoint-300.pth").unlink()  # 342 MB that need not stay behind
    module = encoder.module
    assert {name: value.shape for name, value in module.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }
    assert module.heads == 12
    anatomy = encoder.anatomy()
    assert [(site.name, site.width) for site in anatomy.sites] == [(f"blocks.{i}.mlp.act", 3072) for i in range(12)]
    assert (anatomy.embedding, anatomy.hidden) == (3840, 768)

    waveform = 0.1 * torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0))
    log_mel = encoder.prepare(waveform)
    features, activations = run(encoder, log_mel)
    expected, expected_activations = frame_features(
        state, log_mel[0].double().numpy(), heads=12, frames=608, grid=(5, 38)
    )
    assert features.shape == (4, 3840)
    assert_close(features, expected)
    for found, wanted in zip(activations, expected_activations, strict=True):
        assert_close(found, wanted)
    with torch.inference_mode():
        assert_close(encoder(waveform)[0], expected.mean(axis=0))


@pytest.mark.parametrize(("name", "mels", "frames", "patch"), GEOMETRIES)
@pytest.mark.parametrize(
    "length", quick_sample(["one frame", "short", "full", "full + 1", "three chunks", "ragged"], 2)
)
def test_features_and_activations_are_those_of_the_witness(
    tmp_path: Path, name: str, mels: int, frames: int, patch: tuple[int, int], length: str
) -> None:
    n_frames = {
        "one frame": 1,
        "short": 101,
        "full": frames,
        "full + 1": frames + 1,
        "three chunks": 2 * frames + 45,
        "ragged": frames - 1,
    }[length]
    grid = (mels // patch[0], frames // patch[1])
    state = encoder_state(**SMALL, n_patches=grid[0] * grid[1], patch=patch)
    log_mel = noise(n_frames)
    features, activations = run(write(tmp_path / name, state), log_mel)
    expected, expected_activations = frame_features(
        state, log_mel[0].double().numpy(), heads=2, frames=frames, grid=grid
    )
    assert_close(features, expected)
    for found, wanted in zip(activations, expected_activations, strict=True):
        assert_close(found, wanted)


# seconds -> frames and time steps, from the reference's table for 80 x 608
@pytest.mark.parametrize(
    ("seconds", "frames", "steps"),
    [
        (1.0, 101, [7]),
        (2.5, 251, [16]),
        (4.0, 401, [26]),
        (5.0, 501, [32]),
        (5.8, 581, [37]),
        (8.2, 821, [38, 14]),
        (10.0, 1001, [38, 25]),
        (30.0, 3001, [38, 38, 38, 38, 36]),
    ],
)
def test_frames_and_time_steps_of_the_table(seconds: float, frames: int, steps: list[int]) -> None:
    encoder = as_encoder(M2D(depth=1, width=24, heads=1, hidden=8).eval())
    n_samples = round(16_000 * seconds)
    log_mel = encoder.prepare(encoder.silence(n_samples))
    assert log_mel.shape[2] == frames == encoder.input_length(n_samples)
    with torch.inference_mode(), tap(encoder.module, ["blocks.0.mlp.act"]) as seen:
        assert encoder.module(log_mel).shape == (1, sum(steps), 5 * 24)
    assert [run.shape[1] for run in seen["blocks.0.mlp.act"]] == [1 + 5 * t for t in steps]
    spans = encoder.spans(n_samples)
    # chunk by chunk, CLS then band by band
    expected = []
    for chunk, columns in enumerate(steps):
        expected += [math.nan]
        expected += [6.08 * chunk + 0.16 * t for _ in range(5) for t in range(columns)]
    np.testing.assert_allclose(spans[:, 0], expected, atol=1e-9)
    np.testing.assert_allclose(spans[:, 1] - spans[:, 0], np.where(np.isnan(expected), np.nan, 0.16), atol=1e-9)


def test_ten_seconds_give_62_steps_to_a_model_of_1001_frames() -> None:
    model = M2D(input_size=(80, 1001), depth=1, width=24, heads=1, hidden=8)
    assert model(torch.zeros(1, 80, 1001)).shape == (1, 62, 120)
    assert len(as_encoder(model).spans(160_000)) == 1 + 5 * 62


@pytest.mark.parametrize(("hz", "seconds"), [(300, 0.4), (1500, 1.3), (6000, 7.1)])
def test_a_tone_is_found_in_the_patch_whose_span_holds_it(hz: float, seconds: float) -> None:
    model = M2D(depth=1, width=24, heads=1, hidden=8).eval()
    with torch.no_grad():  # each patch becomes its mean level
        model.patch_embed["proj"].weight.fill_(1 / 256)
        model.pos_embed.zero_()
    encoder = as_encoder(model)
    t = torch.arange(799 * 160) / 16_000  # 800 frames, so that no patch holds padding
    tone = torch.sin(2 * torch.pi * hz * t) * ((t - seconds).abs() < 0.05)
    loudness = [
        torch.cat([torch.tensor([-torch.inf]), model.embed_patches(chunk)[0, :, 0].detach()])
        for chunk in torch.split(model.normalise(encoder.prepare(tone[None])), 608, dim=2)
    ]
    t0, t1, f0, f1 = encoder.spans(len(t))[torch.cat(loudness).argmax()]
    assert t0 - 0.05 <= seconds <= t1 + 0.05
    assert f0 <= hz <= f1


def test_frequencies_of_patches_are_the_edges_of_their_bands() -> None:
    spans = as_encoder(M2D(depth=1, width=24, heads=1, hidden=8)).spans(16_000)
    import librosa

    edges = librosa.mel_frequencies(n_mels=82, fmin=50, fmax=8000, htk=False)
    expected = [(edges[16 * f], edges[16 * f + 17]) for f in range(5) for _ in range(7)]
    np.testing.assert_allclose(spans[1:, 2:], expected, rtol=1e-9)
    np.testing.assert_allclose(spans[0, 2:], [50, 8000], rtol=1e-9)


def test_positions_have_the_published_values() -> None:
    table = sincos_pos_embed(768, (5, 38))
    assert (table.shape, table.dtype) == ((1, 191, 768), torch.float32)
    assert not table[0, 0].any()
    first, next_in_time, next_in_frequency = table[0, 1], table[0, 2], table[0, 39]
    assert first.tolist() == ([0.0] * 192 + [1.0] * 192) * 2
    assert next_in_time[[0, 384]].tolist() == pytest.approx([0.841471, 0], abs=1e-6)
    assert next_in_frequency[[0, 384]].tolist() == pytest.approx([0, 0.841471], abs=1e-6)
    assert table.double().sum().item() == pytest.approx(67401.89, abs=0.02)
    assert table.double().abs().sum().item() == pytest.approx(81348.12, abs=0.02)
    # entry by entry: time index 5, frequency index 3, rate 7 of 192
    angle = 10_000 ** (-7 / 192)
    entry = table[0, 1 + 3 * 38 + 5]
    expected = [math.sin(5 * angle), math.cos(5 * angle), math.sin(3 * angle), math.cos(3 * angle)]
    assert entry[[7, 192 + 7, 384 + 7, 576 + 7]].tolist() == pytest.approx(expected, abs=1e-6)


def test_padding_is_the_mean_of_the_training_data_not_silence() -> None:
    model = M2D(input_size=(80, 112), depth=2, width=48, heads=2, norm_stats=(-6.0, 3.0)).eval()
    log_mel = noise(101)
    padded = torch.cat([log_mel, torch.full((1, 80, 11), -6.0)], dim=2)
    assert torch.equal(model(log_mel), model(padded))


def test_each_chunk_starts_again_at_time_zero() -> None:
    model = M2D(input_size=(80, 112), depth=2, width=48, heads=2).eval()
    log_mel = noise(112)
    assert torch.equal(model(log_mel.repeat(1, 1, 3)), model(log_mel).repeat(1, 3, 1))


def test_cls_takes_part_and_is_left_out_of_the_features() -> None:
    model = M2D(input_size=(80, 112), depth=2, width=48, heads=2).eval()
    log_mel = noise(101)
    before = model(log_mel)
    assert before.shape == (1, 7, 240)
    with torch.no_grad():
        model.cls_token.add_(1)
    assert not torch.allclose(model(log_mel), before)


def test_batch_and_order_leave_each_clip_as_it_is() -> None:
    encoder = as_encoder(M2D(input_size=(80, 112), depth=2, width=48, heads=2).eval())
    waveforms = 0.1 * torch.randn(6, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, alone = encoder(waveforms), torch.cat([encoder(w[None]) for w in waveforms])
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_a_new_model_starts_as_the_authors_do() -> None:
    torch.manual_seed(0)
    model = M2D(input_size=(80, 112), depth=1, width=96, heads=4)
    assert torch.equal(model.pos_embed, sincos_pos_embed(96, (5, 7)))
    assert model.norm_stats.tolist() == pytest.approx([-7.1, 4.2])
    for weight, fan in [
        (model.patch_embed["proj"].weight, 256 + 96),
        (model.blocks[0].attn.qkv.weight, 96 + 3 * 96),
        (model.blocks[0].mlp.fc1.weight, 96 + 384),
    ]:
        bound = math.sqrt(6 / fan)
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert not model.blocks[0].attn.qkv.bias.any()
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.25)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == set()
    assert {"pos_embed", "norm_stats"} == {name for name, _ in model.named_buffers()}


def test_some_patches_can_be_encoded_without_the_others() -> None:
    model = M2D(input_size=(80, 112), depth=1, width=24, heads=1).eval()
    patches = model.embed_patches(model.normalise(noise(112)))
    assert patches.shape == (1, 35, 24)
    assert model.encode(patches[:, ::3]).shape == (1, 1 + 12, 24)


def test_the_bundled_encoders_are_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tiny-ssl\.safetensors"):
        tiny.load("", "tiny-ssl")
    state = encoder_state(depth=4, width=96, hidden=384, n_patches=35, patch=(16, 16))
    save_file(state, tmp_path / "tiny-ssl.safetensors", {"geometry": "m2d_vit_tiny-80x112p16x16", "heads": "4"})
    encoder = tiny.load("", "tiny-ssl")
    assert encoder.name == "tiny-ssl"
    assert encoder.front_end["heads"] == 4
    anatomy = encoder.anatomy()
    assert [site.width for site in anatomy.sites] == [384] * 4
    assert (anatomy.embedding, anatomy.hidden) == (480, 96)
    log_mel = noise(101)
    expected, _ = frame_features(state, log_mel[0].double().numpy(), heads=4, frames=112, grid=(5, 7))
    assert_close(run(encoder, log_mel)[0], expected)


def test_saved_and_loaded_it_is_the_same_encoder(tmp_path: Path) -> None:
    model = M2D(input_size=(80, 112), depth=2, width=96, heads=4).eval()
    file = tmp_path / "any.safetensors"
    save_file(model.state_dict(), file, {"geometry": "m2d_vit_tiny-80x112p16x16"})
    encoder = m2d.load(str(file))
    assert weights_digest(encoder.module) == weights_digest(model)
    assert encoder.front_end == as_encoder(model).front_end
    assert torch.equal(encoder.module(noise(50)), model(noise(50)))


@pytest.mark.parametrize("shape", [(1, 64, 101), (80, 101), (1, 80, 0)])
def test_a_spectrogram_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(clip, mel = 80, frame = 1 to 608\)"):
        M2D(depth=1, width=24, heads=1).embed_patches(torch.zeros(shape))


def test_a_clip_below_the_minimum_is_refused() -> None:
    encoder = as_encoder(M2D(depth=1, width=24, heads=1, hidden=8))
    assert encoder.min_samples == 201
    with pytest.raises(ValueError, match="at least 201 samples"):
        encoder(torch.zeros(1, 200))


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads for a width of 96"):
        M2D(width=96, heads=5)
    with pytest.raises(ValueError, match="width is 30; expected a multiple of 4"):
        M2D(width=30, heads=1)
    with pytest.raises(ValueError, match="M2D at 44100 Hz; expected 16000 or 32000"):
        as_encoder(M2D(depth=1, width=24, heads=1), sample_rate=44_100)
