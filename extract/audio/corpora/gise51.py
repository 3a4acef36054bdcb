"""GISE-51: isolated sound events of 51 classes, taken from FSD50K.

Goal: the archive isolated_events.tar.gz as a manifest; the five-second mixtures of the same authors are not read.
Conventions: as in `layout`; a clip's class is the folder it lies in; the splits train, val and eval are the folders
above and become train, valid and test.
"""

from pathlib import Path

import pandas as pd

from .layout import DataSet, files, folder, parse_paths

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
    expected = "isolated events as train/CLASS/FILE.wav, or val, or eval"
    found = files(root, (".wav",), expected, within=folder(root, "isolated_events", "."))
    clips = parse_paths(root, found, r"(((.*/)?(?P<split>[^/]+)/)?(?P<category>[^/]+)/)[^/]+", expected)
    splits = clips.pop("split").map(SPLIT_OF).fillna("")
    return clips.assign(split=splits) if splits.any() else clips


DATA_SET = DataSet(
    name="gise51",
    title="GISE-51, isolated sound events",
    layout="isolated_events/{train,val,eval}/CLASS/*.wav (the unpacked isolated_events.tar.gz)",
    table=table,
    labels=("category",),
    categories={"category": CATEGORIES},
    clips=16357,
)
