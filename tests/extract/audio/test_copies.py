"""Copies of clips: the bytes of whole files, the part of parts; nowhere else, over nothing."""

import wave
from pathlib import Path

import numpy as np
import pytest

from otoscope.extract.audio.audio_root import root_at
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.copies import copy_clips, empty_folder

from ...support.stored_files import tree_of
from ...support.wav_corpora import write_wav_file


def test_whole_files_are_copied_as_they_are_and_parts_alone(tmp_path: Path) -> None:
    samples = np.arange(-500, 500, dtype="<i2")
    write_wav_file(tmp_path / "audio/a.wav", samples, 1000)
    (tmp_path / "audio/odd name! 日本.dat").write_bytes(b"anything")
    clips = [
        ("0-1", Clip(name="a", path="a.wav")),
        ("0-2", Clip(name="b", path="a.wav", start=0.1, stop=0.25)),
        ("0-3", Clip(name="c", path="a.wav", start=0.9)),
        ("0-4", Clip(name="d", path="odd name! 日本.dat")),
    ]
    assert copy_clips(root_at(tmp_path / "audio"), clips, empty_folder(tmp_path / "new/copies"), 1000) == []
    copies = tmp_path / "new/copies"
    assert sorted(tree_of(copies)) == ["0-1_a.wav", "0-2_a.wav", "0-3_a.wav", "0-4_odd_name_日本.dat"]
    assert (copies / "0-1_a.wav").read_bytes() == (tmp_path / "audio/a.wav").read_bytes()
    assert (copies / "0-4_odd_name_日本.dat").read_bytes() == b"anything"
    for name, part in (("0-2_a.wav", samples[100:250]), ("0-3_a.wav", samples[900:])):
        with wave.open(str(copies / name)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (1000, 1, 2)
            np.testing.assert_array_equal(np.frombuffer(file.readframes(2000), "<i2"), part)


def test_a_clip_that_cannot_be_copied_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    write_wav_file(tmp_path / "a.wav", np.arange(100), 1000)
    (tmp_path / "words.wav").write_text("words")
    clips = [
        ("1", Clip(name="gone", path="gone.wav")),
        ("2", Clip(name="words", path="words.wav", start=0, stop=1)),
        ("3", Clip(name="late", path="a.wav", start=5, stop=6)),
        ("4", Clip(name="a", path="a.wav")),
    ]
    failed = copy_clips(root_at(tmp_path), clips, empty_folder(tmp_path / "copies"), 1000)
    assert [clip.name for clip, _ in failed] == ["gone", "words", "late"]
    assert all(reason and "\n" not in reason for _, reason in failed)
    assert list(tree_of(tmp_path / "copies")) == ["4_a.wav"]


@pytest.mark.parametrize(
    "path", ["../secret.wav", "x/../../secret.wav", "..", "a/..", "sub/.hidden", "x" * 200 + "/" + "y" * 300]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "audio/x").mkdir(parents=True)
    (tmp_path / "secret.wav").write_bytes(b"secret")
    before = tree_of(tmp_path)
    copies = empty_folder(tmp_path / "copies")
    copy_clips(root_at(tmp_path / "audio"), [("1", Clip(name="n", path=path))], copies, 1000)
    after = {name: data for name, data in tree_of(tmp_path).items() if not name.startswith("copies/1_")}
    assert after == before


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"new")
    copies = empty_folder(tmp_path / "copies")
    (copies / "1_a.wav").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        copy_clips(root_at(tmp_path), [("1", Clip(name="a", path="a.wav"))], copies, 1000)
    assert (copies / "1_a.wav").read_bytes() == b"old"
    for found, what in ((copies, "not empty"), (copies / "1_a.wav", "a file")):
        with pytest.raises(ValueError, match=f"is {what}; expected an empty folder or a new one"):
            empty_folder(found)
