"""Draws: what is kept when labels are shuffled and clips drawn anew, with groups, splits and unequal categories."""

from collections import Counter

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis.null.resampling import redraw_clips, shuffle_labels, take_sample
from otoscope.store.bits import pack

N = 120


def column(values):
    return xr.DataArray(np.asarray(values), dims="clip")


def sample_of(codes, **options):
    codes = np.asarray(codes)
    active = np.random.default_rng(0).random((2, 11, len(codes))) < 0.4
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": [f"c{i}" for i in range(codes.max() + 1)]})
    return take_sample(xr.DataArray(active, dims=("layer", "neuron", "clip")), labels, **options), active


@pytest.fixture
def codes():
    return np.random.default_rng(1).choice([0, 0, 0, 1, 2, 2], N)


def test_clips_without_label_are_left_out_and_bits_kept(codes):
    codes[::7] = -1
    sample, active = sample_of(codes)
    kept = codes >= 0
    assert sample.codes.tolist() == codes[kept].tolist()
    packed = pack(active[..., kept].transpose(0, 2, 1))  # (layer, clip, byte)
    np.testing.assert_array_equal(sample.bits[0], np.concatenate(list(packed), axis=1))
    assert sample.existing.tolist() == [*range(11), *range(16, 27)]


def test_a_shuffle_keeps_the_number_of_clips_of_each_category_in_each_split(codes):
    split = np.arange(N) % 3
    sample, _ = sample_of(codes, within=[column(split)])
    draws = [shuffle_labels(sample, 0, i) for i in range(50)]
    for draw in draws:
        for s in range(3):
            np.testing.assert_array_equal(np.bincount(draw[split == s], minlength=3), np.bincount(codes[split == s]))
    assert len({tuple(draw) for draw in draws}) == 50
    np.testing.assert_array_equal(draws[7], shuffle_labels(sample, 0, 7))
    assert (draws[7] != shuffle_labels(sample, 1, 7)).any()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_shuffle_keeps_the_joint_counts_of_all_columns(codes, n):
    """Clips without a label in a column are exchanged among themselves, within the other columns."""
    rng = np.random.default_rng(10 + n)
    columns = [rng.choice(["", "x", "y"][: 3 - i // 2], N) for i in range(n)]
    codes[::11] = -1
    kept = codes >= 0
    sample, _ = sample_of(codes, within=[column(values) for values in columns])

    def joint(drawn):
        return Counter(zip(drawn.tolist(), *(values[kept].tolist() for values in columns), strict=True))

    draws = [shuffle_labels(sample, 0, i) for i in range(30)]
    assert all(joint(draw) == joint(codes[kept]) for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 30
    (cells,) = np.where([each == ("",) * n for each in zip(*(values[kept] for values in columns), strict=True)])
    assert len({tuple(draw[cells]) for draw in draws}) > 1


def test_a_clip_without_a_group_moves_alone(codes):
    speaker = np.where(np.arange(N) % 4 == 0, "", [f"{c}{i % 5}" for i, c in enumerate(codes)])
    sample, _ = sample_of(codes, groups=column(speaker))
    sizes = np.bincount(np.unique(sample.units, return_inverse=True)[1])
    assert (sizes == 1).sum() >= (speaker == "").sum()
    assert len(sizes) == (speaker == "").sum() + len({*speaker.tolist()} - {""})


def test_every_clip_gets_every_category_equally_often():
    sample, _ = sample_of(np.arange(6) // 2)
    draws = np.array([shuffle_labels(sample, 0, i) for i in range(3000)])
    shares = np.stack([(draws == c).mean(axis=0) for c in range(3)])
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)  # five standard errors
    together = (draws[:, 0] == draws[:, 1]).mean()
    assert together == pytest.approx(1 / 5, abs=0.04)


def test_groups_move_as_a_whole():
    speaker = np.arange(N) // 5
    of_speaker = np.random.default_rng(2).integers(0, 2, 24)
    sample, _ = sample_of(of_speaker[speaker], groups=column([f"s{i}" for i in speaker]))
    assert len(sample.first_and_unit[0]) == 24
    for i in range(20):
        draw = shuffle_labels(sample, 0, i).reshape(24, 5)
        assert (draw == draw[:, :1]).all()
        assert draw[:, 0].sum() == of_speaker.sum()
        clips = redraw_clips(sample, 0, i)
        drawn = clips.reshape(24, 5)
        assert (drawn // 5 == drawn[:, :1] // 5).all()  # all clips of a speaker, or none
        assert (np.sort(drawn % 5, axis=1) == np.arange(5)).all()


def test_a_clip_without_a_group_is_alone():
    sample, _ = sample_of(np.arange(6) % 2, groups=column(["a", "b", "a", "b", "", ""]))
    assert len(np.unique(sample.units)) == 4


def test_groups_of_several_categories_are_shuffled_inside_and_drawn_as_a_whole(codes):
    speaker = column([f"s{i % 8}" for i in range(N)])
    mixed, _ = sample_of(codes, groups=speaker)
    with pytest.raises(ValueError, match="several categories; expected one category per group"):
        shuffle_labels(mixed, 0, 0)
    clips = redraw_clips(mixed, 0, 0)
    times = np.bincount(clips, minlength=N)
    for s in range(8):
        assert len(set(times[s::8])) == 1
    inside, _ = sample_of(codes, within=[speaker])
    draw = shuffle_labels(inside, 0, 0)
    assert all(sorted(draw[s::8]) == sorted(codes[s::8]) for s in range(8))


def test_clips_are_drawn_within_split_and_category(codes):
    split = np.arange(N) % 2
    sample, _ = sample_of(codes, within=[column(split)])
    clips = redraw_clips(sample, 0, 0)
    cells = split * 3 + codes
    np.testing.assert_array_equal(np.bincount(cells[clips]), np.bincount(cells))
    assert 0.5 < len(np.unique(clips)) / N < 0.75  # 1 - 1/e of them
    assert (redraw_clips(sample, 0, 0, 1) != clips).any()


def test_balanced_categories_are_as_large_as_the_smallest(codes):
    sample, _ = sample_of(codes, balanced=True)
    smallest = np.bincount(codes).min()
    assert sample.clips_per_category.tolist() == [smallest] * 3
    assert sample.imbalance == 1
    unequal, _ = sample_of(codes)
    assert unequal.imbalance == np.bincount(codes).max() / smallest


def test_what_cannot_be_shuffled(codes):
    with pytest.raises(
        ValueError, match=r"within each value of `within` there is one category only; .* between: leave"
    ):
        shuffle_labels(sample_of(codes, within=[column(codes)])[0], 0, 0)
    with pytest.raises(ValueError, match="8 groups lie in more than one split; expected each group in one"):
        sample_of(codes, groups=column(np.arange(N) % 8), within=[column(np.arange(N) % 3)])
    with pytest.raises(ValueError, match="without clips: c1; expected at least 2, all with clips"):
        sample_of(np.where(codes == 1, 0, codes))
    with pytest.raises(ValueError, match="found 1 categories"):
        sample_of(np.zeros(9, int))
    lone, _ = sample_of(np.r_[0, np.ones(60, int), np.full(59, 2)], groups=column(np.arange(N) // 60))
    one = [redraw_clips(lone, 0, i) for i in range(20)]
    assert all(len(np.unique(lone.codes[clips])) == 3 for clips in one)
