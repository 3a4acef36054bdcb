"""Probabilities made elsewhere give what the same probabilities give from a store."""

import numpy as np
import pytest
import xarray as xr

import otoscope
from otoscope.analysis import accessor  # noqa: F401  registers ds.otoscope
from otoscope.analysis.published.files import write_published
from otoscope.analysis.published.given import is_given, open_given, read_probability
from otoscope.analysis.selection.labellings import labellings, select_neurons
from otoscope.analysis.selection.selection import Selection
from otoscope.analysis.tables import probability_table, write_table


@pytest.fixture
def p(finished):
    return otoscope.open(finished.url)["t"].ds.isel(neuron=slice(3)).otoscope.probability("kind").compute()


@pytest.mark.parametrize("form", ["esc50.parquet", "esc50.csv", "esc50_analysis", "esc50_vit"])
def test_selections_are_the_same_from_a_store_a_table_and_a_folder(tmp_path, p, form):
    path = tmp_path / form
    if path.suffix:
        write_table(probability_table(p), path)
    else:
        write_published(path, p)
    assert is_given(path)
    tree = open_given(path)
    (labelling,) = labellings({"given": tree})
    assert labelling.name == "esc50:class"
    found = select_neurons(labelling, Selection(percentile=50)).selection
    xr.testing.assert_equal(
        labelling.ds["probability"], p.drop_vars(("site", "n_clips", "neuron_valid"), errors="ignore")
    )
    np.testing.assert_array_equal(found["member"], otoscope.analysis.class_specific(p, percentile=50)["member"])
    assert labelling.ds.otoscope.categories("class") == ["a", "b", "c"]


def test_a_store_is_not_given(finished, tmp_path):
    assert not is_given(finished.url)
    assert not is_given(tmp_path)


def test_layers_of_unequal_width_survive_a_table(tmp_path, finished):
    p = otoscope.open(finished.url)["t"].ds.otoscope.probability("kind").compute()
    assert np.isnan(p.isel(layer=1, neuron=5)).all()
    write_table(probability_table(p), tmp_path / "p.parquet")
    write_table(probability_table(p.isel(layer=[0])), tmp_path / "q.parquet")
    np.testing.assert_array_equal(read_probability(tmp_path / "p.parquet"), p)
    np.testing.assert_array_equal(read_probability(tmp_path / "q.parquet"), p.isel(layer=[0]))


def test_what_such_data_do_not_hold(tmp_path, p):
    write_published(tmp_path, p)
    ds = open_given(tmp_path).children[tmp_path.name].to_dataset()
    with pytest.raises(ValueError, match="the reading that they were made with"):
        ds.otoscope.probability("class", reading="frame")
    with pytest.raises(ValueError, match="the reading that they were made with"):
        ds.otoscope.probability("class", threshold=0.1)
    with pytest.raises(LookupError, match=r"no labelling 'kind' .* they have one, 'class'"):
        ds.otoscope.probability("kind")
    with pytest.raises(LookupError, match="keeps no 'mean'"):
        ds.otoscope.exemplars(0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,neuron\n0,0\n", "one column of numbers per category"),
        ("layer,a\n0,0.5\n", "expected layer, neuron"),
        ("layer,neuron,a\n0,0,dog\n", "numbers per category"),
        ("layer,neuron,a\n0,0,0.5\n0,0,0.5\n", "several rows for one neuron"),
        ("layer,neuron,a\n0,0,1.5\n", r"outside \[0, 1\]"),
        (
            "layer,neuron,a,b\n0,0,0.5,0.5\n0,7,,0.5\n1,0,,\n",
            "categories of 1 neurons, the first in layer 0, neuron 7;",
        ),
        ("", "is not a table"),
    ],
)
def test_other_tables_raise(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_probability(tmp_path / "p.csv")
    with pytest.raises(FileNotFoundError, match=r"no file .*otoscope import"):
        read_probability(tmp_path / "absent.csv")


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(ValueError, match="is not a table"):
        read_probability(tmp_path / "p.parquet")
