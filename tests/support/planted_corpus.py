"""Sounds for the encoder of `planted`: what its first four samples say, and samples that mean nothing."""

from pathlib import Path

import numpy as np

from .planted_encoder import CATEGORIES, HOP, RATE
from .wav_corpora import write_manifest, write_wav_file


def write_sounds(
    folder: Path, per_category: int = 30, seed: int = 0, lengths: tuple[int, ...] = (8,), fold: bool = False
) -> Path:
    """Clips of so many frames each in turn, and their manifest; a third are for test, or three folds."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[str]] = {"letter": [], "fold" if fold else "split": []}
    paths: list[str] = []
    for i in rng.permutation(per_category * len(CATEGORIES)).tolist():
        category, number = i % len(CATEGORIES), i // len(CATEGORIES)
        frame = np.zeros(HOP)
        frame[min(category, 2)] = rng.uniform(0.6, 0.9)
        if category == 3:
            frame[3] = rng.uniform(0.6, 0.9)
        frame[8:] = rng.uniform(-0.9, 0.9, 8)
        n_frames = lengths[number % len(lengths)]
        sound = np.tile(frame, n_frames) + rng.normal(0, 0.02, n_frames * HOP)
        paths.append(f"audio/{len(paths):04d}.wav")
        write_wav_file(folder / paths[-1], np.round(32767 * sound).clip(-32768, 32767), RATE)
        columns["letter"].append(CATEGORIES[category])
        columns["fold" if fold else "split"].append(
            str(number % 3) if fold else ("test" if number % 3 == 2 else "train")
        )
    write_manifest(folder / "sounds.csv", paths, columns)
    return folder / "sounds.csv"
