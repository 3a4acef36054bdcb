"""Other neurons, other clips, other labellings: what stands around a card, against plain numpy and Python's sets."""

import numpy as np
import pandas as pd
import pytest

import otoscope.analysis.accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis.cards.clip_page import neurons_in_clip
from otoscope.analysis.cards.home import neurons_frame, specific_counts, task_overview
from otoscope.analysis.cards.neighbours import active_with, elsewhere, step_neuron
from otoscope.store.reader import open_store

from ...support.known_store import BLOCK, N_CLIPS, make_known

HOW = {"rule": "lape", "percentile": 20}


@pytest.mark.parametrize("more", [{}, {"threshold": 0.3}, {"reading": "frame"}], ids=["bits", "threshold", "frame"])
def test_neurons_active_with_it_are_those_of_the_same_clips(task, more):
    """By the stored bits, whatever the reading of the card."""
    statistics = task.otoscope.cards("animal", **HOW, **more)
    found = active_with(statistics, statistics.card(1, 3), k=12)
    bits, valid = task["active"].values & statistics.counted, task["neuron_valid"].values
    clips = {tuple(map(int, at)): set(np.flatnonzero(bits[tuple(at)])) for at in np.argwhere(valid)}
    own, n = clips.pop((1, 3)), int(statistics.counted.sum())
    rows = sorted(clips, key=lambda at: (-len(own & clips[at]) / max(1, len(own | clips[at])), at))[:12]
    assert list(zip(found.layer.tolist(), found.neuron.tolist(), strict=True)) == rows
    assert found.jaccard.tolist() == [len(own & clips[at]) / len(own | clips[at]) for at in rows]
    assert found.both.tolist() == [len(own & clips[at]) for at in rows]
    assert found.active.tolist() == [len(clips[at]) for at in rows]
    assert (found.own, found.n_clips) == (len(own), n)
    a = len(own)
    for b, expected in zip(found.active, found.expected, strict=True):
        both = a * b / n  # were they independent
        assert expected == pytest.approx(both / (a + b - both), rel=1e-12)


def test_independent_neurons_have_the_jaccard_that_is_expected_of_them():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400_000)) < np.array([[0.3], [0.6]])
    n_a, n_b, n = a.sum(), b.sum(), a.size
    assert (a & b).sum() / (a | b).sum() == pytest.approx(n_a * n_b / (n * (n_a + n_b) - n_a * n_b), rel=0.01)


def test_a_neuron_that_is_never_active_is_active_with_none(task):
    off = task["active"].values.copy()
    off[1, 3] = False
    bits = np.packbits(off.transpose(0, 2, 1), axis=-1, bitorder="little")
    task = task.assign(active_bits=task["active_bits"].copy(data=bits), active=task["active"].copy(data=off))
    statistics = task.otoscope.cards("animal", **HOW)
    assert len(active_with(statistics, statistics.card(1, 3)).neuron) == 0
    with pytest.raises(ValueError, match=r"k is 0; expected the number of neurons"):
        active_with(statistics, statistics.card(1, 3), k=0)


def test_the_same_neuron_elsewhere(task):
    others = [task.assign_attrs(task="t").otoscope.cards(name, **HOW) for name in ("animal", "size")]
    rows = elsewhere(others, 1, 3)
    assert [(row.task, row.label) for row in rows] == [("t", "animal"), ("t", "size")]
    for row in rows:
        p = task.otoscope.probability(row.label).values[1, 3]
        found = task.otoscope.class_specific(row.label, **HOW).compute()
        assert row.best == found["category"].values[p.argmax()]
        assert row.best_p == p.max()
        assert row.aape == float(found["aape"][1, 3])
        assert set(row.specific) == set(found["category"].values[found["member"].values[1, 3]])
    with pytest.raises(LookupError, match=r"no neuron 17 in layer 2 of t:animal; expected 0 to 14"):
        elsewhere(others, 2, 17)


def test_steps_go_through_the_class_specific_neurons_and_round(task):
    statistics = task.otoscope.cards("animal", **HOW)
    every = [tuple(pair) for pair in statistics.specific.tolist()]
    assert every == sorted(every)
    assert len(every) > 3
    mixed = task.isel(neuron=np.random.default_rng(0).permutation(20)).otoscope.cards("animal", **HOW)
    assert sorted(map(tuple, mixed.specific.tolist())) == every
    assert step_neuron(mixed, every[1][0], every[1][1], "next") == every[2]
    pd.testing.assert_frame_equal(
        neurons_frame(mixed, statistics.specific).drop(columns="rank"), neurons_frame(statistics).drop(columns="rank")
    )
    for step, order in (("next", every), ("previous", every[::-1])):
        walked = [order[-1]]
        for _ in order:
            layer, neuron = walked[-1]
            walked.append(step_neuron(statistics, layer, neuron, step))
        assert walked[1:] == order
    between = next((0, n) for n in range(19) if (0, n) not in every and (0, n) > every[0])
    assert step_neuron(statistics, between[0], between[1], "previous") == max(at for at in every if at < between)
    layer, neuron = every[0]
    drawn = {step_neuron(statistics, layer, neuron, "random", seed) for seed in range(200)}
    assert drawn == set(every) - {every[0]}
    assert len({step_neuron(statistics, layer, neuron, "random", 5) for _ in range(9)}) == 1
    with pytest.raises(ValueError, match=r"no step 'up'; expected one of previous, next, random"):
        step_neuron(statistics, 0, 0, "up")


@pytest.mark.parametrize(
    ("more", "active_of"),
    [
        ({}, lambda ds, i: ds["active"].values[..., i]),
        ({"threshold": 0.2}, lambda ds, i: ds["mean"].values[..., i] > 0.2),
        ({"threshold": "q60"}, lambda ds, i: ds["mean"].values[..., i] > q60(ds)),
        ({"reading": "frame"}, lambda ds, i: ds["positive_frames"].values[..., i] > 0),
    ],
    ids=["bits", "number", "own", "frame"],
)
def test_the_neurons_of_a_clip_are_those_active_in_it_the_rarest_first(task, more, active_of):
    statistics = task.otoscope.cards("animal", **HOW, **more)
    i = int(np.flatnonzero(statistics.counted)[4])
    active, valid = active_of(task, i) & task["neuron_valid"].values, statistics.exists
    page = neurons_in_clip(statistics, i, k=5)
    assert [each.layer for each in page] == [0, 1, 2]
    for layer, each in enumerate(page):
        rows = sorted(np.flatnonzero(active[layer] & valid[layer]), key=lambda n: (statistics.rate[layer, n], n))
        assert each.n_active == len(rows) > 0
        assert each.neuron.tolist() == rows[:5]
        assert each.share.tolist() == statistics.rate[layer, rows[:5]].tolist()
        np.testing.assert_array_equal(each.mean, task["mean"].values[layer, rows[:5], i])
        for n, names in zip(each.neuron, each.specific, strict=True):
            assert names == tuple(np.array(statistics.categories)[statistics.member[layer, n]])
    for position in (-1, task.sizes["clip"]):
        with pytest.raises(LookupError, match=rf"no clip {position}; expected 0 to 119"):
            neurons_in_clip(statistics, position)
    with pytest.raises(ValueError, match=r"k is 0"):
        neurons_in_clip(statistics, i, 0)


def q60(ds):
    counted = ds.otoscope.codes("animal").values >= 0
    return np.quantile(ds["mean"].values[..., counted].astype(float), 0.6, axis=-1, method="lower")


def test_counts_and_the_table_of_neurons(task):
    statistics = task.otoscope.cards("animal", **HOW)
    found, member = specific_counts(statistics), statistics.member
    assert found.by_layer.tolist() == [int(member[i].any(-1).sum()) for i in range(3)]
    assert found.by_category.tolist() == [int(member[..., c].sum()) for c in range(3)]
    assert found.cells.tolist() == [[int(member[i, :, c].sum()) for c in range(3)] for i in range(3)]
    frame = neurons_frame(statistics)
    assert list(zip(frame["layer"], frame["neuron"], strict=True)) == [tuple(at) for at in statistics.specific.tolist()]
    for row in frame.to_dict("records"):
        at = row["layer"], row["neuron"]
        assert row["p"] == statistics.p[at].max()
        assert statistics.p[at][statistics.category_at(row["top"])] == row["p"]
        assert row["categories"].split("; ") == [statistics.categories[c] for c in np.flatnonzero(member[at])]
        assert (row["aape"], row["rank"], row["rate"]) == (
            statistics.aape[at], statistics.rank[at], statistics.rate[at],
        )  # fmt: skip
    assert neurons_frame(statistics, statistics.specific[:0]).empty


def test_a_task_at_a_glance(tmp_path, task, p):
    url, known = str(tmp_path / "s.zarr"), make_known()
    known.begin(url)
    empty = task_overview(open_store(url)["t"].to_dataset(), "t")
    assert (empty.n_clips, empty.n_pending, empty.labels) == (0, N_CLIPS, ())
    assert empty.remedy == "no clip was extracted: run `otoscope extract` again"
    known.write(url, known.blocks()[:2])
    part = task_overview(open_store(url)["t"].to_dataset(), "t")
    assert (part.n_clips, part.n_pending) == (2 * BLOCK - 1, N_CLIPS - 2 * BLOCK)
    assert part.remedy == f"{part.n_pending} clips are pending: run `otoscope extract` again"
    known.write(url, known.blocks()[2:])
    for failed, reasons in (("keep", {"schlecht, très mauvais": 2}), ("hide", {"": 2})):
        whole = task_overview(open_store(url, failed)["t"].to_dataset(), "t")
        assert (whole.n_clips, whole.failed, whole.remedy) == (N_CLIPS - 2, reasons, "")
        assert (whole.encoder, whole.n_layers, whole.n_neurons) == ("fake", 2, 320)
        assert (whole.labels, whole.left_out) == (("digit", "who, exactly"), {})
    columns = {"split": "size", "speaker": "size"}
    more = task.assign_coords({name: ("clip", task[of].values) for name, of in columns.items()})
    more = more.assign_coords(one=("clip", np.full(task.sizes["clip"], "x", object)))
    shown = task_overview(more, "t")
    assert shown.labels == ("animal", "size")
    assert shown.left_out == {
        "split": "a split or folds", "speaker": "says which clips belong together", "one": "1 category with clips",
    }  # fmt: skip
    bare = task_overview(task.drop_vars(["animal", "size"]), "t")
    assert "add one with `otoscope label`" in bare.remedy
    given = task_overview(p.rename("probability").to_dataset(), "t")
    assert (given.n_layers, given.n_neurons, given.labels) == (2, 120, ())
    assert "have no clips to show" in given.remedy
