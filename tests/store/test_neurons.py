"""Neuron sets: the algebra of Python's own sets, files that come back equal, refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.store.neurons import NeuronSet, read_neuron_set, read_pairs, write_neuron_set

WIDTHS = (7, 3, 7)
pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12)


@given(pairs, pairs)
def test_the_algebra_is_that_of_sets(a, b):
    one, two = NeuronSet(pairs=tuple(a), name="a"), NeuronSet(pairs=tuple(b), name="b")
    assert set(one | two) == set(a) | set(b)
    assert set(one & two) == set(a) & set(b)
    assert set(one - two) == set(a) - set(b)
    assert (one == two) == (set(a) == set(b))
    assert (one.digest == two.digest) == (set(a) == set(b))
    assert one.pairs == tuple(sorted(set(a)))
    assert len(one) == len(set(a))
    assert sum(one.counts.values()) == len(one)
    assert [(layer, n) for layer, ns in one.by_layer.items() for n in ns] == list(one)
    assert {(int(x), int(y)) for x, y in np.argwhere(one.mask(WIDTHS))} == set(a)


@given(pairs, st.integers(-9, 9))
def test_shifting_goes_around_and_comes_back(a, by):
    one = NeuronSet(pairs=tuple(a))
    there = one.shifted(by, WIDTHS)
    assert there.counts == one.counts
    assert there.shifted(-by, WIDTHS) == one
    assert set(there) == {(layer, (n + by) % WIDTHS[layer]) for layer, n in a}


def test_names_and_reasons_travel_and_do_not_compare():
    a = NeuronSet(pairs=((1, 2), (0, 1)), name="shared(x,y)", why={"task": "t"})
    b = NeuronSet(pairs=((0, 1),), name="by hand")
    assert (a | b) == a
    assert hash(a | b) == hash(a)
    assert (a & b).name == "(shared(x,y) & by hand)"
    assert (a & b).why == {"of": [{"name": "shared(x,y)", "task": "t"}, {"name": "by hand"}]}
    assert (1, 2) in a
    assert (1, 2) not in b
    assert a.shifted(1, WIDTHS).why == {"shifted": 1, "task": "t"}


@pytest.mark.parametrize("ending", [".json", ".csv", ".parquet"])
@pytest.mark.parametrize("found", [((2, 6), (0, 3), (2, 0)), ()])
def test_files_come_back_equal(tmp_path, ending, found):
    neurons = NeuronSet(pairs=found, name="é", why={"n": 1})
    write_neuron_set(neurons, tmp_path / f"set{ending}")
    back = read_neuron_set(tmp_path / f"set{ending}")
    assert back == neurons
    assert [path.name for path in tmp_path.iterdir()] == [f"set{ending}"]
    if ending == ".json":
        assert (back.name, back.why) == ("é", {"n": 1})
        assert json.loads((tmp_path / "set.json").read_text())["pairs"] == [list(pair) for pair in neurons]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_of_the_selection_is_read_as_one_set_or_in_its_order(tmp_path, ending):
    frame = pd.DataFrame(
        {"category": ["a", "b", "b"], "layer": [1, 1, 0], "neuron": [2, 2, 5], "aape": [0.1, 0.1, 0.2]}
    )
    path = tmp_path / f"n{ending}"
    frame.to_csv(path) if ending == ".csv" else frame.to_parquet(path)
    assert read_neuron_set(path).pairs == ((0, 5), (1, 2))
    assert read_pairs(path) == [(1, 2), (0, 5)]


@pytest.mark.parametrize("pair", ["ab", (1,), (1, -1), (1.5, 2), (True, 1), 3, None])
def test_what_is_not_a_valid_neuron_is_refused(pair):
    with pytest.raises(ValueError, match="is not a valid neuron; expected two whole numbers"):
        NeuronSet(pairs=(pair,))


def test_neurons_that_do_not_exist_are_refused():
    neurons = NeuronSet(pairs=((1, 3), (0, 6), (3, 0)), name="mine")
    with pytest.raises(LookupError, match=r"set mine has 2 of 3 neurons .* first \(1, 3\); expected layers 0 to 2"):
        neurons.check(WIDTHS)
    NeuronSet(pairs=((0, 6), (1, 2))).check(WIDTHS)
    with pytest.raises(LookupError):
        neurons.shifted(1, WIDTHS)


def test_files_that_hold_no_neurons_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("layer,x\n1,2\n")
    with pytest.raises(ValueError, match="columns layer, x; expected layer and neuron"):
        read_neuron_set(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("layer,neuron\n1,2.5\n")
    with pytest.raises(ValueError, match="not whole numbers"):
        read_neuron_set(tmp_path / "a.csv")
    for name, text in {"b.json": '{"pairs": 3}', "c.json": "[", "d.parquet": "nothing", "e.csv": ""}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name} holds no neurons"):
            read_neuron_set(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no file .*z\.csv; expected a table of neurons"):
        read_neuron_set(tmp_path / "z.csv")
    with pytest.raises(ValueError, match=r"expected a name ending in \.json, \.csv, \.parquet"):
        read_neuron_set(tmp_path / "z.txt")
    with pytest.raises(ValueError, match=r"cannot write to .*expected a name ending in \.json, \.csv, \.parquet"):
        write_neuron_set(NeuronSet(pairs=()), tmp_path / "z.txt")
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_neuron_set(NeuronSet(pairs=()), tmp_path / "absent" / "z.csv")
