"""Crossed corpora: balanced to the last row, the same whatever the order of the manifest, and refused otherwise."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import otoscope
from otoscope.cli.main import cli
from otoscope.extract.audio.corpora.cross import cross
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture

from ....support.prompted_encoder import RATE, prompted
from ....support.wav_corpora import write_wav_file

CATEGORIES, SPEAKERS, SENTENCES = ("ANG", "HAP", "SAD"), "pqrstu", ("DFA", "IEO")
PROMPTS = [("sad", "{audio} sad?"), ("glad", "{audio} glad?"), ("sad", "{audio} blue?"), ("glad", "Gay? {audio}")]


def sounds(folder: Path, *, split: bool = False, files: bool = False) -> Path:
    """Every speaker with every sentence in every category, but that "u" is never angry."""
    rows = [
        {"path": f"a/{s}_{w}_{c}.wav", "emotion": c, "speaker": s, "sentence": w}
        for s, w, c in product(SPEAKERS, SENTENCES, CATEGORIES) if (s, c) != ("u", "ANG")
    ]  # fmt: skip
    for row in rows if split else ():
        row["split"] = "train" if row["speaker"] in "pqr" else "test"
    for i, row in enumerate(rows if files else ()):
        write_wav_file(folder / row["path"], np.arange(30 + 10 * (i % 3)) + i, RATE)
    pd.DataFrame(rows).to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def texts(folder: Path, rows: Any = PROMPTS, **columns: list[str]) -> Path:
    pd.DataFrame([(text, kind) for kind, text in rows], columns=["prompt", "text_class"]).assign(**columns).to_csv(
        folder / "p.csv", index=False
    )
    return folder / "p.csv"


def crossed(folder: Path, output: str = "c.csv", **options: Any) -> pd.DataFrame:
    given: dict[str, Any] = {"label": "emotion", "clips": 4, **options}
    cross(folder / "m.csv", folder / "p.csv", folder / output, **given)
    return pd.read_csv(folder / output, dtype=str, keep_default_na=False)


@pytest.mark.parametrize("split", [False, True])
def test_every_drawn_sound_meets_every_prompt_once(tmp_path: Path, split: bool) -> None:
    sounds(tmp_path, split=split)
    texts(tmp_path)
    table = crossed(tmp_path)
    parts = ["train", "test"] if split else [None]
    assert len(table) == len(parts) * 3 * 4 * 4
    for part in parts:
        some = table if part is None else table[table["split"] == part]
        cells = some.groupby(["audio_class", "text_class", "wording", "audio"]).size()
        assert (cells == 1).all()
        assert len(cells) == 3 * 4 * 4
        assert (some.groupby("audio_class")["audio"].nunique() == 4).all()
    assert table["audio"].is_monotonic_increasing or table["audio"].ne(table["audio"].shift()).sum() == 12 * len(parts)
    assert table["id"].is_unique
    assert (table["audio_class"] == table["audio"].str[-7:-4]).all()
    assert dict(zip(table["wording"], table["prompt"], strict=True)) == {
        "sad/1": "{audio} sad?", "sad/2": "{audio} blue?", "glad/1": "{audio} glad?", "glad/2": "Gay? {audio}",
    }  # fmt: skip
    # A partner has the other category and all else alike: exactly one.
    assert (table.groupby(["replicate", "wording"]).size() == 3).all()
    assert (table.groupby(["replicate", "audio"]).size() == 2).all()
    assert split or "split" not in table
    if split:
        assert (table.groupby("replicate")["split"].nunique() == 1).all()


def test_the_draw_goes_by_names_and_seed_alone(tmp_path: Path) -> None:
    manifest = sounds(tmp_path)
    texts(tmp_path)
    first = crossed(tmp_path)
    rows = pd.read_csv(manifest).sample(frac=1, random_state=1)
    rows.to_csv(manifest, index=False)
    pd.testing.assert_frame_equal(crossed(tmp_path, "again.csv"), first)
    other = crossed(tmp_path, "other.csv", seed=1)
    assert set(other["audio"]) != set(first["audio"])
    with pytest.raises(ValueError, match="exists with other content"):
        crossed(tmp_path, seed=1)
    elsewhere = tmp_path / "e"
    elsewhere.mkdir()
    cross(manifest, tmp_path / "p.csv", elsewhere / "c.csv", label="emotion", clips=4)
    here, there = read_manifest(tmp_path / "c.csv"), read_manifest(elsewhere / "c.csv")
    assert list(here.clips.table["name"]) == list(there.clips.table["name"])
    assert str(there.clips.root) == str(tmp_path / "a")


def test_the_same_speaker_and_sentence_in_every_category(tmp_path: Path) -> None:
    sounds(tmp_path)
    texts(tmp_path)
    table = crossed(tmp_path, same=("speaker", "sentence"), clips=10)
    first = table["replicate"].str.partition("-")[0]
    assert len(table) == 10 * 3 * 4
    assert (table.groupby(first)[["speaker", "sentence"]].nunique() == 1).all(axis=None)
    assert (table.groupby(first)["audio_class"].nunique() == 3).all()
    assert "u" not in set(table["speaker"])
    with pytest.raises(ValueError, match="10 of the combinations of speaker and sentence have a clip of each of the 3"):
        crossed(tmp_path, "d.csv", same=("speaker", "sentence"), clips=11)
    with pytest.raises(LookupError, match="no column 'room' in the manifest for --same"):
        crossed(tmp_path, "d.csv", same=("room",))


def test_named_wordings_match_across_classes(tmp_path: Path) -> None:
    sounds(tmp_path)
    texts(tmp_path, wording=["ask", "mood", "mood", "ask"])
    table = crossed(tmp_path)
    second = table.set_index("wording")["replicate"].str.partition("-")[2].to_dict()
    assert second == {"sad/ask": "1", "sad/mood": "2", "glad/ask": "1", "glad/mood": "2"}
    texts(tmp_path, wording=["ask", "other", "mood", "ask"])
    table = crossed(tmp_path, "d.csv")
    second = table.set_index("wording")["replicate"].str.partition("-")[2].to_dict()
    assert second == {"sad/ask": "1", "sad/mood": "2", "glad/other": "1", "glad/ask": "2"}


def test_controls_have_no_category_and_are_extracted_with_the_rest(tmp_path: Path) -> None:
    sounds(tmp_path, files=True)
    texts(tmp_path)
    plain = crossed(tmp_path)
    table = crossed(tmp_path, "d.csv", silence=0.05, neutral="{audio} heard")
    own = table[table["control"] == ""].drop(columns="control").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, plain)
    controls = table[table["control"] != ""]
    assert (controls[["audio_class", "text_class"]] == "").all(axis=None)
    assert controls["control"].value_counts().to_dict() == {"neutral": 12, "silence": 4}
    report = capture(prompted(), tmp_path / "d.csv", str(tmp_path / "s"), task="t", threads=1, device="cpu")
    assert (report.n_ok, report.n_silent) == (64, 4)
    ds = otoscope.open(str(tmp_path / "s"))["t"].ds
    assert int((ds.otoscope.codes("audio_class") >= 0).sum()) == 48


BAD: dict[str, tuple[Any, str]] = {
    "without": ([("a", "x"), *PROMPTS], r"row 2: 'x' has 0 \{audio\}; expected one"),
    "two": ([*PROMPTS, ("sad", "{audio}{audio}")], r"row 6: .* has 2 \{audio\}; expected one"),
    "one wording": ([("a", "{audio}1"), ("b", "{audio}2")], "2 text classes of 1 wordings; expected at least two"),
    "one class": ([("a", "{audio}1"), ("a", "{audio}2")], "1 text classes of 2 wordings"),
    "uneven": ([*PROMPTS, ("sad", "{audio} low?")], "'sad' has 3 wordings and 'glad' 2; expected as many"),
    "empty class": ([*PROMPTS, ("", "{audio} low?")], "row 6 has no text_class"),
    "twice": ([*PROMPTS, ("x", "{audio} sad?")], "'{audio} sad\\?' is there twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_prompts_that_cannot_be_crossed(tmp_path: Path, case: str) -> None:
    rows, message = BAD[case]
    sounds(tmp_path)
    texts(tmp_path, rows)
    with pytest.raises(ValueError, match=message) as caught:
        crossed(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c.csv").exists()


def test_sounds_that_cannot_be_crossed(tmp_path: Path) -> None:
    sounds(tmp_path, split=True)
    texts(tmp_path)
    for options, message in (
        ({"clips": 5}, "category 'ANG' has 4 clips in split 'test'; expected 5 of each"),
        ({"clips": 1}, "3 categories of 1 clips; expected at least two of two each"),
        ({"label": "mood"}, "no column 'mood' in the manifest; it has emotion, speaker"),
        ({"neutral": "heard"}, "--neutral: 'heard' has 0"),
        ({"silence": 0.0}, "--silence is 0; expected seconds above 0"),
    ):
        with pytest.raises((ValueError, LookupError), match=message):
            crossed(tmp_path, **options)
    texts(tmp_path, wording=["a", "b", "a", "c"])
    with pytest.raises(ValueError, match="wording 'a' is twice in text_class 'sad'"):
        crossed(tmp_path)
    texts(tmp_path, extra=list("abcd"))
    with pytest.raises(ValueError, match=r"expected the columns prompt, text_class and maybe wording, found .*'extra'"):
        crossed(tmp_path)
    texts(tmp_path)
    crossed(tmp_path)
    with pytest.raises(ValueError, match="the manifest has a column 'audio_class', which a crossed corpus makes"):
        cross(tmp_path / "c.csv", tmp_path / "p.csv", tmp_path / "d.csv", label="speaker", clips=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "m.csv", "p.csv"]


def test_the_command(tmp_path: Path) -> None:
    sounds(tmp_path)
    texts(tmp_path)
    asked = ["corpus", "cross", str(tmp_path / "m.csv"), str(tmp_path / "p.csv"), "--label", "emotion", "--clips", "4"]
    result = CliRunner().invoke(cli, [*asked, "--same", "speaker,sentence", "-o", str(tmp_path / "c.csv")])
    assert result.exit_code == 0, result.stderr
    line = "c.csv: 48 clips, 12 sounds x 4 prompts; audio_class (3 categories), text_class (2 categories)\n"
    assert result.stdout.endswith(line)
    result = CliRunner().invoke(cli, [*asked, "--same", "room", "-o", str(tmp_path / "d.csv")])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
