"""The grounding coefficient: its laws, its gate, and what it calls a neuron."""

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import crossed_layout, grounding
from otoscope.analysis.contrast.ranks import read_means
from otoscope.analysis.crossed import coefficient, effects
from otoscope.analysis.crossed.effects import TERMS
from otoscope.analysis.crossed.table import grounding_table

from ...support.checking_scheduler import every_task_twice
from ...support.crossed import columns_of, responses

SIZES, N = (4, 5, 3, 4), 40
LAYERS = 2


def layout_of(sizes=SIZES, exchanged=False, order=None):
    columns = {name: np.array(values, object) for name, values in columns_of(sizes).items()}
    order = np.arange(np.prod(sizes)) if order is None else order
    of = [xr.DataArray(columns[name][order], dims="clip") for name in ("audio_class", "text_class", "audio")]
    of += [xr.DataArray(columns["text_class"][order] + columns["wording"][order], dims="clip")]
    audio, text, sound, wording = of
    return crossed_layout(text, audio, wording, sound) if exchanged else crossed_layout(audio, text, sound, wording)


@pytest.fixture(scope="module")
def mean():
    """(layer, neuron, clip): sound, text, both and nothing in turn, in the first layer interactions too."""
    d = {
        "d_audio": np.tile([1.0, 0.0, 0.7, 0.0], N // 4),
        "d_text": np.tile([0.0, 1.0, 0.7, 0.0], N // 4),
    }
    each = [
        responses(SIZES, N, seed=seed, **d, d_both=np.where(np.arange(N) < 4, 3.0 * (seed == 0), 0)) for seed in (0, 1)
    ]
    values = np.stack(each).transpose(0, 2, 1).astype(np.float32)
    coords = {"layer": [0, 1], "neuron": np.arange(N), "site": ("layer", ["x", "y"])}
    return xr.DataArray(values, coords, dims=("layer", "neuron", "clip"))


@pytest.fixture(scope="module")
def found(mean):
    return grounding(mean, layout_of())


def test_it_says_what_was_planted(found):
    states = found["state"].values
    assert (states[0, :4] == "interaction").all()
    assert [set(states[:, i::4].ravel()) - {"interaction"} for i in range(4)] == [
        {"audio"},
        {"text"},
        {"both"},
        {"none"},
    ]
    gc = found["gc"].values
    assert np.isnan(gc[states == "none"]).all()
    assert (gc[states == "audio"] > 0.7).all()
    assert (gc[states == "text"] < 0.3).all()
    assert np.median(gc[states == "both"]) == pytest.approx(0.5, abs=0.1)
    assert ((found["gc_low"] <= found["gc"]) & (found["gc"] <= found["gc_high"])).values[~np.isnan(gc)].all()
    assert found.attrs["K"], found.attrs["M"] == (4, 4)
    assert found["site"].values.tolist() == ["x", "y"]


def test_ratio_state_and_cut_follow_from_the_parts(found):
    """By plain loops over the parts."""
    tested = []
    for layer in range(LAYERS):
        for neuron in range(N):
            one = found.isel(layer=layer, neuron=neuron)
            d_a, d_t = (max(float(one[name]), 0) ** 0.5 for name in ("s_A", "s_T"))
            assert (float(one["d_A"]), float(one["d_T"])) == (d_a, d_t)
            tested.append(min(1, 2 * min(float(one["p_A"]), float(one["p_T"]))))
            gc, low, high = (float(one[name]) for name in ("gc", "gc_low", "gc_high"))
            if float(one["q"]) > 0.05:
                assert (np.isnan([gc, low, high]).all(), one["cut"]) == (True, "")
            else:
                assert gc == d_a / (d_a + d_t)
                assert one["cut"] == ("audio-grounded" if gc > 0.7 else "text-grounded" if gc < 0.3 else "between")
            if float(one["q_AT"]) <= 0.05 and float(one["s_AT"]) > d_a**2 + d_t**2:
                expected = "interaction"
            elif float(one["q"]) > 0.05:
                expected = "none"
            else:
                expected = "audio" if low > 0.5 else "text" if high < 0.5 else "both"
            assert one["state"] == expected
    order = np.argsort(tested)
    q = np.minimum.accumulate((np.array(tested)[order] * len(tested) / np.arange(1, len(tested) + 1))[::-1])[::-1]
    np.testing.assert_allclose(found["q"].values.ravel()[order], np.minimum(q, 1), rtol=1e-12)


def test_modalities_exchanged_give_the_rest_of_one(mean, found):
    other = grounding(mean, layout_of(exchanged=True))
    np.testing.assert_allclose(other["gc"], 1 - found["gc"], atol=1e-9)
    np.testing.assert_allclose(other["gc_low"], 1 - found["gc_high"], atol=1e-9)
    np.testing.assert_allclose(other["gc_high"], 1 - found["gc_low"], atol=1e-9)
    for own, its in (("A", "T"), ("T", "A"), ("AT", "AT")):
        for name in ("s", "p", *(["smallest_d"] if own != "AT" else [])):
            np.testing.assert_allclose(other[f"{name}_{own}"], found[f"{name}_{its}"], rtol=1e-7, atol=1e-12)
    swapped = {"audio": "text", "text": "audio"}
    assert other["state"].values.tolist() == [[swapped.get(x, x) for x in row] for row in found["state"].values]


def test_scale_and_shift_change_nothing(mean, found):
    factor = xr.DataArray(np.linspace(0.001, 500, N), dims="neuron")
    other = grounding(mean.astype(float) * factor - 7, layout_of())
    for name in ("gc", "gc_low", "gc_high", "p_A", "p_T", "p_AT", "q"):
        np.testing.assert_allclose(other[name], found[name], rtol=1e-6, atol=1e-9)
    for name in ("d_A", "d_T", "smallest_d_A", "smallest_d_T"):
        np.testing.assert_allclose(other[name] / factor, found[name], rtol=1e-6, atol=1e-9)
    assert (other["state"] == found["state"]).all()


@pytest.mark.parametrize("chunks", [{"neuron": 7, "clip": 11}, {"layer": 1, "neuron": 40}, {"layer": 2, "neuron": 1}])
def test_any_chunks_give_the_same_and_nothing_is_read_before(mean, found, chunks, monkeypatch):
    monkeypatch.setattr("otoscope.analysis.crossed.coefficient.READ_BYTES", 1)  # as few neurons at once as can be
    with every_task_twice():
        xr.testing.assert_identical(grounding(mean.chunk(chunks), layout_of()).compute(), found)


def test_a_table_is_made_part_by_part_and_means_are_read_once(mean, monkeypatch):
    valid = xr.DataArray(np.arange(N) < [[N], [13]], dims=("layer", "neuron"))
    expected = grounding(mean, layout_of(), valid=valid)
    read, plain = [], read_means
    monkeypatch.setattr(effects, "TILE", 8)
    monkeypatch.setattr(coefficient, "READ_BYTES", 1)
    monkeypatch.setattr(coefficient, "read_means", lambda *given: read.append(given[1:3]) or plain(*given))
    table = grounding_table(grounding(mean.chunk(neuron=7, clip=11), layout_of(), valid=valid), valid)
    parts = [(layer, slice(first, first + 8)) for layer in range(LAYERS) for first in range(0, N, 8)]
    assert sorted(read, key=str) == sorted(parts, key=str)
    at = [(layer, neuron) for layer in range(LAYERS) for neuron in range(N) if valid.values[layer, neuron]]
    assert list(zip(table["layer"], table["neuron"], strict=True)) == at
    assert table["site"].tolist() == ["xy"[layer] for layer, _ in at]
    for name in ("gc", "gc_low", "d_T", "s_AT", "p_A", "q", "smallest_d_T", "state", "cut"):
        np.testing.assert_array_equal(table[name], [expected[name].values[cell] for cell in at])
    assert set(table["K"]) == {4}


def test_it_stays_lazy(mean, nothing_computes):
    with nothing_computes():
        lazy = grounding(mean.chunk(neuron=7), layout_of(), valid=xr.ones_like(mean.isel(clip=0), dtype=bool))
    assert all(variable.chunks for variable in lazy.data_vars.values())


def test_clips_in_another_order_and_others_between_them_change_nothing(mean, found):
    order = np.random.default_rng(0).permutation(mean.sizes["clip"])
    other = grounding(mean.isel(clip=order), layout_of(order=order))
    xr.testing.assert_allclose(other, found)


def test_neurons_that_do_not_exist_count_nowhere(mean, found):
    valid = xr.DataArray(np.arange(N) < [[N], [4]], dims=("layer", "neuron"))
    other = grounding(mean, layout_of(), valid=valid)
    assert np.isnan(other["p_A"].values[~valid.values]).all()
    assert (other["state"].values[~valid.values] == "none").all()
    assert (other["q"].values[valid] >= 0).all()
    assert not np.allclose(other["q"].values[valid], found["q"].values[valid])  # of fewer neurons


def blind_to_text(mean, flips=0.0):
    """The second layer responds as to the first wording of the first text, but for flips of a last bit."""
    K, J, L, M = SIZES
    values = mean.values.copy()
    seen = values[1].reshape(N, K * J, L * M)[:, :, :1].repeat(L * M, axis=2)
    seen += (
        flips * np.random.default_rng(0).normal(size=seen.shape) * (np.random.default_rng(1).random(seen.shape) < 0.01)
    )
    values[1] = seen.reshape(N, -1)
    values[1, :3] = 5  # neurons that never change say nothing of what a layer sees
    return mean.copy(data=values)


@pytest.mark.parametrize("flips", [0.0, 1e-6])
def test_what_a_layer_cannot_see_is_construction(mean, found, flips):
    own = grounding(blind_to_text(mean, flips), layout_of())
    assert own["blind"].values.tolist() == ["none", "text"]
    assert (own["state"].values[1] == "construction").all()
    assert np.isnan(own["gc"].values[1]).all()
    assert np.isnan(own["q"].values[1]).all()
    assert (own["p_A"].values[1, 3:] < 0.05).any()  # each by itself would be a finding
    xr.testing.assert_allclose(own["q"].isel(layer=0), grounding(mean.isel(layer=[0]), layout_of())["q"].isel(layer=0))
    exchanged = grounding(blind_to_text(mean, flips), layout_of(exchanged=True))
    assert exchanged["blind"].values.tolist() == ["none", "audio"]


def test_what_a_layer_sees_may_be_given(mean):
    assert (grounding(mean, layout_of(), blind="text")["state"] == "construction").all()
    assert "audio" in grounding(blind_to_text(mean), layout_of(), blind="none")["state"].values[1]
    with pytest.raises(ValueError, match="blind is 'words'; expected one of audio, text, none, or None"):
        grounding(mean, layout_of(), blind="words")


def test_a_small_effect_of_the_text_is_no_blindness(mean):
    K, J, L, M = SIZES
    text = np.repeat(np.arange(L), M)
    small = blind_to_text(mean).values.reshape(LAYERS, N, K * J, L * M) + 1e-3 * np.arange(L)[text]
    own = grounding(mean.copy(data=small.reshape(mean.shape)), layout_of())
    assert own["blind"].values.tolist() == ["none", "none"]


def test_noise_of_none_is_found_in_none():
    values = responses((4, 6, 4, 4), 800, seed=3, kind="spiky")
    mean = xr.DataArray(values.T[None], dims=("layer", "neuron", "clip"))
    own = grounding(mean, layout_of((4, 6, 4, 4)))
    assert (own["state"] == "none").all()
    assert list(own["mean_square"]["term"].values) == list(TERMS)
    assert (own["smallest_d_A"] > 0).all()
