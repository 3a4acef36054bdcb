"""A selection on clips that did not make it, against plain statements."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from otoscope.analysis.null.resampling import shuffle_labels
from otoscope.analysis.selection.check import select
from otoscope.analysis.selection.confirm import with_effects
from otoscope.analysis.selection.selection import Selection

CATEGORIES = np.array(["dog", "cat", "hen"], object)


@pytest.fixture(scope="module")
def task() -> xr.Dataset:
    """Neurons 0-4 respond to cats and 5-9 to hens, in layer 0; halves, and groups of four clips of one category."""
    rng = np.random.default_rng(4)
    n = 240
    codes = np.arange(n) // 4 % 3
    mean = rng.normal(size=(2, 20, n)).astype(np.float32)
    mean[0, :5, codes == 1] += 1.2
    mean[0, 5:10, codes == 2] += 1.2
    half = np.where(np.arange(n) < 152, "train", "test").astype(object)
    group = np.array([f"g{i // 4}" for i in range(n)], object)
    ds = xr.Dataset(
        {"mean": (("layer", "neuron", "clip"), mean), "neuron_valid": (("layer", "neuron"), np.ones((2, 20), bool))},
        coords={
            "layer": [0, 1], "neuron": np.arange(20), "clip": [f"c{i}" for i in range(n)],
            "animal": ("clip", CATEGORIES[codes]), "half": ("clip", half), "group": ("clip", group),
            "odd": ("clip", np.array(["no", "yes"], object)[np.arange(n) % 2]),
        },
    )  # fmt: skip
    return ds.assign(active=ds["mean"] > 0)


HOW: dict[str, Any] = {"rule": "contrast", "permutations": 99}


def test_it_is_selected_by_the_others_alone(task: xr.Dataset) -> None:
    found = select(task, "animal", Selection(**HOW, confirm=("half=test",)))
    alone = select(task.isel(clip=slice(152)), "animal", Selection(**HOW))
    xr.testing.assert_identical(found[list(alone.data_vars)].drop_attrs(), alone.drop_attrs())
    assert found["member"].sum() >= 9
    assert found.attrs["hold_up"] == 1
    assert found.attrs["hold_up_clips"] == 88
    assert abs(found.attrs["hold_up_shuffled"] - 0.05) < 0.02


@pytest.mark.parametrize("grouped", [False, True])
def test_p_and_shares_are_those_of_shuffled_labels(task: xr.Dataset, grouped: bool) -> None:
    how = Selection(
        rule="lape", threshold="q80", percentile=40, permutations=59, confirm=("half=test",), group="group" * grouped
    )
    found = select(task, "animal", how)
    plain_how = Selection(permutations=59, group="group" * grouped)
    other = task.isel(clip=slice(152, None))
    arrangement = other.otoscope.arrangement("animal", plain_how)
    ranks = stats.rankdata(other["mean"].values, axis=-1)
    member = found["member"].transpose("layer", "neuron", "category").values
    drawn = [arrangement.codes, *(shuffle_labels(arrangement, 0, i) for i in range(59))]
    of = np.bincount(arrangement.codes)
    z = np.array([[(ranks @ (codes == c) - of[c] * 44.5) for c in range(3)] for codes in drawn]).transpose(0, 2, 3, 1)
    cells = z[:, member].round(6)
    p = np.array([(cells >= row).mean(axis=0) for row in cells])
    np.testing.assert_allclose(found["confirm_p"].values[member], p[0])
    np.testing.assert_array_equal(found["holds_up"].values[member], p[0] <= 0.05)
    assert np.isnan(found["holds_up"].values[~member]).all()
    np.testing.assert_allclose(found.attrs["hold_up"], (p[0] <= 0.05).mean())
    np.testing.assert_allclose(found.attrs["hold_up_shuffled"], (p[1:] <= 0.05).mean())
    lines = np.quantile(task["mean"].values[..., :152], 0.8, axis=-1, method="lower")
    on = task["mean"].values[..., 152:] > lines[..., None]
    for layer, neuron, category in np.argwhere(member)[::3]:
        inside = arrangement.codes == category
        at = {"layer": layer, "neuron": neuron, "category": category}
        u = stats.mannwhitneyu(*(other["mean"].values[layer, neuron][which] for which in (inside, ~inside))).statistic
        np.testing.assert_allclose(found["confirm_auc"].isel(at), u / inside.sum() / (~inside).sum())
        np.testing.assert_allclose(found["confirm_probability"].isel(at), on[layer, neuron][inside].mean())


def test_clips_that_confirm_obey_the_other_conditions(task: xr.Dataset) -> None:
    both = select(task, "animal", Selection(**HOW, where=("odd=yes", "half=train"), confirm=("half=test",)))
    assert both.attrs["hold_up_clips"] == 44
    alone = select(task.isel(clip=slice(1, None, 2)), "animal", Selection(**HOW, confirm=("half=test",)))
    xr.testing.assert_identical(both, alone)


def test_what_cannot_confirm(task: xr.Dataset) -> None:
    def asked(**changes: Any) -> None:
        select(task, "animal", Selection(**{**HOW, **changes}))

    with pytest.raises(ValueError, match=r"2 groups of 'odd', such as 'no', have clips that select and"):
        asked(rule="lape", threshold="q80", percentile=20, confirm=("half=test",), group="odd")
    with pytest.raises(ValueError, match=r"no p can be below 0\.5 with 1 permutations"):
        asked(rule="lape", threshold="q80", percentile=20, permutations=1, confirm=("half=test",))
    with pytest.raises(ValueError, match=r"the clips with group=g40 .* are of 1 of 3 categories; expected at least 2"):
        asked(rule="lape", threshold="q80", percentile=20, confirm=("group=g40",))
    with pytest.raises(LookupError, match="no clip has half 'tset'; expected one of 'test', 'train'"):
        asked(confirm=("half=tset",))


def test_effects_are_those_of_the_tests(task: xr.Dataset) -> None:
    tests = task.otoscope.tests("animal", permutations=19)
    found = select(task, "animal", Selection(rule="lape", threshold="q80", percentile=30))
    shown = with_effects(task, "animal", Selection(), found)
    some = found["member"].any("category")
    for name in ("auc", "auc_low", "auc_high"):
        np.testing.assert_array_equal(shown[name].where(some), tests[name].where(some))
        assert shown[name].where(~some).isnull().all()
