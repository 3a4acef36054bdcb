"""VocalSet: twenty singers, seventeen vocal techniques, five vowels.

Goal: SINGER/CONTEXT/TECHNIQUE/FILE.wav as a manifest.
Conventions: as in `layout`; the technique is the folder a file lies in ("vibrado", a slip of the data set, is
vibrato), the vowel the last part of the file's name after "_" if that is a, e, i, o or u, else "". Test singers are
those of the published probing experiments; all others train.
Contents: `TECHNIQUES`, `PROBED`, `table`, `DATA_SET`.
"""

import re
from pathlib import Path

import pandas as pd

from .layout import DataSet, files, folder, require_files

PROBED = (
    "belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo", "vibrato", "vocal_fry",
)  # fmt: skip
"""The ten techniques that are probed, in the published order."""
TECHNIQUES = (*PROBED, "fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano")
VOWELS = ("a", "e", "i", "o", "u")
KEPT = (*VOWELS, "c", "f", "spoken")
SINGERS = (*(f"female{i}" for i in range(1, 10)), *(f"male{i}" for i in range(1, 12)))
TEST_SINGERS = ("female2", "female8", "male3", "male5", "male10")


def table(root: Path) -> pd.DataFrame:
    """Clips with technique, singer, vowel and split."""
    singers = folder(root, "FULL", "data_by_singer", ".")
    found = files(root, (".wav",), within=singers)
    require_files(found, singers, "folders SINGER/CONTEXT/TECHNIQUE with .wav files")
    rows = []
    for path in found:
        parts = path.split("/")
        singer = next((part for part in parts if re.fullmatch(r"(fe)?male\d+", part)), "")
        if not singer or len(parts) - parts.index(singer) < 3:
            raise ValueError(
                f"{root}: {path!r} does not lie in SINGER/.../TECHNIQUE/ with a singer such as female1; name the "
                "folder that holds FULL or data_by_singer"
            )
        technique = "vibrato" if parts[-2] == "vibrado" else parts[-2]
        vowel = _last_part(path) if _last_part(path) in VOWELS else ""
        split = "test" if singer in TEST_SINGERS else "train"
        rows.append({"path": path, "technique": technique, "singer": singer, "vowel": vowel, "split": split})
    return pd.DataFrame(rows, dtype=str)


def _last_part(path: str) -> str:
    """ "a" of ".../f1_arpeggios_belt_c_a.wav"."""
    return path.rpartition("/")[2].split(".")[0].rpartition("_")[2]


def paper(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The clips that are probed: ten techniques, names ending in a vowel, c, f or spoken; "vibrado" is not among them.

    Nothing is drawn, so the seed does not matter.
    """
    kept = clips["technique"].isin(PROBED) & clips["path"].map(_last_part).isin(KEPT)
    return clips[kept & (clips["path"].str.split("/").str[-2] != "vibrado")]


DATA_SET = DataSet(
    name="vocalset",
    title="VocalSet, singing techniques",
    layout="FULL/ or data_by_singer/ with SINGER/CONTEXT/TECHNIQUE/*.wav",
    table=table,
    labels=("technique", "singer", "vowel"),
    categories={"technique": TECHNIQUES, "singer": SINGERS, "vowel": VOWELS},
    unit_sec=5.0,
    paper=paper,
)
