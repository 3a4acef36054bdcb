"""Effects of swaps, their errors and GC_causal, against plain formulas and simulated truths."""

import itertools

import numpy as np
import pytest

from otoscope.ablate.swap.effects import Estimate, causal_share, estimates, parts_of, pooled, ranks, share_interval
from otoscope.ablate.swap.pairs import swaps_of
from otoscope.ablate.swap.result import swap_table, table_of_margins

SHAPE = (3, 3, 6, 3, 4)
ABC = ("a", "b", "c")


def made(rng, mean=0.0, of_number=1.0, of_held=0.5, rest=0.5, shape=SHAPE):
    """Effects whose numbers of what is exchanged, and of what is held, were drawn."""
    n, _, J, g, m = shape
    values = mean + of_number * rng.normal(size=(1, 1, J, 1, 1)) + of_held * rng.normal(size=(1, 1, 1, g, m))
    values = values + rest * rng.normal(size=(1, 1, J, g, m)) + np.zeros(shape)
    values[np.arange(n), np.arange(n)] = np.nan
    return values


def off(n):
    return [(c, d) for c, d in itertools.product(range(n), repeat=2) if c != d]


def test_parts_are_means_over_rows_columns_and_pairs():
    values = np.random.default_rng(0).normal(size=SHAPE)
    values[np.arange(3), np.arange(3)] = np.nan
    found = pooled(values).mean(axis=(1, 2, 3))
    for (name, c, d, _), mean in zip(parts_of(3), found, strict=True):
        cells = {
            "overall": off(3), "necessity": [(i, k) for i, k in off(3) if i == c],
            "sufficiency": [(i, k) for i, k in off(3) if k == c], "pair": [(c, d)],
        }[name]  # fmt: skip
        assert mean == pytest.approx(np.mean([values[i, k].mean() for i, k in cells]), rel=1e-12)
    whole, rows, columns = found[0], found[1:4], found[4:7]
    assert rows.mean() == pytest.approx(whole) == columns.mean()


def test_the_error_is_that_of_the_mean_squares_in_loops():
    values = made(np.random.default_rng(1))
    found = estimates(values)
    z = np.mean([values[c, d] for c, d in off(3)], axis=0)  # overall
    n, g, m = z.shape
    of_number = sum(g * m * (z[i].mean() - z.mean()) ** 2 for i in range(n)) / (n - 1)
    of_held = sum(n * (z[:, t, w].mean() - z[:, t].mean()) ** 2 for t in range(g) for w in range(m)) / (g * (m - 1))
    rest = sum(
        (z[i, t, w] - z[:, t, w].mean() - z[i, t].mean() + z[:, t].mean()) ** 2
        for i in range(n) for t in range(g) for w in range(m)
    ) / ((n - 1) * g * (m - 1))  # fmt: skip
    assert found.error[0] ** 2 == pytest.approx(max(of_number + of_held - rest, rest) / (n * g * m), rel=1e-10)


@pytest.mark.parametrize("noise", [{}, {"of_number": 0.2, "of_held": 1.5}, {"of_number": 1.5, "of_held": 0.1}])
def test_the_error_is_how_far_means_of_new_sounds_and_wordings_vary(noise):
    rng = np.random.default_rng(2)
    found = [estimates(made(rng, 0.7, **noise)) for _ in range(250)]
    means, errors = (np.array([getattr(one, name)[0] for one in found]) for name in ("mean", "error"))
    assert np.sqrt((errors**2).mean()) == pytest.approx(means.std(), rel=0.1)
    within = np.abs(means - 0.7) <= [one.half_width[0] for one in found]
    assert 0.92 <= within.mean() <= 0.99


def estimate(mean, error, df=20.0):
    return Estimate(mean=np.array([mean]), error=np.array([error]), df=np.array([df]))


def test_the_interval_of_the_share_is_that_of_a_ratio_and_widens_to_everything():
    low, high = share_interval(estimate(2.0, 0.05, 1e6), estimate(1.0, 0.05, 1e6))
    by_delta = 1.96 * np.hypot(1.0 * 0.05, 2.0 * 0.05) / 9  # of A / (A + T)
    assert high[0] - 2 / 3 == pytest.approx(by_delta, rel=0.1)
    assert 2 / 3 - low[0] == pytest.approx(by_delta, rel=0.1)
    low, high = share_interval(estimate(0.01, 1.0), estimate(0.01, 1.0))
    assert (low[0], high[0]) == (0.0, 1.0)
    assert np.isnan(share_interval(estimate(0.0, 0.0), estimate(0.0, 0.0))).all()
    assert share_interval(estimate(3.0, 0.1, 5), estimate(0.0, 0.0))[0][0] == 1.0


def test_noise_is_taken_off_a_magnitude():
    assert estimate(5.0, 3.0).magnitude[0] == pytest.approx(4.0)
    assert estimate(1.0, 3.0).magnitude[0] == 0
    assert np.isnan(causal_share(np.zeros(1), np.zeros(1))[0])


def test_ranks_are_shares_of_controls_that_reach_the_set():
    rng = np.random.default_rng(3)
    controls = rng.normal(size=(99, 2))
    found = np.array([1.0, -2.0])
    p, corrected = ranks(found, controls, ["overall", "necessity"])
    for i in range(2):
        assert p[i] == (1 + (np.abs(controls[:, i]) >= abs(found[i])).sum()) / 100
    np.testing.assert_array_equal(p, corrected)  # one row each: nothing to correct for
    assert (ranks(np.zeros(2), np.zeros((50, 2)), ["overall", "necessity"])[0] == 1).all()
    assert np.isnan(ranks(found, controls[:0], ["overall", "necessity"])[0]).all()
    many = np.column_stack([controls[:, 0]] * 2)
    p, corrected = ranks(found, many, ["necessity", "necessity"])
    assert (corrected >= p - 1e-12).all()


def table(d_a, d_t, controls=60, seen=(True, True), whole=4.0, seed=0, categories=ABC):
    rng = np.random.default_rng(seed)
    both = []
    for d in (d_a, d_t):
        effects = [made(rng, d, 0.05, 0.05, 0.05), *(made(rng, 0.0, 0.05, 0.05, 0.05) for _ in range(controls))]
        both.append((np.stack(effects), made(rng, whole, 0.1, 0.1, 0.1)))
    return swap_table(both, categories, seen=seen), both


@pytest.mark.parametrize(
    ("d_a", "d_t", "state"),
    [(2.0, 0.0, "audio"), (0.0, 2.0, "text"), (2.0, 2.0, "both"), (2.0, 0.5, "audio"), (0.0, 0.0, "none")],
)
def test_states_and_shares_of_known_effects(d_a, d_t, state):
    whole = table(d_a, d_t)[0].iloc[0]
    assert whole["state"] == state
    if state == "none":
        assert np.isnan(whole[["gc_causal", "gc_low", "gc_high"]].astype(float)).all()
        return
    assert whole["gc_causal"] == pytest.approx(d_a / (d_a + d_t), abs=0.05)
    assert whole["gc_low"] <= whole["gc_causal"] <= whole["gc_high"]
    assert whole["share_A"] == pytest.approx(d_a / 4, abs=0.05)
    assert whole["share_T"] == pytest.approx(d_t / 4, abs=0.05)


def test_modalities_exchanged_give_one_minus_gc_and_scale_changes_nothing():
    found, both = table(2.0, 1.0)
    turned = swap_table(both[::-1], ABC, seen=(True, True))
    np.testing.assert_allclose(turned["gc_causal"], 1 - found["gc_causal"], rtol=1e-12)
    larger = swap_table([(10 * effects, 10 * total) for effects, total in both], ABC, seen=(True, True))
    for name in ("gc_causal", "gc_low", "gc_high", "share_A", "p_rank_A", "p_corrected_T"):
        np.testing.assert_allclose(larger[name], found[name], rtol=1e-9)


def test_opposite_signs_are_flagged_and_only_then():
    assert table(2.0, -1.0)[0].iloc[0]["opposite"]
    assert not table(-2.0, -1.0)[0].iloc[0]["opposite"]
    assert not table(2.0, 0.0)[0].iloc[0]["opposite"]


def test_a_share_is_given_where_the_whole_input_does_something():
    assert np.isnan(table(2.0, 1.0, whole=0.0)[0].iloc[0]["share_A"])


def test_what_cannot_be_seen_is_construction_and_without_controls_nothing_is_tested():
    blind = table(2.0, 0.0, seen=(True, False))[0]
    assert set(blind["state"]) == {"construction"}
    assert blind["gc_causal"].isna().all()
    assert blind["p_rank_T"].isna().all()
    assert blind["p_rank_A"].notna().all()
    assert set(table(2.0, 0.0, controls=0)[0]["state"]) == {"untested"}


def margins_of(effect_a, effect_t):
    """Margins of swaps whose sets move them by so much: base, set, 40 controls that do nothing but noise."""
    swaps = swaps_of(np.arange(3 * 4 * 3 * 4).reshape(3, 4, 3, 4))
    rng = np.random.default_rng(0)
    base = 3.0 + 0.1 * rng.normal(size=len(swaps.clip))
    effect = np.where(swaps.modality == 0, effect_a, effect_t)
    noise = 0.01 * rng.normal(size=(40, len(base)))
    return swaps, np.vstack([base, base - effect, base - noise])


def test_a_readout_that_does_not_see_the_text_is_found_by_its_margins():
    swaps, margins = margins_of(1.0, 0.0)
    assert table_of_margins(margins, swaps, ABC).iloc[0]["state"] == "audio"
    unmoved = margins.copy()
    unmoved[:, swaps.modality == 1] = margins[0, swaps.modality == 1]
    assert table_of_margins(unmoved, swaps, ABC).iloc[0]["state"] == "construction"  # no neuron carries it
    unseen = margins.copy()
    sign = np.where(np.arange(len(swaps.clip)) < swaps.reverse, 1.0, -1.0)
    same = swaps.modality == 1
    unseen[0, same] = (2.0 * sign)[same]  # x and x' have one and the same logits
    found = table_of_margins(unseen, swaps, ABC)
    assert found.iloc[0]["state"] == "construction"
    assert found.iloc[0]["TE_T"] == 0


def test_keep_is_held_against_all_neurons_swapped():
    swaps, margins = margins_of(1.0, 0.5)
    everything = margins[0] - 2.5
    kept = np.vstack([margins[0], everything + 1.0, everything + 0.01 * margins[2:], everything])
    whole = table_of_margins(kept, swaps, ABC, keep=True).iloc[0]
    assert whole["E_A"] == pytest.approx(1.0)
    assert whole["E_T"] == pytest.approx(1.0)
