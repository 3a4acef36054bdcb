"""The record of a selection: what it refuses, and percentiles of single tasks."""

import numpy as np
import pytest

from otoscope.analysis.published.paper import PERCENTILES
from otoscope.analysis.selection.selection import Selection, Selections, selection_of


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reading": "frames"}, ValueError, "reading 'frames' is not known; expected one of clip, frame, any"),
        ({"rule": "LAPE"}, ValueError, "rule 'LAPE' is not known; expected one of lape, paper"),
        ({"reading": "any", "threshold": 0.5}, ValueError, "expected reading 'clip' for it"),
        ({"percentile": 0}, ValueError, "percentile is 0; expected a number above 0 and up to 100"),
        ({"percentile": "1"}, ValueError, "percentile is str '1'; expected a number"),
        ({"percentile": True}, ValueError, "percentile is bool 'True'; expected a number"),
        ({"threshold": "a"}, ValueError, "threshold is str 'a'; expected a number, or one per neuron"),
        ({"threshold": float("nan")}, ValueError, "threshold is float 'nan'; expected a number, or one per neuron"),
        ({"threshold": np.zeros((2, 2))}, ValueError, r"threshold is ndarray '\[\[0. 0.\] \[0. 0.\]\]'; expected a"),
        ({"neurons": 5}, TypeError, "'neurons' is not a field of a selection; expected some of reading, threshold"),
    ],
)
def test_what_does_not_exist_or_fit(changes, error, message):
    with pytest.raises(error, match=message):
        selection_of(None, **changes)


def test_what_is_no_selection():
    with pytest.raises(TypeError, match="selection is 'frame'; expected a Selection, or its fields by name"):
        selection_of("frame")  # type: ignore[arg-type]


def test_equal_numbers_are_one_selection():
    whole, real = Selection(percentile=5, threshold=0), Selection(percentile=5.0, threshold=0.0)
    assert whole == real
    assert str(whole.to_json()) == str(real.to_json())


def test_changes_leave_the_rest():
    base = Selection(reading="frame", percentile=2)
    assert selection_of(base, rule="paper") == Selection(reading="frame", percentile=2, rule="paper")
    assert selection_of(base) == base
    assert selection_of() == Selection()
    assert Selection.from_json(base.to_json()) == base


def test_percentiles_of_single_tasks():
    selections = Selections(selection=Selection(rule="paper"), percentiles={**PERCENTILES, "gtzan": 5.0})
    found = [selections.of(task).percentile for task in ("esc50", "gise51", "gtzan", "surge")]
    assert found == [2, 2, 5, 1]
    assert selections.of("esc50").rule == "paper"
