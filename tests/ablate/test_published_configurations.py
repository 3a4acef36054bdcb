"""The four published configurations, as they are, on a checkpoint in M2D's layout (12 layers of 3,072, but narrow)."""

import numpy as np
import pytest
import torch

from otoscope.ablate.request import Request
from otoscope.ablate.study import look_up, run_study
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.models.registry import load_encoder

from ..support.m2d_in_numpy import encoder_state
from ..support.wav_corpora import write_corpus

# Facts of the published files: pairs (layer, neuron) of CREMA-D's anger and happiness, and GTZAN's jazz and classical.
ANGER_HAPPINESS = (
    "[0, 1], [0, 112], [0, 793], [3, 382], [3, 741], [3, 755], [3, 1959], [3, 2097], [3, 2233], [5, 1430], [5, 2471], "
    "[6, 1196], [7, 638], [7, 1157], [7, 2499], [8, 386], [8, 2554], [9, 347], [10, 393], [10, 2120], [10, 2369], "
    "[10, 2663]"
)
JAZZ_CLASSICAL = (
    "[3, 2540],[4, 270],[4, 827],[5, 1521],[5, 2462],[6, 907],[6, 2415],[6, 2852],[7, 540],[7, 763],[7, 2466],"
    "[7, 2756],[8, 193],[8, 348],[8, 690],[8, 1315],[8, 1669],[8, 2804],[9, 328],[9, 596],[9, 660],[9, 1720],"
    "[10, 1521],[10, 1861],[10, 2798],[11, 1030]"
)
HEAD = "audio_repr: ar_m2d.AR_M2D_Steering_Neurons\nfeature_d: 3840\ndur_frames:  # None\n\nint_gain: 0.0\n"


def plus_one(pairs):
    return ", ".join(f"[{layer}, {neuron + 1}]" for layer, neuron in pairs)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m2d")
    checkpoint = folder / "m2d_vit_base-80x608p16x16-221006-mr7"
    checkpoint.mkdir()
    state = encoder_state(depth=12, width=48, hidden=3072, n_patches=190, patch=(16, 16))
    torch.save(state, checkpoint / "checkpoint-300.pth")
    columns = {"label": [("ANG", "HAP")[i % 2] for i in range(12)], "split": ["train", "train", "test"] * 4}
    manifest, _ = write_corpus(folder, [6000] * 12, rate=16000, columns=columns)
    capture(f"m2d:{checkpoint}", manifest, str(folder / "s.zarr"), task="cremad", threads=1, keep=("embedding",))
    return folder, f"m2d:{checkpoint}", read_manifest(manifest)


@pytest.mark.parametrize(("listed", "n"), [(ANGER_HAPPINESS, 22), (JAZZ_CLASSICAL, 26)])
def test_the_lists_run_as_they_are(here, tmp_path, listed, n):
    folder, encoder, corpus = here
    (tmp_path / "m2d_abl.yaml").write_text(f"{HEAD}int_neurons: [ {listed} ]\n\n# Class | Accuracy\n")
    asked = {"task": "cremad", "label": "label", "probe": "published", "probe_seed": 6, "control": "published"}
    request = Request(**asked, set=f"@{tmp_path / 'm2d_abl.yaml'}")
    study = look_up(request, str(folder / "s.zarr"))
    assert len(study.neurons) == n
    assert study.probe.about["recipe"] == {"kind": "published", "seed": 6, "learning_rate": 3e-5}
    result = run_study(study, encoder, corpus)
    assert result.sizes["control"] == 1

    # The published control is a file of its own: the same numbers come from running that.
    (tmp_path / "rand.yaml").write_text(f"{HEAD}int_neurons: [ {plus_one(study.neurons)} ]\n")
    other = Request(**asked, set=f"@{tmp_path / 'rand.yaml'}")
    control = run_study(look_up(other, str(folder / "s.zarr")), encoder, corpus)
    np.testing.assert_allclose(result["control_change"].isel(control=0), control["change"], atol=1e-6)

    # By plain torch: the activations times 0 there, in every frame.
    module = load_encoder(encoder).module
    hooks = []
    for layer, neurons in study.neurons.by_layer.items():
        mask = torch.ones(3072)
        mask[neurons] = 0
        hooks.append(module.blocks[layer].mlp.act.register_forward_hook(lambda _m, _i, x, mask=mask: x * mask))
    try:
        with torch.no_grad():
            from otoscope.extract.audio.decoding import read_clip

            clips = [corpus.clips.clip(int(i)) for i in study.clips]
            waveforms = np.stack([read_clip(corpus.clips.root, clip, 16000).samples for clip in clips])
            silenced = load_encoder(encoder)(torch.from_numpy(waveforms)).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    logits = study.probe.logits(silenced, np.zeros(len(clips), int)).astype(float)
    own, theirs = logits[np.arange(len(clips)), study.truth], logits[np.arange(len(clips)), 1 - study.truth]
    np.testing.assert_allclose(result["clip_after"].sel(measure="margin"), own - theirs, atol=1e-4)
    assert abs(result["clip_after"] - result["clip_before"]).sel(measure="margin").max() > 1e-4
