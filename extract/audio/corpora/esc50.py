"""ESC-50: 2,000 recordings of five seconds, 50 categories of everyday sounds, five folds.

Goal: the data set's own meta/esc50.csv as a manifest.
Conventions: as in `layout`; `source` is the Freesound recording that a clip was cut from, whole within a fold.
"""

from pathlib import Path

import pandas as pd

from .layout import DataSet, folder, read_columns

CATEGORIES = (
    "airplane", "breathing", "brushing_teeth", "can_opening", "car_horn", "cat", "chainsaw", "chirping_birds",
    "church_bells", "clapping", "clock_alarm", "clock_tick", "coughing", "cow", "crackling_fire", "crickets",
    "crow", "crying_baby", "dog", "door_wood_creaks", "door_wood_knock", "drinking_sipping", "engine",
    "fireworks", "footsteps", "frog", "glass_breaking", "hand_saw", "helicopter", "hen", "insects",
    "keyboard_typing", "laughing", "mouse_click", "pig", "pouring_water", "rain", "rooster", "sea_waves", "sheep",
    "siren", "sneezing", "snoring", "thunderstorm", "toilet_flush", "train", "vacuum_cleaner", "washing_machine",
    "water_drops", "wind",
)  # fmt: skip


def table(root: Path) -> pd.DataFrame:
    """Clips with category, source and fold (1 to 5), in the order of meta/esc50.csv."""
    audio = folder(root, "audio", "ESC-50-master/audio", "ESC-50/audio")
    path, columns = audio.parent / "meta" / "esc50.csv", ("filename", "category", "src_file", "fold")
    meta = read_columns(path, columns, "the table that comes with ESC-50")
    odd = meta[~meta["fold"].isin(list("12345"))]
    if len(odd):
        raise ValueError(
            f"{path}: {odd['filename'].iloc[0]!r} is in fold {odd['fold'].iloc[0]!r}; expected 1 to 5; download the "
            "file again"
        )
    paths = f"{audio.relative_to(root).as_posix()}/" + meta["filename"]
    return pd.DataFrame({"path": paths, "category": meta["category"], "source": meta["src_file"], "fold": meta["fold"]})


DATA_SET = DataSet(
    name="esc50",
    title="ESC-50, environmental sounds",
    layout="audio/ and meta/esc50.csv (the unpacked ESC-50-master)",
    table=table,
    labels=("category",),
    categories={"category": CATEGORIES},
    clips=2000,
    unit_sec=5.0,
)
