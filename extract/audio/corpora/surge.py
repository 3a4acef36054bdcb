"""Surge: 2,084 sounds of the synthesizer of that name, each played on the 88 keys of a piano.

Goal: SOUND/NOTE.ogg as a manifest labelled by note and by octave.
Conventions: as in `layout`; `note` is the file's name without its ending, as it is. How these names count is not
documented, so it is read off the whole set: 88 whole numbers in a row, or 88 names from A0 to C8, are taken for the
keys in order.
"""

import re
from pathlib import Path

import pandas as pd

from .layout import DataSet, draw, files, octave, parse_paths, with_splits

LOWEST, KEYS = 21, 88  # MIDI pitch of A0, and how many keys from there
OCTAVES = tuple(map(str, range(9)))
STARTS = (21, 0, 1)  # MIDI pitch, or the number of the key from 0 or from 1
PAPER_TONES = 500
DEGREES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


def table(root: Path, *, lowest: int | None = None, splits: Path | None = None) -> pd.DataFrame:
    """Clips with note, octave (0 to 8) and tone, and their split if a table of splits is given.

    lowest: the number that files of the lowest key, A0, bear; needed only if it cannot be told.
    splits: a table of `tone` (a folder's name), or of `file_name` (TONE/NOTE.ogg), and `split`.
    """
    expected = "folders of sounds with files such as TONE/60.ogg"
    clips = parse_paths(
        root, files(root, (".ogg",), expected), r"(.*/)?(?P<tone>[^/]+)/(?P<note>[^/]*)\.[^./]*", expected
    )
    midi = midi_of_notes(sorted(set(clips["note"])), lowest)
    clips["octave"] = clips["note"].map(lambda note: str(octave(midi[note])))
    return with_splits(clips[["path", "note", "octave", "tone"]], splits, 2, key="tone")


def midi_of_notes(notes: list[str], lowest: int | None = None) -> dict[str, int]:
    """File names -> MIDI pitch, 21 (A0) to 108 (C8); ValueError if the names do not tell it."""
    if lowest is None:
        named = {note: _pitch_of_name(note) for note in notes}
        if all(pitch is not None for pitch in named.values()):
            pitches = {note: pitch for note, pitch in named.items() if pitch is not None}
            return _on_the_piano(pitches, "names of notes")
    numbers = {note: int(match[1]) for note in notes if (match := re.fullmatch(r"\D*(\d+)", note))}
    if len(numbers) < len(notes):
        raise ValueError(
            f"found a file {next(note for note in notes if note not in numbers)!r}; expected names of notes such as "
            "A0, or names ending in a number; rename the files"
        )
    if lowest is None:
        starts = [start for start in STARTS if set(numbers.values()) == set(range(start, start + KEYS))]
        if not starts:
            raise ValueError(
                f"found {len(numbers)} different notes from {min(numbers.values())} to {max(numbers.values())}; "
                f"expected {KEYS} in a row from 21, 0 or 1; complete the download, or say with --lowest which number "
                "the lowest key, A0, bears"
            )
        lowest = starts[0]
    return _on_the_piano({note: number - lowest + LOWEST for note, number in numbers.items()}, f"lowest {lowest}")


def _on_the_piano(pitches: dict[str, int], how: str) -> dict[str, int]:
    beyond = [note for note, pitch in pitches.items() if not LOWEST <= pitch < LOWEST + KEYS]
    if beyond:
        raise ValueError(
            f"{beyond[0]!r} is not one of the {KEYS} keys of a piano ({how}); expected A0 to C8; correct --lowest or "
            "the file's name"
        )
    keys: dict[int, str] = {}
    for note, pitch in pitches.items():
        if keys.setdefault(pitch, note) != note:
            raise ValueError(
                f"{keys[pitch]!r} and {note!r} are the same key ({how}); expected one name per key; rename the files"
            )
    return pitches


def _pitch_of_name(note: str) -> int | None:
    """MIDI pitch of a name such as A0, C#4 or Eb3 (C4 is 60), None if it is none."""
    match = re.fullmatch(r"([A-G])([#b]?)(\d)", note)
    if match is None:
        return None
    return 12 * (int(match[3]) + 1) + DEGREES[match[1].lower()] + {"#": 1, "b": -1, "": 0}[match[2]]


def paper(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """All notes of 500 tones, 44,000 clips. The number is the paper's; whole tones, and which, is our inference."""
    everywhere = pd.Series("", index=clips.index)
    return clips[draw(clips["tone"], everywhere, PAPER_TONES, seed)]


DATA_SET = DataSet(
    name="surge",
    title="Surge, synthesizer notes",
    layout="TONE/NOTE.ogg, 88 notes of each tone",
    table=table,
    labels=("note", "octave"),
    categories={"octave": OCTAVES},
    clips=183392,
    unit_sec=4.0,
    options=("lowest", "splits"),
    paper=paper,
    paper_clips=PAPER_TONES * KEYS,
)
