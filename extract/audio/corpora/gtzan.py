"""GTZAN: 1,000 excerpts of thirty seconds, ten genres of a hundred each.

Goal: genres/GENRE/GENRE.000NN.wav (or .au) as a manifest, all thousand, as the paper used them.
Conventions: as in `layout`; the fault-filtered split, which keeps repeats, distortions and artists from spoiling a
test, is no part of the download: its three lists name 443, 197 and 290 clips, and 70 are in none.
"""

import re
from pathlib import Path

import pandas as pd

from .layout import SPLITS, DataSet, files, folder, parse_paths, require_file

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def table(root: Path, *, splits: Path | None = None) -> pd.DataFrame:
    """Clips with genre, and their split if the lists are given ("" for clips in no list).

    splits: a folder with train_filtered.txt, valid_filtered.txt and test_filtered.txt, whose lines end in
    GENRE.000NN.wav; default ROOT, if it holds them.
    """
    audio = folder(root, "genres", "genres_original", "Data/genres_original", ".")
    inside = "" if audio == root else f"{audio.relative_to(root).as_posix()}/"
    expected = "folders of genres with files such as blues/blues.00000.wav"
    found = files(root, (".wav", ".au"), expected, within=audio, like=f"^{re.escape(inside)}[^/]+/[^/]+$")
    clips = parse_paths(root, found, r"(.*/)?(?P<genre>[a-z]+)/(?P=genre)\.\d{5}\.(wav|au)", expected)
    if splits is None and not (root / "train_filtered.txt").is_file():
        return clips
    listed = _lists(splits or root)
    return clips.assign(split=[listed.get(_name(path), "") for path in found])


def _lists(parent: Path) -> dict[str, str]:
    """Name of a clip -> its split."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        path = parent / f"{split}_filtered.txt"
        require_file(path, "the list of the fault-filtered split")
        for line in path.read_text(encoding="utf-8").split():
            if not re.fullmatch(r"([a-z]+)\.\d{5}", _name(line)):
                raise ValueError(f"{path}: found {line!r}; expected lines such as blues/blues.00029.wav; correct it")
            if splits.setdefault(_name(line), split) != split:
                raise ValueError(
                    f"{path}: {line!r} is also in the list for {splits[_name(line)]}; expected it in one; correct them"
                )
    return splits


def _name(path: str) -> str:
    """blues.00000 of ".../blues.00000.wav", whatever its ending."""
    return path.rpartition("/")[2].rpartition(".")[0]


DATA_SET = DataSet(
    name="gtzan",
    title="GTZAN, musical genres",
    layout="genres/GENRE/GENRE.NNNNN.wav or .au (the unpacked genres.tar.gz)",
    table=table,
    labels=("genre",),
    categories={"genre": GENRES},
    clips=1000,
    unit_sec=30.0,
    options=("splits",),
)
