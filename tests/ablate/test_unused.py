"""Layers that the embedding does not depend on are refused by name, however they come to be unused; others are not."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.ablate.request import Request
from otoscope.ablate.study import look_up, run_study
from otoscope.ablate.unused import unused_layers
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.store.neurons import NeuronSet

from ..support.amounts import quick_sample
from ..support.planted_corpus import write_sounds
from ..support.planted_encoder import HOP, RATE, in_frames

NEURONS, SITES = 24, 2


class TwoSites(nn.Module):
    """(clip, frame, HOP) -> (clip, frame, HOP), by way of two sites, of which `kind` says how the second is used."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.dtype = kind, torch.float16 if kind == "half precision" else torch.float32
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fc1 = nn.ModuleList(nn.Linear(HOP, NEURONS) for _ in range(SITES))
            self.fc2 = nn.ModuleList(nn.Linear(NEURONS, HOP) for _ in range(SITES))
        self.act = nn.ModuleList(nn.ReLU(inplace=kind == "in place, its return dropped") for _ in range(SITES))
        self.norm = nn.LayerNorm(NEURONS)
        if kind == "zero map":
            nn.init.zeros_(self.fc2[1].weight)
        if kind in ("silent", "scale-free", "differs over frames"):
            nn.init.constant_(self.fc1[1].bias, -100.0)
        self.to(self.dtype)

    def forward(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.dtype)
        frames = frames + self.fc2[0](self.act[0](self.fc1[0](frames)))
        before = self.fc1[1](frames)
        active = self.act[1](before)
        if self.kind == "dropped":
            return frames
        if self.kind == "after the embedding":
            self.head = self.fc2[1](active).mean(dim=1)
            return frames
        if self.kind == "in place, its return dropped":
            active = before
        if self.kind == "scale-free":
            active = self.norm(active)
        if self.kind == "differs over frames":
            active = active - active.mean(dim=1, keepdim=True)
        mapped = self.fc2[1](active)
        if self.kind == "scaled down":
            mapped = 1e-9 * mapped
        if self.kind == "counted":
            mapped = (mapped > 30).float()
        if self.kind == "one channel":
            mapped = active[..., :1]
        if self.kind == "not a number":
            mapped = torch.nan_to_num(torch.log(active.sum(dim=-1, keepdim=True) - 1e6))
            return frames + torch.where(active.abs().amax(dim=-1, keepdim=True) > 100, mapped + 1, mapped * 0)
        return frames + mapped


UNUSED = ("dropped", "after the embedding", "in place, its return dropped", "zero map")
USED = (
    "plain", "silent", "scale-free", "differs over frames", "scaled down", "counted", "one channel", "half precision",
    "not a number",
)  # fmt: skip


def embed(frames: Tensor) -> Tensor:
    """Mean and spread over frames."""
    return torch.cat([frames.float().mean(dim=1), frames.float().std(dim=1)], dim=1)


def two_sites(kind: str, *, maps: bool = True) -> Encoder:
    return Encoder(
        module=TwoSites(kind).eval(), sample_rate=RATE, sites=["act.*"], maps=["fc2.*"] if maps else [],
        prepare=in_frames, min_samples=4 * HOP, input_length=lambda n: n // HOP, name="two sites", embed=embed,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*UNUSED, *USED])
def test_what_no_embedding_depends_on_is_found_and_nothing_else(kind: str) -> None:
    waveforms = torch.rand(1, 5 * HOP, generator=torch.Generator().manual_seed(1)) - 0.5
    found = unused_layers(two_sites(kind), in_frames(waveforms), [0, 1])
    assert found == ([1] if kind in UNUSED else [])


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_sounds(tmp_path_factory.mktemp("sounds"), 9))


def stored(kind: str, sounds: str, folder: object, *, maps: bool = True) -> tuple[Encoder, str]:
    encoder, url = two_sites(kind, maps=maps), f"{folder}/{kind[:4]}{maps}.zarr"
    capture(encoder, sounds, url, task="t", threads=1, batch=8)
    return encoder, url


def of(neurons: str, **more: object) -> Request:
    return Request(task="t", label="letter", set=neurons, controls=3, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "maps"), quick_sample([pytest.param("dropped", True), pytest.param("after the embedding", False)], 1)
)
def test_a_study_of_such_a_layer_is_refused_and_names_it(
    kind: str, maps: bool, sounds: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, url = stored(kind, sounds, tmp_path, maps=maps)
    corpus = read_manifest(sounds)
    monkeypatch.setattr("otoscope.ablate.study.AblationWorker", None)  # nothing is distributed
    for more in ({}, {"mode": "gain", "gain": 1.0}, {"mode": "keep"}, {"mode": "transplant", "category": "b"}):
        with pytest.raises(
            ValueError, match=r"the values of layer 1 \(act\.1\): nothing .*; expected neurons"
        ) as refusal:
            run_study(look_up(of("(0,3) (1,2) (1,5)", **more), url), encoder, corpus)
        assert "\n" not in str(refusal.value)
    monkeypatch.undo()
    run_study(look_up(of("(0,3) (0,7)"), url), encoder, corpus)


def test_silent_neurons_and_a_gain_of_1_are_a_zero_and_told(sounds: str, tmp_path: object) -> None:
    encoder, url = stored("silent", sounds, tmp_path)
    corpus = read_manifest(sounds)
    for request in (of("(1,2) (1,5)"), of("(1,2)", mode="keep"), of("(0,3) (1,2)", mode="gain", gain=1.0)):
        result = run_study(look_up(request, url), encoder, corpus)
        if request.mode == "keep":
            assert result.attrs["n_changed"] == result.sizes["clip"]
            assert result.attrs["notes"][0].startswith("12 clips changed of 12 tested")
            continue
        assert result.attrs["n_changed"] == 0
        assert result.attrs["notes"][0].startswith("0 clips changed of 12 tested, by controls 0 to 0: the set is")
        assert result["n_changed"].values.tolist() == [0, 0, 0, 0]
        assert bool((result["change"] == 0).all())


@pytest.mark.slow
def test_clips_changed_are_those_whose_embeddings_by_plain_torch_differ(sounds: str, tmp_path: object) -> None:
    """One neuron of layer 0 that fires in some clips only: by replay, and by whole passes."""
    corpus = read_manifest(sounds)
    for maps in (True, False):
        encoder, url = stored("plain", sounds, tmp_path, maps=maps)
        with torch.no_grad():  # neuron 4 fires where sample 2 of a frame, as "c" and "d" have it, is loud
            encoder.module.fc1[0].weight[4] = torch.eye(HOP)[2]
            encoder.module.fc1[0].bias[4] = -0.5
        capture(encoder, sounds, f"{url}2", task="t", threads=1, batch=8)
        result = run_study(look_up(of("(0,4)"), f"{url}2"), encoder, corpus)
        assert result.attrs["method"] == ["replay" if maps else "whole passes"]
        assert result["n_changed"].to_series().to_dict() == {"a": 0, "b": 0, "c": 3, "d": 3}
        assert result.attrs["n_changed"] == 6
        assert len(result.attrs["controls_n_changed"]) == 3


def test_replay_by_a_map_that_takes_something_else_is_given_up_though_the_set_is_silent() -> None:
    """In the clips that are run both ways the edited neurons do not fire, so that only other values show it."""
    encoder = two_sites("silent")
    module = encoder.module
    right = module.forward

    def wrong(frames: Tensor) -> Tensor:
        module.fc2[1](torch.relu(frames @ torch.ones(HOP, NEURONS)))  # it is run, and what the site gives is not its
        frames = frames + module.fc2[0](module.act[0](module.fc1[0](frames)))
        return frames + module.act[1](module.fc1[1](frames))[..., :HOP]

    module.forward = wrong
    waveforms = torch.rand(4, 5 * HOP, generator=torch.Generator().manual_seed(1)) - 0.5
    silent = Intervention(neurons=NeuronSet(pairs=((1, 0), (1, 1))))
    rerunner = Rerunner(encoder, [silent])
    embeddings = rerunner(Batch.of(encoder, waveforms))
    assert rerunner.method == "whole passes"
    np.testing.assert_array_equal(embeddings[1], embeddings[0])
    module.forward = right
    rerunner = Rerunner(encoder, [silent])
    rerunner(Batch.of(encoder, waveforms))
    assert rerunner.method == "replay"
