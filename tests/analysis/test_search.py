"""Searches against plain Python, neuron by neuron; every wrong term is found, and where."""

import operator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otoscope.analysis.accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis.search import SearchError, find_neurons, matching, parse_search, written

NAMES = ["rain, heavy", 'says "hi"', "été"]
LINES = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}


@pytest.fixture(scope="module")
def statistics():
    from .conftest import make_task

    return make_task(categories=NAMES).otoscope.cards("animal", permutations=39, level=0.9, min_effect=0.5)


def neurons(statistics):
    """(layer, neuron) of all that exist, by AAPE, NaN last."""
    every = [tuple(map(int, at)) for at in np.argwhere(statistics.exists)]
    return sorted(every, key=lambda at: (np.isnan(statistics.aape[at]), np.nan_to_num(statistics.aape[at]), at))


def found(statistics, text):
    return [tuple(pair) for pair in find_neurons(statistics, text).tolist()]


def test_terms_of_every_kind(statistics):
    rain, hi, _ = (statistics.categories.index(name) for name in NAMES)
    p, auc, member = statistics.p, statistics.tests["auc"], statistics.member
    asked = {
        "": lambda _: True,
        "  layer:1 ": lambda at: at[0] == 1,
        "layer:0-1 neuron:3,5,9-11": lambda at: at[0] < 2 and at[1] in (3, 5, 9, 10, 11),
        'category:"rain, heavy"': lambda at: member[at][rain],
        'top:"says ""hi"""': lambda at: p[at][hi] == p[at].max() > 0,
        'p("rain, heavy")>=0.3 p(été)<0.5': lambda at: (
            p[at][rain] >= 0.3 and p[at][statistics.category_at("été")] < 0.5
        ),
        'auc("rain, heavy")>0.5': lambda at: auc[at][rain] > 0.5,
        "categories=0": lambda at: not member[at].any(),
        "categories>=1 rank<=20": lambda at: member[at].any() and 1 <= statistics.rank[at] <= 20,
        "rate<1e-1": lambda at: statistics.rate[at] < 0.1,
        "normalised>.9": lambda at: statistics.normalised[at] > 0.9,
    }
    sizes = []
    for text, holds in asked.items():
        expected = [at for at in neurons(statistics) if holds(at)]
        assert found(statistics, text) == expected, text
        sizes.append(len(expected))
    assert sum(0 < n < statistics.exists.sum() for n in sizes) >= 9


@pytest.mark.parametrize("sign", LINES)
def test_comparisons_are_exact_and_nan_satisfies_none(statistics, sign):
    at = neurons(statistics)[7]
    line = statistics.aape[at]
    text = f"aape{sign}{float(line)!r}"
    with np.errstate(invalid="ignore"):
        expected = LINES[sign](statistics.aape, line) & statistics.exists
    np.testing.assert_array_equal(matching(statistics, text), expected)
    assert matching(statistics, text)[at] == (sign in ("<=", ">=", "="))


def test_a_neuron_that_never_fires_has_no_rank_and_no_aape(statistics):
    aape, rank = statistics.aape.copy(), statistics.rank.copy()
    aape[1, 3], rank[1, 3] = np.nan, 0
    silent = replace(statistics, aape=aape, rank=rank)
    for text in ("rank<=999", "rank>=0", "aape<99", "aape>=0"):
        assert (1, 3) not in found(silent, text)
    assert found(silent, "rate<2")[-1] == (1, 3)


def test_what_pads_a_narrow_layer_is_never_found(statistics):
    assert not statistics.exists[2, 15:].any()
    assert {neuron for _, neuron in found(statistics, "layer:2 neuron:10-19")} == set(range(10, 15))


@pytest.mark.parametrize(
    ("text", "position", "term", "expected"),
    [
        ("aape<1.2 colour:red", 9, "colour:red", "expected a term such as"),
        ("  dog", 2, "dog", "expected a term such as"),
        ("aape<1.2,", 0, "aape<1.2,", "expected a finite number after <"),
        ("aape<viel", 0, "aape<viel", "expected a finite number after <"),
        ("layer:1 aape<nan rate<1", 8, "aape<nan", "expected a finite number"),
        ("rate<1_0", 0, "rate<1_0", "expected a finite number"),
        ("aape:1", 0, "aape:1", "expected a term such as"),
        ("aape<1.2rate<3", 0, "aape<1.2rate<3", "expected a term such as"),
        ("layer:x", 0, "layer:x", "expected whole numbers, as in layer:4"),
        ("layer:8-4", 0, "layer:8-4", "found 8-4, of which the first is the larger; expected 4-8"),
        ("neuron:", 0, "neuron:", "expected whole numbers"),
        ("category:", 0, "category:", "expected a name, as in category:dog"),
        ('top:""', 0, 'top:""', "expected a name, as in top:dog"),
        ('category:"rain, heavy', 0, 'category:"rain,', "expected a term such as"),
        ("category:rain, heavy", 0, "category:rain,", "expected a name"),
        ("p>0.3", 0, "p>0.3", "expected a category for p, auc alone"),
        ("rate(dog)<0.3", 0, "rate(dog)<0.3", "expected a category for p, auc alone"),
        ("p()>0.3", 0, "p()>0.3", "expected a name, as in p(dog)>0.3"),
        ("rate<0.5 top:dog", 9, "top:dog", "no category 'dog' in animal; those that exist: 'rain, heavy'"),
        ("p(dog)>0", 0, "p(dog)>0", "no category 'dog'"),
    ],
)
def test_a_wrong_term_is_an_error_that_shows_where(statistics, text, position, term, expected):
    with pytest.raises(SearchError) as raised:
        find_neurons(statistics, text)
    error = raised.value
    assert (error.position, error.term) == (position, term)
    assert expected in str(error)
    assert f"at character {position + 1} of the search is not understood" in str(error)
    assert "\n" not in str(error)
    assert error.caret.splitlines()[1].index("^") == position
    assert error.caret.splitlines()[0][position:].startswith(term)


def test_auc_needs_tests(task):
    with pytest.raises(SearchError, match=r"'auc\(dog\)>0.5' at character 1 .* expected the rule contrast"):
        find_neurons(task.otoscope.cards("animal", rule="lape"), "auc(dog)>0.5")


@settings(max_examples=50)
@given(st.text(min_size=1), st.text(alphabet=st.sampled_from('aperk:<>=()", 019é')))
def test_any_name_can_be_written_and_any_text_is_understood_or_refused(name, text):
    for term in (f"category:{written(name)}", f"top:{written(name)}", f"p({written(name)})>0.25"):
        assert [each.name for each in parse_search(f"rate<1 {term} aape>0")] == ["", name, ""]
    error = None
    try:
        parse_search(text)
    except SearchError as found:
        error = found
    assert error is None or (error.term and text[error.position :].startswith(error.term))
