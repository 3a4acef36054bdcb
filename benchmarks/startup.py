"""How long until the first block is in the store, from the last one to the end, and for the answer of a dry run?

The real command in fresh processes, a ViT-Base M2D (random weights, in the authors' layout) on WAV files. When a block
was committed is the time of the file of its status, which is written last. What the command cannot do without is
measured in a process of its own each time and taken off: importing torch, and loading the weights with their digests;
and the time from one commit to the next. Dry runs are asked beside as many busy processes as there are cores.
Decoding is that of a worker, read from page cache.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from . import harness
from .commands import OTOSCOPE, run
from .harness import Figure, Measured, fresh_process, seconds_of


@dataclass(frozen=True, kw_only=True)
class Size:
    blocks: int
    block: int
    seconds: float
    depth: int
    window_seconds: float
    """Of the clips of the dry run of a Whisper."""
    whisper: tuple[int, int]
    """Its layers and width."""
    files: int
    """That are decoded."""
    repetitions: int
    load: int
    """Busy processes beside a dry run."""


FULL = Size(
    blocks=4, block=32, seconds=5.0, depth=12, window_seconds=30.0, whisper=(6, 512), files=2000, repetitions=5,
    load=os.cpu_count() or 1,
)  # fmt: skip
SMALL = Size(
    blocks=2, block=2, seconds=0.5, depth=1, window_seconds=0.5, whisper=(1, 64), files=20, repetitions=1, load=0
)  # fmt: skip


def write_m2d(folder: Path, depth: int) -> str:
    """An M2D as its authors publish them; what names it as an encoder."""
    import torch

    from otoscope.extract.models.m2d import M2D

    torch.manual_seed(0)
    checkpoint = folder / "m2d_vit_base-80x608p16x16-made"
    checkpoint.mkdir()
    torch.save(M2D(depth=depth).state_dict(), checkpoint / "checkpoint-1.pth")
    return f"m2d:{checkpoint}"


def write_whisper(folder: Path, layers: int, width: int) -> str:
    """A Whisper as transformers lays it out; what names it as an encoder."""
    from . import encoders

    size = encoders.Size(layers=layers, width=width, neurons=4 * width, seconds=1.0, families=("whisper",))
    encoders.write("whisper", folder / "whisper", size, 16_000)
    return f"whisper:{folder / 'whisper'}"


def torch_and_weights(encoder: str) -> list[float]:
    """Seconds of importing torch; of loading an encoder and the two digests of its weights, after all imports."""
    began = time.perf_counter()
    import torch  # noqa: F401

    imported = time.perf_counter() - began
    from otoscope.extract.models import m2d  # noqa: F401
    from otoscope.extract.models.encoder import weights_digest
    from otoscope.extract.models.registry import load_encoder

    return [imported, seconds_of(lambda: weights_digest(load_encoder(encoder).module))]


def commits(store: Path, began: float) -> list[float]:
    """Seconds from `began`, as of `time.time`, to the commit of each block, in their order."""
    return sorted(file.stat().st_mtime - began for file in (store / "t/status/c").rglob("*") if file.is_file())


def extraction(store: Path, encoder: str, manifest: Path, block: int) -> tuple[list[float], float]:
    """Seconds from the start of the command to the commit of each block, and to its end."""
    command = (OTOSCOPE, "extract", str(store), "--encoder", encoder, "--corpus", str(manifest), "--task", "t")
    began = time.time()
    run(*command, "--block", str(block))
    return commits(store, began), time.time() - began


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute, beside the `with` block."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def decoding(manifest: str, threads: int) -> float:
    """Seconds in which threads of this process decode all files of a manifest, once they have decoded some."""
    from otoscope.extract.audio.decoding import read_clip
    from otoscope.extract.audio.manifest import read_manifest

    clips = read_manifest(manifest).clips

    def decode(i: int) -> int:
        return read_clip(clips.root, clips.clip(i), 16_000).digest

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(min(len(clips), 200))))
        return seconds_of(lambda: list(pool.map(decode, range(len(clips)))))


def decoding_by(processes: int, manifest: Path) -> float:
    """Seconds of the slowest of processes that decode all files each, at the same time."""
    with ThreadPoolExecutor(processes) as pool:
        each = pool.map(
            lambda _: fresh_process("startup:decoding", manifest=str(manifest), threads=1), range(processes)
        )
        return max(each)


def measure(scratch: Path, size: Size) -> Measured:
    from .synthetic import write_audio

    encoder = write_m2d(scratch, size.depth)
    clips = size.blocks * size.block
    manifest = write_audio(scratch / "corpus", n_clips=clips, seconds=size.seconds, n_categories=10)
    first, last, raw = [], [], []
    for i in range(size.repetitions):
        torch_seconds, weights = fresh_process("startup:torch_and_weights", encoder=encoder)
        at, ended = extraction(scratch / f"store{i}", encoder, manifest, size.block)
        steady = statistics.median(b - a for a, b in pairwise(at))
        first.append(at[0] - torch_seconds - weights - steady)
        last.append(ended - at[-1])
        raw.append({"torch": torch_seconds, "weights": weights, "commits": at, "ended": ended})
    windows = write_audio(scratch / "windows", n_clips=64, seconds=size.window_seconds, n_categories=10)
    asked = {
        "M2D": (encoder, manifest), "Whisper": (write_whisper(scratch, *size.whisper), windows),
    }  # fmt: skip
    dry: dict[str, list[float]] = {name: [] for name in asked}
    with busy(size.load):
        for _ in range(size.repetitions):
            for name, (spec, corpus) in asked.items():
                command = (OTOSCOPE, "extract", str(scratch / "none"), "--encoder", spec, "--corpus", str(corpus))
                dry[name].append(seconds_of(partial(run, *command, "--task", "t", "--dry-run")))
    files = write_audio(scratch / "files", n_clips=size.files, seconds=size.seconds, n_categories=10)
    decode: dict[str, list[float]] = {"one thread": [], "two threads": [], "two processes": []}
    for _ in range(size.repetitions):
        for threads, name in ((1, "one thread"), (2, "two threads")):
            decode[name].append(fresh_process("startup:decoding", manifest=str(files), threads=threads))
        decode["two processes"].append(decoding_by(2, files))
    fresh = f"median of {size.repetitions} fresh processes"
    model = f"ViT-Base M2D, clips of {size.seconds:g} s, blocks of {size.block}"
    rows = (
        (
            "command to first committed block, beyond torch, weights and a block", statistics.median(first), 2.0,
            f"{model}; less importing torch, loading and digesting the weights, and the time between commits; {fresh}",
        ),
        ("last committed block to the end of the command", statistics.median(last), 1.0, f"{model}; {fresh}"),
        *(
            (
                f"`--dry-run` on a busy machine, {name}", max(seconds), 15.0,
                f"{what}; beside {size.load} busy processes; worst of {size.repetitions}",
            )
            for (name, seconds), what in zip(
                dry.items(), (model, f"Whisper base, clips of {size.window_seconds:g} s"), strict=True
            )
        ),
    )  # fmt: skip
    figures = [
        Figure(name=name, value=value, unit="s", bound=bound, at_least=False, how=how)
        for name, value, bound, how in rows
    ]
    one = statistics.median(decode["one thread"])
    how = f"{size.files:,} WAV files of {size.seconds:g} s at 16 kHz, 16 bits, from page cache; {fresh}"
    figures += [
        Figure(
            name="files decoded by one thread", value=size.files / one, unit="/s", bound=500, at_least=True, how=how
        ),
        Figure(
            name="files decoded by two processes, against one", unit="times", bound=1.5, at_least=True, how=how,
            value=2 * harness.median_ratio(decode["one thread"], decode["two processes"]),
        ),
    ]  # fmt: skip
    return Measured(figures=figures, raw={"runs": raw, "dry_run_seconds": dry, "decoding_seconds": decode})


def main() -> None:
    harness.main("startup")


if __name__ == "__main__":
    main()
