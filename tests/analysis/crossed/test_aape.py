"""The coefficient by AAPE, and why the note's ratio of swaps cannot be built."""

import numpy as np
import pytest
import xarray as xr

import otoscope.analysis.accessor  # noqa: F401

from ...support.crossed import columns_of, responses

SIZES, N = (3, 6, 3, 4), 24
HOW = {"permutations": 60, "threshold": 0}


@pytest.fixture(scope="module")
def task():
    """(layer, neuron, clip): sound, text and nothing in turn; bits are the sign."""
    d = {"d_audio": np.tile([1.5, 0.0, 0.0], N // 3), "d_text": np.tile([0.0, 1.5, 0.0], N // 3)}
    values = responses(SIZES, N, **d).T[None].astype(np.float32)
    bits = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": N}
    packed = np.packbits(values.transpose(0, 2, 1) > 0, axis=-1, bitorder="little")
    coords = {name: ("clip", np.array(column, object)) for name, column in columns_of(SIZES).items()}
    return xr.Dataset(
        {
            "mean": (("layer", "neuron", "clip"), values),
            "active_bits": (("layer", "clip", "neuron_byte"), packed, bits),
            "active": (("layer", "neuron", "clip"), values > 0),
        },
        {"layer": [0], "neuron": np.arange(N), "clip": [f"c{i}" for i in range(values.shape[2])], **coords},
    )


@pytest.fixture(scope="module")
def found(task):
    return task.otoscope.grounding(aape=True, **HOW)


def plain_aape(active, classes):
    p = np.stack([active[:, classes == name].mean(axis=1) for name in sorted(set(classes))])
    q = p / p.sum(axis=0)
    return -(q * np.log(np.where(q > 0, q, 1))).sum(axis=0)


def test_a_sound_exchanged_for_another_leaves_aape_as_it_was(task, found):
    """The note swaps the sound's category of every clip: that renames categories, and AAPE has no names."""
    cycle = {"A0": "A1", "A1": "A2", "A2": "A0"}
    renamed = np.array([cycle[name] for name in task["audio_class"].values], object)
    swapped = task.assign_coords(audio_class=("clip", renamed))
    one, other = (each.otoscope.aape("audio_class").values for each in (task, swapped))
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert (one.ravel()[::3] < np.log(3) - 0.1).all()  # of neurons that tell the categories well
    excess = swapped.otoscope.grounding(aape=True, **HOW)["aape_excess_A"]
    np.testing.assert_allclose(excess, found["aape_excess_A"], atol=0.05)  # the shuffles are others


def test_excess_is_the_mean_over_shuffles_of_sounds_and_of_wordings(task, found):
    active, rng = task["active"].values[0], np.random.default_rng(0)
    a, j, t, m = np.indices(SIZES).reshape(4, -1)
    for name, of, unit in (("A", a, a * SIZES[1] + j), ("T", t, t * SIZES[3] + m)):
        of_unit = np.array([of[unit == i][0] for i in range(unit.max() + 1)])
        null = np.mean([plain_aape(active, rng.permutation(of_unit)[unit]) for _ in range(300)], axis=0)
        expected = null - plain_aape(active, of)
        np.testing.assert_allclose(found[f"aape_excess_{name}"][0], expected, atol=0.06)
        clips = np.mean([plain_aape(active, rng.permutation(of)) for _ in range(100)], axis=0)
        own = np.argsort(null)[:8]  # that vary from sound to sound most, or from wording to wording
        assert np.abs((found[f"aape_excess_{name}"][0].values - expected)[own].mean()) < 0.02
        assert (clips - null)[own].mean() > 0.04  # clips dealt out one by one would make an effect of that noise


def test_the_ratio_is_gated_and_agrees_with_what_was_planted(found):
    gc, passes = found["gc_aape"].values[0], found["q"].values[0] <= 0.05
    np.testing.assert_array_equal(np.isnan(gc), ~passes)
    s_a, s_t = (np.maximum(found[f"aape_excess_{name}"].values[0], 0) for name in "AT")
    np.testing.assert_allclose(gc[passes], (s_a / (s_a + s_t))[passes])
    assert (gc[::3] > 0.7).all()
    assert (gc[1::3] < 0.3).all()


def test_failed_clips_and_their_rows_do_not_count(task):
    status = np.ones(task.sizes["clip"], np.uint8)
    status[0] = 2
    failed = task.assign(status=("clip", status))
    failed = failed.assign(mean=failed["mean"].where(failed["status"] == 1))
    found = failed.otoscope.grounding(aape=True, **HOW)
    whole = task.isel(clip=(task["replicate"] != "1").values).otoscope.grounding(aape=True, **HOW)
    assert found.attrs["J"] == 5
    for name in ("gc", "gc_low", "q", "aape_excess_A", "aape_excess_T", "gc_aape", "smallest_d_T"):
        np.testing.assert_array_equal(found[name], whole[name])
    hidden = failed.isel(clip=status == 1).drop_vars("status").assign_attrs(n_failed=1)
    with pytest.raises(
        ValueError, match=r'are not there, .* 1 clips of this task failed and are hidden, open .*"keep"'
    ):
        hidden.otoscope.grounding()


def test_columns_by_name_and_conditions(task):
    renamed = task.rename(audio_class="emotion", wording="text")
    ours = renamed.otoscope.grounding("emotion", wording="text", where=("replicate!=6", "text!=w3"))
    some = task.isel(clip=((task["replicate"] != "6") & (task["wording"] != "w3")).values).otoscope.grounding()
    xr.testing.assert_identical(ours, some)
    assert (ours.attrs["J"], ours.attrs["M"]) == (5, 3)
    with pytest.raises(LookupError, match="no label column 'audio_class' in this task; those that exist: "):
        renamed.otoscope.grounding()
    with pytest.raises(
        LookupError, match="keeps no 'mean', expected for effects of sound and text: extract with --keep"
    ):
        task.drop_vars("mean").otoscope.grounding()
