"""Small corpora of real WAV files, whose samples are whole numbers of 1/32768."""

import csv
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

LENGTHS = [10 * (2 + i % 7) + i % 3 for i in range(37)]  # samples: 2 to 8 frames of the closed form, mostly ragged


def write_wav_file(path: Path, samples: np.ndarray, rate: int) -> None:
    """Mono 16-bit WAV of int16 samples (sample)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def write_corpus(
    folder: Path, lengths: Sequence[int], *, rate: int = 1000, seed: int = 0,
    columns: Mapping[str, Sequence[str]] | None = None, name: str = "corpus.csv",
) -> tuple[Path, list[np.ndarray]]:  # fmt: skip
    """WAV files of so many samples each under folder/audio, and their manifest; the int16 samples of each clip."""
    rng = np.random.default_rng(seed)
    sounds = [rng.integers(-127, 128, n).astype("<i2") for n in lengths]
    paths = [f"audio/{i:03d}.wav" for i in range(len(sounds))]
    for path, samples in zip(paths, sounds, strict=True):
        write_wav_file(folder / path, samples, rate)
    columns = {"kind": ["abc"[i % 3] for i in range(len(sounds))]} if columns is None else columns
    write_manifest(folder / name, paths, columns)
    return folder / name, sounds


def write_manifest(path: Path, paths: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    """A manifest of these paths and label columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *columns])
        writer.writerows(zip(paths, *columns.values(), strict=True))
