"""The quickstart: what it writes, that it can be run again, and that its structure comes from the labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import otoscope
from otoscope.analysis.overlap import common_neuron_ratio
from otoscope.analysis.selection.labellings import labellings, notes_on, select_neurons
from otoscope.analysis.selection.selection import Selection
from otoscope.quickstart import PUBLISHED, near_and_far, run

SMALL = {"notes_per_octave": 15, "events_per_category": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("quickstart") / "out"
    assert run(directory, **SMALL) == directory / "summary.md"
    return directory


def outputs(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_it_writes_stores_tables_figures_and_a_summary(made: Path) -> None:
    stats = pd.read_csv(made / "tables" / "stats.csv")
    assert set(stats["store"]) == {"tiny-ssl", "tiny-sl"}
    assert set(stats["task"]) == {
        "additive:octave",
        "additive:timbre",
        "fm:octave",
        "fm:timbre",
        "events:event",
        "average",
    }
    one = stats[stats["task"] == "fm:octave"].set_index("store")
    members = pd.read_parquet(made / "tables" / "neurons-tiny-sl-fm-octave.parquet")
    assert len(members) == round(9 * one.loc["tiny-sl", "neurons_per_category"])
    assert members["category"].nunique() == round(9 * one.loc["tiny-sl", "coverage_ratio"])
    assert len(list((made / "figures").glob("*.png"))) == 7
    summary = (made / "summary.md").read_text()
    assert f"{float(one.loc['tiny-ssl', 'neurons_per_category']):.4g}" in summary
    tree = {name: otoscope.open(str(made / f"{name}.zarr")) for name in ("tiny-ssl", "tiny-sl")}
    notes = notes_on(select_neurons(x, PUBLISHED) for x in labellings(tree))
    assert [line for line in summary.splitlines() if "selected neurons (" in line] == [f"- {note}" for note in notes]
    assert f"{float(one.loc['tiny-sl', 'aape_share_selected']):.4g}" in summary
    for figure in made.joinpath("figures").glob("within-additive-octave.png"):
        assert f"figures/{figure.name}" in summary


def test_run_again_it_changes_nothing_and_completes_what_is_missing(made: Path) -> None:
    before = outputs(made)
    (made / "tables" / "stats.csv").unlink()
    next((made / "tiny-sl.zarr" / "fm" / "status" / "c").iterdir()).unlink()
    run(made, **SMALL)
    assert outputs(made) == before


def test_another_folder_or_other_settings_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a quickstart with .*choose another folder"):
        run(made, seed=1, **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; expected a new folder"):
        run(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_near_and_far_by_plain_loops() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((9, 9))
    values[0, 1] = np.nan
    octaves = [str(i) for i in range(9)]
    ratio = xr.DataArray(
        values, dims=("category", "other_category"), coords={"category": octaves, "other_category": octaves}
    )
    near = [values[i, j] for i in range(9) for j in range(9) if abs(i - j) <= 1 and not np.isnan(values[i, j])]
    far = [values[i, j] for i in range(9) for j in range(9) if abs(i - j) >= 3]
    np.testing.assert_allclose(near_and_far(ratio), (np.mean(near), np.mean(far)))
    symmetric = (values + values.T) / 2
    near = [symmetric[i, j] for i in range(9) for j in range(9) if abs(i - j) == 1 and not np.isnan(symmetric[i, j])]
    assert near_and_far(ratio.copy(data=symmetric))[0] == pytest.approx(np.mean(near))


def octaves(directory: Path) -> list[tuple[float, float]]:
    """(near, far) for both encoders: within additive, within FM, and across the two."""
    found = []
    for name in ("tiny-ssl", "tiny-sl"):
        tree = {name: otoscope.open(str(directory / f"{name}.zarr"))}
        wanted = ["additive:octave", "fm:octave"]
        member = [select_neurons(x, Selection()).selection["member"] for x in labellings(tree, wanted)]
        found += [near_and_far(common_neuron_ratio(*sets)) for sets in (member[:1], member[1:], member)]
    return found


@pytest.mark.slow
def test_shuffled_labels_lose_the_overlap_structure(tmp_path: Path) -> None:
    run(tmp_path / "real")
    run(tmp_path / "shuffled", shuffle_labels=True)
    real = np.array(octaves(tmp_path / "real"))
    shuffled = np.array(octaves(tmp_path / "shuffled"))
    assert (real[:, 0] > real[:, 1]).all()
    lost = np.abs(np.nan_to_num(shuffled[:, 0] - shuffled[:, 1]))
    assert lost.mean() < 0.25 * (real[:, 0] - real[:, 1]).mean(), (real, shuffled)
