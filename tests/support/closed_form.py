"""What several tests need: small corpora of real WAV files, and an encoder whose activations can be worked out by hand.

Conventions: audio is whole numbers of 1/32768 and the weights are small whole numbers, so that every sum is exact in
float32 whatever its order, and numpy's results can be compared bit for bit.
Contents: `write_wav_file`, `write_corpus`, `write_manifest`, `Finished`, `closed_form`, `expected`, `After`,
`interrupt`, `command`, `otoscope`, `tree_of`.
"""

import csv
import subprocess
import sys
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from otoscope.cluster.executor import SerialExecutor
from otoscope.extract.models.encoder import Encoder

RATE, HOP, WIDTHS, CLS = 1000, 10, (11, 3), 0.25
LENGTHS = [10 * (2 + i % 7) + i % 3 for i in range(37)]
WEIGHTS = [np.random.default_rng(seed).integers(-2, 3, (width, HOP)) for seed, width in enumerate(WIDTHS)]


def write_wav_file(path: Path, samples: np.ndarray, rate: int) -> None:
    """Mono 16-bit WAV of int16 samples (sample)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def write_corpus(
    folder: Path, lengths: Sequence[int], *, rate: int = RATE, seed: int = 0,
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


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A store of 37 clips in 10 blocks, and what went into it."""

    url: str
    manifest: Path
    sounds: list[np.ndarray]


class Layer(nn.Module):
    """Neurons that are linear in the tokens; passes twice the tokens on."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.neurons = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.neurons.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32))

    def forward(self, tokens: Tensor) -> Tensor:
        self.neurons(tokens)
        return 2 * tokens


class ClosedForm(nn.Module):
    """Tokens of HOP samples after a constant CLS; two layers, unequal in width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(Layer, WEIGHTS))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.cat([torch.full((len(tokens), 1, HOP), CLS), tokens], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        return tokens


def in_tokens(waveforms: Tensor) -> Tensor:
    """(clip, sample) -> (clip, token, HOP); samples that fill no token are left out."""
    return waveforms.unfold(1, HOP, HOP)


def spans(n_samples: int) -> np.ndarray:
    """CLS first, then HOP samples per token."""
    t0 = np.arange(n_samples // HOP) * HOP / RATE
    times = np.column_stack([t0, t0 + HOP / RATE])
    return np.column_stack([np.vstack([[np.nan, np.nan], times]), np.zeros((len(t0) + 1, 2))])


def largest(tokens: Tensor) -> Tensor:
    """Embedding: the largest value over the tokens (clip, HOP)."""
    return tokens.amax(dim=1)


def closed_form(**changes: Any) -> Encoder:
    """The encoder; `expected` says in numpy what it does."""
    given: dict[str, Any] = {
        "module": ClosedForm(),
        "sample_rate": RATE,
        "sites": ["layers.*.neurons"],
        "prepare": in_tokens,
        "embed": largest,
        "frame_spans": spans,
        "input_length": lambda n: n // HOP,
        "transformer_layers": ["layers.*"],
        "min_samples": HOP,
        "name": "closed-form",
    }
    return Encoder(**{**given, **changes})


def expected(samples: np.ndarray, frames: str = "audio", unit: int | None = None) -> dict[str, np.ndarray]:
    """What one clip gives, by plain arithmetic: mean and positive (layer, neuron), frame_count, embedding, hidden."""
    sound = np.asarray(samples, np.float64) / 32768
    if unit is not None:
        sound = np.concatenate([sound, np.zeros(unit)])[:unit]
    tokens = sound[: len(sound) // HOP * HOP].reshape(-1, HOP)
    heard = np.array([start < len(samples) for start in range(0, len(tokens) * HOP, HOP)])
    rows = {
        "audio": tokens[heard],
        "published": tokens,
        "all": np.vstack([np.full((1, HOP), CLS), tokens]),
    }[frames]
    count = np.float32(len(rows))
    neurons = [2.0**layer * rows @ weight.T for layer, weight in enumerate(WEIGHTS)]
    mean = np.full((2, max(WIDTHS)), np.nan, np.float32)
    positive = np.zeros((2, max(WIDTHS)), np.uint16)
    for layer, values in enumerate(neurons):
        mean[layer, : WIDTHS[layer]] = values.sum(axis=0).astype(np.float32) / count
        positive[layer, : WIDTHS[layer]] = (values > 0).sum(axis=0)
    hidden = np.stack([(2.0**state * rows).sum(axis=0).astype(np.float32) / count for state in range(3)])
    return {
        "mean": mean, "positive_frames": positive, "frame_count": np.asarray(len(rows)),
        "embedding": tokens.max(axis=0).astype(np.float32), "hidden": hidden,
    }  # fmt: skip


class After(SerialExecutor):
    """The serial executor with something happening after so many blocks, and before any other begins."""

    def __init__(self, n: int, happening: Any) -> None:
        self.n, self.happening = n, happening

    def run(self, make_worker: Any, pieces: Any) -> Iterator[Any]:
        pieces = list(pieces)
        yield from super().run(make_worker, pieces[: self.n])
        self.happening()
        yield from super().run(make_worker, pieces[self.n :])


def interrupt() -> None:
    raise KeyboardInterrupt


def command(*arguments: object) -> list[str]:
    """The real `otoscope` command as a list for subprocess."""
    return [sys.executable, "-c", "from otoscope.cli.main import main; main()", *map(str, arguments)]


def otoscope(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the real `otoscope` command."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, **options)


def tree_of(folder: str | Path) -> dict[str, bytes]:
    """Every file under a folder by its relative path; temporary files that mean nothing left out."""
    root = Path(folder)
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".partial")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
