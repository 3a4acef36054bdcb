"""Selections that mean nothing: the cause that is named is the cause, and the remedy that is named works."""

import re

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import class_specific
from otoscope.analysis.selection.check import NothingSelected, check_selection, remedy_for, select
from otoscope.analysis.selection.selection import Selection


def check(p, name="t:x", **changes):
    how = Selection(**changes)
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
@pytest.mark.parametrize("kept", ["mean and positive_frames", "mean", "positive_frames"])
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
