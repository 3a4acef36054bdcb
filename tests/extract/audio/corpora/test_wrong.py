"""Downloads that are not what they should be: one line that says what was expected, what was found, what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from otoscope.extract.audio.corpora import DATA_SETS
from otoscope.extract.audio.corpora.build import build
from otoscope.extract.audio.corpora.gise51 import CATEGORIES

from ....support import miniature_downloads as trees
from .test_build import FILL, PIANO, rows_of


def refused(name: str, root: Path, error: type[Exception], match: str, **options: object) -> None:
    """The message is one line, and nothing is written."""
    output = root.parent / "refused.csv"
    with pytest.raises(error, match=match) as caught:
        build(name, root, output, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not output.exists()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("name", DATA_SETS)
def test_an_absent_or_foreign_folder(name, root):
    refused(name, root / "nowhere", FileNotFoundError, "no folder .*; expected .*")
    refused(name, root, FileNotFoundError, "expected .*found nothing")
    trees.touch(root, ["readme.txt", "pictures/cat.png"])
    refused(name, root, FileNotFoundError, "expected .*found pictures, readme.txt")


def test_names_and_options_that_do_not_exist(root):
    trees.gtzan(root)
    refused("esc51", root, LookupError, "no data set 'esc51'; expected one of esc50, gise51, ")
    refused("gtzan", root, ValueError, "takes no option 'lowest'; it takes splits", lowest=3)
    refused("gtzan", root, ValueError, "--subset is 'some'; expected all or paper", subset="some")
    refused("gtzan", root, ValueError, "no split is known; give it with --splits", listed=True)
    with pytest.raises(ValueError, match=r"ending in \.csv"):
        build("gtzan", root, root / "m.parquet")


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("esc50", "ESC-50-master/meta/esc50.csv"),
        ("voxceleb1", "vox1_meta.csv"),
        ("voxceleb1", "iden_split.txt"),
        ("cremad", "VideoDemographics.csv"),
        ("nsynth", "nsynth-valid/examples.json"),
    ],
)
def test_missing_metadata(name, metadata, root):
    FILL[name](root)
    (root / metadata).unlink()
    refused(name, root, FileNotFoundError, f"no file .*{metadata}; expected .*; put it there")


def test_voxforge_without_languages(root):
    trees.voxforge(root, server_folders=False)
    urls = root / "voxforge_urls.txt"
    edit(urls, lambda text: "\n".join(line for line in text.splitlines() if "/fr/" not in line))
    refused("voxforge", root, ValueError, "'anonymous-20080102-frx/wav/fr0.wav' is of an archive that .* does not list")
    aside = root.parent / "urls.txt"
    urls.rename(aside)
    refused("voxforge", root, FileNotFoundError, "no file .*voxforge_urls.txt; expected the list")
    refused("voxforge", root, ValueError, "does not list", urls=aside)


@pytest.mark.parametrize(
    ("name", "extra", "match"),
    [
        ("gise51", "isolated_events/train/Unicorn/1.wav", "1 clips have an unknown category: 'Unicorn'"),
        ("cremad", "AudioWAV/1001_DFA_JOY_XX.wav", "1 clips have an unknown emotion: 'JOY'"),
        ("gtzan", "genres/polka/polka.00000.wav", "1 clips have an unknown genre: 'polka'"),
        ("vocalset", "data_by_singer/male1/scales/yodel/m1_scales_yodel_a.wav", "unknown technique: 'yodel'"),
        ("vocalset", "data_by_singer/male12/scales/belt/m12_scales_belt_a.wav", "unknown singer: 'male12'"),
        ("voxforge", "downloads/nl/Trunk/jan-2008/wav/1.wav", "1 clips have an unknown language: 'nl'"),
    ],
)
def test_an_unknown_category(name, extra, match, root):
    FILL[name](root)
    trees.touch(root, [extra])
    refused(name, root, ValueError, match)
    report = build(name, root, root / "m.csv", partial=True)
    assert match.rpartition(": ")[2] in report.notes[0]
    assert extra not in {row["path"] for row in rows_of(report.manifest)}


def test_unknown_categories_in_tables(root):
    FILL["esc50"](root)
    edit(root / "ESC-50-master/meta/esc50.csv", lambda text: text.replace(",frog,", ",toad,"))
    refused("esc50", root, ValueError, "2 clips have an unknown category: 'toad', first at .*expected one of airplane")
    FILL["nsynth"](root)
    edit(root / "nsynth-test/examples.json", lambda text: text.replace('"flute"', '"kazoo"'))
    refused("nsynth", root, ValueError, "1 clips have an unknown family: 'kazoo'")
    FILL["voxceleb1"](root)
    edit(root / "vox1_meta.csv", lambda text: text.replace("\tf\t", "\twoman\t"))
    refused("voxceleb1", root, ValueError, "6 clips have an unknown gender: 'woman'.*expected one of f, m;")


@pytest.mark.parametrize(
    ("name", "match"),
    [("gise51", "1 of 51 categories of category have no clip, the first 'Zipper"), ("gtzan", "1 of 10 .* 'rock'")],
)
def test_a_lacking_category(name, match, root):
    FILL[name](root)
    for path in [*root.rglob("Zipper_(clothing)/*.wav"), *root.rglob("rock/*.wav")]:
        path.unlink()
    refused(name, root, ValueError, match)
    assert any("have no clip" in note for note in build(name, root, root / "m.csv", partial=True).notes)


@pytest.mark.parametrize("name", ["esc50", "voxceleb1", "nsynth"])
def test_audio_that_the_tables_name_and_is_not_there(name, root):
    FILL[name](root)
    gone = sorted(root.rglob("*.wav"))[1]
    gone.unlink()
    refused(name, root, FileNotFoundError, f"1 of .* audio files are absent, the first '.*{gone.name}'; expected all")
    report = build(name, root, root / "m.csv", partial=True)
    assert not [row for row in rows_of(report.manifest) if row["path"].endswith(str(gone.relative_to(root)))]
    assert report.notes[0].startswith("left out: 1 of ")
    for path in root.rglob("*.wav"):
        path.unlink()
    refused(name, root, FileNotFoundError, "are absent", partial=True)


@pytest.mark.parametrize(
    ("name", "metadata", "old", "new", "match"),
    [
        ("esc50", "ESC-50-master/meta/esc50.csv", "category", "class", "expected the columns filename, category"),
        ("esc50", "ESC-50-master/meta/esc50.csv", ",5,", ",6,", "is in fold '6'; expected 1 to 5"),
        ("voxceleb1", "vox1_meta.csv", "\t", ",", "expected the columns VoxCeleb1 ID, Gender, Nationality, "),
        ("voxceleb1", "vox1_meta.csv", "\tIndia\t", "\t", "Row #3: Expected 5 columns, got 4"),
        ("voxceleb1", "vox1_meta.csv", "id10270", "id99999", "does not know 1 speakers, the first 'id10270'"),
        ("voxceleb1", "iden_split.txt", "2 id10002", "4 id10002", "found .4 id10002/.* in line 5; expected 1, 2 or 3"),
        ("cremad", "VideoDemographics.csv", "1002", "1003", "does not know 1 speakers, the first '1002'"),
        ("cremad", "VideoDemographics.csv", "Sex", "Gender", "expected the columns ActorID, Sex, found ActorID, Age"),
        ("gtzan", "valid_filtered.txt", "rock/rock.00001.wav", "rock music", "found .rock.; expected lines such as"),
        ("gtzan", "valid_filtered.txt", "rock.00001", "rock.00000", "also in the list for train; expected it in one"),
    ],
)
def test_damaged_metadata(name, metadata, old, new, match, root):
    FILL[name](root)
    if name == "gtzan":
        trees.gtzan(root, lists=True)
    edit(root / metadata, lambda text: text.replace(old, new))
    refused(name, root, ValueError, match)


def test_damaged_json(root):
    trees.nsynth(root)
    examples = root / "nsynth-train/examples.json"
    notes = json.loads(examples.read_text())
    for damage in ("{", "[]", json.dumps({**notes, "x": {"pitch": 60}}), json.dumps({"x": {**next(iter(notes.values())),
                                                                                       "pitch": "60"}})):  # fmt: skip
        examples.write_text(damage)
        refused("nsynth", root, ValueError, "examples.json: .*download the archive again")


@pytest.mark.parametrize(
    ("name", "extra", "match"),
    [
        (
            "cremad",
            "AudioWAV/hello.wav",
            "'AudioWAV/hello.wav' is not named as the data set's files are; expected files such as 1001_DFA",
        ),
        ("gtzan", "genres/jazz/my song.wav", "'genres/jazz/my song.wav' is not named as the data set's files are"),
        ("surge", "60.ogg", "'60.ogg' is not named as the data set's files are; expected folders of sounds"),
        (
            "vocalset",
            "data_by_singer/warmup.wav",
            "'data_by_singer/warmup.wav' is not named .*; expected folders SINGER/",
        ),
        ("gise51", "isolated_events/1.wav", "unknown category: 'isolated_events'"),
    ],
)
def test_a_stray_file(name, extra, match, root):
    FILL[name](root)
    trees.touch(root, [extra])
    refused(name, root, ValueError, match)


def test_a_folder_too_deep(root):
    trees.gise51(root, CATEGORIES)
    refused(
        "gise51",
        root / "isolated_events/train/Dog",
        ValueError,
        "is not named as the data set's files are; expected isolated events",
    )
    trees.surge(root, PIANO)
    refused("surge", root / "Tone 1", ValueError, "or name the folder above")
    trees.surge(root, ["A9"])
    refused("surge", root, ValueError, "expected 88 in a row|not one of the 88 keys")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("file_name,split\nother.wav,train\n", "names none of the 12 clips, its first is 'other.wav'"),
        ("file_name,split\n1001_DFA_ANG_XX.wav,dev\n", "has the split 'dev'; expected train, valid or test"),
        (
            "file_name,fold\n1001_DFA_ANG_XX.wav,1\n",
            "expected the columns file_name and split, found 'file_name', 'fold'",
        ),
        ("file_name,split\na.wav,train\na.wav,test\n", "'a.wav' is in train and in test"),
    ],
)
def test_splits_that_do_not_fit(table, match, root):
    trees.cremad(root)
    splits = root.parent / "splits.csv"
    splits.write_text(table)
    refused("cremad", root, ValueError, match, splits=splits)
    refused("cremad", root, FileNotFoundError, "no table", splits=root.parent / "nothing.csv")
