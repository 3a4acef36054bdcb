"""GISE-51: isolated sound events of 51 classes, taken from FSD50K.

Goal: the archive isolated_events.tar.gz as a manifest; the five-second mixtures of the same authors are not read.
Conventions: as in `layout`; a clip's class is the folder it lies in; the splits train, val and eval are the folders
above and become train, valid and test.
Contents: `CATEGORIES`, `table`, `DATA_SET`.
"""

from pathlib import Path

import pandas as pd

from .layout import DataSet, files, folder, require_files

CATEGORIES = (
    "Applause", "Boom_and_explosion", "Burping_and_eructation", "Bus", "Car", "Chirp_and_tweet", "Clapping",
    "Coin_(dropping)", "Cough", "Crash_cymbal", "Cricket", "Crumpling_and_crinkling_and_crushing",
    "Dishes_and_pots_and_pans_and_cutlery_and_silverware", "Dog", "Drill", "Drum", "Fart", "Fireworks", "Glass",
    "Gong", "Guitar", "Gunshot_and_gunfire", "Hammer", "Harmonica", "Harp", "Hi-hat", "Human_speech",
    "Keys_jangling", "Laughter", "Marimba_and_xylophone", "Organ", "Piano", "Rattle_(instrument)", "Screaming",
    "Shatter", "Slam", "Sliding_door", "Subway_and_metro_and_underground", "Tambourine", "Tap", "Tearing",
    "Thunder", "Toilet_flush", "Train", "Trumpet", "Walk_and_footsteps",
    "Waves_and_surf_and_splash_and_splatter_stream", "Whispering", "Wind", "Writing", "Zipper_(clothing)",
)  # fmt: skip
SPLIT_OF = {"train": "train", "val": "valid", "eval": "test"}


def table(root: Path) -> pd.DataFrame:
    """Clips with category, and their split where the class folders lie in train, val and eval."""
    events = folder(root, "isolated_events", ".")
    found = files(root, (".wav",), within=events)
    require_files(found, events, "isolated events as train/CLASS/FILE.wav, or val, or eval")
    inside = [path.rsplit("/", 3) for path in found]
    flat = [path for path, parts in zip(found, inside, strict=True) if len(parts) < 2]
    if flat:
        raise ValueError(
            f"{root}: {flat[0]!r} lies in no class folder; expected train/CLASS/FILE.wav; name the folder that holds "
            "isolated_events"
        )
    clips = pd.DataFrame({"path": found, "category": [parts[-2] for parts in inside]})
    splits = [SPLIT_OF.get(parts[-3], "") if len(parts) > 2 else "" for parts in inside]
    return clips.assign(split=splits) if any(splits) else clips


DATA_SET = DataSet(
    name="gise51",
    title="GISE-51, isolated sound events",
    layout="isolated_events/{train,val,eval}/CLASS/*.wav (the unpacked isolated_events.tar.gz)",
    table=table,
    labels=("category",),
    categories={"category": CATEGORIES},
    clips=16357,
)
