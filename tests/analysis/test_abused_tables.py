"""Every statistic on tables that have no answer: a number exactly where plain counting says that there is one.

Each check states when its statistic exists, and what it is, in a few lines of Python that know nothing of the code. A
seed is a table; the slow test draws hundreds of them, or 10,000.
"""

import io
import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr

from otoscope.analysis import aape, activation_probability, class_specific, common_neuron_ratio, frame_probability
from otoscope.analysis.compare import count_agreement
from otoscope.analysis.exemplars import exemplar_clips
from otoscope.analysis.null.overlaps import summary
from otoscope.analysis.null.permutation import bootstrap, permutation_null, with_null
from otoscope.analysis.null.resampling import Sample, take_sample
from otoscope.analysis.null.significance import exceedance, fewest_draws, intervals, moments
from otoscope.analysis.rates import category_mean
from otoscope.analysis.selection.from_counts import ratio_of, select_counts
from otoscope.analysis.selection.other_selectors import OF_BITS, OF_MEANS, agreement, decides, highest_scores
from otoscope.analysis.selection.rules import coverage_ratio, mean_class_specific
from otoscope.analysis.selection.selection import Selection
from otoscope.analysis.tables import aape_table, markdown, null_table, overlap_table

from ..support.abused_tables import Table, draw, share
from ..support.amounts import some

NAN = math.nan
AND, OR = np.logical_and, np.logical_or


def same(got: object, wanted: object, what: str, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(
        np.asarray(got, float), np.asarray(wanted, float), rtol=1e-7, atol=tolerance, err_msg=what
    )


def entropy(row: np.ndarray) -> float:
    """Of at least two known probabilities, not all 0."""
    known = [p for p in row if not math.isnan(p)]
    if len(known) < 2 or not any(known):
        return NAN
    return -sum(p / sum(known) * math.log(p / sum(known)) for p in known if p)


def check_rates(table: Table, _seed: int) -> None:
    labels = table.labels
    p = activation_probability(table.of_neurons(table.active), labels)
    same(p[0], table.probability, "probability")
    frames = xr.DataArray(table.frames, dims="clip")
    by_frame = frame_probability(table.of_neurons(table.positive), frames, labels)
    mean = category_mean(table.of_neurons(table.mean), labels)
    for c in range(table.n_categories):
        at = table.clips(c)
        total = table.frames[at].sum()
        same(by_frame[0, :, c], [row[at].sum() / total if total else NAN for row in table.positive], "frames")
        same(mean[0, :, c], [share(row[at]) for row in table.mean], "mean")


def check_selectivity(table: Table, _seed: int) -> None:
    p = table.probability
    given = xr.DataArray(p[None], dims=("layer", "neuron", "category"))
    entropies = np.array([entropy(row) for row in p])
    same(aape(given)[0], entropies, "aape")
    known = (~np.isnan(p)).sum(axis=1)
    if table.n_categories < 2:
        with pytest.raises(ValueError, match="at least two"):
            aape(given, normalised=True)
    else:
        wanted = [e / math.log(k) if k > 1 else NAN for e, k in zip(entropies, known, strict=True)]
        same(aape(given, normalised=True)[0], wanted, "normalised")
    found = class_specific(given, percentile=table.percentile, rule=table.rule)
    selected, member = found["selected"].values[0], found["member"].values[0]
    assert not selected[np.isnan(entropies)].any(), "selected without a number"
    assert not member[np.isnan(p)].any(), "a member of a category without clips"
    assert math.isnan(float(found["aape_threshold"])) == (not selected.any())
    if selected.any():
        same(found["aape_threshold"], [entropies[selected].max()], "threshold") if table.rule == "lape" else None
    cells = np.sort(p[~np.isnan(p)])
    assert np.isfinite(found["activity_threshold"]) == bool(cells.size)
    if table.rule == "lape" and cells.size:
        line = cells[max(1, round(cells.size * 0.95)) - 1]
        exists = ~np.isnan(p).all(axis=1)
        top = np.where(np.isnan(p), -1, p).max(axis=1)
        ranked = sorted((e, i) for i, e in enumerate(np.round(entropies, 12)) if top[i] > line and not math.isnan(e))
        wanted = [i for _, i in ranked[: round(exists.sum() * table.percentile / 100)]]
        assert np.flatnonzero(selected).tolist() == sorted(wanted)
        assert (member == (selected[:, None] & (np.nan_to_num(p, nan=-1) > line))).all()
    ratio = common_neuron_ratio(found["member"])
    for a, b in itertools.product(range(table.n_categories), repeat=2):
        either = (member[:, a] | member[:, b]).sum()
        same(ratio[a, b], (member[:, a] & member[:, b]).sum() / either if either else NAN, "ratio")
    same(coverage_ratio(found["member"]), member.any(axis=0).mean(), "coverage")
    same(mean_class_specific(found["member"]), member.sum() / table.n_categories, "neurons")
    for frame in (overlap_table(ratio), aape_table(aape(given))):
        no_words_for_nothing(frame)
    of = np.bincount(table.codes[table.codes >= 0], minlength=table.n_categories)
    counts = np.array([[row[table.clips(c)].sum() for row in table.active] for c in range(table.n_categories)])
    how = Selection(percentile=table.percentile, rule=table.rule)
    if (of > 0).all():
        if table.n_categories < 2:
            with pytest.raises(ValueError, match="at least two"):
                select_counts(counts, of, how)
        else:
            quick = select_counts(counts, of, how)
            assert quick.neurons.tolist() == np.flatnonzero(selected).tolist()
            assert (member == quick.dense(len(p)).T).all()
            same(quick.aape, entropies, "aape of counts", 3e-6)
            same(ratio_of(quick), ratio, "ratio of counts")


def check_selectors(table: Table, _seed: int) -> None:
    labels, active, mean = table.labels, table.of_neurons(table.active), table.of_neurons(table.mean)
    found = {score.__name__: score(active, labels) for score in OF_BITS}
    found |= {score.__name__: score(mean, labels) for score in OF_MEANS}
    wanted = {name: np.full((len(table.active), table.n_categories), NAN) for name in found}
    known = [c for c in range(table.n_categories) if len(table.clips(c))]
    for c, i in itertools.product(known, range(len(table.active))):
        p, m = ({each: share(row[table.clips(each)]) for each in known} for row in (table.active[i], table.mean[i]))
        others = [each for each in known if each != c]
        wanted["probability"][i, c] = p[c]
        if not others:
            continue
        wanted["probability_margin"][i, c] = p[c] - max(p[each] for each in others)
        wanted["mean_difference"][i, c] = m[c] - sum(m[each] for each in others) / len(others)
        inside, outside = table.clips(c), np.flatnonzero((table.codes >= 0) & (table.codes != c))
        wanted["rate_difference"][i, c] = share(table.active[i][inside]) - share(table.active[i][outside])
        wanted["mutual_information"][i, c] = found["mutual_information"].values[
            0, i, c
        ]  # its value is tested elsewhere
        assert np.isfinite(wanted["mutual_information"][i, c])
        x, y = table.mean[i][inside], table.mean[i][outside]
        if np.ptp(np.r_[x, y]) > 1e-9:
            wanted["point_biserial"][i, c] = np.corrcoef(np.r_[x, y], np.r_[np.ones(len(x)), np.zeros(len(y))])[0, 1]
            spread = (x.var(ddof=1) + y.var(ddof=1)) / 2 if min(len(x), len(y)) > 1 else 0
            if spread > 1e-18:
                wanted["d_prime"][i, c] = (x.mean() - y.mean()) / math.sqrt(spread)
    for name, score in found.items():
        same(score.values[0], wanted[name], name, 1e-6)
    many = xr.DataArray(np.arange(table.n_categories) % 3, dims="category")
    for score in found.values():
        member, decided = highest_scores(score, many), decides(score, many)
        for c, k in enumerate(many.values):
            values = [v for v in score.values[0, :, c].tolist() if not math.isnan(v)]
            assert member.values[0, :, c].sum() == min(k, len(values))
            assert bool(decided[c]) == (0 < k <= len(values) and values.count(max(values)) <= k)
    picked = {name: highest_scores(score, many) for name, score in found.items()}
    members = [member.values[0] for member in picked.values()]
    common, either = (np.array([[f(a, b).sum(axis=0) for b in members] for a in members]) for f in (AND, OR))
    same(agreement(picked), np.where(either > 0, common / np.maximum(either, 1), NAN), "agreement")
    counts = [
        [int(m.values[0, :, c].sum()) for c in range(table.n_categories)]
        for m in (picked["point_biserial"], picked["d_prime"])
    ]
    named = [
        picked[name].assign_coords(category=table.labels.attrs["categories"]) for name in ("point_biserial", "d_prime")
    ]
    varied = table.n_categories > 2 and all(len(set(of)) > 1 for of in counts)
    same(count_agreement(*named), spearmanr(*counts).statistic if varied else NAN, "rank correlation")


def check_exemplars(table: Table, _seed: int) -> None:
    counted = xr.DataArray(table.codes >= 0, dims="clip")
    found = exemplar_clips(table.of_neurons(table.mean), counted, 3)
    there = min(3, int(counted.sum()))
    assert (np.isfinite(found["value"].values[0]) == (np.arange(3) < there)).all()
    assert ((found["position"].values[0] >= 0) == (np.arange(3) < there)).all()


def check_draws(_table: Table, seed: int) -> None:
    """Draws as they come, of 0 to 60, some NaN, some alike."""
    rng = np.random.default_rng([seed, 1])
    n, found = int(rng.choice([0, 1, 2, 9, 38, 39, 60])), rng.normal(size=5)
    draws = rng.normal(size=(n, 5))
    draws[:, 1], draws[rng.random(n) < 0.5, 2], draws[:, 3] = 0.25, NAN, NAN
    found[rng.integers(0, 5)] = NAN
    found[1] = rng.choice([0.25, 1.0])
    tested = rng.random(5) < 0.8
    p, corrected = exceedance(found, draws, tested)
    for i in range(5):
        there = n > 0 and tested[i] and not math.isnan(found[i])
        assert np.isfinite(p[i]) == np.isfinite(corrected[i]) == there
        if there:
            same(p[i], (1 + (np.nan_to_num(draws[:, i]) >= found[i]).sum()) / (1 + n), "p")
            assert 1 / (1 + n) <= corrected[i] <= 1
    confidence = float(rng.choice([0.5, 0.9, 0.95]))
    fewest = {0.5: 3, 0.9: 19, 0.95: 39}[confidence]
    assert fewest_draws(confidence) == fewest
    got = intervals(found, draws, confidence, 1.0)
    for i in range(5):
        kept = draws[:, i][~np.isnan(draws[:, i])]
        assert np.isfinite(got["sd"][i]) == (len(kept) > 1)
        assert np.isfinite(got["bias"][i]) == (len(kept) > 0 and not math.isnan(found[i]))
        ends = [NAN, NAN]
        if len(kept) >= fewest and not math.isnan(found[i]):
            cut = 2 * found[i] - np.quantile(kept, [(1 + confidence) / 2, (1 - confidence) / 2])
            ends = np.clip(cut, 0, 1).tolist()
        wanted = ends if ends[0] < ends[1] else [NAN, NAN]
        same([got["low"][i], got["high"][i]], wanted, "interval")
    if n:
        _, sd = moments(draws[:, :2])
        same(sd, draws[:, :2].std(axis=0) if n > 1 else [NAN, NAN], "sd")


def sample_of(table: Table) -> Sample | None:
    """None where it is refused, which is where a category lacks clips or another to be compared with."""
    known = np.bincount(table.codes[table.codes >= 0], minlength=table.n_categories)
    options = {"groups": xr.DataArray(table.groups, dims="clip")} if (table.groups != "").any() else {}
    if table.n_categories < 2 or not known.all():
        with pytest.raises(ValueError, match="expected at least 2, all with clips"):
            take_sample(table.of_neurons(table.active), table.labels, **options)
        return None
    return take_sample(table.of_neurons(table.active), table.labels, **options)


def units_of(table: Table) -> list[tuple[int, ...]]:
    """The categories of each unit: a clip without a group, or a group."""
    kept = [i for i, code in enumerate(table.codes) if code >= 0]
    names = [table.groups[i] or f"clip {i}" for i in kept]
    return [
        tuple(sorted({int(table.codes[i]) for i, name in zip(kept, names, strict=True) if name == unit}))
        for unit in dict.fromkeys(names)
    ]


def check_nulls(table: Table, _seed: int) -> None:
    sample = sample_of(table)
    if sample is None:
        return
    units, n = units_of(table), 21
    how = Selection(percentile=table.percentile, rule=table.rule)
    mixed = any(len(of) > 1 for of in units)
    groupings = 1 if mixed else count_groupings([of[0] for of in units])
    if mixed or groupings == 1:
        with pytest.raises(ValueError, match=r"several categories|only rename"):
            permutation_null(sample, how, permutations=n, threads=1)
    else:
        result = permutation_null(sample, how, permutations=n, threads=1)
        smallest = max(1 / (1 + n), 1 / groupings)
        same(result.attrs["smallest_p"], smallest, "smallest p")
        for name in ("common_neuron_ratio", "neurons", "coverage_ratio", "neurons_per_category", "aape"):
            p, corrected = (result[f"{name}_{part}"].values for part in ("p", "p_corrected"))
            found, marked = result[name].values, result[f"{name}_significant"].values
            there = np.isfinite(found)
            if name == "common_neuron_ratio":
                there = there & ~np.eye(len(found), dtype=bool)
            elif name == "aape":
                total = table.active[:, table.codes >= 0].sum(axis=1)
                there = np.minimum(total, (table.codes >= 0).sum() - total)[None] >= table.n_categories
            assert (np.isfinite(p) == there).all(), name
            assert (np.isfinite(corrected) == there).all(), name
            assert (p[there] >= 1 / (1 + n) - 1e-12).all()
            assert (corrected[there] >= smallest - 1e-12).all()
            assert not (marked & ~(there & (corrected <= 0.05))).any()
        assert ("none of " in summary("x", result)) == (smallest > 0.05)
        assert not bool((with_null(result)["within_null"] & result["common_neuron_ratio"].isnull()).any())
        for rows in ("cells", "categories", "neurons"):
            frame = null_table(result, rows)
            no_words_for_nothing(frame)
            empty = {end: frame.filter(regex=f"_{end}$").isna().to_numpy() for end in ("significant", "p_corrected")}
            assert (empty["significant"] == (empty["p_corrected"] | (smallest > 0.05))).all()
        itself = permutation_null(sample, how, permutations=2, against=sample, threads=1)
        assert np.isnan(np.diagonal(itself["common_neuron_ratio_p"])).all()
    lone = any(sum(c in of for of in units) < 2 for c in range(table.n_categories))
    if lone:
        with pytest.raises(ValueError, match="have one clip or group to draw from"):
            bootstrap(sample, how, draws=39, threads=1)
        return
    for draws in (2, 39):
        drawn = bootstrap(sample, how, draws=draws, threads=1)
        for name, highest in (("common_neuron_ratio", 1), ("neurons", np.inf), ("coverage_ratio", 1), ("aape", np.inf)):
            low, high = drawn[f"{name}_low"].values, drawn[f"{name}_high"].values
            there = np.isfinite(low)
            assert (there == np.isfinite(high)).all()
            assert not there.any() or draws == 39
            assert (low[there] < high[there]).all()
            assert (low[there] >= 0).all()
            assert (high[there] <= highest).all()
            assert not (there & np.isnan(drawn[name].values)).any()


def count_groupings(of_unit: list[int]) -> int:
    """Different partitions of the units, by all their orders: few enough, or a number that is surely above 20."""
    if len(of_unit) > 8:
        sizes = sorted(of_unit.count(c) for c in set(of_unit))
        ways, left = 1, len(of_unit)
        for size in sizes:
            ways, left = ways * math.comb(left, size), left - size
        return ways // math.prod(math.factorial(sizes.count(size)) for size in set(sizes))
    partitions = set()
    for order in set(itertools.permutations(of_unit)):
        parts = {c: frozenset(i for i, code in enumerate(order) if code == c) for c in set(order)}
        partitions.add(frozenset(parts.values()))
    return len(partitions)


def no_words_for_nothing(frame: pd.DataFrame) -> None:
    """A missing number is an empty cell wherever a table is shown or written."""
    text = io.StringIO()
    frame.to_csv(text, index=False)
    cells = [cell.strip() for line in markdown(frame).splitlines()[2:] for cell in line.split("|")]
    cells += [cell for line in text.getvalue().splitlines()[1:] for cell in line.split(",")]
    assert not {"nan", "inf", "-inf", "None", "<NA>", "NaN"} & set(cells)


EVERY: dict[Callable[[Table, int], None], int] = {
    check_draws: 1, check_selectivity: 1, check_rates: 2, check_exemplars: 2, check_selectors: 10, check_nulls: 10,
}  # fmt: skip
"""Each check of how many tables: of many, what takes a hundred milliseconds is asked of some."""


def check(seed: int, often: int = 1) -> None:
    table = draw(seed)
    try:
        for each, every in EVERY.items():
            if seed % -(-every // often) == 0:
                each(table, seed)
    except Exception as error:
        error.add_note(f"table of seed {seed}")
        raise


def test_a_number_exactly_where_there_is_one() -> None:
    for seed in range(100):
        check(seed, often=4)


@pytest.mark.slow
def test_a_number_exactly_where_there_is_one_in_hundreds_of_tables() -> None:
    for seed in range(1000, 1000 + some(500, of=10_000)):
        check(seed)
