"""Permutation nulls and bootstrap: exact selection in every draw, p-values as stated, truth found, noise left alone.

Independent statements: selections are those of `class_specific` on float64 probabilities (itself compared with the
published arithmetic elsewhere); p-values, intervals and ratios are stated here in plain numpy.
"""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection
from scipy.stats import binom

from otoscope.analysis import (
    aape,
    accessor,  # noqa: F401  registers ds.otoscope
    class_specific,
    frame_probability,
)
from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.figures.save import save_figure
from otoscope.analysis.kinds import SIDES
from otoscope.analysis.null.permutation import bootstrap, permutation_null, with_null
from otoscope.analysis.null.resampling import redraw_clips, shuffle_labels, take_sample
from otoscope.analysis.null.significance import exceedance, intervals, moments
from otoscope.analysis.selection.selection import Selection

LAYERS = 2


def made(seed=0, n_clips=240, n_categories=6, n_neurons=400, shared=5, own=3, shuffled=False):
    """Bools (layer, neuron, clip) and labels. Category 2 i and 2 i + 1 share neurons; each has some of its own."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n_clips) % n_categories)
    p = np.repeat(rng.beta(2, 4, n_neurons)[:, None], n_categories, axis=1)
    row = 0
    for c in range(n_categories):
        for likes in (*[(c, c ^ 1)] * (shared if c % 2 == 0 else 0), *[(c,)] * own):
            p[row] = 0.08
            p[row, list(likes)] = 0.97
            row += 1
    active = rng.random((n_neurons, n_clips)) < p[:, codes]
    if shuffled:
        codes = rng.permutation(codes)
    a = xr.DataArray(active.reshape(LAYERS, -1, n_clips), dims=("layer", "neuron", "clip"))
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": [f"c{i}" for i in range(n_categories)]})
    return a, labels, row


def plain_jaccard(a, b):
    return np.array([[(x & y).sum() / max((x | y).sum(), 1) if (x | y).any() else np.nan for y in b] for x in a])


def plain_permutation_null(active, labels, codes_of, n_draws, percentile):
    """The overlap, coverage and sizes of every draw, through unpacked bools and `class_specific`."""
    n_categories = len(labels.attrs["categories"])
    ratios, sizes = [], []
    for i in range(n_draws + 1):
        codes = labels.values if i == 0 else codes_of(i)
        p = np.stack([active.values[..., codes == c].mean(axis=-1) for c in range(n_categories)], axis=-1)
        member = class_specific(xr.DataArray(p, dims=("layer", "neuron", "category")), percentile=percentile)[
            "member"
        ].values
        flat = member.reshape(-1, n_categories).T
        ratios.append(np.nan_to_num(plain_jaccard(flat, flat)))
        sizes.append(flat.sum(axis=1))
    return np.array(ratios), np.array(sizes)


def plain_evidence(x, side, tested):
    """Every row (draw, cell), the first of which was found, on the scale of the cell and by what is extreme."""
    sd = x.std(axis=0)
    z = (x - x.mean(axis=0)) / (sd + np.sqrt((sd[tested] ** 2).mean()))
    return {"above": z, "below": -z, "both": np.abs(z)}[side]


@pytest.mark.parametrize("side", ["both", "above", "below"])
def test_a_permutation_null_against_its_definition(side):
    active, labels, _ = made(n_neurons=200, n_clips=90, own=1, shared=2)
    sample = take_sample(active, labels)
    result = permutation_null(sample, permutations=30, percentile=5, seed=3, side=side, threads=2)
    ratios, sizes = plain_permutation_null(active, labels, lambda i: shuffle_labels(sample, 3, i - 1), 30, 5)
    np.testing.assert_allclose(result["common_neuron_ratio"], ratios[0])
    np.testing.assert_allclose(result["common_neuron_ratio_null_mean"], ratios[1:].mean(axis=0))
    np.testing.assert_allclose(result["neurons_null_sd"], sizes[1:].std(axis=0))
    np.testing.assert_allclose(result["coverage_ratio_p"], ((sizes > 0).mean(1) >= (sizes[0] > 0).mean()).mean())

    off = ~np.eye(6, dtype=bool)
    evidence = plain_evidence(ratios, side, off)
    reached = (evidence >= evidence[0] - 1e-12).mean(axis=0)
    np.testing.assert_allclose(result["common_neuron_ratio_p"].values[off], reached[off])
    if side == "above":
        np.testing.assert_allclose(reached, (ratios >= ratios[0]).mean(axis=0))
    assert np.isnan(result["common_neuron_ratio_p"].values[~off]).all()
    expected = [(evidence[:, off].max(axis=1) >= each - 1e-12).mean() for each in evidence[0][off]]
    np.testing.assert_allclose(result["common_neuron_ratio_p_corrected"].values[off], expected)
    significant = result["common_neuron_ratio_significant"].values
    np.testing.assert_array_equal(significant, result["common_neuron_ratio_p_corrected"].values <= 0.05)
    below = ratios[0] < ratios[1:].mean(axis=0) if side == "both" else np.full((6, 6), side == "below")
    sides = np.where(significant, np.where(below, "below", "above"), "")
    np.testing.assert_array_equal(result["common_neuron_ratio_side"], sides)
    again = permutation_null(sample, permutations=30, percentile=5, seed=3, side=side, threads=1)
    xr.testing.assert_identical(result, again)
    difference, times = (result[f"common_neuron_ratio_null_{name}"].values for name in ("difference", "ratio"))
    assert np.isnan(difference[~off]).all()
    np.testing.assert_allclose(difference[off], (ratios[0] - ratios[1:].mean(axis=0))[off])
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(times[off], (ratios[0] / ratios[1:].mean(axis=0))[off])
    assert not result.equals(permutation_null(sample, permutations=30, percentile=5, seed=4))


def test_the_p_of_aape_is_the_share_of_lower_ones():
    active, labels, _ = made(n_neurons=120, n_clips=90, own=1, shared=2)
    active[0, 0] = False
    active[0, 1, 3:] = False  # too quiet to test
    sample = take_sample(active, labels)
    result = permutation_null(sample, permutations=40, percentile=5, threads=1)
    of_each = []
    for codes in (labels.values, *(shuffle_labels(sample, 0, i) for i in range(40))):
        p = np.stack([active.values[..., codes == c].mean(axis=-1) for c in range(6)], axis=-1)
        q = p / np.where(p.any(-1), p.sum(-1), 1)[..., None]
        of_each.append(-(q * np.log(np.where(q > 0, q, 1))).sum(-1))
    entropies = np.where(active.values.any(-1), np.array(of_each), np.nan)
    np.testing.assert_allclose(result["aape"], entropies[0], atol=1e-12)
    np.testing.assert_allclose(result["aape_null_mean"], entropies[1:].mean(axis=0), atol=1e-5)
    p = result["aape_p"].values
    total = active.values.sum(axis=-1)
    np.testing.assert_array_equal(np.isnan(p), (total < 6) | (total > 84))
    # Ties are many with 15 clips per category, and count.
    np.testing.assert_allclose(p[~np.isnan(p)], (entropies <= entropies[0] + 1e-9).mean(axis=0)[~np.isnan(p)])


def test_what_is_planted_is_found_and_little_else():
    active, labels, n_planted = made(n_clips=300, n_neurons=6000, shared=20, own=8)
    result = permutation_null(take_sample(active, labels), permutations=199, percentile=1.8)
    planted = np.arange(6000).reshape(LAYERS, -1) < n_planted
    significant = result["aape_significant"].values
    assert significant[planted].mean() >= 0.9
    assert significant[~planted].sum() <= 2
    ratio = result["common_neuron_ratio_significant"].values
    pairs = np.arange(6) ^ 1
    assert ratio[np.arange(6), pairs].mean() >= 0.9
    assert ratio.sum() == ratio[np.arange(6), pairs].sum()


def test_shared_neurons_are_above_and_avoided_ones_below():
    """Of six categories two by two share all of their neurons; by chance each two would share a third."""
    active, labels, _ = made(n_clips=120, n_neurons=800, shared=40, own=0)
    sample = take_sample(active, labels)
    pairs = np.arange(6)[:, None] == np.arange(6) ^ 1
    apart = ~pairs & ~np.eye(6, dtype=bool)
    for side in SIDES:
        found = permutation_null(sample, permutations=99, percentile=15, side=side)["common_neuron_ratio_side"].values
        assert (found[pairs] == ("" if side == "below" else "above")).all()
        assert (found[apart] == ("" if side == "above" else "below")).all()
        assert (np.diagonal(found) == "").all()


@pytest.mark.parametrize("side", SIDES)
def test_by_chance_any_cell_is_marked_as_rarely_as_the_level_says(side):
    """In 1,000 repeats of overlaps of random sets, found and drawn alike, inside the binomial interval of 0.1."""
    rng = np.random.default_rng(0)
    off = ~np.eye(4, dtype=bool)
    found = 0
    for _ in range(1000):
        member = rng.random((40, 4, 1, 25)) < 0.4
        other = member.swapaxes(1, 2)
        ratios = (member & other).sum(-1) / np.maximum((member | other).sum(-1), 1)
        found += bool((exceedance(ratios[0], ratios[1:], off, side)[1] <= 0.1).any())
    low, high = binom.interval(0.99, 1000, 0.1)
    assert low <= found <= high


def test_two_labellings_one_of_them_shuffled():
    a, labels_a, _ = made(seed=0, n_neurons=900)
    b, labels_b, _ = made(seed=1, n_neurons=900, n_categories=4, n_clips=160)
    one, two = take_sample(a, labels_a), take_sample(b, labels_b)
    result = permutation_null(one, against=two, permutations=99, percentile=3)
    assert result["common_neuron_ratio"].dims == ("category", "other_category")
    assert result["common_neuron_ratio"].shape == (6, 4)
    assert result["common_neuron_ratio_p"].notnull().all()
    # The planted neurons of both lie in the same places, in the same order of categories.
    assert result["common_neuron_ratio_significant"].values[np.arange(4), np.arange(4)].all()
    drawn = bootstrap(one, against=two, draws=39, percentile=3)
    low, high = drawn["common_neuron_ratio_low"], drawn["common_neuron_ratio_high"]
    assert ((low < high) | (low.isnull() & high.isnull())).all()
    assert low.notnull().values[np.arange(4), np.arange(4)].all()  # where there is something in common
    narrow = take_sample(b.isel(neuron=slice(100)), labels_b)
    with pytest.raises(ValueError, match="different neurons; expected the same layers and neurons"):
        permutation_null(one, against=narrow)


@pytest.mark.parametrize("rule", ["lape", "paper"])
def test_a_null_by_the_reading_frame_shuffles_clips_with_all_their_frames(rule):
    rng = np.random.default_rng(0)
    frames = xr.DataArray(rng.integers(3, 400, 60), dims="clip")
    share = rng.beta(1, 2, (2, 40, 1)) * np.ones(60)
    positive = xr.DataArray(rng.binomial(frames.values, share).astype(np.uint16), dims=("layer", "neuron", "clip"))
    codes = np.arange(60) % 3
    labels = xr.DataArray(codes, dims="clip", attrs={"categories": ["a", "b", "c"]})
    valid = xr.DataArray(rng.random((2, 40)) < 0.9, dims=("layer", "neuron"))
    positive[0, 0], positive[0, 1, 2:], positive[0, 2] = 0, 0, frames  # never; in 2 clips; always: not to be tested
    sample = take_sample(positive, labels, frame_count=frames, valid=valid)

    def selected(codes, clips=slice(None)):
        p = frame_probability(positive[..., clips], frames[clips], labels.copy(data=codes)[clips])
        return class_specific(p.where(valid), percentile=20, rule=rule)

    draws = [selected(shuffle_labels(sample, 5, i))["member"] for i in range(8)]
    result = permutation_null(sample, permutations=8, percentile=20, rule=rule, seed=5)
    np.testing.assert_array_equal(result["member"], selected(codes)["member"])
    sizes = np.stack([member.sum(["layer", "neuron"]) for member in draws])
    np.testing.assert_allclose(result["neurons_null_mean"], sizes.mean(axis=0))
    p = frame_probability(positive, frames, labels).where(valid)
    np.testing.assert_allclose(result["aape"], aape(p), atol=1e-12)
    tested = result["aape_p"].notnull()
    assert not tested[0, :3].any()
    assert (tested | ~valid).sum() > 70
    clips = [redraw_clips(sample, 5, i) for i in range(8)]
    drawn = bootstrap(sample, draws=8, percentile=20, rule=rule, seed=5)
    members = [selected(codes, each)["member"] for each in clips]
    np.testing.assert_allclose(
        drawn["stability"].where(valid), np.where(valid.values[..., None], np.mean(members, 0), np.nan)
    )


def test_each_labelling_has_its_own_percentile():
    a, labels, _ = made(n_neurons=400)
    sample = take_sample(a, labels)
    member = {percentile: class_specific_of(a, labels, percentile) for percentile in (2, 6)}
    result = permutation_null(
        sample, against=sample, permutations=3, percentile=2, against_selection=Selection(percentile=6)
    )
    expected = plain_jaccard(*(member[each].reshape(-1, 6).T for each in (2, 6)))
    np.testing.assert_allclose(result["common_neuron_ratio"], expected)
    assert (result.attrs["percentile"], result.attrs["against_percentile"]) == (2, 6)


def class_specific_of(active, labels, percentile):
    p = np.stack([active.values[..., labels.values == c].mean(axis=-1) for c in range(6)], axis=-1)
    return class_specific(xr.DataArray(p, dims=("layer", "neuron", "category")), percentile=percentile)["member"].values


def test_a_bootstrap_against_its_definition():
    active, labels, _ = made(n_neurons=200, n_clips=90, own=1, shared=2)
    sample = take_sample(active, labels)
    result = bootstrap(sample, draws=40, percentile=5, seed=2, threads=2)
    members, entropies, fires = [], [], []
    for i in range(40):
        clips = redraw_clips(sample, 2, i)
        codes = labels.values[clips]
        shares = np.stack([active.values[..., clips[codes == c]].mean(axis=-1) for c in range(6)], axis=-1)
        p = xr.DataArray(shares, dims=("layer", "neuron", "category"))
        members.append(class_specific(p, percentile=5)["member"].values)
        fires.append(p.values.any(axis=-1))
        q = p.values / np.maximum(p.values.sum(-1, keepdims=True), 1e-300)
        entropies.append(-(q * np.log(np.where(q > 0, q, 1))).sum(-1))
    np.testing.assert_allclose(result["stability"], np.mean(members, axis=0))
    np.testing.assert_allclose(result["selected_stability"], np.any(members, axis=-1).mean(axis=0))
    found, always = result["aape"].values, np.min(fires, axis=0)  # in every draw
    assert always.mean() > 0.9
    low, high = np.clip(2 * found - np.quantile(entropies, [0.975, 0.025], axis=0), 0, np.log(6))
    low[low > high - 1e-5] = np.nan  # beyond what is possible
    np.testing.assert_allclose(result["aape_low"].values[always], low[always], atol=1e-5)
    bias = np.mean(entropies, axis=0) - found
    np.testing.assert_allclose(result["aape_bias"].values[always], bias[always], atol=1e-5)
    xr.testing.assert_identical(result, bootstrap(sample, draws=40, percentile=5, seed=2, threads=1))


def test_a_planted_neuron_stays_and_a_lucky_one_goes():
    active, labels, n_planted = made(n_clips=300, n_neurons=1500)
    result = bootstrap(take_sample(active, labels), draws=60, percentile=2.2)
    planted = np.arange(1500).reshape(LAYERS, -1) < n_planted
    assert result["selected_stability"].values[planted].mean() > 0.9
    shuffled, labels, _ = made(n_clips=300, n_neurons=1500, shuffled=True)
    lucky = bootstrap(take_sample(shuffled, labels), draws=60, percentile=2.2)
    assert lucky["stability"].values[lucky["member"].values].mean() < 0.6


def test_figures_strike_out_what_does_not_exceed_the_null(tmp_path):
    active, labels, _ = made(n_clips=300, n_neurons=1500)
    result = permutation_null(take_sample(active, labels), permutations=39, percentile=2.2)
    ratio = with_null(result)
    expected = ~result["common_neuron_ratio_significant"].values & ~np.eye(6, dtype=bool)
    np.testing.assert_array_equal(ratio["within_null"], expected)
    drawn = overlap_figure([("", ratio.isel(category=slice(None, None, -1)))])
    (strokes,) = (c for c in drawn.axes[0].collections if isinstance(c, LineCollection))
    middles = {tuple(path.vertices.mean(axis=0).round().astype(int)) for path in strokes.get_paths()}
    assert middles == {(x, y) for y, x in np.argwhere(expected[::-1])}
    save_figure(drawn, tmp_path / "figure.svg")
    plain = overlap_figure([("", ratio.drop_vars(["within_null", "null_side"]))])
    assert not [c for c in plain.axes[0].collections if isinstance(c, LineCollection)]
    assert not plain.axes[0].lines
    for show in ("ratio", "difference"):
        np.testing.assert_array_equal(with_null(result, show), result[f"common_neuron_ratio_null_{show}"])
    with pytest.raises(ValueError, match="show is 'odds'; expected one of observed, ratio, difference"):
        with_null(result, "odds")


@pytest.mark.parametrize("side", ["both", "above", "below"])
def test_exceedance_in_plain_numpy(side):
    rng = np.random.default_rng(0)
    draws, found = rng.normal(size=(99, 3, 5)) * [1, 2, 3, 4, 0], rng.normal(size=(3, 5))
    found[0, 0], found[:, 4], found[1, 1] = 9, 0, np.nan
    draws[:9, 0, 1] = np.nan  # counts as 0
    p, corrected = exceedance(found, draws, side=side)
    every = np.nan_to_num(np.concatenate([found[None], draws]))
    none = np.isnan(found)
    e = plain_evidence(every, side, ~none)
    np.testing.assert_allclose(p, np.where(none, np.nan, (e >= e[0] - 1e-12).mean(axis=0)))
    reached = (e[:, ~none].max(axis=1)[:, None, None] >= e[0] - 1e-12).mean(axis=0)
    np.testing.assert_allclose(corrected, np.where(none, np.nan, reached))
    assert corrected[0, 0] == {"above": 0.01, "both": 0.02, "below": 1}[side]
    assert (corrected >= p - 1e-12)[~none].all()
    assert np.isnan(exceedance(found, draws[:0])).all()
    assert np.isnan(exceedance(found, draws, np.zeros((3, 5), bool))).all()
    with pytest.raises(ValueError, match="side is 'left'; expected one of both, above, below"):
        exceedance(found, draws, side="left")
    as_far = exceedance(np.array([0.1]), np.array([[0.2], [0.3], [0.2], [0.2]]), side=side)[0]
    assert as_far == {"above": 1, "below": 0.2, "both": 0.4}[side]
    mean, sd = moments(draws)
    np.testing.assert_allclose([mean, sd], [draws.mean(0), draws.std(0)])


def test_intervals_in_plain_numpy():
    rng = np.random.default_rng(0)
    draws, found = rng.random((50, 4)), rng.random(4)
    draws[:20, 1], draws[:, 2] = np.nan, np.nan
    got = intervals(found, draws, 0.9, 1.0)
    for cell, kept in ((0, draws[:, 0]), (1, draws[20:, 1]), (3, draws[:, 3])):
        low, high = 2 * found[cell] - np.quantile(kept, [0.95, 0.05])
        np.testing.assert_allclose([got["low"][cell], got["high"][cell]], np.clip([low, high], 0, 1))
        np.testing.assert_allclose([got["sd"][cell], got["bias"][cell]], [kept.std(), kept.mean() - found[cell]])
    assert all(np.isnan(values[2]) for values in got.values())


def test_results_are_named_and_layers_may_be_narrower(task):
    ds = task.compute()
    codes = ds.otoscope.codes("animal")
    one = take_sample(ds["active_bits"], codes, valid=ds["neuron_valid"])
    result = permutation_null(one, permutations=19, percentile=10, threads=1)
    expected = ds.otoscope.class_specific("animal", percentile=10)
    np.testing.assert_array_equal(result["member"], expected["member"])
    np.testing.assert_allclose(result["aape"], ds.otoscope.aape("animal"))
    assert result["aape"].isel(layer=-1, neuron=slice(-5, None)).isnull().all()
    assert result["category"].values.tolist() == codes.attrs["categories"]
    assert result["site"].values.tolist() == ds["site"].values.tolist()
    assert result["n_clips"].values.tolist() == [(codes.values == c).sum() for c in range(3)]
    assert all("long_name" in variable.attrs for variable in result.data_vars.values())
    assert result.attrs["permutations"] == 19
    from_bools = permutation_null(
        take_sample(ds["active"], codes, valid=ds["neuron_valid"]), permutations=19, percentile=10, threads=1
    )
    xr.testing.assert_identical(from_bools, result)


def test_what_cannot_be():
    active, labels, _ = made(n_neurons=60, n_clips=30, own=1, shared=1)
    sample = take_sample(active, labels)
    for level in (0, 1, 2, np.nan):
        with pytest.raises(ValueError, match=r"level is .*; expected a number above 0 and below 1"):
            permutation_null(sample, level=level)
    with pytest.raises(ValueError, match=r"found 0 permutations.*; expected 1 to 1000000"):
        permutation_null(sample, permutations=0)
    with pytest.raises(ValueError, match="confidence is 95; expected a share between 0 and 1"):
        bootstrap(sample, confidence=95)
    with pytest.raises(ValueError, match="expected a number above 0 and up to 100"):
        bootstrap(sample, percentile=0)


def test_few_units_bound_every_corrected_p():
    """Two groups and two can be parted in 3 ways: 3 draws may miss the one found, and p is 1/3 or more all the same."""
    active, labels, _ = made(n_neurons=400, n_clips=40, n_categories=2, own=4)
    group = xr.DataArray([f"{code}{i % 4 // 2}" for i, code in enumerate(labels.values)], dims="clip")
    sample = take_sample(active, labels, groups=group)
    assert len(sample.first_and_unit[0]) == 4
    for seed in range(20):
        result = permutation_null(sample, permutations=3, percentile=5, seed=seed, level=0.3, threads=1)
        assert result.attrs["smallest_p"] == pytest.approx(1 / 3)
        assert float(result["aape_p_corrected"].min()) >= 1 / 3 - 1e-12
        assert not result["aape_significant"].any()


def test_a_category_is_not_tested_against_its_own_clips():
    active, labels, _ = made()
    sample = take_sample(active, labels)
    others = labels.copy(data=np.where(labels.values == 2, 2, (labels.values + 1) % 6 % 2))
    renamed = take_sample(active, others.assign_attrs(categories=["x", "y", "c2 again"]))
    p = permutation_null(sample, against=renamed, permutations=5, percentile=5, threads=1)["common_neuron_ratio_p"]
    assert p.isnull().values.tolist() == [[False, False, row == 2] for row in range(6)]
    itself = permutation_null(sample, against=sample, permutations=5, percentile=5, threads=1)
    assert (itself["common_neuron_ratio_p"].isnull().values == np.eye(6, dtype=bool)).all()


@pytest.mark.slow
def test_shuffled_labels_are_found_to_mean_something_in_one_of_twenty_cases():
    """Family-wise rate over 200 data sets without structure, inside the binomial interval (99 %) of 0.05."""
    found = {"common_neuron_ratio": 0, "aape": 0, "neurons": 0}
    for seed in range(200):
        active, labels, _ = made(seed, n_clips=120, n_neurons=300, shuffled=True)
        result = permutation_null(take_sample(active, labels), permutations=99, percentile=5, seed=seed)
        for name in found:
            found[name] += bool(result[f"{name}_significant"].any())
    low, high = binom.interval(0.99, 200, 0.05)
    assert all(low <= n <= high for n in found.values()), found
