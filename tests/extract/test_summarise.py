"""Summaries over frames, against plain numpy on activations worked out by hand."""

import logging
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from otoscope.extract.forward import arithmetic, hardware_of
from otoscope.extract.models.encoder import Encoder, Site
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.models.tap import tap
from otoscope.extract.summarise import FrameSum, Summaries, counted_frames, reduction_on

from ..support.m2d_in_numpy import encoder_state

SPANS = np.array([[np.nan, np.nan], [0.0, 0.1], [0.1, 0.2], [0.2, 0.3]])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("audio", [[0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]),  # a token that starts where the clip ends is padding
        ("published", [[0, 1, 1, 1]] * 3),
        ("all", [[1, 1, 1, 1]] * 3),
        ("last", [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_which_tokens_count(frames: str, expected: list[list[int]]) -> None:
    weights = counted_frames(np.column_stack([SPANS, SPANS]), np.array([0.1, 0.15, 9.0]), frames)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, expected)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(
        ValueError, match="'some' is not a valid rule for frames; expected audio, published, all or last"
    ):
        counted_frames(SPANS, np.array([1.0]), "some")


class Network(nn.Module):
    """Ragged layers of fixed random activations, shown in as many runs as asked for."""

    def __init__(self, activations: list[np.ndarray], runs: int) -> None:
        super().__init__()
        self.activations, self.runs = activations, runs
        self.layers = nn.ModuleList(nn.Identity() for _ in activations)
        self.alive: list[weakref.ref[torch.Tensor]] = []

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        n_tokens = self.activations[0].shape[1]
        for part in np.array_split(np.arange(n_tokens), self.runs):
            for layer, values in zip(self.layers, self.activations, strict=True):
                output = layer(torch.tensor(values[:, part]))
                self.alive.append(weakref.ref(output))
                del output
                assert self.alive[-1]() is None, "an activation has outlived its layer"
        return torch.zeros(1)


@pytest.mark.parametrize("runs", [1, 3])
def test_mean_active_and_positive_against_plain_numpy(runs: int) -> None:
    rng = np.random.default_rng(0)
    activations = [rng.standard_normal((4, 9, width)).astype("f4") for width in (16, 5)]
    activations[0][:, :, 3] = 0.0  # exactly zero is not positive
    weights = np.array([[0, *[1.0] * k, *[0.0] * (8 - k)] for k in (8, 5, 1, 2)], "f4")  # the first token is special
    sites = (Site(name="layers.0", width=16), Site(name="layers.1", width=5))
    network = Network(activations, runs)
    summaries = Summaries(sites, torch.from_numpy(weights))
    with tap(network, summaries.sites, read=summaries.read, read_inputs=summaries.read_inputs):
        network(torch.zeros(1))
    summaries.check_complete()
    for layer, values in enumerate(activations):
        for clip, row in enumerate(weights):
            counted = values[clip][row == 1].astype("f8")
            np.testing.assert_allclose(summaries.mean(layer)[clip], counted.mean(axis=0), rtol=1e-5, atol=1e-7)
            np.testing.assert_array_equal(summaries.positive_frames(layer)[clip], (counted > 0).sum(axis=0))
    np.testing.assert_array_equal(summaries.count, [8, 5, 1, 2])


def add_all(frame_sum: FrameSum, shown: int) -> None:
    frame_sum.add(torch.ones(1, shown, 3))
    frame_sum.check_count()


@pytest.mark.parametrize("shown", [2, 5])
def test_tokens_that_are_not_those_of_the_spans_are_refused(shown: int) -> None:
    frame_sum = FrameSum("site a", torch.ones(1, 4), 3)
    with pytest.raises(ValueError, match=f"site a shows {shown} frames per clip where frame_spans gives 4; expected"):
        add_all(frame_sum, shown)


@pytest.fixture(scope="module")
def tiny_m2d(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Two blocks, 5 x 7 patches: 1.12 s a chunk."""
    folder = tmp_path_factory.mktemp("m2d") / "m2d_vit_tiny-80x112p16x16-230101"
    folder.mkdir()
    torch.save(encoder_state(depth=2, width=48, hidden=64, n_patches=35, patch=(16, 16)), folder / "checkpoint-1.pth")
    return load_encoder(f"m2d:{Path(folder)}")


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.7])
@pytest.mark.parametrize("frames", ["audio", "published", "all"])
def test_an_encoder_with_cls_chunks_and_hidden_states_against_plain_hooks(
    tiny_m2d: Encoder, seconds: float, frames: str
) -> None:
    """Clips of 0.3 and 1 of the input's length; every output of every chunk collected whole, then averaged by numpy."""
    rng = np.random.default_rng(1)
    sound = (0.1 * rng.standard_normal((2, round(seconds * 16_000)))).astype("f4")
    sound[0, round(0.3 * sound.shape[1]) :] = 0
    lengths = np.array([0.3, 1.0]) * seconds
    anatomy, blocks = tiny_m2d.anatomy(), ("blocks.0", "blocks.1")
    collected: dict[str, list[torch.Tensor]] = {name: [] for name in ("in", "blocks.0", "blocks.1", "act0", "act1")}
    model = tiny_m2d.module
    watched = {"blocks.0": "blocks.0", "blocks.1": "blocks.1", "blocks.0.mlp.act": "act0", "blocks.1.mlp.act": "act1"}
    with torch.inference_mode(), arithmetic(1):
        inputs = tiny_m2d.prepare(torch.from_numpy(sound))
        hooks = [
            model.get_submodule(name).register_forward_hook(lambda *a, at=at: collected[at].append(a[2]))
            for name, at in watched.items()
        ]
        hooks.append(
            model.get_submodule("blocks.0").register_forward_pre_hook(lambda _, x: collected["in"].append(x[0]))
        )
        model(inputs)
        for hook in hooks:
            hook.remove()
        weights = counted_frames(tiny_m2d.spans(sound.shape[1]), lengths, frames)
        summaries = Summaries(
            anatomy.sites, torch.from_numpy(weights), transformer_layers=blocks, hidden=anatomy.hidden
        )
        with tap(model, summaries.sites, read=summaries.read, read_inputs=summaries.read_inputs):
            model(inputs)
        summaries.check_complete()

    whole = {name: torch.cat(parts, dim=1).numpy().astype("f8") for name, parts in collected.items()}
    # Which tokens count, from the patch grid alone: chunks of 112 mel frames of 10 ms, CLS first, then 5 rows.
    n_mel = sound.shape[1] // 160 + 1
    starts: list[float] = []
    for chunk in range(0, n_mel, 112):
        columns = [round(0.01 * (chunk + 16 * t), 2) for t in range(-(-min(112, n_mel - chunk) // 16))]
        starts += [np.nan, *columns * 5]
    at = np.array(starts)
    assert whole["act0"].shape == (2, len(at), 64)
    for clip in range(2):
        counted = {"audio": at < lengths[clip], "published": ~np.isnan(at), "all": np.full(len(at), True)}[frames]
        assert summaries.count[clip] == counted.sum()
        for layer in range(2):
            rows = whole[f"act{layer}"][clip][counted]
            np.testing.assert_allclose(summaries.mean(layer)[clip], rows.mean(axis=0), rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(summaries.positive_frames(layer)[clip], (rows > 0).sum(axis=0))
        states = np.stack([whole[name][clip][counted].mean(axis=0) for name in ("in", "blocks.0", "blocks.1")])
        np.testing.assert_allclose(summaries.hidden()[:, clip], states, rtol=1e-4, atol=1e-5)


def test_a_site_as_wide_as_its_input_is_long_is_refused_by_its_arrangement() -> None:
    sums = Summaries(
        [Site(name="a", width=5)],
        torch.ones(2, 3),
    )
    with pytest.raises(ValueError, match=r"site a shows 7 neurons where a second of sound showed 5; .*`neurons=`"):
        sums.read("a", torch.zeros(2, 3, 7))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_is_summed_in_single_in_parts_of_any_size(
    dtype: torch.dtype, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of clips are ragged, and those of a run that comes later are smaller."""
    random = torch.Generator().manual_seed(0)
    frames, weights = torch.randn(5, 300, 7, generator=random).to(dtype), (torch.rand(5, 300, generator=random) < 0.7)
    if turned:
        frames = frames.transpose(1, 2).contiguous().transpose(1, 2)
    monkeypatch.setattr("otoscope.extract.summarise.PART_VALUES", 3 * 200 * 7)
    with arithmetic(2):
        frame_sum = FrameSum("a", weights.float(), 7, count=True)
        for run in frames.split(200, dim=1):
            frame_sum.add(run)
    counted = weights[..., None] * frames.double()
    torch.testing.assert_close(frame_sum.total.double(), counted.sum(dim=1), atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(frame_sum.positive.double(), (counted > 0).double().sum(dim=1), atol=0, rtol=0)


def test_a_processor_reduces_by_torch_and_says_so(tiny_m2d: Encoder) -> None:
    assert hardware_of(tiny_m2d).endswith(", frames by torch")


def test_where_triton_does_not_work_torch_takes_over_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)  # so that it cannot be imported
    monkeypatch.delitem(sys.modules, "otoscope.extract.triton_sums", raising=False)
    reduction_on.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "otoscope"):
            assert reduction_on(torch.device("cpu")).name == "torch"
        assert "frames are reduced by torch" in caplog.text
        assert "otoscope[triton]" in caplog.text
    finally:
        reduction_on.cache_clear()
