"""The script that draws the paper's figures from made-up stores draws all of them."""

from pathlib import Path

import pandas as pd
import pytest
from benchmarks import paper_figures

from otoscope.analysis.published.paper import ROWS


def test_made_up_stores_have_the_paper_s_classes_and_sizes() -> None:
    tasks = paper_figures.tasks(1.0)
    sizes = {task: len(next(iter(labels.values()))) for task, labels in tasks.items()}
    assert abs(sizes.pop("gise51") - 16_357) < 51
    assert sizes == {
        "esc50": 2000, "surge": 44_000, "nsynth": 22_000, "voxforge": 30_000, "voxceleb1": 1500, "cremad": 7442,
        "gtzan": 1000,
    }  # fmt: skip
    classes = {f"{task}:{name}": len(set(of)) for task, labels in tasks.items() for name, of in labels.items()}
    assert [classes[row] for row in ROWS] == [6, 50, 51, 10, 11, 88, 70, 6]
    assert (classes["surge:octave"], classes["nsynth:octave"], classes["cremad:gender"]) == (9, 9, 2)


@pytest.mark.slow
def test_every_figure_is_drawn(tmp_path: Path) -> None:
    for name, seed in (("ssl", 0), ("sl", 1)):
        url = str(tmp_path / f"{name}.zarr")
        paper_figures.write(url, each=45, depth=0.6, share=0.01, seed=seed)
    paper_figures.draw(tmp_path)
    for name in (*paper_figures.COMMANDS, "null.png"):
        assert (tmp_path / "figures" / name).stat().st_size > 10_000
    rows = (tmp_path / "figures" / "tables.md").read_text().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [*ROWS, "average"]
    assert len(pd.read_csv(tmp_path / "figures" / "null.csv")) == 50 * 51
