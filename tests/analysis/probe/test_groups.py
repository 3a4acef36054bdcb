"""Laws of splits by groups: whatever clips and groups there are, no group is on both sides of any line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.analysis.probe.splits import Splits, draw_folds, make_splits

CLIPS = st.lists(st.tuples(st.integers(-1, 2), st.sampled_from(["", "s1", "s2", "s3", "s4", "s5"])), min_size=8)


def sides_of(splits: Splits, head: int) -> list[np.ndarray]:
    return [splits.train[head], splits.valid[head], splits.test_fold == head]


@settings(max_examples=60, deadline=None)
@given(CLIPS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_group_is_on_both_sides_and_the_order_of_clips_is_nothing(clips, seed, random):
    codes, groups = np.array([code for code, _ in clips]), [group for _, group in clips]
    names = [f"clip {i}" for i in range(len(clips))]
    try:
        folds = draw_folds(codes, names, groups, seed=seed)
        splits = make_splits(folds, codes, names, seed, groups=groups)
    except ValueError:  # too few groups, or a category of one
        return
    for head in range(len(splits.heads)):
        train, valid, test = sides_of(splits, head)
        assert (train.astype(int) + valid + test <= 1).all()
        assert ((train | valid | test) == (codes >= 0)).all()
        for one, other in ((train, valid), (train, test), (valid, test)):
            assert not {g for g, on in zip(groups, one, strict=True) if on and g} & {
                g for g, on in zip(groups, other, strict=True) if on
            }
        assert set(codes[valid]) <= set(codes[train])
    assert (splits.test_fold[codes >= 0] >= 0).all()
    order = random.sample(range(len(clips)), len(clips))
    own = [[values[i] for i in order] for values in (codes.tolist(), names, groups)]
    again_folds = draw_folds(np.array(own[0]), own[1], own[2], seed=seed)
    assert again_folds == [folds[i] for i in order]
    again = make_splits(again_folds, np.array(own[0]), own[1], seed, groups=own[2])
    np.testing.assert_array_equal(again.train, splits.train[:, order])
    np.testing.assert_array_equal(again.valid, splits.valid[:, order])
    np.testing.assert_array_equal(again.test_fold, splits.test_fold[order])


def test_validation_groups_are_a_tenth_of_the_clips_or_a_little_more():
    groups = [f"s{i // 10}" for i in range(400)]
    codes, names = np.arange(400) % 4, [f"c{i}" for i in range(400)]
    splits = make_splits(draw_folds(codes, names, groups), codes, names, groups=groups)
    assert splits.valid_drawn
    np.testing.assert_array_equal(splits.valid.sum(axis=1), 40)  # 32 wanted of 320, in tens
    np.testing.assert_array_equal(np.bincount(splits.test_fold), 80)
    few = [f"s{i // 200}" for i in range(400)]  # one trains, one tests: none is left over
    splits = make_splits(draw_folds(codes, names, few), codes, names, groups=few)
    assert not splits.valid.any()


def test_what_cannot_be_parted():
    codes, names = np.arange(12) % 2, [f"c{i}" for i in range(12)]
    singer = [f"s{i // 2 % 3}" for i in range(12)]
    with pytest.raises(ValueError, match="found 3 groups of clips for 5 folds; expected at least two folds"):
        draw_folds(codes, names, singer, n=5)
    with pytest.raises(ValueError, match="found 1 groups of clips for 2 folds"):
        draw_folds(codes, names, ["s"] * 12)
    parts = ["train"] * 6 + ["test"] * 6
    with pytest.raises(
        ValueError, match="3 groups have clips in train and in test, the first 's0'; expected each on one"
    ):
        make_splits(parts, codes, names, groups=singer)
    parts = ["train", "train", "valid", "valid", "test", "test"] * 2
    alike = ["a", "a", "a", "b", "c", "c"] * 2
    with pytest.raises(ValueError, match="1 groups have clips in train and in valid, the first 'a'"):
        make_splits(parts, codes, names, groups=alike)
    with pytest.raises(ValueError, match="in train and in test of fold 0, the first 's0'"):
        make_splits([str(i % 3) for i in range(12)], codes, names, groups=["s0", *["s1"] * 2, "s0", *singer[4:]])
