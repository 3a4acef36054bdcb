"""Latents of every family: untouched they leave the encoder as it is, and edited, by replay, do what plain hooks do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.latents import spliced
from otoscope.store.neurons import NeuronSet
from otoscope.store.provenance import tolerance

from ...extract.models.test_speech import MODELS
from ...support.dictionaries import Change, by_hooks, drawn
from ...support.hooks import assert_close
from .test_maps import encoder_of

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values"),
]
FAMILIES = ("tiny-ssl", "hubert", "wavlm", "wav2vec2", "data2vec", "mert", "ast")
OTHERS = ("whisper", *(kind for kind in MODELS if kind not in FAMILIES))
STATES = (0, 1, 1, 3)  # of which are two dictionaries
CHOSEN = tuple((i, latent) for i in (1, 2, 3) for latent in range(i - 1, 24, 3))
MEANS = np.random.default_rng(3).random((4, 24)).astype(np.float32)


def sounds(encoder: Encoder, seed: int, n_clips: int = 2) -> Tensor:
    n_samples = max(encoder.sample_rate * 3 // 10, encoder.min_samples)
    noise = torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * torch.linspace(0.2, 2, n_samples)


def changed_by(one: Intervention, donated: dict[int, list[np.ndarray]]) -> dict[int, Change]:
    """The intervention, dictionary by dictionary, in plain torch."""
    member = torch.from_numpy(one.neurons.mask([24] * 4))
    where = ~member if one.keep else member

    def change_of(i: int) -> Change:
        def change(codes: Tensor) -> Tensor:
            if one.mode == "patch":
                new = torch.from_numpy(donated[i][0])
            else:
                new = torch.from_numpy(MEANS[i]).double() if one.mode == "mean" else one.gain * codes
            return torch.where(where[i], new, codes)

        return change

    return {i: change_of(i) for i in range(4)}


@pytest.mark.parametrize("kind", [*FAMILIES, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
@pytest.mark.parametrize("rows", ["frame", "clip"])
def test_latents_are_edited_by_replay_as_by_plain_hooks(kind: str, rows: str, tmp_path: Path) -> None:
    encoder = encoder_of(kind, tmp_path)
    width = encoder.anatomy().hidden
    dictionaries = [drawn(width, state, seed=i, rows=rows) for i, state in enumerate(STATES)]
    latents = spliced(encoder, dictionaries)
    clips, theirs = sounds(encoder, 1), sounds(encoder, 2)
    seconds = np.array([1.0, 0.4]) * clips.shape[1] / encoder.sample_rate  # the rest of the second clip is padding
    inputs, spans = encoder.prepare(clips), encoder.spans(clips.shape[1])
    weights = counted = None
    if rows == "clip":
        weights = (spans[:, 0] < seconds[:, None]).astype(float)
        counted = np.tile(spans[:, 0] < clips.shape[1] / encoder.sample_rate, (2, 1)).astype(float)
        assert weights.sum(1)[1] < weights.sum(1)[0] == counted.sum(1)[1]
    donors = Batch.of(latents, theirs)
    batch = Batch(inputs=inputs, n_samples=clips.shape[1], seconds=seconds, donors=donors)

    with torch.inference_mode():  # the last bits depend on it
        base = encoder(clips).numpy()
        np.testing.assert_array_equal(latents(clips).numpy(), base)
    donated: dict[int, list[np.ndarray]] = {}
    by_hooks(encoder, encoder.prepare(theirs), dictionaries, {}, counted, donated)

    neurons = NeuronSet(pairs=CHOSEN)
    ways: list[dict] = [{"gain": 0.0}, {"gain": 3.0}, {"mode": "patch"}, {"mode": "mean", "means": MEANS}]
    asked = [Intervention(neurons=neurons, keep=keep, **way) for keep in (False, True) for way in ways]
    asked.append(Intervention(neurons=NeuronSet(pairs=((2, 5),)), keep=True))
    asked = asked[1::3] if kind == "whisper" else asked  # 1500 frames take their time
    expected = [by_hooks(encoder, inputs, dictionaries, changed_by(one, donated), weights) for one in asked]
    rerunner = Rerunner(latents, asked)
    found = rerunner(batch)
    assert (rerunner.method, rerunner.reason) == ("replay", "")
    np.testing.assert_array_equal(found[0], base)
    assert_close(found[1:], np.stack(expected))
    moved = [float(np.abs(one - base).max() / np.abs(base).max()) for one in expected]
    assert min(moved) > 1e-3, moved  # so that equality says something
    np.testing.assert_array_equal(rerunner(batch), found)


@pytest.mark.parametrize("rows", ["frame", "clip"])
def test_in_16_bits_untouched_latents_change_no_bit_and_edited_ones_are_replayed(rows: str) -> None:
    encoder = encoder_of("tiny-ssl", Path())
    dictionaries = [drawn(96, state, seed=i, rows=rows) for i, state in enumerate(STATES)]
    clips = sounds(encoder, 1)
    lower, latents = encoder.at("bfloat16"), spliced(encoder, dictionaries).at("bfloat16")
    with torch.inference_mode():
        base = lower(clips)
        assert torch.equal(latents(clips), base)
        assert not torch.equal(base, encoder(clips))
    asked = [Intervention(neurons=NeuronSet(pairs=CHOSEN), gain=gain) for gain in (0.0, 2.0)]
    rerunner = Rerunner(latents, asked)
    found = rerunner(Batch.of(latents, clips))
    assert (rerunner.method, rerunner.reason) == ("replay", "")
    whole = Rerunner(latents, asked, replay=False)(Batch.of(latents, clips))
    np.testing.assert_array_equal(found[0], whole[0])
    assert np.abs(found - whole).max() <= tolerance("bfloat16", 1e-5) * np.abs(whole).max()


def test_dictionaries_of_states_in_another_order_are_rerun_in_whole_passes() -> None:
    encoder = encoder_of("tiny-ssl", Path())
    dictionaries = [drawn(96, 3), drawn(96, 1)]
    clips, asked = sounds(encoder, 1), Intervention(neurons=NeuronSet(pairs=((0, 3), (1, 4))), keep=True)
    rerunner = Rerunner(spliced(encoder, dictionaries), [asked])
    found = rerunner(Batch.of(encoder, clips))
    assert rerunner.method == "whole passes"
    assert "its layers run in another order than they have: saes.0_of_state_3.decoder" in rerunner.reason
    kept = {0: lambda codes: codes * (torch.arange(24) == 3), 1: lambda codes: codes * (torch.arange(24) == 4)}
    assert_close(found[1], by_hooks(encoder, encoder.prepare(clips), dictionaries, kept))
