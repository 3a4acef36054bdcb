"""Thresholds of the neuron's own by command: by name, and from a file that says whose they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import otoscope
import otoscope.analysis.accessor

from ..support.commands import CLOSED_FORM, done, refused
from ..support.finished_store import Finished

HOW = ("--task", "t:kind", "--percentile", 40)


@pytest.mark.parametrize("how", ["q80", *(pytest.param(how, marks=pytest.mark.slow) for how in ("median", "z0.5"))])
def test_a_file_gives_what_the_name_gives(original: str, tmp_path: Path, how: str) -> None:
    lines = otoscope.open(original)["t"].to_dataset().otoscope.neuron_thresholds("kind", threshold=how)
    named = done("table", "probability", original, *HOW, "--threshold", how)
    assert named != done("table", "probability", original, *HOW, "--threshold", "0")
    for ending in ("csv", "parquet"):
        file = tmp_path / f"t.{ending}"
        done("table", "neuron-thresholds", original, *HOW, "--threshold", how, "-o", file)
        table = pd.read_csv(file) if ending == "csv" else pd.read_parquet(file)
        assert table.columns.tolist() == ["layer", "neuron", "threshold", "encoder"]
        np.testing.assert_array_equal(table["threshold"], lines.values[lines.notnull().values])
        assert done("table", "probability", original, *HOW, "--threshold", file) == named
        for more in (("null", "--permutations", 20), ("selectors",), ("table", "overlap")):
            ask = (*more[:1], original, *HOW, *more[1:]) if more[0] != "table" else (*more, original, *HOW)
            assert done(*ask, "--threshold", file) == done(*ask, "--threshold", how)


def written(original: str, path: Path) -> pd.DataFrame:
    done("table", "neuron-thresholds", original, *HOW, "--threshold", "q80", "-o", path)
    return pd.read_csv(path, dtype={"encoder": str})


CHANGES = {
    "no threshold for 1 neurons of task t, the first in layer 0, neuron 3": lambda t: t.drop(index=3),
    "no threshold for 5 neurons of task t": lambda t: t.iloc[:-5],
    "several rows for one neuron": lambda t: pd.concat([t, t.iloc[:1]]),
    "no threshold for layer 0, neuron 2": lambda t: t.assign(threshold=t["threshold"].where(t.index != 2)),
    "has a threshold that is not a number": lambda t: t.assign(threshold="high"),
    "has no column 'threshold'": lambda t: t.rename(columns={"threshold": "line"}),
    "has no column 'encoder'": lambda t: t.drop(columns="encoder"),
    "has a neuron that is not a whole number": lambda t: t.assign(neuron=t["neuron"] + 0.5),
    "has a layer that is not a whole number": lambda t: t.assign(layer=-1),
    "it is of 2 encoders": lambda t: t.assign(encoder=np.where(t.index == 0, "0", t["encoder"])),
    "of another encoder than task t is of, with other weights, sites, frames or precision": lambda t: t.assign(
        encoder="0" * 16
    ),
    "expected up to .* neurons": lambda t: t.assign(layer=t.index * 10**6, neuron=t.index * 10**6),
    "it has no row": lambda t: t.iloc[:0],
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_does_not_fit_is_refused_in_one_line(original: str, tmp_path: Path, message: str) -> None:
    for ending in ("csv", "parquet"):
        file = tmp_path / f"t.{ending}"
        table = CHANGES[message](written(original, tmp_path / "t.csv"))
        table.to_csv(file, index=False) if ending == "csv" else table.to_parquet(file, index=False)
        refused(message, "neurons", original, *HOW, "--threshold", file, watched=tmp_path)


def test_what_is_no_file_of_thresholds(original: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bytes.parquet").write_bytes(b"PAR1" + bytes(99))
    (tmp_path / "text.txt").touch()
    for name, message in (
        ("d.csv", "is not a regular file; expected a table of thresholds"),
        ("absent.parquet", "does not exist; expected a table of thresholds: `otoscope table neuron-thresholds"),
        ("empty.csv", "holds no thresholds"),
        ("bytes.parquet", "holds no thresholds"),
        ("text.txt", "expected a number, .* in a .csv or .parquet FILE"),
    ):
        refused(message, "neurons", original, *HOW, "--threshold", tmp_path / name, watched=tmp_path)
    for name, message in (
        ("q101", "expected a percentile from q0 to q100"),
        ("q-1", "expected a percentile from q0 to q100"),
        ("zz", "expected a number"),
        ("nan", "expected a number"),
    ):
        refused(message, "neurons", original, *HOW, "--threshold", name, watched=tmp_path)
    for how in ((), ("--threshold", "0.5")):
        refused(
            "expected one of the neuron's own", "table", "neuron-thresholds", original, *HOW, *how, watched=tmp_path
        )


@pytest.mark.parametrize(("encoder", "frames"), [("tiny-sl", "audio"), (CLOSED_FORM, "last")])
def test_a_file_of_another_store(finished: Finished, original: str, tmp_path: Path, encoder: str, frames: str) -> None:
    other = str(tmp_path / "other.zarr")
    otoscope.capture(encoder, finished.manifest, other, task="t", threads=1, frames=frames)
    file = tmp_path / "t.csv"
    done("table", "neuron-thresholds", other, *HOW, "--threshold", "q80", "-o", file)
    refused("t.csv has thresholds of another encoder", "neurons", original, *HOW, "--threshold", file, watched=tmp_path)


def test_an_ablation_takes_names_and_says_what_to_do_with_a_file(original: str, tmp_path: Path) -> None:
    assert "FILE: a" in done("neurons", "--help")
    assert "FILE: a" not in done("ablate", "set", "--help")
    file = tmp_path / "t.csv"
    written(original, file)
    for how in ("q80", "median", "z0.5"):
        sets = done(
            "ablate",
            "set",
            original,
            *HOW[:2],
            "--set",
            "all(a)",
            "--percentile",
            40,
            "--clips",
            "all",
            "--threshold",
            how,
        )
        chosen = pd.read_csv(file)  # there is one
        assert len(chosen)
        assert "layer" in sets
    ask = ("ablate", "set", original, *HOW[:2], "--set", "all(a)", "--threshold", file)
    refused(
        "or select with `otoscope neurons --threshold FILE -o set.csv` and name the set @set.csv",
        *ask,
        watched=tmp_path,
    )
    done("neurons", original, *HOW, "--threshold", file, "-o", tmp_path / "set.csv")
    done("ablate", "set", original, *HOW[:2], "--set", f"@{tmp_path / 'set.csv'}")
