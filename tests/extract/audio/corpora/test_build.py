"""Every data set: from a miniature of its download to a manifest, label by label as the file names and tables say."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import otoscope
from otoscope.analysis.probe.splits import SPLIT_COLUMNS
from otoscope.analysis.selection.labellings import GROUPINGS
from otoscope.extract.audio.corpora import DATA_SETS, gise51, surge
from otoscope.extract.audio.corpora.build import build, data_set
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture

from ....support import miniature_downloads as trees
from ....support.closed_form import RATE, closed_form
from ....support.wav_corpora import write_wav_file

PIANO = [str(midi) for midi in range(21, 109)]
FILL: dict[str, Callable[[Path], None]] = {
    "esc50": trees.esc50,
    "gise51": lambda root: trees.gise51(root, gise51.CATEGORIES),
    "voxforge": lambda root: trees.voxforge(root, server_folders=True),
    "voxceleb1": trees.voxceleb1,
    "cremad": trees.cremad,
    "gtzan": trees.gtzan,
    "surge": lambda root: trees.surge(root, PIANO),
    "nsynth": trees.nsynth,
    "vocalset": trees.vocalset,
}
CLIPS = {"esc50": 100, "gise51": 103, "voxforge": 36, "voxceleb1": 12, "cremad": 12, "gtzan": 40, "surge": 264,
         "nsynth": 66, "vocalset": 20 * (16 * 5 + 1 + 1) + 2}  # fmt: skip


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def built(name: str, root: Path, **options: object) -> dict[str, dict[str, str]]:
    """The manifest's rows by their file's name."""
    rows = rows_of(build(name, root, root / "m.csv", **options).manifest)  # type: ignore[arg-type]
    return {row["path"]: row for row in rows}


@pytest.fixture(params=DATA_SETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_file_becomes_a_clip_with_each_label(name, tmp_path):
    FILL[name](tmp_path)
    report = build(name, tmp_path, tmp_path / "m.csv")
    corpus = read_manifest(tmp_path / "m.csv")
    assert len(corpus) == report.n_clips == CLIPS[name]
    assert corpus.clips.absent() == []
    known = data_set(name)
    assert set(known.labels) <= set(corpus.labels.columns)
    assert corpus.unit_sec == known.unit_sec
    for label, categories in known.categories.items():
        assert set(corpus.labels[label]) - {""} == set(categories)
        assert report.categories[label] == len(categories)
    if known.clips is not None:
        assert report.notes == (f"{CLIPS[name]} clips; {known.clips} are published",)


def test_columns_that_are_no_labels_are_those_that_commands_leave_out(name, tmp_path):
    """What groups or divides the clips of a data set is named as `analysis.selection.labellings` knows it."""
    FILL[name](tmp_path)
    build(name, tmp_path, tmp_path / "m.csv")
    known, columns = data_set(name), set(read_manifest(tmp_path / "m.csv").labels.columns)
    assert columns - set(known.labels) <= {*SPLIT_COLUMNS, *GROUPINGS}
    assert not set(known.labels) & {*SPLIT_COLUMNS, *GROUPINGS}


def test_unit_sec_is_the_published_one():
    seconds = {name: data_set(name).unit_sec for name in DATA_SETS}
    assert seconds == {"esc50": 5.0, "gise51": None, "voxforge": 5.8, "voxceleb1": 8.2, "cremad": 2.5, "gtzan": 30.0,
                       "surge": 4.0, "nsynth": 4.0, "vocalset": 5.0}  # fmt: skip


def test_audio_is_found_wherever_the_manifest_lies(name, tmp_path):
    root, away = tmp_path / "data", tmp_path / "away" / "m.csv"
    root.mkdir()
    FILL[name](root)
    build(name, root, root / "m.csv")
    build(name, root, away)
    inside = read_manifest(root / "m.csv")
    for corpus in (read_manifest(away), read_manifest(away, root), read_manifest(root / "m.csv", root)):
        assert corpus.clips.absent() == []
        assert corpus.clips.table["name"].tolist() == inside.clips.table["name"].tolist()
        assert corpus.labels.equals(inside.labels)


def test_the_same_download_gives_the_same_bytes_and_other_files_are_spared(name, tmp_path):
    FILL[name](tmp_path)
    output = build(name, tmp_path, tmp_path / "m.csv").manifest
    first = output.read_bytes()
    build(name, tmp_path, output)
    assert output.read_bytes() == first
    output.write_text("path,mine\n")
    with pytest.raises(ValueError, match="exists with other content"):
        build(name, tmp_path, output)
    assert output.read_text() == "path,mine\n"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_esc50(tmp_path):
    trees.esc50(tmp_path)
    row = built("esc50", tmp_path)["ESC-50-master/audio/2-1025-A-25.wav"]
    assert (row["category"], row["source"], row["fold"]) == ("frog", "1025", "2")
    folds = Counter(row["fold"] for row in rows_of(tmp_path / "m.csv"))
    assert folds == dict.fromkeys("12345", 20)


def test_gise51_splits_are_the_folders_above(tmp_path):
    trees.gise51(tmp_path, gise51.CATEGORIES)
    rows = built("gise51", tmp_path)
    assert len(gise51.CATEGORIES) == 51
    assert rows["isolated_events/eval/Dog/9000.wav"]["category"] == "Dog"
    assert Counter(row["split"] for row in rows.values()) == {"train": 51, "valid": 51, "test": 1}


@pytest.mark.parametrize("server_folders", [True, False])
def test_voxforge_languages_by_folder_or_by_list(tmp_path, server_folders):
    trees.voxforge(tmp_path, server_folders=server_folders)
    rows = built("voxforge", tmp_path)
    for path, row in rows.items():
        submission = path.split("/")[-3]
        assert row["language"] == submission[-3:-1]
        assert row["speaker"] == ("ralf" if submission.startswith("ralf") else submission)


def test_voxceleb1_joins_gender_and_nationality(tmp_path):
    trees.voxceleb1(tmp_path)
    rows = built("voxceleb1", tmp_path)
    row = rows["vox1_test_wav/wav/id10270/1zcIwhmdeo4/00003.wav"]
    assert (row["gender"], row["nationality"], row["gender_nationality"]) == ("f", "USA", "f USA")
    assert (row["speaker"], row["split"]) == ("id10270", "test")
    joined = Counter(row["gender_nationality"] for row in rows.values())
    assert joined == {"m Ireland": 3, "m India": 3, "f Ireland": 3, "f USA": 3}
    assert Counter(row["split"] for row in rows.values()) == {"train": 4, "valid": 4, "test": 4}


def test_cremad(tmp_path):
    trees.cremad(tmp_path)
    row = built("cremad", tmp_path)["AudioWAV/1002_DFA_SAD_XX.wav"]
    assert (row["emotion"], row["gender"], row["speaker"]) == ("SAD", "Female", "1002")


@pytest.mark.parametrize("ending", ["wav", "au"])
def test_gtzan_all_or_fault_filtered(tmp_path, ending):
    trees.gtzan(tmp_path, ending, lists=True)
    rows = built("gtzan", tmp_path)
    assert rows[f"genres/jazz/jazz.00002.{ending}"] == {
        "path": f"genres/jazz/jazz.00002.{ending}", "genre": "jazz", "split": "test", "unit_sec": "30",
    }  # fmt: skip
    assert Counter(row["split"] for row in rows.values()) == {"train": 10, "valid": 10, "test": 10, "": 10}
    filtered = rows_of(build("gtzan", tmp_path, tmp_path / "filtered.csv", listed=True).manifest)
    assert Counter(row["split"] for row in filtered) == {"train": 10, "valid": 10, "test": 10}


SHARPS = "C C# D D# E F F# G G# A A# B".split()  # noqa: SIM905
NAMES = [f"{SHARPS[midi % 12]}{midi // 12 - 1}" for midi in range(21, 109)]


@pytest.mark.parametrize(
    "notes", [PIANO, [str(i) for i in range(88)], [f"note{i:02}" for i in range(1, 89)], NAMES], ids=lambda n: n[0]
)
def test_surge_octaves_however_the_notes_count(tmp_path, notes):
    trees.surge(tmp_path, notes)
    rows = built("surge", tmp_path)
    assert {row["note"] for row in rows.values()} == set(notes)
    per_octave = Counter(row["octave"] for row in rows.values() if row["tone"] == "Tone 0")
    assert per_octave == {"0": 3, **dict.fromkeys("1234567", 12), "8": 1}
    middle = notes[60 - 21]
    assert (rows[f"Tone 1/{middle}.ogg"]["octave"], rows[f"Tone 1/{notes[38]}.ogg"]["octave"]) == ("4", "3")


def test_surge_names_of_notes():
    assert surge.midi_of_notes(NAMES) == {name: midi for midi, name in enumerate(NAMES, 21)}
    assert surge.midi_of_notes(["A0", "Bb0", "Eb4", "C4", "C8"]) == {
        "A0": 21,
        "Bb0": 22,
        "Eb4": 63,
        "C4": 60,
        "C8": 108,
    }
    with pytest.raises(ValueError, match="'A#0' and 'Bb0' are the same key"):
        surge.midi_of_notes(["A#0", "Bb0"])


def test_surge_with_some_notes_needs_the_lowest(tmp_path):
    trees.surge(tmp_path, ["2", "3", "4", "89"])
    with pytest.raises(ValueError, match=r"4 different notes from 2 to 89.*--lowest"):
        build("surge", tmp_path, tmp_path / "m.csv")
    with pytest.raises(ValueError, match="'2' is not one of the 88 keys"):
        build("surge", tmp_path, tmp_path / "m.csv", lowest=3)
    with pytest.raises(ValueError, match="7 of 9 categories of octave have no clip"):
        build("surge", tmp_path, tmp_path / "m.csv", lowest=2)
    report = build("surge", tmp_path, tmp_path / "m.csv", lowest=2, partial=True)
    assert report.categories == {"note": 4, "octave": 2}


def test_nsynth(tmp_path):
    trees.nsynth(tmp_path)
    rows = built("nsynth", tmp_path)
    row = rows["nsynth-train/audio/flute_acoustic_002-059-075.wav"]
    assert (row["family"], row["pitch"], row["octave"], row["instrument"]) == ("flute", "59", "3", "flute_acoustic_002")
    octaves = {row["pitch"]: row["octave"] for row in rows.values()}
    assert octaves == {"9": "-1", "21": "0", "59": "3", "60": "4", "108": "8", "109": "8"}
    assert Counter(row["split"] for row in rows.values()) == {"train": 44, "valid": 11, "test": 11}


@pytest.mark.parametrize("top", ["FULL", "data_by_singer", "FULL/train"])
def test_vocalset(tmp_path, top):
    trees.vocalset(tmp_path, top)
    rows = built("vocalset", tmp_path)
    labels = {path.removeprefix(f"{top}/"): (r["technique"], r["singer"], r["vowel"]) for path, r in rows.items()}
    assert labels["female1/arpeggios/belt/f1_arpeggios_belt_e.wav"] == ("belt", "female1", "e")
    assert labels["male1/excerpts/straight/m1_row_straight.wav"] == ("straight", "male1", "")
    assert labels["male1/long_tones/vibrado/m1_long_vibrado_a.wav"] == ("vibrato", "male1", "a")
    tested = {row["singer"] for row in rows.values() if row["split"] == "test"}
    assert tested == {"male3", "male5", "male10", "female2", "female8"}
    report = build("vocalset", tmp_path, tmp_path / "paper.csv", subset="paper")
    kept = [row["path"].removeprefix(f"{top}/") for row in rows_of(report.manifest)]
    assert len(kept) == 20 * (9 * 5 + 1) + 1  # nine techniques on five vowels, spoken, and one scale in c
    assert "male1/scales/straight/m1_scales_straight_c.wav" in kept
    assert not [path for path in kept if "vibrado" in path or "row_straight" in path or "messa" in path]


def test_list_of_data_sets_is_whole():
    assert set(DATA_SETS) == set(FILL)
    for name in DATA_SETS:
        assert data_set(name).name == name


def test_manifest_is_what_extract_takes(tmp_path):
    (tmp_path / "data").mkdir()
    trees.cremad(tmp_path / "data")
    for i, path in enumerate(sorted((tmp_path / "data/AudioWAV").glob("1*.wav"))):
        write_wav_file(path, np.arange(40 + i), RATE)
    report = build("cremad", tmp_path / "data", tmp_path / "cremad.csv")
    url = str(tmp_path / "s.zarr")
    extracted = capture(closed_form(), str(report.manifest), url, task="cremad", threads=1)
    assert (extracted.n_ok, extracted.n_failed) == (12, 0)
    ds = otoscope.open(url)["cremad"].ds
    assert ds["clip"].values.tolist() == sorted(f"AudioWAV/{path.name}" for path in tmp_path.rglob("1*.wav"))
    assert ds.otoscope.labels == ["emotion", "gender", "sentence", "speaker"]
