"""What an intervention does to activations, neuron by neuron."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from otoscope.ablate.intervention import Edit, Intervention, edit_output, edited, frame_mean
from otoscope.extract.models.encoder import as_frames
from otoscope.store.neurons import NeuronSet

WIDTHS = (5, 3, 5)
MEANS = np.where(np.arange(5) < np.array(WIDTHS)[:, None], np.arange(15).reshape(3, 5), np.nan).astype(np.float32)

pairs = st.integers(0, 2).flatmap(lambda layer: st.tuples(st.just(layer), st.integers(0, WIDTHS[layer] - 1)))


@given(
    st.lists(pairs),
    st.sampled_from([{"gain": 0.0}, {"gain": 0.25}, {"gain": 1.0}, {"gain": 3.0}, {"mode": "mean"}, {"mode": "patch"}]),
    st.booleans(),
)
def test_edits_change_the_set_or_all_but_the_set_and_nothing_else(chosen: list, how: dict, keep: bool) -> None:
    means = MEANS if how.get("mode") == "mean" else None
    edits = Intervention(neurons=NeuronSet(pairs=tuple(chosen)), means=means, keep=keep, **how).edits(WIDTHS)
    assert len(edits) == len(WIDTHS)
    generator = torch.Generator().manual_seed(0)
    for layer, (edit, width) in enumerate(zip(edits, WIDTHS, strict=True)):
        old, donor = torch.randn(2, 2, 4, width, generator=generator)
        expected = old.clone()
        for neuron in range(width):
            if ((layer, neuron) in chosen) != keep:
                new = {"mean": torch.tensor(MEANS[layer, neuron]), "patch": donor[..., neuron]}
                expected[..., neuron] = new.get(how.get("mode", ""), how.get("gain", 0.0) * old[..., neuron])
        if torch.equal(expected, old):
            assert edit is None  # nothing to do costs nothing: gain 1 is the identity
            continue
        assert edit is not None
        assert edit.neurons.tolist() == sorted(set(edit.neurons.tolist()))
        theirs = donor.index_select(-1, edit.neurons)
        before = old.clone()
        assert torch.equal(edited(old, edit, theirs), expected)
        assert torch.equal(edit_output(old, as_frames, edit, theirs), expected)
        assert torch.equal(old, before)
        # The same for a site that shows (clip, neuron, frame), and for one without frames.
        turned = edit_output(old.transpose(1, 2), lambda output: output.transpose(1, 2), edit, theirs)
        assert torch.equal(turned, expected.transpose(1, 2))
        assert torch.equal(edit_output(old[:, 0], as_frames, edit, theirs[:, :1]), expected[:, 0])


def test_equal_edits_have_equal_keys_and_others_do_not() -> None:
    def key(*chosen: int, **how: object) -> bytes:
        (edit,) = Intervention(neurons=NeuronSet(pairs=[(0, n) for n in chosen]), **how).edits([4])  # type: ignore[arg-type]
        assert isinstance(edit, Edit)
        assert edit.to_device("cpu").key == edit.key
        return edit.key

    means = np.arange(4, dtype=np.float32)[None]
    others = [key(1), key(2), key(1, 2), key(1, gain=0.5), key(1, mode="patch"), key(1, mode="mean", means=means)]
    others.append(key(1, mode="mean", means=means + 1))
    assert len(set(others)) == len(others)
    assert key(1) == key(0, 2, 3, keep=True)
    # Only the means of edited neurons tell edits apart.
    assert key(1, mode="mean", means=means * [1, 1, 9, 9]) == others[5]


def test_interventions_that_make_no_sense_are_refused() -> None:
    neurons = NeuronSet(pairs=[(0, 1)])
    with pytest.raises(ValueError, match="no intervention 'off'; expected one of gain, mean, patch"):
        Intervention(neurons=neurons, mode="off")
    with pytest.raises(ValueError, match=r"gain nan .*; expected a finite number"):
        Intervention(neurons=neurons, gain=float("nan"))
    with pytest.raises(ValueError, match=r"gain 0.5 with mode 'patch'"):
        Intervention(neurons=neurons, gain=0.5, mode="patch")
    with pytest.raises(ValueError, match="mode 'mean' with no means"):
        Intervention(neurons=neurons, mode="mean")
    with pytest.raises(ValueError, match=r"mode 'gain' with means; expected means .* for mode 'mean' alone"):
        Intervention(neurons=neurons, means=MEANS)
    with pytest.raises(ValueError, match=r"means have shape \(3, 5\); expected \(layer, neuron\) = \(2, 5\)"):
        Intervention(neurons=neurons, mode="mean", means=MEANS).edits((5, 5))
    with pytest.raises(ValueError, match=r"mean of neuron \(1, 3\) is not finite; expected means over at least one"):
        Intervention(neurons=NeuronSet(pairs=[(1, 3)]), mode="mean", means=MEANS).edits((5, 5, 5))
    with pytest.raises(LookupError, match=r"the first \(1, 3\)"):
        Intervention(neurons=NeuronSet(pairs=[(1, 3)])).edits(WIDTHS)
    (edit,) = Intervention(neurons=neurons, mode="patch").edits([2])
    assert edit is not None
    with pytest.raises(ValueError, match="a patch needs donors"):
        edited(torch.zeros(1, 1, 2), edit)
    with pytest.raises(ValueError, match="makes new values out of a site's output"):
        edit_output(torch.zeros(1, 1, 2), lambda output: output + 0, edit)
    with pytest.raises(ValueError, match="expected one tensor"):
        edit_output((torch.zeros(1, 1, 2),), lambda output: output[0], edit)


@pytest.mark.parametrize("chunks", [None, {"clip": 3}])
def test_frame_means_are_means_over_all_frames(chunks: dict | None) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((2, 3, n)).astype(np.float32) for n in (4, 1, 7)]
    absent = np.full((2, 3), np.nan, np.float32)  # clips that failed
    mean = np.stack([*(of_one.mean(axis=2) for of_one in frames), absent, absent])
    mean[:, 1, 2] = np.nan  # the second layer is narrower
    ds = xr.Dataset(
        {"mean": (("clip", "layer", "neuron"), mean), "frame_count": ("clip", np.array([4, 1, 7, 0, 0], np.uint16))}
    )
    ds = ds.chunk(chunks) if chunks else ds

    def expected(*which: int) -> np.ndarray:
        return np.concatenate([frames[i] for i in which], axis=2).astype(np.float64).mean(axis=2)

    found = frame_mean(ds["mean"].transpose("layer", "neuron", "clip"), ds["frame_count"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected(0, 1, 2)[0], rtol=1e-6)
    np.testing.assert_allclose(found[1, :2], expected(0, 1, 2)[1, :2], rtol=1e-6)
    assert np.isnan(found[1, 2])
    chosen = xr.DataArray(np.array([True, False, True, True, False]), dims="clip")
    np.testing.assert_allclose(frame_mean(ds["mean"], ds["frame_count"], chosen)[0], expected(0, 2)[0], rtol=1e-6)
    assert np.isnan(frame_mean(ds["mean"], ds["frame_count"], xr.zeros_like(chosen))).all()
