"""Corpora that the package makes by itself: notes from two synthesis methods, and everyday events.

Goal: labelled audio without a download, varied enough that categories overlap, and the same from the same
seed.
Conventions: clips last 1 s at 16 kHz. Each draws all it needs from a generator seeded by (seed, task,
category, number), so that asking for more leaves the earlier ones as they are. "additive" and "fm" share
octaves, timbre families and all that surrounds the tone; only the making of the tone differs. Files are the
same byte for byte on one kind of machine; a sine of another CPU's may differ in its last bit.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..decoding import write_wav
from . import sounds

OCTAVES = {str(octave): [m for m in range(21, 109) if m // 12 - 1 == octave] for octave in range(9)}
"""MIDI pitches of the 88 piano keys by octave, floor(midi / 12) - 1: three, then twelve in each of seven,
then one."""
CATEGORIES = {"additive": tuple(OCTAVES), "fm": tuple(OCTAVES), "events": tuple(sounds.EVENTS)}
LABELS = {"additive": ("octave", "timbre"), "fm": ("octave", "timbre"), "events": ("event",)}
DETUNING = 0.25
"""Semitones by which a note may lie above or below its key."""

Factors = dict[str, str | float]


def clip(task: str, category: str, number: int, seed: int) -> tuple[sounds.Samples, Factors]:
    """One clip, float32 (sample) in [-1, 1], and all that went into it by name ("" where it does not apply).

    Timbre families take turns within an octave; all else is drawn at random.
    """
    rng = np.random.default_rng([seed, list(CATEGORIES).index(task), CATEGORIES[task].index(category), number])
    factors: Factors = dict.fromkeys(("octave", "timbre", "event", "midi", "articulation", "modulation"), "")
    factors |= {"task": task, "number": number, "split": "test" if rng.random() < 0.25 else "train"}
    factors["format"] = "flac" if rng.random() < 0.2 else "wav"
    if task == "events":
        factors["event"] = category
        dry = sounds.event(category, rng)
    else:
        midi = float(rng.choice(OCTAVES[category]) + rng.uniform(-DETUNING, DETUNING))
        timbre = sounds.TIMBRES[(number + int(category)) % len(sounds.TIMBRES)]
        articulation, modulation = str(rng.choice(sounds.ARTICULATIONS)), str(rng.choice(sounds.MODULATIONS))
        factors |= {"octave": category, "timbre": timbre, "midi": midi}
        factors |= {"articulation": articulation, "modulation": modulation}
        breath = rng.uniform(0.3, 1.5)
        dry = sounds.tone(task, midi, timbre, rng, articulation=articulation, modulation=modulation, breath=breath)
    room, noise = str(rng.choice(sounds.ROOMS)), str(rng.choice(sounds.NOISES))
    snr_db, level_db = rng.uniform(6.0, 45.0), rng.uniform(-24.0, -2.0)
    samples = sounds.in_room(dry, rng, room=room, noise=noise, snr_db=snr_db, level_db=level_db)
    return samples, factors | {"room": room, "noise": noise, "snr_db": snr_db, "level_db": level_db}


def clips(seed: int, counts: Mapping[str, int]) -> Iterator[tuple[sounds.Samples, Factors]]:
    """The clips of the tasks named in `counts` (so many per octave, or per event), one after another.

    Raises ValueError for a task that is not made here, and for a negative seed or count.
    """
    unknown = sorted(set(counts) - set(CATEGORIES))
    if unknown or seed < 0 or any(n < 0 for n in counts.values()):
        raise ValueError(
            f"expected a seed and counts of 0 or more for tasks of {', '.join(CATEGORIES)}; "
            f"found seed {seed} and {dict(counts)}: correct these"
        )
    for task, n in counts.items():
        for category in CATEGORIES[task]:
            for number in range(n):
                yield clip(task, category, number, seed)


def synthesise(
    root: Path, *, seed: int = 0, notes_per_octave: int = 75, events_per_category: int = 24
) -> dict[str, Path]:
    """Write the corpora under `root`; return their manifests by task: "additive", "fm" and "events".

    By default 9 x 75 notes of each method and 10 x 24 events, 1,590 clips: 16-bit WAV and, one in five,
    FLAC. Columns of a manifest: `path` relative to `root`, `unit_sec` (1.0), `split` (about a quarter
    "test"), then `octave` and `timbre`, or `event`. Files already there are overwritten.
    """
    root = Path(root)
    counts = {"additive": notes_per_octave, "fm": notes_per_octave, "events": events_per_category}
    rows: dict[str, list[dict[str, str]]] = {task: [] for task in counts}
    for task in counts:
        (root / task).mkdir(parents=True, exist_ok=True)
    for samples, factors in clips(seed, counts):
        task = str(factors["task"])
        labels = {name: str(factors[name]) for name in LABELS[task]}
        path = f"{task}/{'-'.join(labels.values())}-{factors['number']:03d}.{factors['format']}"
        write_wav(root / path, samples, sounds.SAMPLE_RATE)
        rows[task].append({"path": path, "unit_sec": str(sounds.SECONDS), "split": str(factors["split"]), **labels})
    manifests = {task: root / f"{task}.csv" for task in counts}
    for task, manifest in manifests.items():
        table = pd.DataFrame(rows[task], columns=["path", "unit_sec", "split", *LABELS[task]])
        table.to_csv(manifest, index=False, lineterminator="\n")
    return manifests
