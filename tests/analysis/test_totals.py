"""Laws of counting packed bits; the witness is numpy's own arithmetic on the unpacked bools."""

import tracemalloc

import numpy as np
import pytest

from otoscope.analysis.totals import count_bits
from otoscope.store.bits import pack, unpack


def one_hot_counts(active, codes, n_categories):
    """Counts by a matrix product with one-hot categories: -> (category, layer, neuron)."""
    one_hot = (codes[:, None] == np.arange(n_categories)).astype(np.int64)
    return np.einsum("kc,lkn->cln", one_hot, active.astype(np.int64))


@pytest.mark.parametrize("n_clips", [0, 1, 3, 4, 5, 7, 8, 255, 256, 257, 600])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_counts_equal_a_one_hot_product(n_clips, density):
    rng = np.random.default_rng(n_clips)
    active = rng.random((3, n_clips, 24)) < density
    for n_categories in (1, 4, 50):
        codes = rng.integers(-1, n_categories, n_clips, dtype=np.int32)
        counts = count_bits(pack(active), codes, n_categories, 24)
        assert counts.dtype == np.int32
        np.testing.assert_array_equal(counts, one_hot_counts(active, codes, n_categories))


def test_every_count_up_to_255_comes_out_of_the_adders():
    """Neuron n is active in exactly n of 255 clips."""
    active = np.arange(255)[:, None] < np.arange(256)
    counts = count_bits(pack(active[None]), np.zeros(255, np.int32), 1, 256)
    np.testing.assert_array_equal(counts[0, 0], np.arange(256))


@pytest.mark.parametrize("n_clips", [255, 256, 257, 511, 512])
def test_a_neuron_that_is_always_active_counts_every_clip(n_clips):
    counts = count_bits(np.full((1, n_clips, 1), 255, np.uint8), np.zeros(n_clips, np.int32), 1, 8)
    np.testing.assert_array_equal(counts, n_clips)


def test_input_is_left_alone_and_may_have_any_strides():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 256, (2, 300, 10), dtype=np.uint8)
    strided = np.asfortranarray(bits)[:, ::2, 1:9]
    codes = rng.integers(0, 2, 150)
    before = bits.copy()
    expected = one_hot_counts(unpack(strided, 64), codes, 2)
    np.testing.assert_array_equal(count_bits(strided, codes, 2, 64), expected)
    np.testing.assert_array_equal(bits, before)


def test_workspace_does_not_grow_with_the_clips():
    def peak(n_clips):
        bits = np.full((2, n_clips, 1024), 0b101, np.uint8)
        codes = np.zeros(n_clips, np.int8)
        tracemalloc.start()
        try:
            count_bits(bits, codes, 2, 8 * 1024)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(1_000), peak(20_000)
    assert many < few + 20_000 * 20  # the sort of the codes alone may grow
    assert many < 4 << 20


def test_codes_must_fit():
    bits = np.zeros((1, 3, 1), np.uint8)
    with pytest.raises(ValueError, match=r"expected one code per clip"):
        count_bits(bits, np.zeros(2, int), 2, 8)
    with pytest.raises(ValueError, match=r"code 2 found; expected codes below 2"):
        count_bits(bits, np.array([0, 1, 2]), 2, 8)
