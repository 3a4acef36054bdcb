"""Controls: as many per layer, never the set itself, alike where asked, reproducible."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otoscope
from otoscope.ablate.controls import different_controls, matched_controls, neuron_features, published_control
from otoscope.store.neurons import NeuronSet

WIDTHS = (30, 12, 30)


@settings(max_examples=40)
@given(
    st.sets(st.tuples(st.integers(0, 2), st.integers(0, 11)), min_size=1, max_size=15), st.booleans(), st.booleans(),
    st.integers(0, 5),
)  # fmt: skip
def test_every_draw_keeps_the_layers_and_avoids_the_set(pairs, avoid, matched, seed):
    target = NeuronSet(pairs=tuple(pairs), name="t")
    features = {"rate": np.random.default_rng(0).random((3, 30))} if matched else None
    if avoid and any(2 * n > WIDTHS[layer] for layer, n in target.counts.items()):
        with pytest.raises(ValueError, match=r"expected at least .* to draw from"):
            matched_controls(target, WIDTHS, 3, seed=seed, features=features)
        return
    draws = matched_controls(target, WIDTHS, 8, seed=seed, features=features, avoid_target=avoid)
    assert len(draws) == 8
    for i, control in enumerate(draws):
        assert control.counts == target.counts
        control.check(WIDTHS)
        assert not avoid or not len(control & target)
        assert (control.why["seed"], control.why["draw"]) == (seed, i)
        assert control.why["control of"] == target.digest
    assert matched_controls(target, WIDTHS, 3, seed=seed, features=features, avoid_target=avoid) == draws[:3]


def test_every_neuron_of_the_layer_is_as_likely():
    target = NeuronSet(pairs=((0, 4), (0, 9), (1, 0)))
    draws = matched_controls(target, (20, 6), 6000)
    times = np.zeros((2, 20))
    for control in draws:
        times[tuple(np.array(control.pairs).T)] += 1
    assert times[0, [4, 9]].tolist() == [0, 0]
    assert times[1, [0, *range(6, 20)]].sum() == 0
    free = np.delete(times[0], [4, 9])
    assert (np.abs(free - 6000 * 2 / 18) < 5 * np.sqrt(6000 * 2 / 18)).all()
    assert (np.abs(times[1, 1:6] - 1200) < 5 * np.sqrt(1200)).all()
    other = matched_controls(target, (20, 6), 50, seed=1)
    assert other != draws[:50]


def test_a_set_that_is_drawn_again_is_no_second_control():
    target = NeuronSet(pairs=((0, 0), (0, 1)))
    kept = different_controls(target, (5,), 200)
    draws = matched_controls(target, (5,), 200)
    assert [control.pairs for control in kept] == list(dict.fromkeys(control.pairs for control in draws))
    assert sorted(control.pairs for control in kept) == [((0, 2), (0, 3)), ((0, 2), (0, 4)), ((0, 3), (0, 4))]


@pytest.mark.parametrize(("width", "wanted"), [(24, 20), (24, 23), (60, 50)])
def test_as_many_different_controls_as_are_wanted_where_there_are_as_many(width, wanted):
    """Of single neurons: chance draws some of them twice long before it has drawn all."""
    target = NeuronSet(pairs=((0, 1),))
    first = different_controls(target, (width,), wanted)
    assert len({control.pairs for control in first}) == wanted
    drawn = {control.name: control for control in matched_controls(target, (width,), 16 * wanted)}
    assert all(drawn[control.name] == control for control in first)


def test_matching_brings_the_features_close():
    """Target neurons of high rates: unmatched controls have the layer's mean, matched ones the target's."""
    rng = np.random.default_rng(0)
    rate, mean = rng.random((2, 400)), rng.normal(size=(2, 400))
    high = np.argsort(rate[0])[-30:-10]
    target = NeuronSet(pairs=tuple((0, int(n)) for n in high))

    def means(features):
        draws = matched_controls(target, (400, 400), 100, features=features)
        index = [np.array(control.pairs).T for control in draws]
        return [np.mean([values[tuple(at)].mean() for at in index]) for values in (rate, mean)]

    wanted = [rate[0, high].mean(), mean[0, high].mean()]
    assert abs(means(None)[0] - wanted[0]) > 0.4
    by_rate = means({"rate": rate})
    assert abs(by_rate[0] - wanted[0]) < 0.03
    by_both = means({"rate": rate, "mean": mean})
    assert abs(by_both[0] - wanted[0]) < 0.12
    assert abs(by_both[1] - wanted[1]) < 0.15


def test_the_published_control_is_the_right_neighbour():
    target = NeuronSet(pairs=((0, 1), (0, 29), (2, 7)))
    (control,) = published_control(target, WIDTHS)
    assert control.pairs == ((0, 0), (0, 2), (2, 8))  # around the end of the layer


def test_features_are_those_of_the_store(finished):
    ds = otoscope.open(finished.url)["t"].to_dataset()
    features = neuron_features(ds)
    np.testing.assert_allclose(features["rate"], ds["active"].mean("clip").where(ds["neuron_valid"]))
    mean = ds["mean"].astype(float).mean("clip").where(ds["neuron_valid"])
    np.testing.assert_allclose(features["mean"], mean.transpose("layer", "neuron"), rtol=1e-12)
    with pytest.raises(LookupError, match="no feature 'size' to match controls by; expected some of rate, mean"):
        neuron_features(ds, ["size"])
    with pytest.raises(LookupError, match="keeps no 'mean', expected to match by mean"):
        neuron_features(ds.drop_vars("mean"), ["mean"])


def test_refusals():
    target = NeuronSet(pairs=((1, 3),))
    with pytest.raises(LookupError, match="do not exist"):
        matched_controls(NeuronSet(pairs=((1, 12),)), WIDTHS)
    with pytest.raises(ValueError, match="-1 draws with seed 0"):
        matched_controls(target, WIDTHS, -1)
    full = NeuronSet(pairs=tuple((1, n) for n in range(7)), name="big")
    with pytest.raises(ValueError, match="layer 1 has 12 neurons and big takes 7 of them, so that 5 are left"):
        matched_controls(full, WIDTHS)
    assert len(matched_controls(full, WIDTHS, 2, avoid_target=False)) == 2
    assert matched_controls(full, WIDTHS, 0) == []  # who wants none need not be able to draw any
