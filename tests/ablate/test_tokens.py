"""Edits of the last token alone, against plain hooks, and donors whose prompts have other lengths."""

import numpy as np
import pytest
import torch

from otoscope.ablate.intervention import Edit, Intervention, edited
from otoscope.ablate.replay.rerun import REPLAY, Batch, Rerunner
from otoscope.store.neurons import NeuronSet

from ..support.prompted_encoder import HOP, prompted

SET = NeuronSet(pairs=((0, 1), (0, 4)))
ASKED = ["is {audio} a", "is {audio} b"]


def batch(encoder, donors=("so {audio} x", "so {audio} y"), tokens=6):
    rng = np.random.default_rng(1)
    own, theirs = (torch.from_numpy(rng.integers(-90, 90, (2, n * HOP)) / 32768).float() for n in (6, tokens))
    given = Batch.of(encoder, theirs, prompts=donors)
    return Batch(inputs=encoder.inputs(own, ASKED), n_samples=6 * HOP, donors=given, prompt=ASKED[0])


def by_hooks(encoder, clips, change):
    """The embedding where `change` has edited what the site gives, (clip, token, neuron)."""
    hook = encoder.module.act.register_forward_hook(lambda _m, _i, output: change(output.clone()))
    with torch.inference_mode():
        found = encoder.run(clips.inputs)
    hook.remove()
    return found.numpy()


def values(encoder, inputs):
    kept = []
    hook = encoder.module.act.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.inference_mode():
        encoder.run(inputs)
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("donors", [("so {audio} x", "so {audio} y"), ("so long {audio} x", "so much {audio} y")])
def test_a_patch_of_the_last_token_takes_the_donor_s_last(donors, keep, replay):
    encoder = prompted()
    clips = batch(encoder, donors, tokens=6 if len(donors[0]) < 14 else 9)
    theirs = values(encoder, clips.donors.inputs)

    touched = [0, 2, 3, 5, 6] if keep else [1, 4]

    def change(output):
        output[:, -1, touched] = theirs[:, -1, touched]
        return output

    rerunner = Rerunner(encoder, [Intervention(neurons=SET, mode="patch", tokens="last", keep=keep)], replay=replay)
    found = rerunner(batch(encoder, donors, tokens=clips.donors.n_samples // HOP))
    assert (rerunner.method == REPLAY) == replay
    np.testing.assert_allclose(found[1], by_hooks(encoder, clips, change), rtol=1e-6)
    assert (found[1] != found[0]).any()


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("how", [{"gain": 0.5}, {"gain": 0.0, "keep": True}, {"means": np.full((1, 7), 2.0, "f4")}])
def test_other_edits_of_the_last_token_leave_all_others(how, replay):
    encoder = prompted()
    clips = batch(encoder)
    mode = "mean" if "means" in how else "gain"
    touched = [0, 2, 3, 5, 6] if how.get("keep") else [1, 4]
    earlier = slice(None, -1)

    def change(output):
        output[:, -1, touched] = 2.0 if mode == "mean" else how["gain"] * output[:, -1, touched]
        return output

    found = Rerunner(encoder, [Intervention(neurons=SET, mode=mode, tokens="last", **how)], replay=replay)(clips)
    np.testing.assert_allclose(found[1], by_hooks(encoder, clips, change), rtol=1e-6)
    before = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    edit = Intervention(neurons=SET, mode=mode, tokens="last", **how).edits([7])[0]
    assert torch.equal(edited(before, edit)[:, earlier], before[:, earlier])


def test_edits_of_other_tokens_have_other_keys():
    neurons = torch.tensor([1])
    assert Edit(neurons=neurons, mode="patch").key != Edit(neurons=neurons, mode="patch", tokens="last").key
    assert Edit(neurons=neurons, mode="patch", tokens="last").to_device("cpu").tokens == "last"


def test_tokens_that_are_none_are_refused():
    with pytest.raises(ValueError, match="tokens are 'first'; expected one of last, all"):
        Intervention(neurons=SET, tokens="first")
    with pytest.raises(ValueError, match=r"2 dimensions; expected \(clip, token, neuron\)"):
        Edit(neurons=torch.tensor([0]), mode="gain", tokens="last").new(torch.zeros(4, 1))
