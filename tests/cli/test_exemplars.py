"""Exemplars with the way to their audio, and the clips themselves."""

import re
import shutil
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ..support.commands import call, done, extraction, refused
from ..support.finished_store import Finished
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_wav_file

NEURONS = ("--neuron", "1,2", "--neuron", "0,7", "-k", 4)


def asked(finished: Finished, *more: object) -> tuple[object, ...]:
    return ("exemplars", finished.url, "--task", "t", *NEURONS, *more)


@pytest.mark.parametrize("root", ["", "/", "s3://bucket/audio", "s3://bucket/"])
def test_whole_paths(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.chdir(tmp_path)
    done(*asked(finished, "-o", tmp_path / "plain.csv"))
    done(*asked(finished, "--audio-root", root or "here/", "-o", tmp_path / "whole.csv"))
    plain, whole = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("plain", "whole"))
    before = {"": f"{tmp_path}/here", "/": ""}.get(root, root.rstrip("/"))
    assert whole["path"].tolist() == [f"{before}/{path}" for path in plain["path"]]
    pd.testing.assert_frame_equal(whole.drop(columns="path"), plain.drop(columns="path"))


def test_copies_are_the_clips_and_sort_as_the_table_does(finished: Finished, tmp_path: Path) -> None:
    audio = finished.manifest.parent
    shown = done(*asked(finished, "-k", 11, "--audio-root", audio, "--copy", tmp_path / "copies"))
    done(*asked(finished, "-k", 11, "-o", tmp_path / "t.csv"))
    table = pd.read_csv(tmp_path / "t.csv").sort_values(["layer", "neuron", "rank"])
    copies = tree_of(tmp_path / "copies")
    assert list(copies) == sorted(copies)
    want = [f"{row.layer}-{row.neuron}-{row.rank:02d}_{Path(row.path).name}" for row in table.itertuples()]
    assert sorted(copies) == want
    assert [copies[name] for name in want] == [(audio / path).read_bytes() for path in table["path"]]
    assert str(audio / table["path"].iloc[0]) in shown


def test_a_part_of_a_file_is_copied_alone(tmp_path: Path) -> None:
    samples = np.arange(-300, 300, dtype="<i2")
    write_wav_file(tmp_path / "a.wav", samples, 1000)
    (tmp_path / "m.csv").write_text("path,start,stop,kind\na.wav,0,0.1,x\na.wav,0.1,0.25,y\na.wav,0.25,,x\n")
    done(*extraction(tmp_path / "s", tmp_path / "m.csv"))
    given = ("--neuron", "0,0", "--audio-root", tmp_path, "--copy", tmp_path / "copies", "-o", tmp_path / "t.csv")
    done("exemplars", tmp_path / "s", "--task", "t", *given)
    for row in pd.read_csv(tmp_path / "t.csv").itertuples():
        with wave.open(str(tmp_path / f"copies/0-0-{row.rank}_a.wav")) as file:
            part = np.frombuffer(file.readframes(1000), "<i2")
        stop = 600 if np.isnan(row.stop) else round(row.stop * 1000)
        np.testing.assert_array_equal(part, samples[round(row.start * 1000) : stop])


def test_a_missing_file_is_named_and_the_others_are_copied(finished: Finished, tmp_path: Path) -> None:
    audio = finished.manifest.parent
    done(*asked(finished, "-o", tmp_path / "t.csv"))
    path = pd.read_csv(tmp_path / "t.csv")["path"]
    for name in set(path) - {path[0]}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((audio / name).read_bytes())
    result = call(*asked(finished, "--audio-root", tmp_path, "--copy", tmp_path / "copies"))
    missing = int((path == path[0]).sum())
    assert result.exit_code == 2
    assert result.stdout.startswith("|")
    assert re.search(rf"failed: {path[0]}: .*\n", result.stderr)
    assert f"Error: {missing} of 8 clips could not be copied, the first '{path[0]}'" in result.stderr
    assert len(tree_of(tmp_path / "copies")) == 8 - missing


def test_copies_need_a_root_and_an_empty_folder(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    refused("--copy .* without --audio-root; expected", *asked(finished, "--copy", tmp_path / "new"), watched=tmp_path)
    root = ("--audio-root", finished.manifest.parent)
    refused("full is not empty; expected", *asked(finished, *root, "--copy", tmp_path / "full"), watched=tmp_path)
    file = tmp_path / "full/mine.txt"
    refused("mine.txt is a file; expected", *asked(finished, *root, "--copy", file), watched=tmp_path)


def test_label_columns_may_be_called_as_the_columns_of_the_table(finished: Finished, tmp_path: Path) -> None:
    url, manifest = tmp_path / "store", pd.read_csv(finished.manifest)
    shutil.copytree(finished.url, url)
    labels = pd.DataFrame({"path": manifest["path"], "rank": "first", "name": "somebody"})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    done("label", url, tmp_path / "labels.csv", "--task", "t")
    given = ("--audio-root", finished.manifest.parent, "--copy", tmp_path / "copies", "-o", tmp_path / "t.csv")
    done("exemplars", url, "--task", "t", *NEURONS, *given)
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["rank"].tolist() == [1, 2, 3, 4] * 2
    assert set(table["label rank"]) == {"first"}
    assert set(table["name"]) == {"somebody"}
    assert len(tree_of(tmp_path / "copies")) == len(table)
