"""Selections that mean nothing: the cause that is named is the cause, and the remedy that is named works."""

import re

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import class_specific
from otoscope.analysis.selection import check as module
from otoscope.analysis.selection.check import (
    NothingSelected,
    cautions_on,
    check_selection,
    relative_remedy,
    remedy_for,
    select,
)
from otoscope.analysis.selection.labellings import Labelling, notes_on, select_neurons
from otoscope.analysis.selection.selection import Selection
from otoscope.store.bits import pack

from ...support.amounts import quick_sample


def check(p, name="t:x", **changes):
    how = Selection(**{"rule": "lape", **changes})
    check_selection(class_specific(p, how), name, how, lambda: "use another")


def test_selections_that_mean_nothing(p):
    check(p, percentile=10)
    with pytest.raises(NothingSelected, match=r"t:x has 1 category with clips \('7'\); expected at least 2"):
        check(p.isel(category=[0]))
    with pytest.raises(NothingSelected, match=r"t:x has no category with clips"):
        check(p.isel(category=[]))
    with pytest.raises(
        NothingSelected, match=r"reading 'clip' more than 5 % of .* equal the highest one, 1, .*another"
    ):
        check(xr.ones_like(p))
    with pytest.raises(NothingSelected, match=r"reading 'clip' and the threshold 0.5 no neuron is active in any clip"):
        check(xr.zeros_like(p), threshold=0.5, percentile=0.01)


@pytest.mark.parametrize("n", [14, 107, 120])
def test_a_percentile_that_selects_no_neuron_is_answered_by_one_that_does(p, n):
    """The neurons that do not exist are not counted."""
    valid = xr.DataArray(np.arange(60) < np.array([[min(n, 60)], [n - min(n, 60)]]), dims=("layer", "neuron"))
    with pytest.raises(NothingSelected, match=rf"no neuron is selected out of {n}; ") as caught:
        check(p.where(valid), percentile=0.1)
    (percentile,) = re.findall(r"--percentile ([\d.]+) or more", str(caught.value))
    check(p.where(valid), percentile=float(percentile))


def test_the_error_names_what_saturates(p):
    """The statement holds for the probabilities at hand, whichever line it is that nothing exceeds."""
    few = xr.where(p > 0.3, 0.75, p)  # a tenth and more of the cells, of whatever encoder
    assert (few == few.max()).mean() > 0.05
    with pytest.raises(ValueError, match=r"more than 5 % of the activation probabilities equal the highest one, 0.75,"):
        check(few)
    level = few.copy(data=np.where(np.arange(3) == 0, 0.75, np.minimum(few, 0.7)))
    assert (level.max("category") == 0.75).all()
    with pytest.raises(ValueError, match=r"at least 95 % of the neurons reach in some category the highest one, 0.75,"):
        check(level, rule="paper")


def remade(task, **variables):
    """The task with other values, all of its own shapes."""
    return task.assign(
        {name: task[name].copy(data=np.broadcast_to(v, task[name].shape)) for name, v in variables.items()}
    )


def followed(remedy, how):
    """The selection that somebody makes who follows a remedy to the letter."""
    options = dict(re.findall(r"--(reading|threshold|percentile) (\S+)", remedy.replace("without --threshold", "")))
    changes = {name: value if name == "reading" or value == "q80" else float(value) for name, value in options.items()}
    if "without --threshold" in remedy:
        changes["threshold"] = None
    assert changes
    return Selection(**{**{name: getattr(how, name) for name in ("reading", "threshold", "percentile")}, **changes})


@pytest.mark.parametrize(
    "how",
    [
        Selection(percentile=20),
        Selection(percentile=20, threshold=-99.0),
        Selection(percentile=20, threshold=99.0),
        Selection(percentile=20, reading="any"),
        Selection(percentile=20, reading="frame"),
        Selection(percentile=0.01),
    ],
)
@pytest.mark.parametrize("kept", quick_sample(["mean and positive_frames", "mean", "positive_frames"], 1))
@pytest.mark.parametrize("frames_too", [False, True])
def test_a_remedy_works_when_it_is_followed(task, how, kept, frames_too):
    """Every neuron is active in every clip, and it may be in every frame; only means, and perhaps frames, differ."""
    saturated = remade(task, active_bits=np.uint8(255), active=True)
    if frames_too:
        saturated = remade(saturated, positive_frames=task["frame_count"].values)
    saturated = saturated[[n for n in saturated if n not in ("mean", "positive_frames") or n in kept]]
    if (how.reading != "clip" and "positive_frames" not in saturated) or (
        how.threshold is not None and "mean" not in saturated
    ):
        return
    found = select(saturated, "animal", how)
    fine = bool(found["selected"].any()) and not bool(found["saturated"])
    if fine:
        assert not frames_too
        return
    remedy = remedy_for(saturated, "animal", how)
    if "mean" in kept or not (frames_too or how.reading == "frame"):
        other = followed(remedy, how)
        found = select(saturated, "animal", other)
        check_selection(found, "t:x", other, str)
    else:
        assert remedy.startswith("use another label column, for no reading of what this task keeps (positive_frames)")


def planted(n_categories=3, per_category=200, always=0.5, shift=0.7):
    """90 neurons: a share of them nearly always on, a third of all higher on clips of one category, by `shift` sd."""
    rng = np.random.default_rng(0)
    codes = np.arange(n_categories * per_category) % n_categories
    neuron = np.arange(90)
    prefers = np.where(neuron % 3 == 0, neuron // 3 % n_categories, -1)
    level = np.where(neuron < 90 * always, 1.9, -1.0)
    mean = rng.standard_normal((1, 90, codes.size)) + level[:, None] + shift * (prefers[:, None] == codes)
    coords = {
        "layer": [0],
        "neuron": neuron,
        "clip": [f"{i}" for i in range(codes.size)],
        "animal": ("clip", np.array([f"a{c}" for c in codes], object)),
    }
    by_neuron = ("layer", "neuron", "clip")
    bits = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": 90}
    packed = (("layer", "clip", "neuron_byte"), pack((mean > 0).transpose(0, 2, 1)), bits)
    return xr.Dataset(
        {"active_bits": packed, "active": (by_neuron, mean > 0), "mean": (by_neuron, mean.astype(np.float32))}, coords
    )


def notes(ds, **changes):
    how = Selection(**{"percentile": 10} | changes)
    return select_neurons(Labelling(store="s", task="t", label="animal", ds=ds), how).notes


def test_neurons_that_are_always_on_are_no_selection_and_their_own_threshold_is(monkeypatch):
    ds = planted()
    (note,) = notes(ds)
    found = select(ds, "animal", Selection(percentile=10))
    share = ds.otoscope.aape("animal", normalised=True)
    rate = ds["active"].mean("clip")
    a, b = (float(np.median(share.values[which])) for which in (found["selected"].values, ~found["selected"].values))
    assert note == (
        f"t:animal: the selected neurons ({int(found['selected'].sum())}) are not more selective than the others "
        f"(median AAPE / ln C {a:.3f} against {b:.3f}) and on for nearly all clips (median overall rate "
        f"{np.median(rate.values[found['selected'].values]):.3g}): use --threshold q80"
    )
    assert notes(ds, threshold="q80") == ()
    labelling = Labelling(store="s", task="t", label="animal", ds=ds)
    twice = [select_neurons(labelling, Selection(percentile=10)) for _ in range(2)]
    assert notes_on(twice) == [f"s {note}"]
    # What would take long is not tried, and what does not help is not named.
    monkeypatch.setattr(module, "MAX_TRIED", 1)
    assert notes(ds)[0].endswith(": try --threshold q80, or --rule contrast")
    monkeypatch.undo()
    assert relative_remedy(planted(shift=0.0), "animal", Selection(rule="lape", threshold="q80")).startswith(
        "use --rule contrast,"
    )
    assert relative_remedy(ds, "animal", Selection(threshold="q80", rule="contrast")).startswith("use another label")
    assert notes(ds.drop_vars("mean"))[0].endswith(": extract with --keep mean, which --threshold q80 and --rule "
                                                   "contrast need")  # fmt: skip


def test_a_good_selection_is_not_warned_of():
    assert notes(planted(always=0.0)) == ()
    assert notes(planted(always=0.0), rule="paper") == ()
    # On for one category of fifty alone: rarely on, and as it should be.
    ds = planted(n_categories=50, per_category=20, always=0.0, shift=4.0)
    ds = ds.assign(active=ds["mean"] > 1)
    ds = ds.assign(active_bits=ds["active_bits"].copy(data=pack(ds["active"].values.transpose(0, 2, 1))))
    found = select(ds, "animal", Selection(percentile=10))
    assert float(ds["active"].mean("clip").values[found["selected"].values].max()) < 0.05
    assert notes(ds) == ()


def test_neurons_that_hardly_ever_fire_are_warned_of():
    (note,) = notes(planted(always=0.0, shift=0.0), threshold=1.7)
    assert "on for nearly no clips (median overall rate 0.00" in note
    assert "nearly all" not in note


def test_of_what_nobody_counted_no_rate_is_known(p):
    """Probabilities made elsewhere; and categories of neurons that fall silent, whose AAPE is high by nature."""
    high = xr.where(p["neuron"] < 10, 0.99 + p / 200, p / 2)
    found = class_specific(high, percentile=10)
    (note,) = cautions_on(found, Selection(percentile=10), lambda: "use another")
    assert re.fullmatch(r"the selected neurons \(12\) are not more selective than .*\): use another", note) is not None
    counted = class_specific(high.assign_coords(n_clips=("category", [4, 5, 6])), percentile=10)
    assert "on for nearly all clips" in cautions_on(counted, Selection(percentile=10), str)[0]
    framed = class_specific(high.assign_coords(n_frames=("category", [4, 5, 6])), percentile=10)
    assert "on for nearly all frames" in cautions_on(framed, Selection(percentile=10), str)[0]
    assert cautions_on(found, Selection(rule="contrast", sign="negative"), str) == ()
    given = p.rename("probability").to_dataset()
    assert "table probability --threshold q80" in relative_remedy(given, "class", Selection())


def test_what_a_test_cannot_find_is_told_from_what_it_did_not_find(task):
    """Few units give no small p; neurons whose means are all alike are not tested."""
    few = task.isel(clip=np.flatnonzero(task.otoscope.codes("animal").values >= 0)[:7])
    n = int((few.otoscope.codes("animal").values >= 0).sum())
    how = Selection(permutations=99, level=0.02)
    smallest = few.otoscope.tests("animal", how).attrs["smallest_p"]
    (note,) = select_neurons(Labelling(store="s", task="t", label="animal", ds=few), how).notes
    assert smallest > 0.02
    assert f"(level 0.02; none can be below {smallest:.2g} with {n} clips or groups to exchange, expected more)" in note
    alike = task.assign(mean=xr.ones_like(task["mean"]))
    (note,) = select_neurons(Labelling(store="s", task="t", label="animal", ds=alike), Selection(permutations=19)).notes
    assert note == "t:animal: no neuron can be tested: of each, all means are alike, or some are not known"
