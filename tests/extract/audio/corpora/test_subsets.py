"""Which clips are drawn: how many, that only seed and name matter, and the rule said again in plain Python."""

import hashlib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.extract.audio.corpora import nsynth, surge, voxceleb1, voxforge
from otoscope.extract.audio.corpora.build import build
from otoscope.extract.audio.corpora.layout import draw, draw_evenly, octave

from ....support import miniature_downloads as trees
from .test_build import PIANO, rows_of


def shuffle_key(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\n{key}".encode(), digest_size=8).digest()


groups = st.lists(st.sampled_from("abc"), min_size=1, max_size=40)


@settings(max_examples=30)
@given(groups=groups, each=st.integers(1, 6), seed=st.integers(0, 9))
def test_draw_is_the_first_of_a_fixed_shuffle(groups, each, seed):
    keys = [f"clip {i}" for i in range(len(groups))]
    expected = set()
    for group in set(groups):
        members = [key for key, its in zip(keys, groups, strict=True) if its == group]
        expected.update(sorted(members, key=lambda key: shuffle_key(key, seed))[:each])
    for turn in (1, -1):  # in any order of rows
        drawn = draw(pd.Series(keys[::turn]), pd.Series(groups[::turn]), each, seed)
        assert {key for key, in_it in zip(keys[::turn], drawn, strict=True) if in_it} == expected


@settings(max_examples=30)
@given(groups=groups, total=st.integers(0, 45), seed=st.integers(0, 9))
def test_draw_evenly_levels_the_groups(groups, total, seed):
    keys = pd.Series([f"clip {i}" for i in range(len(groups))])
    drawn = draw_evenly(keys, pd.Series(groups), total, seed)
    assert drawn.sum() == min(total, len(groups))
    taken, there = Counter(pd.Series(groups)[drawn]), Counter(groups)
    fewest = min((taken[group] for group in there if taken[group] < there[group]), default=len(groups))
    assert max(taken.values(), default=0) <= fewest + 1  # no group has two more than one that had more to give
    for group in there:
        members = sorted(
            (k for k, g in zip(keys, groups, strict=True) if g == group), key=lambda k: shuffle_key(k, seed)
        )
        assert set(keys[drawn & (pd.Series(groups) == group)]) == set(members[: taken[group]])


def test_octaves_are_a_pianos():
    assert Counter(octave(midi) for midi in range(21, 109)) == {0: 3, **dict.fromkeys(range(1, 8), 12), 8: 1}


def test_paper_numbers():
    """5,000 of each of 6 languages; 500 tones of 88 notes; 2,000 of each of 11 families; 1,500."""
    sizes = [module.DATA_SET.paper_clips for module in (voxforge, surge, nsynth, voxceleb1)]
    assert sizes == [30000, 44000, 22000, 1500]


def test_voxforge_subset_is_even_and_does_not_depend_on_the_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(voxforge, "PER_LANGUAGE", 4)
    chosen = []
    for server_folders in (True, False):
        root = tmp_path / str(server_folders)
        root.mkdir()
        trees.voxforge(root, server_folders=server_folders)
        clips = voxforge.table(root)
        drawn = voxforge.paper(clips, seed=3)
        assert Counter(drawn["language"]) == dict.fromkeys(voxforge.LANGUAGES, 4)
        chosen.append({path.split("/", path.count("/") - 2)[-1] for path in drawn["path"]})
    assert chosen[0] == chosen[1]
    assert set(voxforge.paper(clips, seed=4)["path"]) != set(drawn["path"])


def test_surge_subset_is_whole_tones(tmp_path, monkeypatch):
    trees.surge(tmp_path, PIANO, tones=5)
    monkeypatch.setattr(surge, "PAPER_TONES", 2)
    drawn = surge.paper(surge.table(tmp_path), seed=0)
    first = sorted((f"Tone {i}" for i in range(5)), key=lambda tone: shuffle_key(tone, 0))[:2]
    assert Counter(drawn["tone"]) == dict.fromkeys(first, 88)
    assert Counter(Counter(drawn["note"]).values()) == {2: 88}


def test_nsynth_subset_is_even_and_on_the_piano(tmp_path, monkeypatch):
    trees.nsynth(tmp_path)
    monkeypatch.setattr(nsynth, "PER_FAMILY", 3)
    drawn = nsynth.paper(nsynth.table(tmp_path), seed=0)
    assert Counter(drawn["family"]) == dict.fromkeys(nsynth.FAMILIES, 3)
    assert set(drawn["pitch"]) == {"21", "59", "60", "108"}


def test_voxceleb1_subset_is_even_over_gender_and_nationality(tmp_path, monkeypatch):
    trees.voxceleb1(tmp_path)
    monkeypatch.setattr(voxceleb1, "PAPER_CLIPS", 6)
    drawn = voxceleb1.paper(voxceleb1.table(tmp_path), seed=0)
    assert sorted(Counter(drawn["gender_nationality"]).values()) == [1, 1, 2, 2]


def test_too_small_a_download_is_refused_or_said(tmp_path):
    trees.voxforge(tmp_path, server_folders=True)
    with pytest.raises(ValueError, match="paper's subset has 30000 clips, this download gives 36"):
        build("voxforge", tmp_path, tmp_path / "m.csv", subset="paper")
    assert not (tmp_path / "m.csv").exists()
    report = build("voxforge", tmp_path, tmp_path / "m.csv", subset="paper", partial=True, seed=5)
    assert any("drawn by a rule of ours, seed 5" in note for note in report.notes)


def test_where_the_paper_uses_all(tmp_path):
    trees.gtzan(tmp_path)
    report = build("gtzan", tmp_path, tmp_path / "m.csv", subset="paper")
    assert report.n_clips == 40
    assert "the paper uses all clips" in report.notes


def splits_file(folder: Path, text: str) -> Path:
    path = folder / "splits.csv"
    path.write_text(text)
    return path


def test_splits_from_a_table_of_the_users(tmp_path):
    trees.cremad(tmp_path)
    table = "file_name,label,split\nAudioWAV/1001_DFA_ANG_XX.wav,ANG,train\n1002_DFA_SAD_XX.wav,SAD,test\nx.wav,SAD,\n"
    options = {"splits": splits_file(tmp_path, table)}
    rows = rows_of(build("cremad", tmp_path, tmp_path / "m.csv", **options).manifest)
    assert {row["path"][-18:]: row["split"] for row in rows if row["split"]} == {
        "001_DFA_ANG_XX.wav": "train",
        "002_DFA_SAD_XX.wav": "test",
    }
    report = build("cremad", tmp_path, tmp_path / "some.csv", listed=True, partial=True, **options)
    assert report.n_clips == 2


def test_splits_of_submissions_and_tones(tmp_path):
    (tmp_path / "v").mkdir()
    trees.voxforge(tmp_path / "v", server_folders=True)
    splits = splits_file(tmp_path, ",file_name,label,split\n0,ralf-20080102-dex/wav/de1.wav,de,valid\n")
    rows = rows_of(build("voxforge", tmp_path / "v", tmp_path / "v" / "m.csv", splits=splits).manifest)
    assert [row["path"].split("/")[-1] for row in rows if row["split"]] == ["de1.wav"]
    trees.surge(tmp_path / "s", PIANO)
    for i, table in enumerate(["tone,split\nTone 2,test\n", ",file_name,split\n7,Tone 2/60.ogg,test\n"]):
        splits = splits_file(tmp_path, table)
        rows = rows_of(build("surge", tmp_path / "s", tmp_path / "s" / f"{i}.csv", splits=splits).manifest)
        assert Counter(row["split"] for row in rows if row["tone"] == "Tone 2")["test"] == (88, 1)[i]
        assert {row["tone"] for row in rows if row["split"]} == {"Tone 2"}
