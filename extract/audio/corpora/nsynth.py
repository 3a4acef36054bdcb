"""NSynth: 305,979 notes of four seconds from 1,006 instruments of eleven families.

Goal: nsynth-train, nsynth-valid and nsynth-test with their examples.json as one manifest.
Conventions: as in `layout`; `pitch` is a MIDI number, `octave` is floor(pitch / 12) - 1, from -1 to 8 over all
pitches.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from ....documents import parse_json, read_document
from .layout import SPLITS, DataSet, contents, draw, octave, require_file, tails

FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
PIANO = range(21, 109)
PER_FAMILY = 2000
MAX_TABLE_BYTES, MAX_TABLE_VALUES = 2**29, 2**23  # the training set's has 200 million, and 7 million values
FIELDS = {"instrument_family_str": str, "pitch": int, "instrument_str": str}


def table(root: Path) -> pd.DataFrame:
    """Clips with family, pitch, octave, instrument and split, in the order of each examples.json."""
    parts = [split for split in SPLITS if (root / f"nsynth-{split}").is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"{root}: expected the folders nsynth-train, nsynth-valid and nsynth-test, found {contents(root)}; unpack "
            "the json/wav archives there"
        )
    rows = [
        {
            "path": f"nsynth-{split}/audio/{name}.wav",
            "family": note["instrument_family_str"],
            "pitch": str(note["pitch"]),
            "octave": str(octave(note["pitch"])),
            "instrument": note["instrument_str"],
            "split": split,
        }
        for split in parts
        for name, note in _examples(root / f"nsynth-{split}" / "examples.json").items()
    ]
    return pd.DataFrame(rows, dtype=str)


def _examples(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a note -> what is said of it."""
    require_file(path, "the table that comes with NSynth's json/wav archives")
    try:
        notes = parse_json(read_document(path, MAX_TABLE_BYTES), MAX_TABLE_BYTES, MAX_TABLE_VALUES)
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON; found: {error}; download the archive again") from error
    if not isinstance(notes, dict) or not notes:
        raise ValueError(f"{path}: expected an object with an entry per note; download the archive again")
    for name, note in notes.items():
        for key, kind in FIELDS.items():
            if not isinstance(note, dict) or type(note.get(key)) is not kind:
                raise ValueError(
                    f"{path}: {name!r} has no {key} of type {kind.__name__}; expected one; download the archive again"
                )
    return notes


def paper(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """2,000 notes of each family on the 88 keys of a piano (octaves 0 to 8), 22,000 clips; a rule by our inference."""
    on_piano = clips[clips["pitch"].astype(int).isin(PIANO)]
    return on_piano[draw(tails(on_piano["path"], 3), on_piano["family"], PER_FAMILY, seed)]


DATA_SET = DataSet(
    name="nsynth",
    title="NSynth, notes of instruments",
    layout="nsynth-{train,valid,test}/examples.json and audio/*.wav (the unpacked json/wav archives)",
    table=table,
    labels=("family", "pitch", "octave"),
    categories={"family": FAMILIES},
    clips=305979,
    unit_sec=4.0,
    paper=paper,
    paper_clips=len(FAMILIES) * PER_FAMILY,
)
