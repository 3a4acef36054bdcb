"""What does it cost to keep every token, as most do, beside what a store keeps?

The same WAV files and the same ViT-Base M2D (random weights) three ways: forward hooks that keep every token of every
layer in float32, saved by `torch.save` for each batch; the same tokens written into one memory-mapped float32 file per
shard (clip, layer, token, width), which is how saev lays activations out; extraction into a store. Each way has
processes of its own, in turn; within one, a block of the bare forward pass and one of the way take turns. Nobody waits
for the disk.
"""

import logging
import shutil
import statistics
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.forward import arithmetic
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.extract.models.tap import match_sites
from otoscope.store.blocks import Block, blocks

from . import harness
from .harness import Figure, Measured, fresh_process, median_ratio, memory_rise, recorded
from .synthetic import write_audio
from .throughput import Interleaved, bare_pass

WAYS = {
    "bare": "the encoder alone, on waveforms in memory",
    "saved": "hooks keep every token, `torch.save` per batch",
    "mapped": "every token into memory-mapped float32 shards",
    "store": "otoscope",
}


@dataclass(frozen=True, kw_only=True)
class Size:
    blocks: int
    block: int
    seconds: float
    batch: int
    repetitions: int
    depth: int = 12


FULL = Size(blocks=3, block=16, seconds=5.0, batch=16, repetitions=1)
SMALL = Size(blocks=2, block=4, seconds=0.5, batch=2, repetitions=1, depth=1)


def made_encoder(depth: int) -> Encoder:
    torch.manual_seed(0)
    return as_encoder(M2D(depth=depth)).to("cpu")


def bytes_of_all_tokens(encoder: Encoder, size: Size) -> int:
    """Of a clip: each site's outputs for all tokens, CLS included, in float32."""
    n_tokens = len(encoder.spans(round(size.seconds * encoder.sample_rate)))
    return 4 * n_tokens * sum(site.width for site in encoder.anatomy().sites)


class EveryToken(ABC):
    """Runs files through an encoder, and gives the outputs of all sites, each (clip, token, width), to `keep`."""

    def __init__(self, encoder: Encoder, files: list[Path], size: Size, folder: Path):
        self.encoder, self.files, self.size, self.folder = encoder, files, size, folder
        self.sites = match_sites(encoder.module, encoder.sites)
        self.seen: list[Tensor] = []
        folder.mkdir()

    def __call__(self, block: Block) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.seen.append(output)

        hooks = [self.encoder.module.get_submodule(site).register_forward_hook(hook) for site in self.sites]
        with torch.inference_mode(), arithmetic(torch.get_num_threads()):
            for first in range(block.start, block.stop, self.size.batch):
                files = self.files[first : min(first + self.size.batch, block.stop)]
                waveforms = np.stack([soundfile.read(file, dtype="float32")[0] for file in files])
                self.encoder(torch.from_numpy(waveforms))
                self.keep(block, first, self.seen)
                self.seen.clear()
        for each in hooks:
            each.remove()

    @abstractmethod
    def keep(self, block: Block, first: int, layers: list[Tensor]) -> None:
        """What becomes of the batch that begins with clip `first`."""


class Saved(EveryToken):
    """A file of torch's per batch."""

    def keep(self, block: Block, first: int, layers: list[Tensor]) -> None:
        torch.save(dict(zip(self.sites, layers, strict=True)), self.folder / f"{first:06}.pt")


class Mapped(EveryToken):
    """A memory-mapped shard per block."""

    shard: np.memmap | None = None

    def keep(self, block: Block, first: int, layers: list[Tensor]) -> None:
        if first == block.start:
            shape = (len(block), len(layers), *layers[0].shape[1:])
            self.shard = np.memmap(self.folder / f"acts{block.index:06}.bin", np.float32, "w+", shape=shape)
        assert self.shard is not None
        at = first - block.start
        for layer, values in enumerate(layers):
            self.shard[at : at + len(values), layer] = values.numpy()
        if at + len(layers[0]) == len(block):
            self.shard.flush()
            self.shard = None


def one_way(way: str, manifest: str, folder: str, size: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each block beside the bare pass's, peak memory and bytes on disk of one way, in this process."""
    logging.getLogger("otoscope").setLevel(logging.WARNING)
    how, there = Size(**size), Path(folder)
    encoder, corpus = made_encoder(how.depth), read_manifest(manifest)
    bare = bare_pass(encoder, corpus, how.batch)
    executor = Interleaved(bare)
    todo = list(blocks("t", len(corpus), how.block))
    files = [Path(manifest).parent / path for path in corpus.clips.table["path"]]

    def run() -> None:
        if way == "bare":
            bare(todo[0])
        elif way == "store":
            capture(
                encoder, corpus, str(there), task="t", block=how.block, batch=how.batch,
                threads=torch.get_num_threads(), device="cpu", executor=executor,
            )  # fmt: skip
        else:
            keep = (Saved if way == "saved" else Mapped)(encoder, files, how, there)
            for _ in executor.run(lambda: keep, todo):
                pass

    rise = memory_rise(run)
    written = sum(file.stat().st_size for file in there.rglob("*") if file.is_file()) if there.exists() else 0
    shutil.rmtree(there, ignore_errors=True)
    return {
        "bare_seconds": [seconds["bare"][0] for seconds in executor.seconds],
        "way_seconds": [seconds["extraction"][0] for seconds in executor.seconds],
        "peak_bytes": rise,
        "bytes_per_clip": written / len(corpus),
        "bytes_of_all_tokens": bytes_of_all_tokens(encoder, how),
    }


def measure(scratch: Path, size: Size) -> Measured:
    n_clips = size.blocks * size.block
    manifest = write_audio(scratch / "corpus", n_clips=n_clips, seconds=size.seconds, n_categories=10)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for repetition in range(size.repetitions):
        order = list(WAYS)[repetition % len(WAYS) :] + list(WAYS)[: repetition % len(WAYS)]
        for way in order:
            about = {"manifest": str(manifest), "folder": str(scratch / way), "size": asdict(size)}
            found[way].append(fresh_process("against_hooks:one_way", way=way, **about))
    every_token = found["bare"][0]["bytes_of_all_tokens"]
    raw: dict[str, Any] = {"bytes_of_all_tokens": every_token, "ways": {}, "processes": found}
    for way, runs in found.items():
        bare, seconds = ([s for run in runs for s in run[name]] for name in ("bare_seconds", "way_seconds"))
        raw["ways"][way] = {
            "share": median_ratio(bare, seconds) if seconds else 1.0,
            "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
            "bytes_per_clip": statistics.median(run["bytes_per_clip"] for run in runs),
        }
    ours, saved = raw["ways"]["store"], raw["ways"]["saved"]
    how = f"ViT-Base M2D, {n_clips} clips of {size.seconds:g} s from WAV files, batches of {size.batch}"
    figures = [
        Figure(
            name="bytes of a store, against every token in float32", value=ours["bytes_per_clip"] / every_token,
            unit="", bound=0.01, at_least=False, how=f"{how}; the same layers, all tokens, by arithmetic",
        ),
        Figure(
            name="extraction, times as fast as hooks and `torch.save`", value=ours["share"] / saved["share"],
            unit="times", bound=1.0, at_least=True, how=f"{how}; shares of the bare pass, each the median of "
            f"{size.blocks * size.repetitions} ratios block by block in turn",
        ),
        Figure(
            name="peak memory of extraction, against hooks and `torch.save`",
            value=ours["peak_bytes"] / max(saved["peak_bytes"], 1), unit="times", bound=1.0, at_least=False,
            how=f"{how}; above the process with its encoder, median of {size.repetitions} processes",
        ),
    ]  # fmt: skip
    return Measured(figures=figures, raw=raw)


def ways_table(results: Path = harness.RESULTS) -> str:
    """Markdown: a row per way, from what was recorded."""
    record = recorded("against_hooks", results)
    raw, size = record["raw"], record["size"]
    every_token = raw["bytes_of_all_tokens"]
    lines = [
        "| way | share of the bare pass | peak memory | bytes per clip | of every token |",
        "|---|---|---|---|---|",
    ]
    for way, name in WAYS.items():
        row = raw["ways"][way]
        share, of_all = f"{row['share']:.2f}", f"{100 * row['bytes_per_clip'] / every_token:.3g} %"
        written = f"{row['bytes_per_clip'] / 1e6:.3g} MB"
        cells = ("1", "-", "-") if way == "bare" else (share, written, of_all)
        lines.append(f"| {name} | {cells[0]} | {row['peak_bytes'] / 1e9:.2f} GB | {cells[1]} | {cells[2]} |")
    note = (
        f"{size['blocks'] * size['block']} clips of {size['seconds']:g} s, {size['depth']} layers of ViT-Base, batches "
        f"of {size['batch']}, shards and blocks of {size['block']} clips; every token of a clip in float32 is "
        f"{every_token / 1e6:.4g} MB. Memory is the resident set above that of the process with its encoder; pages of "
        f"mapped files count in it, and the system may take them back. {record['machine']['cores']} cores of "
        f"{record['machine']['cpu']}, whose load was {record['load_before']:.2g} before, {record['date']}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    harness.main("against_hooks")


if __name__ == "__main__":
    main()
