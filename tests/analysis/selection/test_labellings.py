"""Which label columns are surveyed when nobody names them."""

import pytest
import xarray as xr

from otoscope.analysis import accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis.selection.labellings import labellings, left_out


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
