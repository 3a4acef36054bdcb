"""Clips that are told apart by their pitch, each with a burst at a known time, and a store of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.extract.capture import capture

from . import patch_encoder
from .patch_encoder import RATE
from .wav_corpora import write_manifest, write_wav_file

HOSTILE = "<img src=x onerror=alert(1)>"
BURSTS = (0.24, 0.56, 0.985)  # middles, of 0.02 s; the last one lies in the column that the clip's end cuts
WHEN = ("early", HOSTILE, "last, cut")
N_CLIPS = 24
ENCODER = f"module:{patch_encoder.__file__}:patches"


def pitch(number: int) -> float:
    """Of a clip, in Hz: its own."""
    return 300.0 + 50 * number


def burst(number: int) -> float:
    """When the burst of a clip is, in s: its middle."""
    return BURSTS[number % len(BURSTS)]


def sound(number: int, seconds: float = 1.0) -> np.ndarray:
    """A tone of a clip's own pitch, with a burst of 5 kHz over it (sample)."""
    t = np.arange(round(seconds * RATE)) / RATE
    level = 0.05 + 0.002 * number
    return level * np.sin(2 * np.pi * pitch(number) * t) + 0.6 * np.sin(2 * np.pi * 5000 * t) * (
        np.abs(t - burst(number)) < 0.01
    )


@dataclass(frozen=True, kw_only=True)
class Tones:
    """A store of the patch encoder with one task, "tones", and its sounds."""

    url: str
    root: Path

    def pitch_of(self, samples: np.ndarray, rate: int) -> float:
        """The pitch that is heard below 2 kHz, in Hz."""
        power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
        hz = np.fft.rfftfreq(1 << 17, 1 / rate)
        return float(hz[np.argmax(np.where((hz > 100) & (hz < 1900), power, 0))])


def made(folder: Path) -> Tones:
    """Sounds and store under a folder: categories of height (2) and of when the burst is (3)."""
    paths = [f"audio/tone {i:02d} {HOSTILE.replace('/', '')}.wav" for i in range(N_CLIPS)]
    for i, path in enumerate(paths):
        write_wav_file(folder / path, np.round(32767 * sound(i)), RATE)
    columns = {
        "height": ["low" if i < N_CLIPS // 2 else "high" for i in range(N_CLIPS)],
        "when": [WHEN[i % len(BURSTS)] for i in range(N_CLIPS)],
        "voice": [str(i % 12) for i in range(N_CLIPS)],
    }
    write_manifest(folder / "tones.csv", paths, columns)
    url = str(folder / "tones.zarr")
    capture(ENCODER, folder / "tones.csv", url, task="tones", unit_sec=1.0, threads=1, batch=8)
    return Tones(url=url, root=folder)
