"""What the readout cannot see is construction: a tiny Qwen2-Audio read at the sound's last token, in both orders."""

from dataclasses import replace

import numpy as np
import pytest

import otoscope
from otoscope.ablate.swap.request import Swap
from otoscope.ablate.swap.study import look_up_swaps, run_swaps
from otoscope.extract.audio.manifest import read_manifest

from ...support.planted_grounding import ANSWERS, FRAMES, SAMPLES, extracted, write_corpus

ORDERS = {"after": "{audio} QUESTION?", "before": "QUESTION? {audio}"}
"""Of the text."""


@pytest.fixture(scope="module", params=ORDERS)
def read_at_the_sound(request, planted, tmp_path_factory):
    """Order of the text, a store by the frames of the sound, the encoder that is read there, and the corpus."""
    folder = tmp_path_factory.mktemp(request.param)
    manifest = write_corpus(folder, 4, FRAMES[:2], prompt=ORDERS[request.param])
    prompt = ORDERS[request.param].replace("QUESTION", FRAMES[0].format(ANSWERS["SAD"]))
    before, n_tokens, _ = planted.encoder.layout(SAMPLES, prompt)
    encoder = replace(planted.encoder, embed=lambda states: states[:, before + n_tokens - 1])
    url = extracted(manifest, encoder, str(folder / "lm.zarr"), frames="audio")
    return request.param, url, encoder, read_manifest(manifest)


def found_by(at_the_sound, **how):
    _, url, encoder, corpus = at_the_sound
    asked = Swap(task="emotion", set="(0,1) (0,2) (1,0) (1,1) (1,2)", answers=ANSWERS, **how)
    return run_swaps(look_up_swaps(asked, url), encoder, corpus)


def test_swaps_of_a_text_behind_the_readout_do_nothing_to_the_last_bit(read_at_the_sound):
    table = found_by(read_at_the_sound, at="all", controls=0)
    assert (table["E_A"] != 0).all()
    if read_at_the_sound[0] == "after":
        assert (table[["E_T", "se_T"]] == 0).all(axis=None)
        assert set(table["state"]) == {"construction"}
        assert table["gc_causal"].isna().all()
    else:
        assert (table["E_T"] != 0).all()
        assert set(table["state"]) == {"untested"}


def test_swaps_behind_the_readout_are_construction_whatever_is_swapped(read_at_the_sound):
    """At the last token, which is behind the sound's own in both orders, though the readout does see the sound."""
    table = found_by(read_at_the_sound, at="last", controls=39)
    assert (table[["E_A", "E_T"]] == 0).all(axis=None)
    assert abs(table["TE_A"][0]) > 0.01
    assert set(table["state"]) == {"construction"}
    assert table[["gc_causal", "p_rank_A", "p_rank_T"]].isna().all(axis=None)


def test_neurons_at_the_sound_s_tokens_cannot_see_a_text_behind_them(read_at_the_sound):
    order, url, *_ = read_at_the_sound
    found = otoscope.open(url)["emotion"].to_dataset().otoscope.grounding().compute()
    assert set(found["blind"].values) == {{"after": "text", "before": "none"}[order]}
    assert (set(found["state"].values.ravel()) == {"construction"}) == (order == "after")
    assert np.isnan(found["gc"]).all() == (order == "after")
