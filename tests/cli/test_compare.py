"""The commands that look closer: exemplars, compare, null, selectors, export and import, on a finished store."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import otoscope

from ..support.commands import call, done, extraction, refused
from ..support.finished_store import Finished
from ..support.wav_corpora import LENGTHS, write_corpus

HOW = ("--percentile", 40)


def test_exemplars_are_the_clips_of_highest_and_lowest_mean(finished: Finished, tmp_path: Path) -> None:
    ds = otoscope.open(finished.url)["t"].ds
    means = ds["mean"].sel(layer=1, neuron=2).values.astype(float)
    order = np.argsort(-means, kind="stable")
    for flags, expected in (((), order[:5]), (("--lowest",), np.argsort(means, kind="stable")[:5])):
        options = ("--task", "t", "--neuron", "1,2", "-k", 5, *flags)
        done("exemplars", finished.url, *options, "-o", tmp_path / "e.csv")
        table = pd.read_csv(tmp_path / "e.csv")
        assert table["clip"].tolist() == [str(ds["clip"].values[i]) for i in expected]
    refused("expected LAYER,NEURON", "exemplars", finished.url, "--task", "t", "--neuron", "one", watched=tmp_path)


def test_a_store_compared_with_itself_differs_in_nothing(finished: Finished, tmp_path: Path) -> None:
    twin = tmp_path / "twin.zarr"
    twin.symlink_to(finished.url)
    done("compare", finished.url, twin, "--task", "t:kind", *HOW, "-o", tmp_path / "c.csv")
    table = pd.read_csv(tmp_path / "c.csv")
    differences = table[[column for column in table.columns if str(column).endswith("difference")]]
    assert differences.shape[1] > 0
    assert (differences.fillna(0) == 0).all(axis=None)
    for by in ("layer", "category", "neuron"):
        stores = (finished.url,) if by == "neuron" else (finished.url, twin)
        done("compare", *stores, "--by", by, "--task", "t:kind", *HOW, "-o", tmp_path / f"{by}.csv")
        assert len(pd.read_csv(tmp_path / f"{by}.csv")) > 0


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores "a" and "b" of one corpus; of the labels, "own" saturates by any reading and "one" is one category."""
    folder = tmp_path_factory.mktemp("uneven")
    columns = {
        "kind": ["abc"[i % 3] for i in range(37)],
        "own": [str(i) for i in range(37)],
        "one": ["x"] * 37,
    }
    manifest = write_corpus(folder, LENGTHS, columns=columns)[0]
    done(*extraction(folder / "a", manifest))
    shutil.copytree(folder / "a", folder / "b")
    return folder


@pytest.mark.slow
def test_what_cannot_be_selected_from_is_left_out_and_said(uneven: Path, tmp_path: Path) -> None:
    a, b, many = uneven / "a", uneven / "b", ("--task", "t", *HOW)
    for question, rows in (
        (("table", "stats", a, *many), ["t:kind"]),
        (("table", "thresholds", a, *many), ["t:kind"]),
        (("table", "paper", a, *many), ["t:kind", "average"]),
        (("compare", a, b, *many), ["t:kind"]),
        (("compare", a, "--by", "neuron", *many), None),
        (("figure", "depth", a, *many), None),
    ):
        output = tmp_path / ("x.svg" if question[0] == "figure" else "x.csv")
        result = call(*question, "-o", output)
        assert result.exit_code == 0, result.stderr
        notes = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
        stores = [name for name in ("a", "b") if uneven / name in question]
        for note, (store, label) in zip(notes, itertools.product(stores, ("one", "own")), strict=True):
            assert f" {store} t:{label}" in note
        assert rows is None or pd.read_csv(output)["task"].tolist() == rows
    saturated = r"a t:own: by the reading 'clip' .*; expected probabilities that differ: use another label column"
    for asked in (
        ("table", "stats", a, "--task", "t:own", *HOW),
        ("compare", a, b, "--task", "t:own", *HOW),
        ("compare", a, b, "--task", "t:own", *HOW, "--by", "layer"),
        ("compare", a, "--task", "t:own", *HOW, "--by", "neuron"),
    ):
        refused(saturated, *asked, watched=tmp_path)


@pytest.mark.parametrize("threshold", ["99", "-99"])
def test_a_threshold_beyond_all_means_is_answered_by_one_among_them(
    uneven: Path, threshold: str, tmp_path: Path
) -> None:
    ask = ("neurons", uneven / "a", "--task", "t:kind", *HOW)
    error = refused("use --threshold", *ask, "--threshold", threshold, watched=tmp_path)
    assert f"the threshold {threshold} " in error
    assert "layers." in done(*ask, "--threshold", error.split()[-1])


def test_tasks_of_two_encoders_share_a_store_and_their_neurons_are_not_matched(
    finished: Finished, tmp_path: Path
) -> None:
    url = str(tmp_path / "two.zarr")
    for task, encoder in (("t", "tiny-ssl"), ("u", "tiny-sl")):
        otoscope.capture(encoder, finished.manifest, url, task=task, threads=1)
    table = pd.read_csv(finished.manifest)
    split = table.assign(split=np.where(np.arange(len(table)) % 2, "train", "test"))[["path", "split"]]
    split.to_csv(tmp_path / "split.csv", index=False)
    done("label", url, tmp_path / "split.csv", "--task", "t")
    how = (*HOW, "--reading", "frame")
    done("table", "stats", url, *how, "-o", tmp_path / "s.csv")
    assert set(pd.read_csv(tmp_path / "s.csv")["task"]) >= {"t:kind", "u:kind"}
    weights = {task: each["identity"]["weights"] for task, each in json.loads(done("info", url))["tasks"].items()}
    assert weights["t"] != weights["u"]
    own = ("--task", "t:kind", *how)
    other, out = ("--against", "u:kind"), ("-o", tmp_path / "x.pdf")
    for question in (
        ("compare", url, "--by", "neuron", *own, "--task", "u:kind"),
        ("figure", "overlap", url, *own, *other, *out),
        ("null", url, *own, *other, "--permutations", 20),
        (
            "ablate", "run", url, *own, "--set", "shared(t:kind:a, u:kind:a)", "--encoder", "tiny-ssl",
            "--corpus", finished.manifest, "-o", tmp_path / "a.parquet",
        ),
    ):  # fmt: skip
        refused("expected tasks of one encoder", *question, watched=tmp_path)


def test_the_null_is_a_row_per_cell_and_a_figure(finished: Finished, tmp_path: Path) -> None:
    options = ("--task", "t:kind", *HOW, "--permutations", 50, "--bootstrap", 39)
    done("null", finished.url, *options, "--figure", tmp_path / "n.png", "-o", tmp_path / "n.csv")
    table = pd.read_csv(tmp_path / "n.csv")
    assert len(table) == 9
    assert table["common_neuron_ratio_p"].dropna().between(1 / 51, 1).all()
    assert (tmp_path / "n.png").stat().st_size > 1000
    done("null", finished.url, *options, "-o", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "n.csv").read_bytes()


def test_selectors_agree_with_themselves(finished: Finished, tmp_path: Path) -> None:
    done("selectors", finished.url, "--task", "t:kind", *HOW, "-o", tmp_path / "s.csv")
    table = pd.read_csv(tmp_path / "s.csv").set_index("selector")
    assert table.pop("probability_margin").isna().all()  # more neurons share the highest one than may be picked
    table = table.drop("probability_margin")
    np.testing.assert_allclose(np.diag(table), 1)
    np.testing.assert_allclose(table, table.T)


def test_exported_files_read_back_to_the_same_selection(finished: Finished, tmp_path: Path) -> None:
    url = str(tmp_path / "tiny.zarr")
    otoscope.capture("tiny-ssl", finished.manifest, url, task="t", threads=1)
    done("export", url, "--task", "t:kind", tmp_path / "out", "--official", "ssl", "--reading", "frame")
    folder = tmp_path / "out" / "t_analysis"
    stored = torch.load(folder / "over_zero.pt", weights_only=True)
    assert sorted(stored.shape) == [3, 4, 384]
    done("import", folder, tmp_path / "p.parquet")
    how = ("--percentile", 5, "-o", tmp_path / "n.csv")
    selections = []
    for source, task in ((url, "t:kind"), (tmp_path / "p.parquet", "p:class")):
        done("neurons", source, "--task", task, *how, *(("--reading", "frame") if source == url else ()))
        table = pd.read_csv(tmp_path / "n.csv")[["category", "layer", "neuron", "probability", "aape"]]
        # The order is that of the lift over the overall rate, which without counts is another one.
        selections.append(table.sort_values(["category", "layer", "neuron"], ignore_index=True))
    assert len(selections[0]) > 10
    pd.testing.assert_frame_equal(*selections)


def test_a_cube_with_holes_is_not_exported(finished: Finished, tmp_path: Path) -> None:
    refused("unequal width", "export", finished.url, "--task", "t:kind", tmp_path / "out", watched=tmp_path)


@pytest.mark.parametrize("command", ["exemplars", "compare", "null", "selectors", "export", "import"])
def test_what_is_not_there_is_said_in_one_line(command: str, tmp_path: Path) -> None:
    task = () if command in ("compare", "import") else ("--task", "t")
    more = {"exemplars": ("--neuron", "0,0"), "export": (tmp_path / "d",), "import": (tmp_path / "x.csv",)}
    refused("no |expected", command, tmp_path / "none", *more.get(command, ()), *task, watched=tmp_path)
