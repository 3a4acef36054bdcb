"""Requests: what fits together, and that they survive JSON."""

import json

import pytest

from otoscope import ablate
from otoscope.ablate.request import MODES, Request
from otoscope.analysis.selection.selection import Selection

ASKED = {"task": "t", "label": "kind", "set": "shared(a,b)"}


@pytest.mark.parametrize("mode", MODES)
def test_requests_come_back_from_json(mode):
    more: dict[str, object] = {"category": "a"} if mode in ("category-mean", "transplant") else {}
    more |= {"gain": 0.5} if mode == "gain" else {}
    request = Request(**ASKED, mode=mode, match=("rate", "mean"), selection=Selection(reading="any"), **more)
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
    assert request.evidence == ("help" if mode.startswith("keep") else "harm")
    assert Request(**ASKED, mode=mode, side="either", **more).evidence == "either"
    assert request.labelling == "t:kind"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "explode"}, "mode is 'explode'; expected one of remove, gain, mean"),
        ({"mode": "transplant"}, "mode 'transplant' with category ''; expected a category for category-mean and trans"),
        ({"category": "a"}, "mode 'remove' with category 'a'"),
        ({"gain": 0.5}, "gain 0.5 with mode 'remove'; expected it with mode 'gain' only"),
        ({"mode": "gain", "gain": float("nan")}, "gain nan; expected a finite number"),
        ({"controls": -1}, "-1 controls"),
        ({"controls": 10**9}, "expected 0 to 100000 controls"),
        ({"seed": -1}, "seeds -1 and 42"),
        ({"side": "left"}, "side is 'left'; expected one of harm, help, either"),
        ({"control": "none"}, "control is 'none'; expected one of matched, published"),
        ({"control": "published", "match": ("rate",)}, "expected no `match` with it"),
        ({"match": ("rate", "size")}, "match is .*'size'.*; expected one of rate, mean"),
        ({"selection": {"percentile": 5}}, "selection is {'percentile': 5}; expected a Selection"),
        ({"probe": "svm"}, "probe is 'svm'; expected one of logistic, published"),
    ],
)
def test_what_does_not_fit_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        Request(**{**ASKED, **more})


def test_the_room_lists_what_it_has():
    assert set(ablate.__all__) == set(dir(ablate))
    assert all(callable(getattr(ablate, name)) for name in ablate.__all__)
