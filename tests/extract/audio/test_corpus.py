"""The manifest: what the standard library reads from the same file is what the corpus must hold."""

import cProfile
import csv
import io
import pickle
import pstats
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.extract.audio.audio_root import Bucket, Folder
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.manifest import corpus_of, read_labels, read_manifest
from otoscope.messages import CONTROL


def manifest(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_labels_are_verbatim(tmp_path):
    odd = ["NA", "null", "01", "1.0", "a,b", "Ärger 日本", ' "quoted" ', "True", "nan", "", " x ", "1e5"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "label", "split", "fold"])
    writer.writerows([f"{i}.wav", label, "train", i % 3] for i, label in enumerate(odd))
    for bom, ends in [("", "\r\n"), ("\ufeff", "\n")]:
        corpus = read_manifest(manifest(tmp_path, bom + text.getvalue().replace("\r\n", ends)))
        assert corpus.labels["label"].tolist() == odd
        assert corpus.labels.columns.tolist() == ["label", "split", "fold"]
        assert corpus.labels["fold"].tolist() == [str(i % 3) for i in range(len(odd))]
        assert len(corpus) == len(odd)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=8).filter(
    lambda text: not CONTROL.search(text)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=20), st.sampled_from([",", "\t"]))
def test_any_text_survives_csv_and_parquet(tmp_path_factory, rows, separator):
    """But blanks alone, which are no label."""
    folder = tmp_path_factory.mktemp("any")
    if not any(a.strip() for a, _ in rows) or not any(b.strip() for _, b in rows):
        rows = [*rows, ("x", "y")]
    path = folder / ("m.csv" if separator == "," else "m.tsv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["path", "a", "b"])
        writer.writerows([f"{i}.wav", *row] for i, row in enumerate(rows))
    columns = {
        "path": [f"{i}.wav" for i in range(len(rows))],
        "a": [r[0] for r in rows],
        "b": [r[1] for r in rows],
    }
    pq.write_table(pa.table(columns), folder / "m.parquet")
    for file in (path, folder / "m.parquet"):
        labels = read_manifest(file).labels
        assert list(zip(labels["a"], labels["b"], strict=True)) == [
            (a * bool(a.strip()), b * bool(b.strip())) for a, b in rows
        ]


def test_parquet_values_become_the_text_that_csv_would_hold(tmp_path):
    columns = {
        "path": pa.array(["a.wav", "b.wav", "c.wav"]),
        "integer": pa.array([1, None, -3]),
        "real": pa.array([1.0, 0.1, float("nan")]),
        "single": pa.array([0.1, 2.0, None], pa.float32()),
        "large": pa.array([3e15, 1e300, -0.0]),
        "yes": pa.array([True, False, None]),
        "kind": pa.array(["dog", None, "cat"]).dictionary_encode(),
        "yes_kind": pa.array([True, None, False]).dictionary_encode(),
        "number_kind": pa.array([7, 8, 7]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    labels = read_manifest(tmp_path / "m.parquet").labels
    assert labels["integer"].tolist() == ["1", "", "-3"]
    assert labels["real"].tolist() == ["1", "0.1", ""]
    assert labels["single"].tolist() == ["0.1", "2", ""]
    assert labels["large"].tolist() == ["3000000000000000", "1e+300", "0"]
    assert labels["yes"].tolist() == ["True", "False", ""]
    assert labels["kind"].tolist() == ["dog", "", "cat"]
    assert labels["yes_kind"].tolist() == ["True", "", "False"]
    assert labels["number_kind"].tolist() == ["7", "8", "7"]


def test_names_and_parts(tmp_path):
    parts = "a.wav,,,x\nb/a.wav,0.50,1.0,x\nb/a.wav,1,2.25,y\nc.wav,,3,x\nd.wav,2.5,,x\ne.wav,0,,x\n"
    corpus = read_manifest(manifest(tmp_path, f"file_name,start,stop,label\n{parts}"))
    assert corpus.clips.table["name"].tolist() == [
        "a.wav", "b/a.wav#0.5-1", "b/a.wav#1-2.25", "c.wav#0-3", "d.wav#2.5-", "e.wav",
    ]  # fmt: skip
    assert corpus.clips.clip(2) == Clip(name="b/a.wav#1-2.25", path="b/a.wav", start=1.0, stop=2.25)
    assert corpus.clips.clip(4) == Clip(name="d.wav#2.5-", path="d.wav", start=2.5)
    assert corpus.clips.clip(5) == Clip(name="e.wav", path="e.wav")
    assert corpus.clips.root == Folder(tmp_path)
    assert corpus.unit_sec is None
    assert corpus.labels.columns.tolist() == ["label"]
    again = pickle.loads(pickle.dumps(corpus))
    pd.testing.assert_frame_equal(again.clips.table, corpus.clips.table)


def test_ids_name_the_clips_and_unit_sec_is_recorded(tmp_path):
    text = "id,path,unit_sec\none,a.wav,2.50\ntwo,a.wav,2.5\n"
    corpus = read_manifest(manifest(tmp_path, text))
    assert corpus.clips.table["name"].tolist() == ["one", "two"]
    assert corpus.unit_sec == 2.5
    assert corpus.labels.shape == (2, 0)
    assert read_manifest(manifest(tmp_path, "path,unit_sec\na.wav,\n")).unit_sec is None


def test_one_file_has_one_name(tmp_path):
    text = "path\n./a.wav\nb//c.wav\nb/./d.wav\n../e.wav\n.hidden/f.wav\n"
    names = read_manifest(manifest(tmp_path, text)).clips.table["name"].tolist()
    assert names == ["a.wav", "b/c.wav", "b/d.wav", "../e.wav", ".hidden/f.wav"]
    with pytest.raises(ValueError, match=r"'a\.wav' is in rows 2, 3 \(1 repeats in all\)"):
        read_manifest(manifest(tmp_path, "path\n./a.wav\na.wav\n"))


def test_where_absolute_paths_lead(tmp_path):
    audio = tmp_path / "audio"
    text = f"path\n{audio}/x/a.wav\n{audio}/y/b.wav\n"
    inside = read_manifest(manifest(tmp_path, text))
    assert (inside.clips.root, inside.clips.table["path"].tolist()) == (
        Folder(tmp_path),
        ["audio/x/a.wav", "audio/y/b.wav"],
    )
    given_root = read_manifest(manifest(tmp_path, text), audio_root=audio)
    assert (given_root.clips.root, given_root.clips.table["path"].tolist()) == (Folder(audio), ["x/a.wav", "y/b.wav"])
    (tmp_path / "lists").mkdir()
    elsewhere = read_manifest(manifest(tmp_path / "lists", text))
    assert (elsewhere.clips.root, elsewhere.clips.table["path"].tolist()) == (Folder(audio), ["x/a.wav", "y/b.wav"])
    mixed = manifest(tmp_path / "lists", f"path\nc.wav\n{audio}/x/a.wav\n")
    with pytest.raises(ValueError, match="row 3 is not under the audio root"):
        read_manifest(mixed)
    with pytest.raises(ValueError, match="row 2 is not under the audio root"):
        read_manifest(manifest(tmp_path, text), audio_root=audio / "y")
    apart = read_manifest(manifest(tmp_path, "path\n/a/b.wav\n/c/d.wav\n"))
    assert (apart.clips.root, apart.clips.table["path"].tolist()) == (Folder(Path("/")), ["a/b.wav", "c/d.wav"])


def test_relative_audio_root_and_absent_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").touch()
    (tmp_path / "audio" / "folder.wav").mkdir()
    rows = "path,start,stop\na.wav,0,1\ngone.wav,0,1\ngone.wav,1,2\nfolder.wav,,\n"
    corpus = read_manifest(manifest(tmp_path, rows), audio_root="audio")
    assert corpus.clips.absent() == ["gone.wav#0-1", "gone.wav#1-2", "folder.wav"]
    assert corpus.clips.absent(range(2)) == ["gone.wav#0-1"]
    assert corpus.clips.absent([0]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected UTF-8 text, one header"),
        ("\n\n", "expected UTF-8 text, one header"),
        ("path,label\n", "found no rows"),
        (
            "label\nx\n",
            r"expected one column 'path' \(or 'file_name'\), found the columns 'label'; rename or add",
        ),
        ("path;label\na.wav;x\n", "found the columns 'path;label'"),
        ("path,file_name\na.wav,b.wav\n", "keep one of the two"),
        ("path,label\na.wav,x\n,y\n", "column 'path' is blank in row 3; expected a value in every row"),
        ("path,label\na.wav,x\nb.wav\n", "Row #3: Expected 2 columns, got 1"),
        ("path,label\na.wav,x\nb.wav,x,y\n", "Row #3: Expected 2 columns, got 3"),
        ("path,label,label\na.wav,x,y\n", "'label' repeated"),
        (",path,label\n0,a.wav,x\n", "column '' is a row index or has no name.*index=False"),
        ("Unnamed: 0,path\n0,a.wav\n", "column 'Unnamed: 0' is a row index"),
        ("path,a/b\na.wav,x\n", "'a/b' cannot name a label column"),
        ("path,__x\na.wav,x\n", "'__x' cannot name a label column"),
        ("path,label,other\na.wav,x,\nb.wav,y,\n", "label column 'other' is empty in every row"),
        ("path\na.wav\nb.wav\na.wav\n", r"'a.wav' is in rows 2, 4 .*column 'id' of distinct names"),
        ("id,path\n1,a.wav\n1,b.wav\n", "'1' is in rows 2, 3 .*an id of its own"),
        ("id,path\n ,a.wav\n", "column 'id' is blank in row 2"),
        ("path,start\na.wav,soon\n", "column 'start' has 'soon' in row 2; expected seconds"),
        ("path,start\na.wav,inf\n", "column 'start' has 'inf'"),
        ("path,start\na.wav,-1\n", "row 2 has start -1 and stop at the end or the like"),
        ("path,start,stop\na.wav,1,2\na.wav,2,2\n", "row 3 has start 2 and stop 2"),
        ("path,stop\na.wav,0\n", "row 2 has start 0 and stop 0"),
        ("path,unit_sec\na.wav,1\nb.wav,2\n", "column 'unit_sec' has 1, 2; expected one positive length"),
        ("path,unit_sec\na.wav,1\nb.wav,\n", "column 'unit_sec' has 1, nan"),
        ("path,unit_sec\na.wav,0\n", "column 'unit_sec' has 0"),
        ('path,label\na.wav,"x\nb.wav,y\nc.wav,z\n', "column 'label' has a line break.*row 2.*quote"),
        ('path,"la\nbel"\na.wav,x\n', r"the header has a line break or a control character in 'la\\nbel'"),
        ("path,label\na\0.wav,x\n", "column 'path' has a line break or a control character in row 2"),
    ],
)
def test_what_a_bad_manifest_gets(tmp_path, text, message):
    path = manifest(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.csv", "path,label\na.wav,é\n".encode("latin-1"), "save the table again as UTF-8"),
        ("m.csv", "path,label\na.wav,é\n".encode("utf-16"), "save the table again as UTF-8"),
        ("m.csv", b"PK\x03\x04" + bytes(range(256)) * 20, "expected UTF-8 text"),
        ("m.parquet", b"", "expected a Parquet file"),
        ("m.parquet", b"path,label\na.wav,x\n", "expected a Parquet file"),
        ("m.parquet", b"PAR1" + bytes(100) + b"PAR1", "expected a Parquet file"),
        ("m.xlsx", b"PK", r"ending in \.csv, \.tsv or \.parquet"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(tmp_path / name)
    assert "\n" not in str(error.value)


def test_wrong_encoding_far_down_is_found(tmp_path):
    rows = b"".join(b"%d.wav,x\n" % i for i in range(200_000))
    (tmp_path / "m.csv").write_bytes(b"path,label\n" + rows + b"z.wav,\xe9\n")
    with pytest.raises(ValueError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_parquet_mistakes(tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"path": ["a.wav"], "label": [["x", "y"]]}), path)
    with pytest.raises(ValueError, match=r"column 'label' holds list<.*expected text, numbers or booleans"):
        read_manifest(path)
    pd.DataFrame({"path": ["a.wav", "b.wav"], "label": ["x", "y"]}, index=[5, 2]).to_parquet(path)
    with pytest.raises(ValueError, match=r"row index.*index=False"):
        read_manifest(path)
    pq.write_table(pa.table([["a.wav"], ["x"], ["y"]], names=["path", "label", "label"]), path)
    with pytest.raises(ValueError, match="'label' repeated"):
        read_manifest(path)


def test_a_dataframe_is_a_manifest(tmp_path, monkeypatch):
    """As the same table in a file: text, numbers, gaps, categories and booleans alike."""
    frame = pd.DataFrame(
        {
            "path": ["./a.wav", "b/c.wav", "b/c.wav"], "start": [np.nan, 0.5, 2.0], "stop": [np.nan, 1.0, np.nan],
            "unit_sec": 2.5, "fold": [1, 2, 1], "kind": pd.Categorical(["NA", None, "01"]), "loud": [True, False, None],
            "pitch": [0.1, 2.5, np.nan],
        },
        index=[7, 7, 2],
    )  # fmt: skip
    for name, write in (("m.csv", frame.to_csv), ("m.parquet", frame.to_parquet)):
        write(tmp_path / name, index=False)
        monkeypatch.chdir(tmp_path)
        read = read_manifest(tmp_path / name)
        for corpus in (corpus_of(frame), corpus_of(frame, tmp_path), corpus_of(tmp_path / name), corpus_of(read)):
            assert (corpus.clips.root, corpus.unit_sec, len(corpus)) == (Folder(tmp_path), 2.5, 3)
            pd.testing.assert_frame_equal(corpus.clips.table, read.clips.table)
            pd.testing.assert_frame_equal(corpus.labels, read.labels)
    assert corpus_of(frame, "s3://b/audio").clips.root == Bucket("s3://b/audio")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": []}, "the table: expected a header and one row per clip, found no rows"),
        ({"label": ["x"]}, "the table: expected one column 'path'"),
        ({"path": ["a.wav", "a.wav"]}, "the table: 'a.wav' is in rows 2, 3"),
        ({"path": ["a.wav"], "label": [["x"]]}, "the table: column 'label' holds object; expected text, numbers"),
        ({"path": ["a.wav", "b.wav"], "label": ["x", 1]}, "the table: column 'label' holds object"),
        ({"path": ["a.wav"], "label": ["x\ny"]}, "the table: column 'label' has a line break"),
        ({"path": ["a.wav"], 0: ["x"], "0": ["y"]}, "the table: expected distinct column names, found '0' repeated"),
    ],
)
def test_what_a_bad_dataframe_gets(columns, message):
    with pytest.raises(ValueError, match=message):
        corpus_of(pd.DataFrame(columns))


def test_absent_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("key", ["clip", "id", "path", "file_name"])
def test_labels_added_later_find_their_clips(tmp_path, key):
    path = manifest(tmp_path, f"{key},size,colour\nc.wav,1,red\na.wav,2,\n")
    table = read_labels(path, ["a.wav", "b.wav", "c.wav"])
    assert table.columns.tolist() == ["size", "colour"]
    assert table["size"].tolist() == ["2", "", "1"]
    assert table["colour"].tolist() == ["", "", "red"]


def test_a_manifest_adds_labels_to_parts_of_files(tmp_path):
    rows = "path,start,stop,label,unit_sec\n./a.wav,0.0,1.50,x,1\na.wav,1.5,3,y,1\n"
    path = manifest(tmp_path, rows)
    names = read_manifest(path).clips.table["name"].tolist()[::-1]
    assert read_labels(path, names).to_dict("list") == {"label": ["y", "x"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clip,size\na.wav,1\nz.wav,2\ny.wav,3\n",
            "2 of 3 rows .*the first 'z.wav' in row 3.* such as 'a.wav'",
        ),
        ("clip,size\na.wav,1\na.wav,2\n", "'a.wav' is in rows 2, 3 .*one row per clip"),
        ("clip\na.wav\n", "expected label columns beside 'clip', found none"),
        ("size\n1\n", "expected 'clip', 'id' or one column 'path'"),
    ],
)
def test_what_a_bad_label_table_gets(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_labels(manifest(tmp_path, text), ["a.wav", "b.wav"])


def test_a_row_costs_no_call_of_python(tmp_path):
    """A manifest of a hundred thousand rows is read by whole columns: ten times the rows, the same calls."""
    called = []
    for n in (1_000, 10_000):
        starts = np.arange(n) // 100 * 0.5
        clips = pd.DataFrame({"path": [f"folder/{i % 100}.wav" for i in range(n)], "start": starts})
        clips.assign(stop=starts + 0.5, label=[f"c{i % 50}" for i in range(n)]).to_csv(
            tmp_path / "m.csv", index_label="id"
        )
        with cProfile.Profile(builtins=False) as profile:
            corpus = read_manifest(tmp_path / "m.csv")
        called.append(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
        last = Clip(name=f"{n - 1}", path="folder/99.wav", start=starts[-1], stop=starts[-1] + 0.5)
        assert corpus.clips.clip(n - 1) == last
    assert called[1] < called[0] + 1_000
