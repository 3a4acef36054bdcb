"""Text in CSV: never a formula to a spreadsheet, and the same text again to us."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from otoscope.analysis.published.given import read_probability
from otoscope.analysis.spreadsheet import defused, undefused
from otoscope.analysis.tables import probability_table, write_table

TEXTS = st.text(st.sampled_from("=+-@'\t\r\n＝1.e a"), max_size=6)
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")
FORMULAS = ['=HYPERLINK("x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "-", "--1", "-1x"]


@given(TEXTS)
def test_no_cell_begins_a_formula_and_each_is_text_again(text: str) -> None:
    cell = defused(text)
    assert cell[:1] not in {*"=+-@\t\r\n＝"} or NUMBER.fullmatch(cell)
    assert undefused(cell) == text


@pytest.mark.parametrize("text", ["-1", "+2.5", "-1e-5", "a=1", "", "dog", "007", "'", "'a", "x@y"])
def test_what_is_no_formula_stays(text: str) -> None:
    assert defused(text) == text


def test_a_table_is_defused_in_its_cells_and_its_header(tmp_path: Path) -> None:
    frame = pd.DataFrame({"category": FORMULAS, "=aape": np.linspace(-1, 1, len(FORMULAS)), "n": -1})
    write_table(frame, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["category", "'=aape", "n"]
    assert [row[0] for row in rows] == [f"'{text}" for text in FORMULAS]
    assert [float(row[1]) for row in rows] == frame["=aape"].tolist()  # numbers as they are
    write_table(frame, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_categories_come_back_from_a_table_of_probabilities(tmp_path: Path, ending: str) -> None:
    names = [text for text in (*FORMULAS, "'=1", "-1", "dog") if text.isprintable()]
    p = xr.DataArray(
        np.random.default_rng(0).random((2, 3, len(names))), dims=("layer", "neuron", "category"),
        coords={"layer": [0, 1], "neuron": [0, 1, 2], "category": names},
    )  # fmt: skip
    write_table(probability_table(p), tmp_path / f"t{ending}")
    back = read_probability(tmp_path / f"t{ending}")
    assert back["category"].values.tolist() == names
    np.testing.assert_array_equal(back.values, p.values)
