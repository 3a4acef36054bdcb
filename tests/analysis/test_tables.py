"""Tables row by row against the arrays they come from, and what is written against what is read back."""

import numpy as np
import pandas as pd
import pytest

from otoscope.analysis import aape, class_specific, common_neuron_ratio, tables


def test_one_row_per_category_layer_and_neuron(p):
    selection = class_specific(p.assign_coords(n_clips=("category", [5, 30, 10])), percentile=10)
    found, entropy = selection["member"], aape(p)
    table = tables.neurons_table(selection)
    assert list(table.columns) == [
        "category", "layer", "site", "neuron", "probability", "next_highest", "lowest", "lift", "aape", "aape_share",
        "n_categories",
    ]  # fmt: skip
    assert len(table) == int(found.sum())
    assert not table.duplicated(["category", "layer", "neuron"]).any()
    for row in table.itertuples():
        cell = {"layer": row.layer, "neuron": row.neuron}
        assert bool(found.sel(**cell, category=row.category))
        assert row.probability == float(p.sel(**cell, category=row.category))
        assert row.aape == float(entropy.sel(**cell))
        assert row.site == "xy"[row.layer]
        values, own = p.sel(**cell).values, p["category"].values.tolist().index(row.category)
        assert row.next_highest == np.delete(values, own).max()
        assert row.lowest == values.min()
        np.testing.assert_allclose(row.lift, values[own] / (values @ [5, 30, 10] / 45))
        np.testing.assert_allclose(row.aape_share, row.aape / np.log(3))
        assert row.n_categories == int(found.sel(**cell).sum())


def test_the_largest_effect_is_first_and_ties_are_in_order(p):
    """Lift, over the mean of categories where nobody counted; AUC where the selection has it."""
    selection = class_specific(p, percentile=40)
    lift = tables.neurons_table(selection)["lift"]
    assert (lift.diff().dropna() <= 0).all()
    of_neuron = p.where(selection["selected"]) / p.mean("category")
    np.testing.assert_allclose(np.sort(lift), np.sort(of_neuron.values[selection["member"].values]))
    auc = selection["probability"].round(1).rename("auc")
    table = tables.neurons_table(selection.assign(auc=auc))
    assert list(table.columns[4:6]) == ["auc", "probability"]
    np.testing.assert_array_equal(table["auc"], table["probability"].round(1))
    assert table["auc"].nunique() < len(table) / 2
    order = table.assign(auc=-table["auc"], category=table["category"].map(["7", "a|b", "日本"].index))
    keys = ["auc", "category", "layer", "neuron"]
    pd.testing.assert_frame_equal(order, order.sort_values(keys, ignore_index=True))


@pytest.mark.parametrize("n_categories", [1, 2, 3])
def test_the_highest_of_the_other_categories_by_plain_loops(p, n_categories):
    cube = p.isel(category=slice(n_categories)).round(1)  # with ties
    cube = cube.where(cube["neuron"] < 50).where((cube["category"] != "7") | (cube["neuron"] > 9))
    found = tables._highest_of_others(cube).transpose(*cube.dims).values
    for at, value in np.ndenumerate(found):
        others = np.delete(cube.values[at[:2]], at[2])
        known = others[~np.isnan(others)]
        np.testing.assert_equal(value, known.max() if known.size else np.nan)


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
        share = aape(found["probability"], normalised=True).values
        assert row.aape_share_all == np.median(share)
        assert row.aape_share_selected == np.median(share[found["selected"].values])
        own = member.sum(axis=2)
        assert row.categories_per_neuron == own[own > 0].mean()
        assert row.activity_threshold == float(found["activity_threshold"])
    average = table.iloc[3]
    assert average["store"] == "ssl"
    assert average["aape_share_selected"] == table["aape_share_selected"][:2].mean()
    assert average["neurons_per_category"] == table["neurons_per_category"][:2].mean()
    lines = tables.thresholds_table(selections)
    assert len(lines) == 3
    assert lines["rule"].tolist() == ["lape", "lape", "paper"]


def test_statistics_of_no_neuron_at_all_are_empty(p):
    selection = class_specific(p.where(p > 2, 0.0), percentile=10)
    row = tables.stats_table({("s", "t:x"): selection}).iloc[0]
    assert row[["categories_per_neuron", "aape_share_selected", "aape_share_all"]].isna().all()
    assert len(tables.neurons_table(selection)) == 0


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
