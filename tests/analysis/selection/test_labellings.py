"""Which label columns are surveyed when nobody names them."""

import pytest
import xarray as xr

from otoscope.analysis import accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis.asked import labellings_table
from otoscope.analysis.selection.check import NothingSelected
from otoscope.analysis.selection.labellings import Labelling, labellings, left_out, select_neurons
from otoscope.analysis.selection.selection import Selection, Selections


def tree(**tasks):
    """Tasks of four clips with these label columns."""
    made = {}
    for task, labels in tasks.items():
        made[task] = xr.Dataset(coords={"clip": list("wxyz"), **{label: ("clip", list("aabb")) for label in labels}})
    return {"store": xr.DataTree.from_dict(made)}


def names(trees, *wanted):
    return [labelling.name for labelling in labellings(trees, wanted)]


def test_what_groups_or_divides_clips_is_no_labelling_unless_it_is_named():
    trees = tree(
        esc50=["category", "source", "fold"], surge=["note", "octave", "tone", "split"], nsynth=["family", "instrument"]
    )
    assert names(trees) == ["esc50:category", "nsynth:family", "surge:note", "surge:octave"]
    assert left_out(trees) == ["esc50:source", "nsynth:instrument", "surge:tone"]
    assert names(trees, "esc50", "surge:tone") == ["esc50:category", "surge:tone"]
    assert left_out(trees, ["esc50", "surge:tone"]) == ["esc50:source"]
    assert names(trees, "esc50:fold") == ["esc50:fold"]
    assert left_out(trees, ["esc50", "esc50:source"]) == []


def test_a_grouping_is_the_labelling_of_a_task_that_has_no_other():
    trees = tree(who=["speaker", "split"])
    assert names(trees) == ["who:speaker"]
    assert left_out(trees) == []
    with pytest.raises(LookupError, match="has no label column"):
        names(tree(none=["split"]))


def test_what_is_said_where_no_clip_could_be_extracted():
    ds = tree(one=["kind"])["store"]["one"].to_dataset().isel(clip=slice(0))
    for n_failed, words in ((0, "no committed clip yet"), (4, "no clip that could be extracted, 4 failed")):
        labelling = Labelling(store="s", task="one", label="kind", ds=ds.assign_attrs(n_failed=n_failed))
        with pytest.raises(NothingSelected, match=words):
            select_neurons(labelling, Selection())


@pytest.mark.parametrize("kind", ["probability", "aape"])
def test_no_table_without_a_category(kind):
    ds = tree(one=["kind"])["store"]["one"].to_dataset().isel(clip=slice(0))
    labelling = Labelling(store="s", task="one", label="kind", ds=ds)
    with pytest.raises(NothingSelected, match="s one:kind has no category with clips"):
        labellings_table(kind, [labelling], Selections(), ["s"])
