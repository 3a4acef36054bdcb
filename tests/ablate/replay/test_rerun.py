"""Reruns: equal to whole passes whatever the model's shape and the interventions, and never more than they need."""

import gc
import logging
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.passes import branch_layers, plan_passes
from otoscope.ablate.replay.replayer import Record
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.store.neurons import NeuronSet

from ...support.awkward_models import CHUNK, LAYERS, NEURONS, SHAPES, STRANGE, spans, toy_encoder
from ...support.hooks import Change, activations, assert_close, whole

pytestmark = pytest.mark.usefixtures("one_thread")

MEANS = np.random.default_rng(5).standard_normal((LAYERS, NEURONS)).astype(np.float32)
SITES = [f"blocks.{layer}.act" for layer in range(LAYERS)]


def sounds(n_frames: int, clips: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(clips, n_frames * CHUNK, generator=torch.Generator().manual_seed(seed))


def hooks_of(
    one: Intervention, donors: dict[str, list[Tensor]] | None = None, *, turn: bool = False
) -> dict[str, Change]:
    """What the intervention says, as plain hooks; `turn` for sites that show (clip, neuron, frame)."""
    member = torch.from_numpy(one.neurons.mask([NEURONS] * LAYERS))
    where = ~member if one.keep else member

    def change_of(layer: int) -> Change:
        def change(output: Tensor, run: int) -> Tensor:
            values = output.transpose(1, 2) if turn else output
            if one.mode == "patch":
                assert donors is not None
                new = donors[SITES[layer]][run]
                new = new.transpose(1, 2) if turn else new
            else:
                new = torch.from_numpy(MEANS[layer]).expand_as(values) if one.mode == "mean" else one.gain * values
            values = torch.where(where[layer], new, values)
            return values.transpose(1, 2) if turn else values

        return change

    return {SITES[layer]: change_of(layer) for layer in range(LAYERS)}


def some(*pairs: tuple[int, int], **how: object) -> Intervention:
    return Intervention(neurons=NeuronSet(pairs=pairs), **how)  # type: ignore[arg-type]


VARIED = [
    some((1, 2), (3, 0)),
    some((1, 2), (3, 1), gain=0.5),
    some((1, 2), (3, 1)),
    some((3, 5), gain=2.0),
    some((2, 1), (2, 2), mode="mean", means=MEANS),
    some((2, 1), (2, 2), keep=True),
    some((2, 1), keep=True, mode="mean", means=MEANS),
    some((0, 0), (1, 3), mode="patch"),
    some((3, 1), keep=True, mode="patch"),
    some((0, 1), gain=1.0),
    some(),
]


@pytest.mark.parametrize("shape", [*SHAPES, *STRANGE])
def test_any_shape_of_model_gives_what_whole_passes_give(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = toy_encoder(shape)
    rerunner = Rerunner(encoder, VARIED)
    for n_frames in (2, 6):  # one run of two frames, then three
        clips, theirs = sounds(n_frames), sounds(n_frames, seed=1)
        donors = activations(encoder, theirs, SITES)
        turn = shape == "turned"
        expected = [whole(encoder, clips, {})]
        expected += [whole(encoder, clips, hooks_of(one, donors, turn=turn)) for one in VARIED]
        assert_close(rerunner(Batch.of(encoder, clips, theirs)), np.stack(expected))
        if shape == "recurrent":  # nothing shows before there are several runs
            assert rerunner.method == ("replay" if n_frames == 2 else "whole passes")
        else:
            assert rerunner.method == ("whole passes" if shape == "seen elsewhere" else "replay")
    assert bool(rerunner.reason) == (shape in STRANGE)
    logged = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert logged == [f"encoder module is rerun in whole passes: {rerunner.reason}"] * (shape in STRANGE)
    assert all("forward" not in vars(part) and not part._forward_hooks for part in encoder.module.modules())


@st.composite
def interventions(draw: st.DrawFn) -> list[Intervention]:
    neuron = st.tuples(st.integers(0, LAYERS - 1), st.integers(0, 1))  # few, so that prefixes are shared
    sets = st.lists(neuron, max_size=4).map(lambda pairs: NeuronSet(pairs=tuple(pairs)))
    gain = st.sampled_from([0.0, 0.5, 1.0])
    modes = st.one_of(
        gain.map(lambda g: {"gain": g}),
        st.just({"mode": "mean", "means": MEANS}),
    )
    one = st.builds(
        lambda neurons, how, keep: Intervention(neurons=neurons, keep=keep, **how),
        sets,
        modes,
        st.sampled_from([False, False, True]),
    )
    return draw(st.lists(one, max_size=8))


@given(interventions())
@settings(max_examples=40)
def test_every_layer_runs_once_for_each_different_beginning(chosen: list[Intervention]) -> None:
    encoder = toy_encoder("plain")
    clips = sounds(4)
    rerunner = Rerunner(encoder, chosen)
    rerunner(Batch.of(encoder, clips))  # which also checks replay
    ran: Counter[int] = Counter()
    inner = [encoder.module.get_submodule(f"blocks.{layer}.mix.0") for layer in range(LAYERS)]
    hooks = [part.register_forward_hook(lambda *_, k=k: ran.update([k])) for k, part in enumerate(inner)]
    found = rerunner(Batch.of(encoder, clips))
    for hook in hooks:
        hook.remove()
    assert rerunner.method == "replay"
    assert_close(found, np.stack([whole(encoder, clips, {}), *(whole(encoder, clips, hooks_of(o)) for o in chosen)]))
    rows = [tuple(edit and edit.key for edit in row) for row in rerunner.edits]
    beginnings = [len({row[:layer] for row in rows}) for layer in range(LAYERS)]
    assert [ran[layer] // 2 for layer in range(LAYERS)] == beginnings  # two runs per pass


@given(interventions())
def test_the_tree_of_passes_holds_every_intervention_once(chosen: list[Intervention]) -> None:
    rows = [one.edits([NEURONS] * LAYERS) for one in chosen] or [(None,) * LAYERS]
    keys = [[edit and edit.key for edit in row] for row in rows]
    root = plan_passes(rows, [NEURONS] * LAYERS)
    members: list[int] = []
    ahead = [(root, -1)]
    while ahead:
        step, begun = ahead.pop()
        first = step.members[0]
        assert all(keys[member] == keys[first] for member in step.members)
        members += step.members
        assert [branch.layer for branch in step.branches] == sorted({branch.layer for branch in step.branches})
        for branch in step.branches:
            assert branch.layer > begun
            for further in branch.passes:
                other, at = further.members[0], branch.layer
                assert keys[other][:at] == keys[first][:at]
                assert keys[other][at] != keys[first][at]
                edit = rows[other][at]
                if branch.columns is not None and edit is not None:
                    assert set(edit.neurons.tolist()) <= set(branch.columns.tolist())
                ahead.append((further, at))
    assert sorted(members) == list(range(len(rows)))
    assert set(branch_layers(root)) <= set(range(LAYERS))


@pytest.mark.parametrize("shape", ["plain", "turned", "one frame"])
def test_a_donor_of_another_length_gives_its_mean_over_frames(shape: str) -> None:
    size = 2 * CHUNK if shape == "one frame" else CHUNK
    encoder = toy_encoder(shape, frame_spans=partial(spans, size=size, special=1))
    clips, theirs = sounds(4), sounds(8, seed=1)
    seen = activations(encoder, theirs, SITES)
    axis = 2 if shape == "turned" else 1
    means = {}
    for site, runs in seen.items():
        frames = torch.cat([run if run.ndim == 3 else run[:, None] for run in runs], dim=axis)
        ordinary = torch.tensor([i for i in range(frames.shape[axis]) if i != 1])
        mean = frames.index_select(axis, ordinary).mean(dim=axis, keepdim=True)
        means[site] = [mean[:, 0] if shape == "one frame" else mean] * len(runs)
    one = some((0, 3), (2, 4), mode="patch")
    expected = [whole(encoder, clips, {}), whole(encoder, clips, hooks_of(one, means, turn=shape == "turned"))]
    for replay in (True, False):
        rerunner = Rerunner(encoder, [one], replay=replay)
        assert_close(rerunner(Batch.of(encoder, clips, theirs)), np.stack(expected))
        assert rerunner.method == ("replay" if replay else "whole passes")
    wrong = toy_encoder(shape, frame_spans=partial(spans, size=4))
    with pytest.raises(ValueError, match="frames per clip where frame_spans has"):
        Rerunner(wrong, [one])(Batch.of(wrong, clips, theirs))


def test_a_model_without_maps_is_rerun_in_whole_passes_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    encoder = toy_encoder("plain", maps=())
    rerunner = Rerunner(encoder, VARIED[:3])
    assert (rerunner.method, rerunner.reason) == (
        "whole passes", "it names no `maps`, the linear maps behind its sites"
    )  # fmt: skip
    assert "rerun in whole passes: it names no `maps`" in caplog.text
    found = rerunner(Batch.of(encoder, sounds(2)))
    assert_close(found, Rerunner(toy_encoder("plain"), VARIED[:3])(Batch.of(toy_encoder("plain"), sounds(2))))


def test_a_model_whose_passes_cannot_be_followed_is_rerun_whole() -> None:
    class Functional(torch.nn.Module):
        """Uses the weights of its map without running it."""

        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.act, self.fc2 = torch.nn.Linear(8, 6), torch.nn.GELU(), torch.nn.Linear(6, 3)

        def forward(self, frames: Tensor) -> Tensor:
            return torch.nn.functional.linear(self.act(self.fc1(frames)), self.fc2.weight)

    encoder = toy_encoder(
        "plain", module=Functional(), sites=["act"], maps=["fc2"], prepare=lambda w: w.unfold(1, 8, 8)
    )
    rerunner = Rerunner(encoder, [some((0, 1))])
    found = rerunner(Batch.of(encoder, sounds(3)))
    assert (
        rerunner.reason
        == "it cannot be started in the middle (LookupError: module fc2 does not run; expected it in every pass)"
    )
    expected = whole(encoder, encoder.prepare(sounds(3)), {"act": lambda output, _: output * (torch.arange(6) != 1)})
    assert_close(found[1], expected)


def test_every_pass_is_reported_and_can_stop_the_rest() -> None:
    encoder = toy_encoder("plain")
    batch = Batch.of(encoder, sounds(2))
    chosen = [one for one in VARIED if one.mode != "patch"]
    for replay in (True, False):
        seen: list[int] = []
        Rerunner(encoder, chosen, replay=replay)(batch, seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == len(chosen)

    def stop(_n: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Rerunner(encoder, chosen)(batch, stop)
    assert all("forward" not in vars(part) for part in encoder.module.modules())


@pytest.mark.slow
def test_memory_holds_at_most_a_record_per_layer() -> None:
    encoder = toy_encoder("plain")
    rng = np.random.default_rng(0)
    chosen = [some(*((layer, int(n)) for layer, n in enumerate(rng.integers(3, size=LAYERS)) if n)) for _ in range(60)]
    chosen = [one for one in chosen if len(one.neurons)]
    alive: list[int] = []
    rerunner = Rerunner(encoder, chosen)
    rerunner(Batch.of(encoder, sounds(2)))

    def count(_done: int) -> None:
        alive.append(sum(type(thing) is Record for thing in gc.get_objects()))

    rerunner(Batch.of(encoder, sounds(2)), count)
    n_passes = len(alive)
    count(0)
    assert alive.pop() == 0  # let go at once, not when the garbage is collected
    assert n_passes == 1 + len({one.neurons for one in chosen})  # a pass for the base, and one for every set
    assert 0 < max(alive) <= LAYERS


def test_what_cannot_be_rerun_is_refused() -> None:
    encoder = toy_encoder("plain")
    with pytest.raises(LookupError, match=r"1 of 1 neurons that do not exist, the first \(4, 0\)"):
        Rerunner(encoder, [some((4, 0))])
    patch = Rerunner(encoder, [some((0, 0), mode="patch")])
    with pytest.raises(ValueError, match="patches for 3 clips with donors: none; expected a donor for each clip"):
        patch(Batch.of(encoder, sounds(2)))
    with pytest.raises(ValueError, match="donors: 2; expected a donor for each"):
        patch(Batch.of(encoder, sounds(2), sounds(2, clips=2)))
    computed = toy_encoder("plain", neurons=lambda output: output * 2, maps=())
    with pytest.raises(ValueError, match=r"makes new values .*; expected a view"):
        Rerunner(computed, [some((0, 0))])(Batch.of(computed, sounds(2)))


def test_a_layer_that_cannot_be_edited_is_refused_before_anything_is_run() -> None:
    encoder = toy_encoder("plain", neurons=torch.relu)
    with pytest.raises(ValueError, match=r"layer 2, site blocks\.2\.act, cannot be edited: .* makes new values"):
        Rerunner(encoder, [some((2, 1))])
    Rerunner(encoder, [some((2, 1), gain=1.0)])  # edits nothing


def test_passes_allow_gradients_before_and_after() -> None:
    encoder = toy_encoder("plain")
    waveforms = sounds(2)
    assert not torch.is_inference_mode_enabled()
    Rerunner(encoder, VARIED[:2])(Batch.of(encoder, waveforms))
    encoder(waveforms).sum().backward()
    assert encoder.module.get_submodule("front").weight.grad is not None
    with torch.inference_mode():  # as a caller may have it
        assert Rerunner(encoder, VARIED[:2]).method == "replay"
        made = Rerunner(encoder, VARIED[:2])
        made(Batch.of(encoder, waveforms.clone()))
        assert made.method == "replay", made.reason
