"""A card of every reading against plain numpy on the data set's own variables."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import mannwhitneyu

import otoscope.analysis.accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis import exemplar_clips
from otoscope.analysis.cards.clips import TABS, clip_tab, clips_between
from otoscope.analysis.cards.labelling_statistics import labelling_statistics
from otoscope.analysis.selection.check import NothingSelected
from otoscope.analysis.selection.selection import Selection
from otoscope.store.reader import open_store

from ...support.known_store import make_known

LINES = np.linspace(-0.5, 0.5, 60).reshape(3, 20)
READINGS: dict[str, tuple[dict[str, Any], Any]] = {
    "bits": ({"rule": "lape", "percentile": 20}, lambda ds, at: ds["active"].values[at]),
    "number": ({"rule": "lape", "threshold": 0.1}, lambda ds, at: exact(ds, at) > 0.1),
    "of each": ({"threshold": LINES, "permutations": 39}, lambda ds, at: exact(ds, at) > LINES[at]),
    "own": ({"permutations": 39, "level": 0.9}, lambda ds, at: exact(ds, at) > q80(ds, at)),
    "any": ({"rule": "paper", "reading": "any"}, lambda ds, at: ds["positive_frames"].values[at] > 0),
    "frame": ({"rule": "lape", "reading": "frame"}, lambda ds, at: ds["positive_frames"].values[at]),
}


def exact(ds, at):
    return ds["mean"].values[at].astype(np.float64)


def counted(ds, label="animal"):
    return np.array([isinstance(name, str) for name in ds[label].values]) & (ds["status"].values == 1)


def q80(ds, at):
    return np.quantile(exact(ds, at)[counted(ds)], 0.8, method="lower")


@pytest.mark.parametrize("reading", READINGS)
def test_a_card_is_what_plain_numpy_says(task, reading):
    how, active_of = READINGS[reading]
    if isinstance(how.get("threshold"), np.ndarray):
        how = {**how, "threshold": xr.DataArray(LINES, dims=("layer", "neuron"))}
    statistics = task.otoscope.cards("animal", **how)
    categories = sorted({name for name, there in zip(task["animal"].values, counted(task), strict=True) if there})
    assert list(statistics.categories) == categories
    assert repr(statistics).startswith(f"animal: {counted(task).sum()} clips of 3 categories, 55 neurons of 3 layers: ")
    found = task.otoscope.class_specific("animal", **how).compute()
    for at in ((1, 3), (0, 0), (2, 14)):
        card = statistics.card(*at)
        active, means = active_of(task, at), exact(task, at)
        of = task["frame_count"].values if reading == "frame" else np.ones(len(active))
        for c, name in enumerate(categories):
            clips = counted(task) & (task["animal"].values == name)
            others = counted(task) & ~clips
            assert card.bars.p[c] == statistics.p[at][c] == active[clips].sum() / of[clips].sum()
            assert card.n_clips[c] == clips.sum()
            assert card.mean[c] == pytest.approx(means[clips].mean(), rel=1e-12)
            u = mannwhitneyu(means[clips], means[others]).statistic
            assert card.auc[c] == pytest.approx(u / clips.sum() / others.sum(), rel=1e-12)
        own = counted(task)
        assert card.rate == pytest.approx(active[own].sum() / of[own].sum(), rel=1e-12)
        np.testing.assert_array_equal(card.active[own], active[own] > 0)
        assert card.aape == float(found["aape"][at])
        assert card.normalised == pytest.approx(card.aape / np.log(3))
        lower = (found["aape"].values < card.aape).sum()
        assert lower < card.rank <= lower + (found["aape"].values == card.aape).sum()
        assert card.specific == tuple(np.array(categories)[found["member"].values[at]])
        counts, edges = np.histogram(means[own], 64)
        assert card.histogram.counts.tolist() == counts.tolist()
        assert card.histogram.edges.tolist() == edges.tolist()
        line = {"number": 0.1, "of each": LINES[at], "own": q80(task, at)}.get(reading, np.nan)
        np.testing.assert_equal([card.threshold, card.histogram.threshold], [line, line])
        assert repr(card).startswith(f"neuron {at} in animal\n  AAPE {card.aape:.3f} nats")
        assert card.frame["probability"].tolist() == card.bars.p.tolist()
    tests = None if how.get("rule") else task.otoscope.tests("animal", **how)
    assert set(statistics.tests) == (set() if tests is None else set(tests.data_vars))
    if tests is not None:
        for name in ("auc", "auc_low", "auc_high"):
            np.testing.assert_allclose(getattr(card, name), tests[name].values[2, 14], rtol=1e-12)
        assert card.p_value.tolist() == tests["p"].values[2, 14].tolist()
        assert card.q_value.tolist() == tests["q"].values[2, 14].tolist()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path, known = str(tmp_path_factory.mktemp("known") / "s.zarr"), make_known()
    known.begin(path)
    known.write(path)
    return path


@pytest.mark.parametrize("some", [{}, {"neuron": [299, 17, 4], "clip": slice(20, 250, 3)}], ids=["whole", "selected"])
def test_a_card_reads_the_store_and_what_was_selected_of_it(url, some):
    known = make_known()
    ds = open_store(url)["t"].to_dataset().isel(some)
    clips = np.flatnonzero(known.status == 1)[some.get("clip", slice(None))]
    labels = np.array(known.clips.labels["digit"])[clips]
    for reading in ("clip", "frame"):
        card = ds.otoscope.card("digit", 0, 17, rule="lape", reading=reading)
        means = known.mean[0, clips, 17]
        np.testing.assert_array_equal(card.values, means.astype(np.float16).astype(np.float32))
        for c, name in enumerate(card.categories):
            own = labels == name
            share = (means[own] > 0).mean()
            if reading == "frame":
                share = known.positive[0, clips, 17][own].sum() / clips[own].sum()
            assert card.bars.p[c] == share


def test_neurons_that_never_or_always_fire_are_said_to(task):
    bits = task["active"].values.copy()
    bits[0, 1], bits[0, 2] = False, True
    task = task.drop_vars("active_bits").assign(active=(task["active"].dims, bits), active_bits=packed(bits, task))
    cards = task.otoscope.cards("animal", rule="lape")
    dead, always = cards.card(0, 1), cards.card(0, 2)
    assert (dead.state, dead.rate, dead.rank, np.isnan(dead.aape)) == ("dead", 0, 0, True)
    assert (always.state, always.rate, always.specific) == ("saturated", 1, ())
    assert "in animal: dead" in repr(dead)
    assert dead.bars.p.tolist() == [0, 0, 0]


def packed(bits, task):
    values = np.packbits(bits.transpose(0, 2, 1), axis=-1, bitorder="little")
    return xr.DataArray(values, dims=("layer", "clip", "neuron_byte"), attrs=task["active_bits"].attrs)


def plain_ranking(task, means, lowest=False):
    clips = [i for i in np.flatnonzero(counted(task)) if not np.isnan(means[i])]
    return sorted(clips, key=lambda i: (means[i] if lowest else -means[i], i))


def test_clips_by_tab(task):
    means = np.round(task["mean"].values * 4) / 4  # many that are equal
    means[1, 3, [5, 60]] = np.nan
    task = task.assign(mean=(task["mean"].dims, means.astype(np.float32)))
    card = task.otoscope.card("animal", 1, 3, rule="lape")
    order, lowest = plain_ranking(task, means[1, 3]), plain_ranking(task, means[1, 3], lowest=True)
    assert 40 < len(order) < task.sizes["clip"] - 20
    (top,), (bottom,) = clip_tab(card, "top", 9), clip_tab(card, "least", 9)
    assert (top.position.tolist(), top.rank.tolist()) == (order[:9], list(range(1, 10)))
    assert bottom.position.tolist() == lowest[:9]
    assert bottom.rank.tolist() == [order.index(i) + 1 for i in lowest[:9]]
    for tab, listed in (("top", top), ("least", bottom)):
        codes = task.otoscope.codes("animal")
        as_exemplars = exemplar_clips(task["mean"][1, 3], codes >= 0, 9, lowest=tab == "least").compute()
        assert listed.position.tolist() == as_exemplars["position"].values.tolist()
        assert listed.value.tolist() == as_exemplars["value"].values.tolist()
    ranges = clip_tab(card, "quantiles", seed=5)
    parts = [list(part) for part in np.array_split(order, 5)]
    assert [each.total for each in ranges] == [len(part) for part in parts]
    for each, part in zip(ranges, parts, strict=True):
        assert len(set(each.position)) == 8
        assert set(each.position) <= set(part)
        assert each.rank.tolist() == sorted(each.rank)
    assert ranges[0].heading, ranges[4].heading == ("quantile 80 to 100 %", "quantile 0 to 20 %")
    (drawn,), (again,), (other,) = (clip_tab(card, "random", 12, seed=seed) for seed in (1, 1, 2))
    assert drawn.position.tolist() == again.position.tolist() != other.position.tolist()
    assert len(set(drawn.position) & set(order)) == 12
    best = clip_tab(card, "categories")
    assert [each.heading for each in best] == ["cat", "dog", "hen"]
    for each in best:
        assert each.position.tolist() == [i for i in order if task["animal"].values[i] == each.heading][:1]
    (listed,) = clip_tab(card, "range", 500, low=-0.25, high=0.5)
    between = [i for i in order if -0.25 <= means[1, 3, i] <= 0.5]
    assert listed.position.tolist() == between
    assert clips_between(card, -0.25, 0.5).tolist() == sorted(between)
    for tab in TABS:
        every = [i for each in clip_tab(card, tab, 500) for i in each.position]
        assert len(every) == len(set(every))
        assert not {5, 60} & set(every)


def test_a_range_of_the_histogram_is_the_clips_that_it_counts(task):
    on_edges = np.broadcast_to(np.arange(120) % 65, task["mean"].shape).astype(np.float32)
    task = task.assign(mean=(task["mean"].dims, on_edges))
    card = task.otoscope.card("animal", 1, 3, rule="lape")
    for first, last in ((0, 63), (0, 0), (63, 63), (20, 40), (31, 31)):
        clips = clips_between(card, *card.histogram.range_of(first, last))
        assert len(clips) == card.histogram.counts[first : last + 1].sum()
    with pytest.raises(ValueError, match=r"found bins 3 to 64; expected some from 0 to 63"):
        card.histogram.range_of(3, 64)


def test_groups_move_whole_and_the_unit_is_named(task):
    speaker = np.array([f"{name} {i % 4}" for i, name in enumerate(task["animal"].values)], object)
    task = task.assign_coords(speaker=("clip", speaker))
    card, alone = (task.otoscope.card("animal", 1, 3, rule="lape", **how) for how in ({"group": "speaker"}, {}))
    assert (card.bars.unit, alone.bars.unit) == ("speaker", "clip")
    assert card.bars.p.tolist() == alone.bars.p.tolist()
    assert not np.isclose(card.bars.low, alone.bars.low).any()
    assert "unit: speaker" in repr(card)
    expected = task.otoscope.tests("animal", group="speaker", permutations=39)
    for name in ("auc_low", "auc_high"):
        np.testing.assert_allclose(getattr(card, name), expected[name].values[1, 3], rtol=1e-12)


def test_what_has_no_card(task, p):
    cards = task.otoscope.cards("animal", rule="lape")
    for layer, neuron, message in (
        (3, 0, r"no layer 3 in animal; expected 0 to 2"),
        (1, 20, r"no neuron 20 in layer 1 of animal; expected 0 to 19"),
        (2, 15, r"no neuron 15 in layer 2 of animal; expected 0 to 14"),
        (2, -1, r"no neuron -1 in layer 2"),
    ):
        with pytest.raises(LookupError, match=message):
            cards.card(layer, neuron)
    for tab, k, message in (
        ("best", 3, r"no tab 'best' .*expected one of top, least"),
        ("top", 0, r"k is 0; expected"),
    ):
        with pytest.raises(ValueError, match=message):
            clip_tab(cards.card(0, 0), tab, k)
    with pytest.raises(LookupError, match=r"no label column 'colour' .*animal, size"):
        task.otoscope.cards("colour")
    with pytest.raises(LookupError, match=r"keeps no 'mean', expected for cards: extract with --keep mean"):
        task.drop_vars("mean").otoscope.card("animal", 0, 0, rule="lape")
    with pytest.raises(LookupError, match=r"keeps no 'active_bits'"):
        task.drop_vars("active_bits").otoscope.cards("animal", rule="lape")
    one = task.assign_coords(animal=task["animal"].where(task["animal"] == "dog"))
    with pytest.raises(NothingSelected, match=r"t:animal has 1 category with clips \('dog'\); expected at least 2"):
        labelling_statistics(one, "animal", task="t")
    pending = task.assign_attrs(n_pending=5)
    with pytest.raises(ValueError, match=r"s task t is not finished, 5 clips are pending; expected none"):
        labelling_statistics(pending, "animal", task="t", store="s")
    empty = task.isel(clip=[]).assign_attrs(n_failed=3)
    with pytest.raises(NothingSelected, match=r"t:animal has no clip that was extracted, 3 failed: .*--failures"):
        labelling_statistics(empty, "animal", task="t")
    given = p.rename("probability").to_dataset()
    with pytest.raises(LookupError, match=r"t is of probabilities made elsewhere, which have no clips; expected"):
        labelling_statistics(given, "class", task="t")


def test_a_selection_of_nothing_says_what_to_try(task):
    always = task.assign(active=task["active"] | True, active_bits=task["active_bits"] | np.uint8(255))
    saturated = labelling_statistics(always, "animal", Selection(rule="lape"), task="t")
    assert not saturated.member.any()
    assert "t:animal: by the reading 'clip' more than 5 % of the" in saturated.nothing
    assert "use --reading frame" in saturated.nothing
    untold = labelling_statistics(task, "animal", Selection(permutations=39, min_effect=0.99), task="t")
    assert "no neuron is specific for a category" in untold.nothing
    assert labelling_statistics(task, "animal", Selection(rule="lape", percentile=20)).nothing == ""
