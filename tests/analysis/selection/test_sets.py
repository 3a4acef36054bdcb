"""Names of neuron sets, against plain Python sets of the selection."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from otoscope.analysis.published.neuron_lists import write_published_list
from otoscope.analysis.selection.sets import find_set, parse_set, quoted
from otoscope.store.neurons import NeuronSet, write_neuron_set

NAMES = ["dog", "cat, black", 'says "hi"', "a:b (c)", "plain words"]
OTHERS = ["x", "dog"]


def member_of(names, seed):
    values = np.random.default_rng(seed).random((3, 40, len(names))) < 0.4
    return xr.DataArray(values, dims=("layer", "neuron", "category"), coords={"category": names}).assign_coords(
        layer=np.arange(3), neuron=np.arange(40)
    )


TABLES = {("t", "kind"): member_of(NAMES, 0), ("my task", "la:bel"): member_of(OTHERS, 1)}


def members(task, label):
    return TABLES[task, label]


def of(labelling, name):
    mask = TABLES[labelling].sel(category=name).values
    return {(int(layer), int(n)) for layer, n in np.argwhere(mask)}


def found(text):
    return set(find_set(parse_set(text), members, "t", "kind")[0])


def test_sets_by_name_are_intersections_and_differences():
    own = {name: of(("t", "kind"), name) for name in NAMES}
    for a in NAMES:
        others = set().union(*(own[name] for name in NAMES if name != a))
        assert found(f"all({quoted(a)})") == own[a]
        assert found(f"only({quoted(a)})") == own[a] - others
        for b in NAMES:
            assert found(f"shared({quoted(a)}, {quoted(b)})") == own[a] & own[b]
    assert found('shared(dog,"cat, black", plain words)') == own["dog"] & own["cat, black"] & own["plain words"]


def test_a_cell_across_two_tasks():
    across = found('shared(dog, my task:"la:bel":dog)')
    assert across == of(("t", "kind"), "dog") & of(("my task", "la:bel"), "dog")
    assert found('all(my task:"la:bel":x)') == of(("my task", "la:bel"), "x")


def test_a_set_records_where_it_comes_from():
    neurons, gain = find_set(parse_set(" only( dog ) "), members, "t", "kind", identity="abc", how={"percentile": 5})
    assert gain is None
    assert neurons.name == "only( dog )"
    assert neurons.why == {"task": "t", "label": "kind", "set": "only( dog )", "identity": "abc", "percentile": 5}


names = st.text(st.sampled_from('ab ,:()"@é'), min_size=1, max_size=8).filter(lambda name: name.strip() == name)


@given(st.lists(names, min_size=2, max_size=4))
def test_any_name_survives_quoting(chosen):
    parsed = parse_set(f"shared({', '.join(map(quoted, chosen))})")
    assert [category.name for category in parsed.categories] == chosen
    full = parse_set(f"all({quoted(chosen[0])}:{quoted(chosen[1])}:{quoted(chosen[-1])})").categories[0]
    assert (full.task, full.label, full.name) == (chosen[0], chosen[1], chosen[-1])


@pytest.mark.parametrize("text", ["(9,347) (10,393)", "(10,393),(9,347)", " ( 9 , 347 )(10,393) "])
def test_by_hand(text):
    assert found(text) == {(9, 347), (10, 393)}


def test_from_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    neurons = NeuronSet(pairs=((9, 347), (10, 393)), name="n")
    for ending in (".json", ".csv", ".parquet"):
        write_neuron_set(neurons, f"n{ending}")
        assert found(f"@n{ending}") == set(neurons)
    write_published_list(neurons, 0.5, "n.yaml")
    assert find_set(parse_set("@n.yaml"), members, "t", "kind") == (neurons, 0.5)


@pytest.mark.parametrize(
    "text",
    ["", "dog", "shared(dog)", "only(dog,x)", "foo(dog)", "shared(a,b", "only(a:b)", "only(a:b:c:d)", "only()",
     "shared(a,)", "(1,2", 'only("a)', "@", 'only(x"y)', "(1,2) x", "shared(:x:c,b)", 'only("")', "(1,-2)"],
)  # fmt: skip
def test_what_is_not_understood_raises_with_the_grammar(text):
    with pytest.raises(ValueError, match=r"expected .*(shared\(A,B\)|\(layer,neuron\))"):
        parse_set(text)


def test_categories_that_exist_are_listed_as_they_are_written():
    with pytest.raises(LookupError, match=r"no category 'hen' in t:kind; those .*: dog, \"cat, black\", \"says \"\"hi"):
        found("only(hen)")
    with pytest.raises(LookupError, match=r"no category 'cat, black' in my task:la:bel; those .*: x, dog$"):
        found('shared(dog, my task:"la:bel":"cat, black")')


def test_an_empty_set_raises(monkeypatch):
    monkeypatch.setitem(TABLES, ("t", "none"), TABLES["t", "kind"] & False)
    with pytest.raises(ValueError, match=r"^all\(t:none:dog\) has no neurons; expected at least one"):
        found("all(t:none:dog)")
