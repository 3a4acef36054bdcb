"""VocalSet: twenty singers, seventeen vocal techniques, five vowels.

Goal: SINGER/CONTEXT/TECHNIQUE/FILE.wav as a manifest.
Conventions: as in `layout`; the technique is the folder a file lies in ("vibrado", a slip of the data set, is
vibrato), the vowel the last part of the file's name after "_" if that is a, e, i, o or u, else "". Test singers are
those of the published probing experiments; all others train.
"""

from pathlib import Path

import pandas as pd

from .layout import DataSet, files, folder, parse_paths

PROBED = ("belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo", "vibrato", "vocal_fry")
"""The ten techniques that are probed, in the published order."""
TECHNIQUES = (*PROBED, "fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano")
VOWELS = ("a", "e", "i", "o", "u")
KEPT = (*VOWELS, "c", "f", "spoken")
SINGERS = (*(f"female{i}" for i in range(1, 10)), *(f"male{i}" for i in range(1, 12)))
TEST_SINGERS = ("female2", "female8", "male3", "male5", "male10")


def table(root: Path) -> pd.DataFrame:
    """Clips with technique, singer, vowel and split."""
    expected = "folders SINGER/CONTEXT/TECHNIQUE with .wav files, and singers such as female1"
    found = files(root, (".wav",), expected, within=folder(root, "FULL", "data_by_singer", "."))
    clips = parse_paths(root, found, r"(.*?/)??(?P<singer>(fe)?male\d+)/(.*/)?(?P<technique>[^/]+)/[^/]+", expected)
    vowels = clips["path"].map(_last_part)
    return pd.DataFrame(
        {
            "path": clips["path"],
            "technique": clips["technique"].replace("vibrado", "vibrato"),
            "singer": clips["singer"],
            "vowel": vowels.where(vowels.isin(VOWELS), ""),
            "split": clips["singer"].isin(TEST_SINGERS).map({True: "test", False: "train"}),
        }
    )


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
