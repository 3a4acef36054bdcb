"""Tables row by row against the arrays they come from, and what is written against what is read back."""

import numpy as np
import pandas as pd
import pytest

from otoscope.analysis import aape, class_specific, common_neuron_ratio, tables


def test_one_row_per_category_layer_and_neuron(p):
    selection = class_specific(p, percentile=10)
    found, entropy = selection["member"], aape(p)
    table = tables.neurons_table(selection)
    assert list(table.columns) == ["category", "layer", "site", "neuron", "probability", "aape"]
    assert len(table) == int(found.sum())
    assert not table.duplicated(["category", "layer", "neuron"]).any()
    for row in table.itertuples():
        cell = {"layer": row.layer, "neuron": row.neuron}
        assert bool(found.sel(**cell, category=row.category))
        assert row.probability == float(p.sel(**cell, category=row.category))
        assert row.aape == float(entropy.sel(**cell))
        assert row.site == "xy"[row.layer]


def test_statistics_with_an_average_per_store(p):
    selections = {
        ("ssl", "notes:octave"): class_specific(p, percentile=10),
        ("ssl", "events:kind"): class_specific(p**2, percentile=5),
        ("sl", "notes:octave"): class_specific(p.isel(category=[0, 1]), percentile=10, rule="paper"),
    }
    table = tables.stats_table(selections)
    assert table["task"].tolist() == ["notes:octave", "events:kind", "notes:octave", "average"]
    for row, found in zip(table.itertuples(), selections.values(), strict=False):
        member = found["member"].values
        assert row.neurons_per_category == member.sum() / member.shape[2]
        assert row.coverage_ratio == np.mean([member[..., c].any() for c in range(member.shape[2])])
        assert row.selected == int(found["selected"].sum())
        assert row.activity_threshold == float(found["activity_threshold"])
    average = table.iloc[3]
    assert average["store"] == "ssl"
    assert average["neurons_per_category"] == table["neurons_per_category"][:2].mean()
    lines = tables.thresholds_table(selections)
    assert len(lines) == 3
    assert lines["rule"].tolist() == ["lape", "lape", "paper"]


def test_squares_and_cubes(p):
    ratio = common_neuron_ratio(class_specific(p, percentile=10)["member"])
    square = tables.overlap_table(ratio)
    assert square["category"].tolist() == ["7", "a|b", "日本"]
    np.testing.assert_array_equal(square[["7", "a|b", "日本"]].to_numpy(), ratio)
    wide = tables.probability_table(p)
    assert wide.shape == (120, 5)
    np.testing.assert_array_equal(wide.iloc[61, 2:].to_numpy(float), p[1, 1])
    entropy = tables.aape_table(aape(p))
    assert entropy.iloc[61].tolist() == [1, 1, float(aape(p)[1, 1])]


def test_what_is_written_can_be_read(p, tmp_path):
    table = tables.neurons_table(class_specific(p, percentile=10))
    tables.write_table(table, tmp_path / "t.csv")
    tables.write_table(table, str(tmp_path / "t.PARQUET"))
    read = pd.read_csv(tmp_path / "t.csv", dtype={"category": str})
    pd.testing.assert_frame_equal(read, table, check_dtype=False, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.PARQUET"), table, check_dtype=False, check_exact=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.PARQUET", "t.csv"]


def test_names_survive_markdown_and_latex(tmp_path):
    table = pd.DataFrame(
        {"category": ["007", "1e5", "a|b", "50%_x"], "n": [1, 2, 3, 4], "ratio": [1 / 3, 0.5, np.nan, 2]}
    )
    tables.write_table(table, tmp_path / "t.md")
    tables.write_table(table, tmp_path / "t.tex")
    markdown = (tmp_path / "t.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines()]
    assert rows[2:] == [["007", "1", "0.3333"], ["1e5", "2", "0.5"], [r"a\|b", "3", ""], ["50%_x", "4", "2"]]
    latex = (tmp_path / "t.tex").read_text()
    assert r"50\%\_x" in latex
    assert r"\toprule" in latex
    tables.write_table(table.iloc[:2], tmp_path / "t.md")
    assert "| 007 " in (tmp_path / "t.md").read_text()
    tables.write_table(table.iloc[:0], tmp_path / "empty.md")


def test_a_table_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    table = pd.DataFrame({"a": [1]})
    with pytest.raises(ValueError, match=r"'t.xlsx'; expected a name ending in .csv, .parquet, .md, .tex"):
        tables.write_table(table, tmp_path / "t.xlsx")
    with pytest.raises(FileNotFoundError, match=r"no folder .*create it"):
        tables.write_table(table, tmp_path / "absent" / "t.csv")
    (tmp_path / "t.csv").write_text("old")

    def fail_halfway(frame, path):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setitem(tables.WRITERS, ".csv", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        tables.write_table(table, tmp_path / "t.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "old"
