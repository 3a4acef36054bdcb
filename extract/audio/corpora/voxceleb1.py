"""VoxCeleb1: celebrities speaking in interviews, with the gender and the nationality of each speaker.

Goal: wav/, iden_split.txt and vox1_meta.csv as one manifest.
Conventions: as in `layout`; iden_split.txt says which clips there are and their split (1 train, 2 valid, 3 test);
vox1_meta.csv is separated by tabs. Genders are "m" and "f" and nationalities are spelt as they are there;
`gender_nationality` joins both, such as "f USA".
"""

from pathlib import Path

import pandas as pd

from .layout import SPLITS, DataSet, contents, draw_evenly, of_speakers, require_file, tails

AUDIO = ("wav", "vox1_dev_wav/wav", "vox1_test_wav/wav", "dev/wav", "test/wav")
GENDERS = ("f", "m")
COLUMNS = ("VoxCeleb1 ID", "Gender", "Nationality")
PAPER_CLIPS = 1500


def table(root: Path) -> pd.DataFrame:
    """Clips with gender, nationality, both joined, speaker and split, in the order of iden_split.txt."""
    homes = {
        speaker.name: parent
        for parent in AUDIO
        if (root / parent).is_dir()
        for speaker in sorted((root / parent).glob("id*"))
    }
    if not homes:
        raise FileNotFoundError(
            f"{root}: expected wav/idNNNNN/VIDEO/NNNNN.wav, found {contents(root)}; unpack the audio there, dev and "
            "test"
        )
    clips = _identification_split(root / "iden_split.txt")
    speakers = clips["utterance"].str.partition("/")[0]
    what = "VoxCeleb1's table of speakers, a download of its own beside the audio"
    gender, nationality = of_speakers(speakers, root / "vox1_meta.csv", COLUMNS, what, tabs=True)
    return pd.DataFrame(
        {
            "path": speakers.map(homes).fillna("wav") + "/" + clips["utterance"],  # where it should be, if absent
            "gender": gender,
            "nationality": nationality,
            "gender_nationality": gender + " " + nationality,
            "speaker": speakers,
            "split": clips["split"],
        }
    )


def _identification_split(path: Path) -> pd.DataFrame:
    """utterance (SPEAKER/VIDEO/FILE.wav) and split, from lines such as "1 id10001/VIDEO/00001.wav"."""
    require_file(path, "VoxCeleb1's list of clips for identification, a download of its own beside the audio")
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or line[0] not in ("1", "2", "3") or line[1].count("/") != 2:
            raise ValueError(
                f"{path}: found {' '.join(line)!r} in line {number}; expected 1, 2 or 3 and SPEAKER/VIDEO/FILE.wav; "
                "download the file again"
            )
    return pd.DataFrame(
        {"utterance": [name for _, name in lines], "split": [SPLITS[int(number) - 1] for number, _ in lines]}, dtype=str
    )


def paper(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """1,500 clips as even over gender and nationality as there are. The number is the paper's, the rule is ours."""
    return clips[draw_evenly(tails(clips["path"], 3), clips["gender_nationality"], PAPER_CLIPS, seed)]


DATA_SET = DataSet(
    name="voxceleb1",
    title="VoxCeleb1, speakers",
    layout="wav/idNNNNN/VIDEO/*.wav (or vox1_dev_wav/wav and vox1_test_wav/wav), vox1_meta.csv, iden_split.txt",
    table=table,
    labels=("gender", "nationality", "gender_nationality"),
    categories={"gender": GENDERS},
    clips=153516,
    unit_sec=8.2,
    paper=paper,
    paper_clips=PAPER_CLIPS,
)
