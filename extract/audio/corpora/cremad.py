"""CREMA-D: twelve sentences acted in six emotions by 91 actors.

Goal: AudioWAV/ and VideoDemographics.csv as a manifest.
Conventions: as in `layout`; a file is ACTOR_SENTENCE_EMOTION_LEVEL.wav and its emotion is the acted one, not a
listener's; gender is the column Sex of VideoDemographics.csv.
"""

from pathlib import Path

import pandas as pd

from .layout import DataSet, files, folder, of_speakers, parse_paths, with_splits

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
GENDERS = ("Female", "Male")
PATH = r"(?i:(.*/)?(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_\w+\.wav)"


def table(root: Path, *, splits: Path | None = None) -> pd.DataFrame:
    """Clips with emotion, gender, speaker and sentence, and their split if a table of splits is given.

    splits: a table with `file_name` (ending in the file's own name) and `split`.
    """
    example = "files such as 1001_DFA_ANG_XX.wav"
    clips = parse_paths(root, files(root, (".wav",), example, within=folder(root, "AudioWAV")), PATH, example)
    demographics, what = root / "VideoDemographics.csv", "the table of actors that comes with CREMA-D"
    (gender,) = of_speakers(clips["speaker"], demographics, ("ActorID", "Sex"), what)
    clips = clips.assign(emotion=clips["emotion"].str.upper(), sentence=clips["sentence"].str.upper(), gender=gender)
    return with_splits(clips[["path", "emotion", "gender", "speaker", "sentence"]], splits, 1)


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
