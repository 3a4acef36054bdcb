"""Dictionaries put into an audio language model: latents of its tokens are stored and swapped as its neurons are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import otoscope
from otoscope.ablate.swap.result import read_swaps
from otoscope.extract.models.dictionary import write_dictionary
from otoscope.extract.models.qwen2audio import load

from ...support.audio_language_models import WIDTH
from ...support.commands import done
from ...support.dictionaries import codes_of, drawn
from ...support.planted_grounding import embeddings
from .test_command import swap

LATENT = 3


@pytest.mark.parametrize("rows", ["clip", pytest.param("frame", marks=pytest.mark.slow)])
def test_latents_of_an_audio_language_model_are_swapped_as_neurons_are(small, rows, tmp_path):
    dictionary = drawn(WIDTH, 1, latents=24, k=6, rows=rows)
    write_dictionary(dictionary, tmp_path / "sae")
    spec, url = f"latents:{tmp_path / 'sae'}@qwen2audio:{small.model}", str(tmp_path / "latents.zarr")
    given = ("--threads", 1, "--batch", 64, "--mean-dtype", "float32")
    done("extract", url, "--encoder", spec, "--corpus", small.manifest, "--task", "emotion", *given)
    ds, own = (otoscope.open(at)["emotion"].to_dataset().compute() for at in (url, small.url))
    np.testing.assert_array_equal(ds["embedding"], own["embedding"])  # to the last bit: nothing is edited

    encoder, states = load(str(small.model)), []
    layer = encoder.module.language_model.layers[0]
    hook = layer.register_forward_hook(lambda _module, _inputs, output: states.append(output[0, -1].numpy()))
    embeddings(encoder, small.corpus, range(9))
    hook.remove()
    codes = codes_of(dictionary, np.stack(states))
    np.testing.assert_allclose(ds["mean"].values[0, :, :9].T, codes, rtol=0, atol=1e-5 * codes.max())

    table = read_swaps(done_swap(replace(small, url=url), spec, tmp_path))
    assert table.attrs["method"] == ["replay"]
    part = table[table["part"] == "overall"].iloc[0]
    found = np.array([effect_by_hooks(encoder, small, dictionary, swapped) for swapped in ("audio", "text")])
    np.testing.assert_allclose(part[["E_A", "E_T"]].to_numpy(float), found, rtol=0, atol=2e-5)
    assert np.abs(found).max() > 0.01


def done_swap(here, spec, folder):
    asked = list(map(str, swap(here, folder / "swap.parquet", controls=0, which=f"(0,{LATENT})")))
    asked[asked.index("--encoder") + 1] = spec
    done(*asked)
    return folder / "swap.parquet"


@torch.inference_mode()
def effect_by_hooks(encoder, small, dictionary, swapped):
    """What margins lose on average as the last token's state is moved by (z' - z) D of one latent, in plain torch."""
    labels = small.corpus.labels[small.corpus.labels["split"] == "test"]
    held = "text" if swapped == "audio" else "audio"
    same = [name for name in (f"{held}_class", "replicate")]
    layer = encoder.module.language_model.layers[0]
    head = encoder.answers({"ANG": "mad", "HAP": "glad", "SAD": "sad"}, small.corpus.clips.table["prompt"]).astype(
        float
    )
    classes = ["ANG", "HAP", "SAD"]
    codes, base = {}, {}
    for clip in labels.index:
        seen = []
        hook = layer.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output[0, -1].numpy()))
        base[clip] = embeddings(encoder, small.corpus, [clip])[0] @ head.T
        hook.remove()
        codes[clip] = codes_of(dictionary, seen[0])[LATENT]
    lost = []
    for clip, row in labels.iterrows():
        partners = labels[
            (labels[same] == row[same]).all(axis=1) & (labels[f"{swapped}_class"] != row[f"{swapped}_class"])
        ]
        for donor, other in partners.iterrows():
            move = torch.from_numpy((codes[donor] - codes[clip]) * dictionary.decoder[LATENT].numpy()).float()

            def moved(_module, _inputs, output, move=move):
                changed = output.clone()
                changed[:, -1] += move
                return changed

            hook = layer.register_forward_hook(moved)
            logits = embeddings(encoder, small.corpus, [clip])[0] @ head.T
            hook.remove()
            change = base[clip] - logits
            own, its = (classes.index(one[f"{swapped}_class"]) for one in (row, other))
            lost.append(change[own] - change[its])
    assert len(lost) == 72
    return np.mean(lost)
