"""AAPE against its formula in plain python, and its laws."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from otoscope.analysis import aape


def as_p(values):
    values = np.asarray(values, float)
    return xr.DataArray(values.reshape(1, -1, values.shape[-1]), dims=("layer", "neuron", "category"))


def plain_aape(row):
    """-sum q ln q of one neuron, from the definition; of one category there is none."""
    total = sum(row)
    if total == 0 or len(row) < 2:
        return math.nan
    return -sum(p / total * math.log(p / total) for p in row if p > 0)


probabilities = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1, allow_subnormal=False).map(lambda p: round(p, 9)))


@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.lists(probabilities, min_size=n, max_size=n), min_size=1)))
def test_the_definition(rows):
    np.testing.assert_allclose(aape(as_p(rows)).values[0], [plain_aape(row) for row in rows], atol=1e-12)


@given(st.lists(probabilities, min_size=2, max_size=12), st.randoms())
def test_the_order_of_categories_changes_nothing_at_all(row, random):
    shuffled = random.sample(row, len(row))
    first, second = aape(as_p([row, shuffled])).values[0]
    assert first == second or (np.isnan(first) and np.isnan(second))


def test_closed_forms():
    for n in (2, 9, 527):
        even, single, silent = np.full(n, 0.37), np.eye(n)[0] * 0.01, np.zeros(n)
        nats = aape(as_p([even, single, silent])).values[0]
        share = aape(as_p([even, single, silent]), normalised=True).values[0]
        assert nats[0] == pytest.approx(math.log(n), abs=1e-12)
        assert share[0] == pytest.approx(1, abs=1e-12)
        assert nats[1] == share[1] == 0
        assert math.copysign(1, nats[1]) == 1
        assert np.isnan(nats[2])
        assert np.isnan(share[2])


def test_cells_that_do_not_exist_take_no_part():
    p = as_p([[0.2, np.nan, 0.3], [0.4, np.nan, 0.4], [np.nan, 0.3, np.nan], [np.nan] * 3])
    some, even, single, without = aape(p).values[0]
    assert some == pytest.approx(plain_aape([0.2, 0.3]), abs=1e-15)
    assert even == pytest.approx(math.log(2))
    assert aape(p, normalised=True).values[0, 1] == pytest.approx(1)  # of the two categories that there are
    assert np.isnan([single, without]).all()


def test_lazy_and_named(nothing_computes):
    p = as_p(np.random.default_rng(0).random((30, 4))).assign_coords(layer=[7])
    with nothing_computes():
        lazy = aape(p.chunk(neuron=7, category=2))
    np.testing.assert_array_equal(lazy, aape(p))
    assert lazy.dims == ("layer", "neuron")
    assert lazy["layer"] == 7
    assert (lazy.attrs["long_name"], lazy.attrs["units"]) == ("AAPE", "nat")


def test_normalising_needs_two_categories():
    with pytest.raises(ValueError, match=r"found 1 category; expected at least two"):
        aape(as_p([[0.5]]), normalised=True)
