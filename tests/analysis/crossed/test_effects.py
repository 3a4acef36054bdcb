"""Mean squares, quasi-F and intervals against plain statements of their formulas."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from otoscope.analysis.crossed.effects import (
    DRAWS,
    TERMS,
    degrees,
    draws_of,
    intervals,
    mean_squares,
    p_values,
    variances,
)
from otoscope.analysis.crossed.power import smallest_effect

from ...support.crossed import responses

SIZES = [(3, 4, 2, 5), (2, 2, 2, 2), (4, 3, 5, 2)]


def plain_squares(values, sizes):
    """By name, from means over the indices left out."""
    K, J, L, M = sizes
    r = xr.DataArray(values.reshape(sizes), dims=("a", "j", "t", "m"))

    def over(*kept):
        return r.mean([dim for dim in r.dims if dim not in kept])

    parts = {
        "A": (over("a") - over(), K - 1),
        "C": (over("a", "j") - over("a"), K * (J - 1)),
        "T": (over("t") - over(), L - 1),
        "W": (over("t", "m") - over("t"), L * (M - 1)),
        "AT": (over("a", "t") - over("a") - over("t") + over(), (K - 1) * (L - 1)),
        "AW": (over("a", "t", "m") - over("a", "t") - over("t", "m") + over("t"), (K - 1) * L * (M - 1)),
        "CT": (over("a", "j", "t") - over("a", "j") - over("a", "t") + over("a"), K * (J - 1) * (L - 1)),
        "E": (r - over("a", "t", "m") - over("a", "j", "t") + over("a", "t"), K * (J - 1) * L * (M - 1)),
    }
    return {name: (part.broadcast_like(r) ** 2).sum().item() / df for name, (part, df) in parts.items()}


@pytest.mark.parametrize("sizes", SIZES)
def test_every_mean_square_is_its_plain_formula(sizes):
    values = responses(sizes, 70, d_audio=1.0, d_text=0.5, d_both=0.3).astype(np.float32) + 100
    found = mean_squares(values, sizes)
    for neuron in (0, 1, 69):
        plain = plain_squares(values[:, neuron].astype(np.float64), sizes)
        np.testing.assert_allclose(found[:, neuron], [plain[name] for name in TERMS], rtol=1e-9)
    total = ((values - values.mean(axis=0, dtype=np.float64)) ** 2).sum(axis=0)
    np.testing.assert_allclose((found * degrees(sizes)[:, None]).sum(axis=0), total, rtol=1e-9)
    assert degrees(sizes).sum() == np.prod(sizes) - 1


def test_what_does_not_vary_is_exactly_nothing():
    sizes = (3, 4, 2, 5)
    a = np.indices(sizes).reshape(4, -1)[0]
    values = np.stack([np.full(120, 0.1), np.array([0.1, 0.7, 0.3])[a], np.full(120, np.nan)], axis=1)
    squares = mean_squares(values, sizes)
    assert (squares[:, 0] == 0).all()
    assert (squares[1:, 1] == 0).all()
    p, (low, high) = p_values(squares, sizes), intervals(squares, sizes, 0)
    np.testing.assert_array_equal(p[:, 1], [0, np.nan, np.nan])
    assert np.isnan(p[:, [0, 2]]).all()
    assert (low[1], high[1]) == (1, 1)
    assert (low[0], high[0]) == (0, 1)  # anything
    assert np.isnan(low[2])
    assert np.isnan(high[2])


@pytest.mark.parametrize("sizes", SIZES)
def test_effects_and_p_are_their_plain_formulas(sizes):
    squares = mean_squares(responses(sizes, 5, d_audio=0.4, d_text=0.3), sizes)
    s, p, df = variances(squares, sizes), p_values(squares, sizes), dict(zip(TERMS, degrees(sizes), strict=True))
    K, J, L, M = sizes
    for neuron in range(5):
        ms = dict(zip(TERMS, squares[:, neuron], strict=True))
        expected = [
            (ms["A"] - ms["C"] - ms["AW"] + ms["E"]) / (J * L * M),
            (ms["T"] - ms["W"] - ms["CT"] + ms["E"]) / (K * J * M),
            (ms["AT"] - ms["AW"] - ms["CT"] + ms["E"]) / (J * M),
        ]
        np.testing.assert_allclose(s[:, neuron], expected, rtol=1e-12)
        for found, own, noise in zip(
            p[:, neuron], ("A", "T", "AT"), (("C", "AW"), ("W", "CT"), ("AW", "CT")), strict=True
        ):
            top, bottom = (own, "E"), noise
            above, below = (sum(ms[x] for x in terms) for terms in (top, bottom))
            of = [sum(ms[x] for x in terms) ** 2 / sum(ms[x] ** 2 / df[x] for x in terms) for terms in (top, bottom)]
            assert found == pytest.approx(stats.f.sf(above / below, *of), rel=1e-9)


@pytest.mark.parametrize("sizes", SIZES)
def test_intervals_are_quantiles_of_the_draws(sizes):
    squares = mean_squares(responses(sizes, 6, d_audio=np.linspace(0, 1, 6), d_text=0.3), sizes)
    found, (K, J, L, M), draws = intervals(squares, sizes, 3), sizes, draws_of(sizes, 3)
    for neuron in range(6):
        ms = dict(zip(TERMS, squares[:, neuron], strict=True))
        theta = {name: ms[name] * draws.factors[i] for i, name in enumerate(("C", "W", "AW", "CT", "E"))}
        d = {}
        for name, noises, z, df, n in (
            ("A", ("C", "AW"), 0, K - 1, J * L * M),
            ("T", ("W", "CT"), 1, L - 1, K * J * M),
        ):
            noise = np.maximum(sum(theta[x] for x in noises) - theta["E"], 1e-300)
            x = ms[name] * df / noise
            d[name] = np.sqrt(np.maximum(((np.sqrt(x) + draws.normal[z]) ** 2 - df) * noise / (df * n), 0))
        with np.errstate(invalid="ignore"):
            gc = d["A"] / (d["A"] + d["T"])
        ends = [np.quantile(np.where(np.isnan(gc), edge, gc), q) for edge, q in ((0, 0.025), (1, 0.975))]
        np.testing.assert_allclose(found[:, neuron], ends, atol=1e-9)


def test_draws_have_the_distributions_that_they_are_of():
    draws, df = draws_of((4, 8, 4, 4), 0), dict(zip(TERMS, degrees((4, 8, 4, 4)), strict=True))
    for own, name in zip(draws.factors, ("C", "W", "AW", "CT", "E"), strict=True):
        assert stats.kstest(df[name] / own, stats.chi2(df[name]).cdf).statistic < 2 / DRAWS
    for own in draws.normal:
        assert stats.kstest(own, stats.norm.cdf).statistic < 2 / DRAWS
    correlation = np.corrcoef(np.concatenate([draws.factors[:, : DRAWS // 2], draws.normal[:, : DRAWS // 2]]))
    assert np.abs(correlation[~np.eye(7, dtype=bool)]).max() < 0.3
    assert not np.array_equal(draws_of((4, 8, 4, 4), 1).normal, draws.normal)


@pytest.mark.parametrize("effect", ["A", "T"])
def test_the_smallest_effect_is_found_eight_times_in_ten(effect):
    sizes, level = (4, 8, 4, 4), 0.01
    squares = mean_squares(responses(sizes, 4000, seed=1), sizes)
    expected = np.tile(squares.mean(axis=1)[:, None], 1)  # of so many neurons, what the noise is
    d = smallest_effect(expected, sizes, effect, level).item()
    name = "d_audio" if effect == "A" else "d_text"
    p = p_values(mean_squares(responses(sizes, 2000, seed=2, **{name: d}), sizes), sizes)["AT".index(effect)]
    assert 0.74 < (p <= level).mean() < 0.88
    each = smallest_effect(squares[:, :50], sizes, effect, level)
    assert np.median(each) == pytest.approx(d, rel=0.15)
    assert np.isnan(smallest_effect(np.zeros((8, 1)), sizes, effect, level)).all()


@pytest.mark.parametrize(
    ("effect", "interaction", "one_way"), [("A", "class_by_wording", "C"), ("T", "sound_by_text", "W")]
)
def test_an_interaction_of_what_was_drawn_makes_no_effect(effect, interaction, one_way):
    """Where a correction for sounds alone, or wordings alone, finds effects in a fifth of neurons that have none."""
    sizes = (6, 8, 6, 4)
    nuisance = {"sound": 0.2, "wording": 0.1, "sound_by_text": 0, "class_by_wording": 0, "rest": 0.3, interaction: 0.5}
    squares = mean_squares(responses(sizes, 1500, nuisance=nuisance), sizes)
    assert (p_values(squares, sizes)["AT".index(effect)] < 0.05).mean() <= 0.07
    df = dict(zip(TERMS, degrees(sizes), strict=True))
    ratio = squares[TERMS.index(effect)] / squares[TERMS.index(one_way)]
    assert (stats.f.sf(ratio, df[effect], df[one_way]) < 0.05).mean() > 0.2
