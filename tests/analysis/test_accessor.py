"""`ds.otoscope` and `across` against plain numpy on the data set's own variables."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import xarray as xr

import otoscope.analysis.accessor  # noqa: F401
from otoscope.analysis import across, class_specific, common_neuron_ratio
from otoscope.analysis.selection.selection import Selection


def clips_of(ds, label, category):
    """Clips that were extracted and bear the category, from the columns themselves."""
    return (ds[label].values == category) & (ds["status"].values == 1)


def expected_share(ds, label, active):
    """Share of clips over existing neurons: active (layer, neuron, clip) -> (layer, neuron, category)."""
    categories = sorted(set(ds[label].where(ds["status"] == 1).dropna("clip").values))
    p = np.stack([active[..., clips_of(ds, label, c)].mean(-1) for c in categories], -1)
    return np.where(ds["neuron_valid"].values[..., None], p, np.nan)


def test_every_reading(task):
    mean = task["mean"].values.astype(np.float64)
    frames, counts = task["positive_frames"].values.astype(float), task["frame_count"].values.astype(float)
    lines = np.where(np.arange(60).reshape(3, 20) % 3, np.linspace(-1, 1, 60).reshape(3, 20), 0)
    by_neuron = xr.DataArray(lines, dims=("layer", "neuron"))
    bits = task["active"].values
    share = [
        ({}, bits),
        ({"threshold": 0}, bits),
        ({"threshold": 0.1}, mean > 0.1),
        ({"reading": "any"}, frames > 0),
        ({"threshold": by_neuron}, np.where(lines[..., None] == 0, bits, mean > lines[..., None])),
    ]
    for changes, active in share:
        p = task.otoscope.probability("animal", **changes)
        np.testing.assert_array_equal(p, expected_share(task, "animal", active))
        np.testing.assert_array_equal(task.otoscope.probability("animal", Selection(rule="lape", **changes)), p)
    chosen = [clips_of(task, "size", c) for c in ("s", "xl")]
    p = task.otoscope.probability("size", reading="frame").values
    ratio = np.stack([frames[..., i].sum(-1) / counts[i].sum() for i in chosen], -1)
    np.testing.assert_array_equal(p[task["neuron_valid"].values], ratio[task["neuron_valid"].values])


def test_at_zero_the_bit_decides_and_not_the_rounded_mean(task):
    """A mean of 1e-9 is 0 in float16, but its bit is set."""
    rounded = task.assign(mean=xr.zeros_like(task["mean"]))
    bits = task.otoscope.probability("animal")
    for threshold in (0, 0.0):
        np.testing.assert_array_equal(rounded.otoscope.probability("animal", threshold=threshold), bits)
    of_each = xr.zeros_like(task["neuron_valid"], dtype=float)  # no literal 0: compared with the means, as any other
    assert not (rounded.otoscope.probability("animal", threshold=of_each) > 0).any()


def test_the_other_methods_follow_from_the_probability(task):
    p = task.otoscope.probability("animal")
    found = task.otoscope.class_specific("animal", percentile=20)
    xr.testing.assert_identical(found.compute(), class_specific(p, percentile=20).compute())
    np.testing.assert_array_equal(found["probability"], p)
    np.testing.assert_array_equal(found["aape"], task.otoscope.aape("animal"))
    assert 0 < found["selected"].sum() <= round(0.2 * int(task["neuron_valid"].sum()))
    entropy = task.otoscope.aape("animal", normalised=True)
    np.testing.assert_array_equal(np.isnan(entropy), ~task["neuron_valid"].values)
    within = task.otoscope.common_neuron_ratio("animal", percentile=20)
    np.testing.assert_array_equal(within, common_neuron_ratio(found["member"]))
    assert task.otoscope.common_neuron_ratio("animal", "size", percentile=20).shape == (3, 2)
    mean = task.otoscope.category_mean("animal")
    cats = task["mean"].values[..., clips_of(task, "animal", "cat")].astype(float).mean(-1)
    np.testing.assert_array_equal(mean.sel(category="cat"), np.where(task["neuron_valid"], cats, np.nan))


def test_labels_by_name(task):
    assert task.otoscope.labels == ["animal", "size"]
    counted = task["status"].values == 1
    expected = task["animal"].where(counted).fillna("").values.tolist()
    assert task.otoscope.label("animal").values.tolist() == expected
    assert set(expected) == {"dog", "cat", "hen", ""}
    mine = task.assign_coords(mine=("clip", np.arange(task.sizes["clip"]) // 60))
    assert mine.otoscope.categories("mine") == ["0", "1"]
    mine["mine"] = "clip", ["x"] * task.sizes["clip"]  # in place
    assert mine.otoscope.categories("mine") == ["x"]


def test_who_changes_an_answer_in_place_changes_no_other(task):
    expected = task.otoscope.probability("animal").compute()
    codes = task.otoscope.codes("animal")
    codes[:] = 0
    codes.attrs["categories"].append("x")
    task.otoscope.counted[:] = False
    xr.testing.assert_identical(task.otoscope.probability("animal").compute(), expected)
    mine = task.assign_coords(mine=("clip", np.full(task.sizes["clip"], "a", object)))
    assert mine.otoscope.categories("mine") == ["a"]
    mine["mine"][:60] = "b"
    assert mine.otoscope.categories("mine") == ["a", "b"]
    mine["status"] = xr.where(mine["mine"] == "b", 2, mine["status"])
    assert mine.otoscope.categories("mine") == ["a"]


def test_it_lists_its_questions(task, nothing_computes):
    with nothing_computes():
        shown = repr(task.otoscope).splitlines()
    assert shown[0] == "otoscope: questions about the label columns 'animal', 'size'"
    methods = {name for name in vars(type(task.otoscope)) if not name.startswith("_")} - {"labels", "counted"}
    assert {line.split("(")[0].strip(" .") for line in shown[1:]} == methods
    assert "  .exemplars(layer, neuron): The clips that drive a neuron most, or least: " in "\n".join(shown)


def test_categories_without_clips_are_dropped(task):
    task = task.assign_coords(animal=task["animal"].where(task["animal"] != "cat"))
    p = task.otoscope.probability("animal")
    assert p["category"].values.tolist() == ["dog", "hen"]
    hens = task["active"].values[..., clips_of(task, "animal", "hen")].mean(-1)
    np.testing.assert_array_equal(p.sel(category="hen"), np.where(task["neuron_valid"], hens, np.nan))
    failed = task.assign(status=xr.full_like(task["status"], 2))
    assert failed.otoscope.probability("animal").sizes["category"] == 0
    assert not failed.otoscope.class_specific("animal", rule="lape")["member"].any()


def test_selections_of_clips_layers_and_neurons_are_followed(task):
    some = task.isel(clip=slice(5, 90, 2), neuron=[3, 5, 19], layer=[1, 2])
    p = some.otoscope.probability("animal")
    np.testing.assert_array_equal(p, expected_share(some, "animal", some["active"].values))
    assert p["neuron"].values.tolist() == [3, 5, 19]
    assert p["site"].values.tolist() == ["blocks.1.act", "blocks.2.act"]


def test_nothing_computes_but_labels(task, new_task, nothing_computes):
    tree = xr.DataTree.from_dict({"one": task, "two": new_task(1, categories=("cat", "emu"))})
    with nothing_computes():
        for reading in ("clip", "frame", "any"):
            task.otoscope.class_specific("animal", rule="lape", reading=reading)
        task.otoscope.probability("animal", threshold=0.3)
        task.otoscope.common_neuron_ratio("animal", percentile=2)
        task.otoscope.category_mean("animal")
        task.otoscope.label("animal")
        across(tree, lambda ds: ds.otoscope.class_specific("animal", rule="paper"))


def test_across_tasks_by_name(task, new_task):
    other = new_task(1, n_clips=77, categories=("emu", "dog"))
    tree = xr.DataTree.from_dict({"one": task, "two": other})
    p = across(tree, lambda ds: ds.otoscope.probability("animal"))
    assert p.dims == ("task", "layer", "neuron", "category")
    assert p["task"].values.tolist() == ["one", "two"]
    assert p["category"].values.tolist() == ["cat", "dog", "hen", "emu"]
    for name, ds in (("one", task), ("two", other)):
        own = ds.otoscope.probability("animal")
        np.testing.assert_array_equal(p.sel(task=name, category=own["category"]), own)
        np.testing.assert_array_equal(p["n_clips"].sel(task=name, category=own["category"]), own["n_clips"])
    assert np.isnan(p.sel(task="two", category="hen")).all()
    members = across(tree, lambda ds: ds.otoscope.class_specific("animal"))["member"]
    assert np.isnan(members.sel(task="one", category="emu")).all()
    same = across(tree, lambda ds: ds.otoscope.class_specific("size"))["member"]
    assert same.dtype == bool
    ratio = across(tree, lambda ds: ds.otoscope.common_neuron_ratio("animal"))
    assert ratio.dims == ("task", "category", "other_category")
    assert across(tree, lambda ds: ds.otoscope.aape("animal")).dims == ("task", "layer", "neuron")
    with pytest.raises(ValueError, match=r"holds no task; expected one group per task"):
        across(xr.DataTree(), lambda ds: ds["mean"])


def test_what_was_not_kept_and_what_does_not_exist(task):
    bare = task.drop_vars(["mean", "positive_frames"])
    with pytest.raises(LookupError, match=r"keeps no 'mean'.*extract with --keep mean"):
        bare.otoscope.probability("animal", threshold=0.1)
    with pytest.raises(LookupError, match=r"keeps no 'mean'"):
        bare.otoscope.category_mean("animal")
    with pytest.raises(LookupError, match=r"keeps no 'positive_frames'.*--keep positive_frames"):
        bare.otoscope.class_specific("animal", reading="frame")
    with pytest.raises(LookupError, match=r"no label column 'colour' in this task; those that exist: animal, size"):
        task.otoscope.aape("colour")
    for unlabelled in (task.isel(clip=0), task.drop_vars(["animal", "size"])):
        with pytest.raises(
            LookupError, match=r"no label column 'animal' in this task; expected at least one: .*clip=\[0\]"
        ):
            unlabelled.otoscope.codes("animal")
    with pytest.raises(ValueError, match=r"reading 'frames' is not known; expected one of clip, frame, any"):
        task.otoscope.probability("animal", reading="frames")
    with pytest.raises(ValueError, match=r"expected reading 'clip' for it"):
        task.otoscope.probability("animal", reading="any", threshold=1)
    known = "reading, threshold, rule, percentile"
    for method in (task.otoscope.class_specific, task.otoscope.sample, task.otoscope.serving):
        with pytest.raises(TypeError, match=f"'percentil' is not a field of a selection; expected some of {known}"):
            method("animal", percentil=5)
    with pytest.raises(ValueError, match=r"clips 'train' given for a data set; expected 'all'"):
        task.otoscope.aape("animal", clips="train")


def per_neuron(values, **coords):
    return xr.DataArray(values, dims=("layer", "neuron"), coords=coords)


@pytest.mark.parametrize(
    ("threshold", "found"),
    [
        (np.nan, "float 'nan'"),
        ("0.5", "str '0.5'"),
        (True, "bool 'True'"),
        (np.bool_(False), "bool"),
        ([0.1, 0.2], r"list '\[0.1, 0.2\]'"),
        (np.zeros((3, 20)), "ndarray"),
        (xr.DataArray(np.zeros(20), dims="neuron"), "float64 {'neuron': 20}"),
        (per_neuron(np.zeros((3, 7))), "float64 {'layer': 3, 'neuron': 7}"),
        (per_neuron(np.zeros((3, 20), bool)), "bool {'layer': 3, 'neuron': 20}"),
        (per_neuron(np.zeros((3, 20)), neuron=np.arange(20) + 1), "of other neurons"),
        (per_neuron(np.full((3, 20), np.nan)), "NaN for neurons that exist"),
    ],
)
def test_what_is_not_a_valid_threshold_raises(task, threshold, found):
    with pytest.raises(ValueError, match=f"threshold is .*{found}.*; expected a number, or one per neuron") as caught:
        task.otoscope.probability("animal", threshold=threshold)
    assert "\n" not in str(caught.value)


def test_thresholds_may_be_nan_for_padding(task, nothing_computes):
    means = task["mean"].where(task["neuron_valid"] & (task["status"] == 1))
    lines = means.mean("clip").astype(float).drop_vars("site").compute()
    assert lines.isnull().any()
    expected = expected_share(task, "animal", task["mean"].values > lines.values[..., None])
    for threshold in (lines, lines.transpose(), lines.chunk(layer=1)):
        with nothing_computes():
            p = task.otoscope.probability("animal", threshold=threshold)
        np.testing.assert_array_equal(p, expected)
    alone = task.otoscope.probability("animal", threshold=xr.DataArray(0.3))
    np.testing.assert_array_equal(alone, task.otoscope.probability("animal", threshold=0.3))


def test_one_neuron_or_layer_is_selected_by_a_list(task):
    for dim in ("neuron", "layer"):
        with pytest.raises(ValueError, match=rf"a selection of one {dim} keeps its dimension as {dim}=\[2\]"):
            task.sel({dim: 2}).otoscope.probability("animal")
        one = task.sel({dim: 2}).otoscope
        for ask in (
            one.tests, one.class_specific, one.category_mean, partial(one.neuron_thresholds, threshold="q80"),
            partial(one.probability, threshold="q80"), partial(one.probability, reading="frame"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=rf"expected {dim} for .*: a selection of one {dim} keeps its dim"):
                ask("animal")
        assert task.sel({dim: [2]}).otoscope.probability("animal").sizes[dim] == 1


def test_the_room_opens_without_loading_xarray():
    code = (
        "import sys, otoscope.analysis as a; assert 'xarray' not in sys.modules; "
        "assert set(a.__all__) == set(dir(a)); "
        "assert all(callable(getattr(a, name)) for name in a.__all__); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
