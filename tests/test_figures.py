"""The figures that the documentation states are those that were recorded."""

import json
import re
from pathlib import Path

import pytest
from benchmarks import QUESTIONS
from benchmarks.report import BEGIN, DOCUMENTS, END, figures_table, with_table

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_table_is_that_of_the_recorded_results(name: str) -> None:
    text = (ROOT / name).read_text()
    assert with_table(text, DOCUMENTS[name](), name) == text, "run `python -m benchmarks.report`"


def test_every_recorded_number_stands_in_the_table() -> None:
    """Against the JSON itself, read anew: each figure's row shows its value and whether it keeps its bound."""
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in figures_table().splitlines() if row.startswith("| ")}
    found = 0
    for question in QUESTIONS:
        for figure in json.loads((ROOT / f"benchmarks/results/{question}.json").read_text())["figures"]:
            cells = rows[figure["name"]].split(" | ")
            number = float(re.search(r"[\d.]+(e[+-]\d+)?", cells[1])[0])
            assert number == pytest.approx(figure["value"], rel=0.005)
            kept = figure["value"] >= figure["bound"] if figure["at_least"] else figure["value"] < figure["bound"]
            assert ("missed" in cells[1]) == (not kept)
            found += 1
    assert found == len(rows) - 1  # and the head


def test_a_document_without_its_place_is_refused() -> None:
    for text in ("", BEGIN, END, f"{BEGIN}\n{END}\n{BEGIN}\n{END}"):
        with pytest.raises(ValueError, match=r"README\.md has no single place"):
            with_table(text, "table", "README.md")
