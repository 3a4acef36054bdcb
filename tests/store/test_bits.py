"""Laws of packed bits; the witness is numpy's own arithmetic on the unpacked bools."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otoscope.store.bits import pack, unpack


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 3))
def test_unpack_returns_what_was_packed(row, repeats):
    active = np.tile(np.array(row, bool), (repeats, 2, 1))
    bits = pack(active)
    assert bits.dtype == np.uint8
    assert bits.shape == (repeats, 2, -(-len(row) // 8))
    np.testing.assert_array_equal(unpack(bits, len(row)), active)


def test_neuron_n_is_bit_n_mod_8_of_byte_n_div_8():
    for neuron in (0, 7, 8, 12):
        active = np.arange(13) == neuron
        assert pack(active).tolist() == [(1 << neuron) & 255, (1 << neuron) >> 8]
