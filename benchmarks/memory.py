"""Does peak memory grow with the number of clips?

Extraction and selection of 4 and of 40 blocks, each in fresh processes: a cheap encoder of 12 x 3,072 neurons, every
variable kept. The figure is the rise with many blocks over the rise with few.
"""

import logging
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import otoscope
import otoscope.extract.capture as extraction
import otoscope.extract.models.encoder as encoders
from otoscope.analysis.selection.labellings import labellings, select_neurons
from otoscope.analysis.selection.selection import Selection
from otoscope.store.provenance import VARIABLES

from . import harness
from .harness import Figure, Measured, fresh_process, memory_rise
from .synthetic import LABEL, LAYERS, TASK, WIDTH, write_audio

READINGS = ("clip", "frame")


@dataclass(frozen=True, kw_only=True)
class Size:
    few: int
    many: int
    block: int
    categories: int
    selections: int


FULL = Size(few=4, many=40, block=512, categories=50, selections=7)
SMALL = Size(few=1, many=2, block=16, categories=2, selections=1)


class Layer(nn.Module):
    """16 numbers to 3,072 neurons, as often below zero as above so that no reading saturates, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.rise = nn.Linear(16, WIDTH)
        self.act = nn.Hardtanh()

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.act(self.rise(tokens)).unflatten(-1, (16, -1)).mean(dim=-1)


class Cheap(nn.Module):
    """(clip, sample) to (clip, token, 16): a token is 400 samples, averaged over 25 at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, waveforms: Tensor) -> Tensor:
        tokens = 10 * waveforms.unflatten(1, (-1, 16, 25)).mean(dim=3)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def cheap_encoder() -> encoders.Encoder:
    torch.manual_seed(0)
    return encoders.Encoder(
        module=Cheap(), sample_rate=16_000, sites=["blocks.*.act"], transformer_layers=["blocks.*"], min_samples=400
    )


def extraction_rise(manifest: str, url: str, block: int) -> int:
    """Bytes, of a whole extraction."""
    logging.disable(logging.INFO)
    how = {"keep": VARIABLES, "block": block, "threads": 2, "device": "cpu"}
    return memory_rise(lambda: extraction.capture(cheap_encoder(), manifest, url, task=TASK, **how))


def selection_rise(url: str, reading: str) -> int:
    """Bytes, of opening the store and selecting its class-specific neurons."""

    def select() -> None:
        (labelling,) = labellings({"store": otoscope.open(url)}, [f"{TASK}:{LABEL}"])
        select_neurons(labelling, Selection(reading=reading))

    return memory_rise(select)


def measure(scratch: Path, size: Size) -> Measured:
    counts = {"few": size.few, "many": size.many}
    rises: dict[str, dict[str, list[int]]] = {
        name: {"extraction": [], **{f"selection, reading {reading}": [] for reading in READINGS}} for name in counts
    }
    manifests = {
        name: write_audio(scratch / name, n_clips=n * size.block, seconds=0.05, n_categories=size.categories)
        for name, n in counts.items()
    }
    for name in counts:
        url = str(scratch / f"{name}.zarr")
        rise = fresh_process("memory:extraction_rise", manifest=str(manifests[name]), url=url, block=size.block)
        rises[name]["extraction"].append(rise)
        for reading in READINGS * size.selections:
            rise = fresh_process("memory:selection_rise", url=url, reading=reading)
            rises[name][f"selection, reading {reading}"].append(rise)
    figures = []
    for case in rises["few"]:
        few, many = (statistics.median(rises[name][case]) for name in ("few", "many"))
        how = (
            f"{size.many} blocks of {size.block} clips ({many / 1e6:.0f} MB) over {size.few} ({few / 1e6:.0f} MB), "
            f"{LAYERS * WIDTH:,} neurons, all variables; in fresh processes, "
            f"median of {len(rises['few'][case])}"
        )
        name = f"growth of peak memory: {case}"
        figures.append(Figure(name=name, value=many / few, unit="times", bound=1.1, at_least=False, how=how))
    return Measured(figures=figures, raw={"rise_bytes": rises})


def main() -> None:
    harness.main("memory")


if __name__ == "__main__":
    main()
