"""Laws of entropies: near what is known, as the formula has it, and never a number where there is none."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import digamma

from otoscope.sae.entropy import histogram_entropy, nearest_neighbour_entropy

KNOWN = {"uniform": 0.0, "normal": 2.0471, "exponential": 1.4427, "laplace": 2.4427}  # bits


@pytest.mark.parametrize("name", KNOWN)
def test_it_is_near_what_is_known_at_4000_values(name: str) -> None:
    found = [getattr(np.random.default_rng(seed), name)(size=4000) for seed in range(8)]
    errors = [nearest_neighbour_entropy(values).bits - KNOWN[name] for values in found]
    assert np.abs(errors).max() < 0.1


@pytest.mark.parametrize("k", [1, 3, 4])
def test_it_is_the_formula(k: int) -> None:
    """Also with values far from all others, and where two are equal but more than one neighbour is asked for."""
    values = np.random.default_rng(0).normal(size=260)
    values[:2] += [1e3, -1e3]
    values[2] = values[3] if k > 1 else values[2]
    r = [np.sort(np.abs(np.delete(values, i) - values[i]))[k - 1] for i in range(260)]
    expected = (digamma(260) - digamma(k) + np.log(2) + np.log(r).mean()) / np.log(2)
    assert nearest_neighbour_entropy(values, k).bits == pytest.approx(expected, abs=1e-12)


def test_halving_the_unit_adds_a_bit_and_moving_it_nothing() -> None:
    values = np.random.default_rng(0).normal(size=500)
    before = nearest_neighbour_entropy(values).bits
    assert nearest_neighbour_entropy(2 * values).bits == pytest.approx(before + 1)
    assert nearest_neighbour_entropy(values[::-1] - 7).bits == pytest.approx(before)
    assert histogram_entropy(3 * values - 7) == pytest.approx(histogram_entropy(values))


def test_ties_are_a_share_and_never_a_number() -> None:
    values = np.random.default_rng(0).exponential(size=4000)
    for n, undefined in ((2, False), (3, False), (4, True), (77, True), (4000, True)):
        tied = values.copy()
        tied[:n] = 0.0
        found = nearest_neighbour_entropy(tied)
        assert found.tied == n / 4000
        assert np.isnan(found.bits) == undefined
        assert undefined or abs(found.bits - KNOWN["exponential"]) < 0.1
    pairs = values.copy()
    pairs[:100] = pairs[100:200]  # none often, but 5 % of all
    assert nearest_neighbour_entropy(pairs).tied == 0.05
    assert np.isnan(nearest_neighbour_entropy(pairs).bits)
    assert nearest_neighbour_entropy(values.astype(np.float32)).bits == pytest.approx(KNOWN["exponential"], abs=0.1)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, np.nan], [1, 2, 3, 4, np.inf]])
def test_too_few_or_no_numbers_have_none(values: list[float]) -> None:
    assert np.isnan(nearest_neighbour_entropy(values).bits)
    assert np.isnan(histogram_entropy(values)) == (not len(values) or not np.isfinite(values).all())


def test_the_histogram_s_is_what_counting_gives() -> None:
    values = np.random.default_rng(0).normal(size=300)
    edges = np.linspace(values.min(), values.max(), 11)
    counts = [((values >= low) & (values < high)).sum() for low, high in pairwise(edges)]
    counts[-1] += 1  # the largest
    p = np.array([n / 300 for n in counts if n])
    assert histogram_entropy(values) == pytest.approx(-(p * np.log2(p)).sum())
    assert histogram_entropy(np.arange(1000)) == pytest.approx(np.log2(10))
    assert histogram_entropy(np.full(5, 2.0)) == 0
