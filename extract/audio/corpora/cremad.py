"""CREMA-D: twelve sentences acted in six emotions by 91 actors.

Goal: AudioWAV/ and VideoDemographics.csv as a manifest.
Conventions: as in `layout`; a file is ACTOR_SENTENCE_EMOTION_LEVEL.wav and its emotion is the acted one, not a
listener's; gender is the column Sex of VideoDemographics.csv.
Contents: `EMOTIONS`, `table`, `DATA_SET`.
"""

import re
from pathlib import Path

import pandas as pd

from .layout import DataSet, assign_splits, files, folder, read_columns, read_splits, require_files

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
GENDERS = ("Female", "Male")
NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(\w+)\.wav", re.IGNORECASE)


def table(root: Path, *, splits: Path | None = None) -> pd.DataFrame:
    """Clips with emotion, gender and speaker, and their split if a table of splits is given.

    splits: a table with `file_name` (ending in the file's own name) and `split`.
    """
    audio = folder(root, "AudioWAV")
    found = files(root, (".wav",), within=audio)
    require_files(found, audio, "files such as 1001_DFA_ANG_XX.wav")
    named = [NAME.fullmatch(path.rpartition("/")[2]) for path in found]
    odd = [path for path, name in zip(found, named, strict=True) if name is None]
    if odd:
        raise ValueError(
            f"{root}: {odd[0]!r} is not named as CREMA-D's files are, such as 1001_DFA_ANG_XX.wav; remove or rename it"
        )
    demographics = root / "VideoDemographics.csv"
    actors = read_columns(demographics, ("ActorID", "Sex"), "the table of actors that comes with CREMA-D")
    clips = pd.DataFrame(
        {
            "path": found,
            "emotion": [name[3].upper() for name in named if name],
            "speaker": [name[1] for name in named if name],
        }
    )
    unknown = sorted(set(clips["speaker"]) - set(actors["ActorID"]))
    if unknown:
        raise ValueError(
            f"{demographics}: does not know {len(unknown)} speakers, the first {unknown[0]!r}; expected all; "
            "download the file again"
        )
    gender = clips["speaker"].map(actors.drop_duplicates("ActorID").set_index("ActorID")["Sex"])
    clips.insert(2, "gender", gender)
    if splits is None:
        return clips
    return clips.assign(split=assign_splits(clips["path"], read_splits(splits), 1, splits))


DATA_SET = DataSet(
    name="cremad",
    title="CREMA-D, emotional speech",
    layout="AudioWAV/*.wav and VideoDemographics.csv",
    table=table,
    labels=("emotion", "gender"),
    categories={"emotion": EMOTIONS, "gender": GENDERS},
    clips=7442,
    unit_sec=2.5,
    options=("splits",),
)
