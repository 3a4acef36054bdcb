"""How much of the model's own speed does extraction keep?

The same ViT-Base M2D (random weights) on the same clips: extraction from WAV files to committed blocks of a store,
against the encoder alone (front end and network) on the waveforms in memory; one block of each in turn.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from otoscope.cluster.executor import Done, Failed, WorkerState
from otoscope.extract.audio.corpus import Corpus
from otoscope.extract.audio.decoding import read_clip
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.forward import arithmetic
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.store.blocks import Block

from . import harness
from .harness import Figure, Measured, interleaved, median_ratio, seconds_of
from .synthetic import write_audio


@dataclass(frozen=True, kw_only=True)
class Size:
    blocks: int
    block: int
    seconds: float
    batch: int = 32
    depth: int = 12


FULL = Size(blocks=9, block=64, seconds=5.0)
SMALL = Size(blocks=2, block=4, seconds=0.5, batch=2, depth=1)


class Interleaved:
    """A serial executor that runs the bare forward pass, and whatever else, beside each block."""

    name, remote, on_this_machine = "interleaved", False, True
    cpus_per_worker: float | None = None

    def __init__(self, bare: Callable[[Block], object], **others: Callable[[Block], object]):
        self.beside = {"bare": bare, **others}
        self.seconds: list[dict[str, list[float]]] = []

    def run(self, make_worker: Callable[[], Any], pieces: Iterable[Block]) -> Generator[Done[Any, Any] | Failed[Any]]:
        worker = make_worker()
        for i, block in enumerate(pieces):
            results: list[Any] = []
            cases: dict[str, Callable[[], object]] = {name: partial(run, block) for name, run in self.beside.items()}
            if i == 0:
                interleaved(cases, 1)  # warm; the worker was warmed by looking at the anatomy
            cases["extraction"] = partial(lambda block, results: results.append(worker(block)), block, results)
            order = list(cases) if i % 2 else list(cases)[::-1]
            self.seconds.append(interleaved({name: cases[name] for name in order}, 1))
            yield Done(piece=block, result=results[0], seconds=self.seconds[-1]["extraction"][0])

    def max_workers(self) -> int:
        return 1

    def workers(self) -> tuple[WorkerState, ...]:
        return ()


def bare_pass(encoder: Encoder, corpus: Corpus, batch: int, unit_sec: float | None = None) -> Callable[[Block], None]:
    """The encoder alone on a block's waveforms, which are in memory before the clock starts.

    unit_sec: seconds that they are cut, or filled with zeros, to.
    """
    audio = [
        read_clip(corpus.clips.root, corpus.clips.clip(i), encoder.sample_rate).samples for i in range(len(corpus))
    ]
    n_samples = len(audio[0]) if unit_sec is None else round(unit_sec * encoder.sample_rate)
    waveforms = torch.zeros(len(audio), n_samples)
    for row, samples in zip(waveforms.numpy(), audio, strict=True):
        row[: len(samples)] = samples[:n_samples]
    threads = torch.get_num_threads()

    def run(block: Block) -> None:
        with torch.no_grad(), arithmetic(threads):  # as extraction: in inference mode 16-bit weights are not kept
            for part in waveforms[block.clips].split(batch):
                encoder(part)

    return run


def measure(scratch: Path, size: Size) -> Measured:
    logging.getLogger("otoscope").setLevel(logging.WARNING)
    n_clips = size.blocks * size.block
    manifest = write_audio(scratch / "corpus", n_clips=n_clips, seconds=size.seconds, n_categories=10)
    corpus = read_manifest(manifest)
    torch.manual_seed(0)
    encoder = as_encoder(M2D(depth=size.depth)).to("cpu")
    executor = Interleaved(bare_pass(encoder, corpus, size.batch))

    def extract() -> None:
        capture(
            encoder, corpus, str(scratch / "store.zarr"), task="t", block=size.block, batch=size.batch,
            threads=torch.get_num_threads(), device="cpu", executor=executor,
        )  # fmt: skip

    total = seconds_of(extract)
    bare = [seconds["bare"][0] for seconds in executor.seconds]
    extraction = [seconds["extraction"][0] for seconds in executor.seconds]
    share = median_ratio(bare, extraction)
    how = (
        f"ViT-Base M2D, {n_clips} clips of {size.seconds:g} s from WAV files to a committed store in blocks of "
        f"{size.block}, batches of {size.batch}; median of {size.blocks} ratios, block by block in turn"
    )
    name = "extraction throughput against the bare forward pass"
    figure = Figure(name=name, value=share, unit="", bound=0.93, at_least=True, how=how)
    raw = {
        "bare_seconds": bare, "extraction_seconds": extraction,
        "clips_per_second": size.block / sorted(extraction)[len(extraction) // 2],
        "seconds_before_and_after_the_blocks": total - sum(bare) - sum(extraction),
    }  # fmt: skip
    return Measured(figures=[figure], raw=raw)


def main() -> None:
    harness.main("throughput")


if __name__ == "__main__":
    main()
