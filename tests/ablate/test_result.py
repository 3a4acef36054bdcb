"""Results as files and tables: everything comes back, and pandas alone can read it."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from otoscope.ablate.effects import clip_scores, compare
from otoscope.ablate.result import check_writable, read_result, result_table, write_result


def made(n_interventions=6, target=None):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20)  # none of the third category
    scores, predicted = clip_scores(rng.normal(size=(n_interventions, 20, 3)), truth, target)
    result = compare(scores, predicted, truth, ["a", "é,b", "c"])
    return result.assign_attrs(request={"set": "shared(a,c)"}, digest="abc")


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("n_interventions", [2, 3, 6])
def test_files_come_back_the_same(tmp_path, n_interventions, target):
    result = made(n_interventions, target)
    write_result(result, tmp_path / "r.parquet")
    back = read_result(tmp_path / "r.parquet")
    xr.testing.assert_identical(back, result)
    write_result(back, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "r.parquet").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_per_clip_is_left_out(tmp_path):
    result = made()
    write_result(result.assign(clip_before=("clip", np.zeros(20))), tmp_path / "r.parquet")
    xr.testing.assert_identical(read_result(tmp_path / "r.parquet"), result)


def test_pandas_reads_it(tmp_path):
    result = made()
    write_result(result, tmp_path / "r.parquet")
    frame = pd.read_parquet(tmp_path / "r.parquet")
    assert len(frame) == 3 * 3 + 3
    row = frame[(frame["measure"] == "margin") & (frame["category"] == "é,b")].iloc[0]
    assert row["change"] == float(result["change"].sel(measure="margin", category="é,b"))
    assert (
        row["control_change"].tolist() == result["control_change"].sel(measure="margin", category="é,b").values.tolist()
    )
    assert frame["overall"].sum() == 3
    assert frame[frame["category"] == "c"]["change"].isna().all()


def test_the_table_is_short():
    result = made()
    table = result_table(result)
    assert list(table["category"]) == ["a", "é,b", "c"] * 3 + [""] * 3
    row = table[(table["measure"] == "log_loss") & (table["category"] == "a")].iloc[0]
    cell = result.sel(measure="log_loss", category="a")
    assert row["control_max"] == float(cell["control_change"].max())
    assert row["control_mean"] == pytest.approx(float(cell["control_change"].mean()))
    assert row["p_rank"] == float(cell["p_rank"])
    assert row["n_clips"] == int(cell["n_clips"])
    overall = table[table["overall"] & (table["measure"] == "margin")].iloc[0]
    assert overall["change"] == float(result["overall_change"].sel(measure="margin"))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the result of `otoscope ablate run`"):
        read_result(tmp_path / "r.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=r"r\.parquet is not a valid result of an ablation"):
        read_result(tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_text("x")
    with pytest.raises(ValueError, match=r"r\.parquet is not a valid result of an ablation"):
        read_result(tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=r"expected a name ending in \.parquet"):
        write_result(made(), tmp_path / "r.csv")
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_result(made(), tmp_path / "no" / "r.parquet")


def test_targets_that_take_no_file_are_refused_before_a_run(tmp_path):
    check_writable(tmp_path / "r.parquet")
    check_writable(tmp_path / "r.csv", (".csv",))
    assert not list(tmp_path.iterdir())
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(IsADirectoryError, match=r"d\.parquet is a folder; expected the name of a file"):
        check_writable(tmp_path / "d.parquet")
    with pytest.raises(OSError, match=r"cannot write in .* expected a folder that takes"):
        check_writable(tmp_path / f"{'x' * 240}.parquet")  # the partial file's name is too long
