"""`otoscope neurons --find`: the neurons that a search finds, and what is wrong with one."""

from pathlib import Path

import pandas as pd
import pytest

import otoscope
from otoscope.analysis.search import find_neurons

from ..support.commands import call, done, refused

ASK = ("--task", "t:kind", "--percentile", 40, "--threshold", "q80")


def test_what_is_found_is_a_table_of_neurons(original: str, tmp_path: Path) -> None:
    terms = "p(a)>0.1 layer:0-1 rate<0.5"
    done("neurons", original, *ASK, "--find", terms, "-o", tmp_path / "n.csv")
    table = pd.read_csv(tmp_path / "n.csv")
    statistics = otoscope.open(original)["t"].ds.otoscope.cards("kind", percentile=40, threshold="q80")
    expected = find_neurons(statistics, terms).tolist()
    assert table[["layer", "neuron"]].to_numpy().tolist() == expected
    assert 0 < len(expected) < statistics.exists.sum()
    assert table["aape"].is_monotonic_increasing
    found = done("neurons", original, *ASK, "--find", "category:a")
    assert found.startswith("|   layer |   neuron |")
    assert found.count("\n") == 2 + statistics.member[..., 0].sum()


def test_a_selection_of_nothing_still_finds_and_says_why(original: str) -> None:
    result = call("neurons", original, "--task", "t:kind", "--min-effect", 0.99, "--find", "layer:0")
    assert result.exit_code == 0
    assert "no neuron is specific for a category: with 1,000 permutations" in result.stderr
    assert result.stdout.count("\n") > 2


@pytest.mark.parametrize(
    ("message", "more"),
    [
        ("'hue:red' at character 9 of the search is not understood; expected a term", ("--find", "layer:0 hue:red")),
        ("'p\\(z\\)>0' at character 1 .* no category 'z' in t:kind; those that exist: 'a'", ("--find", "p(z)>0")),
        ("'auc\\(a\\)>0' .* expected the rule contrast", ("--find", "auc(a)>0")),
        ("--bootstrap was given with --find, whose table has no column for it", ("--find", "", "--bootstrap", 40)),
        ("--confirm was given with --find", ("--find", "", "--confirm", "split=test")),
    ],
)  # fmt: skip
def test_what_cannot_be_found(original: str, tmp_path: Path, message: str, more: tuple[object, ...]) -> None:
    refused(message, "neurons", original, *ASK, *more, "-o", tmp_path / "n.csv", watched=tmp_path)


def test_published_tables_have_no_clips_to_find_by(original: str, tmp_path: Path) -> None:
    done("table", "probability", original, "--task", "t:kind", "-o", tmp_path / "p.csv")
    refused(
        "probabilities made elsewhere, which have no clips; expected a store that was extracted here",
        "neurons", tmp_path / "p.csv", "--task", "p", "--find", "rate<1", watched=tmp_path,
    )  # fmt: skip
