"""Do stored hidden states feed the training of dictionaries as fast as tensors in memory do?

Rows that do not fit into memory, from the store, against the same rows as a tensor: whole training steps of 2,048
latents on both; the stream without training against reading the objects in order by `store.direct.read_shards`; the
memory that it takes. And SAEs of one state, six sparsities and three seeds: trained side by side in one piece of work
against one after the other, whose files must be equal; and how often each stored object was read. One thread of
arithmetic; times are processor time, which what else runs on the machine does not lengthen.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otoscope.extract.forward import arithmetic
from otoscope.sae.config import sweep_of
from otoscope.sae.model import Model
from otoscope.sae.recipe import recipe_named
from otoscope.sae.rows import HeldRows, Rows
from otoscope.sae.source import find_source
from otoscope.sae.stored_rows import StreamedRows
from otoscope.sae.sweep import run_sweep
from otoscope.store.blocks import Block, blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.direct import read_shards
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.state_rows import StateRows
from otoscope.store.writer import write_block

from . import harness
from .harness import Figure, Measured, fresh_process, median_ratio
from .synthetic import TASK

STATES, BATCH, SPARSITIES, SEEDS = 3, 256, ("0.75", "0.8", "0.85", "0.9", "0.95", "0.99"), (0, 1, 2)
OBJECTS = 4  # read and mixed at a time


@dataclass(frozen=True, kw_only=True)
class Size:
    width: int
    latents: int
    clips: int
    block: int
    repetitions: int
    steps: int
    swept_clips: int
    swept_block: int
    swept_latents: int
    epochs: int
    sweeps: int


FULL = Size(
    width=768, latents=2048, clips=16 * 2048, block=2048, repetitions=5, steps=24, swept_clips=5120, swept_block=512,
    swept_latents=512, epochs=2, sweeps=2,
)  # fmt: skip
SMALL = Size(
    width=16, latents=64, clips=640, block=64, repetitions=2, steps=2, swept_clips=640, swept_block=64,
    swept_latents=128, epochs=2, sweeps=1,
)  # fmt: skip


def write_hidden(url: str, *, n_clips: int, width: int, block: int) -> None:
    """A finished store of hidden states, sums of a few of twice as many directions as there are dimensions."""
    names = [f"clip {i:06}" for i in range(n_clips)]
    clips = ClipTable(
        name=names, path=[f"{name}.wav" for name in names], start=np.full(n_clips, np.nan),
        stop=np.full(n_clips, np.nan), labels={},
    )  # fmt: skip
    identity = Identity(
        encoder="synthetic", weights="0" * 64, front_end={"sample_rate": 16_000}, sites=(("a", 8),), embedding=8,
        hidden=(STATES, width), frames="audio",
    )  # fmt: skip
    plan = Plan(
        n_clips=n_clips, **clips.digests, block=block, batch=32, threads=1, unit_sec=None, variables=kept(("hidden",))
    )
    create(url)
    add_task(url, TASK, Origin(identity=identity, check=np.zeros(identity.n_check)), plan, clips)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2 * width, width)).astype(np.float32) / np.sqrt(width)
    for each in blocks(TASK, n_clips, block):
        write_block(url, each, hidden_values(each, directions, rng), np.ones(len(each), np.uint8), "made up")


def hidden_values(block: Block, directions: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Values of a block; one state, and others that are like it."""
    n, width = len(block), directions.shape[1]
    rows = 0.1 * rng.standard_normal((n, width), np.float32) + 1
    for _ in range(8):
        rows += directions[rng.integers(0, len(directions), n)]
    return {
        "active_bits": np.zeros((1, n, 1), np.uint8), "frame_count": np.ones(n, np.uint16),
        "hidden": np.stack([rows + state for state in range(STATES)]),
        "reason": np.full(n, "", object), "audio_digest": np.zeros(n, np.uint64),
    }  # fmt: skip


def stored_state(url: str) -> StateRows:
    """A state of all clips."""
    return find_source(url, TASK).state(1)


def streamed(url: str) -> StreamedRows:
    """All clips of a store, too many to be held."""
    state = stored_state(url)
    return StreamedRows(state, np.arange(state.n), OBJECTS)


def in_order(state: StateRows) -> None:
    """Read a state object by object, as fast as this package reads."""
    for number in range(-(-state.n // state.object_rows)):
        first = number * state.object_rows
        read_shards(state.stored.files, [state.state, slice(first, first + state.object_rows), slice(None)])


def drain(batches: Iterable[Tensor]) -> None:
    for _ in batches:
        pass


def stream_rise(url: str) -> int:
    """Bytes by which memory rises at most, over the first epoch of rows."""
    drain(streamed(url).plain(BATCH))  # what is loaded on first use; its windows are gone with it
    rows = streamed(url)
    return harness.memory_rise(lambda: drain(rows.epoch(0, BATCH)))


class Training:
    """Steps of one SAE on rows, as many as there are batches in a part of an epoch, and on from there."""

    def __init__(self, rows: Rows, latents: int, steps: int) -> None:
        self.model = Model(recipe_named(latents=latents), rows.width, torch.device("cpu"))
        self.rows, self.steps, self.epoch = rows, steps, 0
        self.batches = iter(self.rows.epoch(0, BATCH))

    def run(self) -> None:
        """So many steps, batches and all."""
        with arithmetic(1), torch.no_grad():
            self.model.begin_epoch()
            for _ in range(self.steps):
                batch = next(self.batches, None)
                if batch is None:
                    self.epoch += 1
                    self.batches = iter(self.rows.epoch(self.epoch, BATCH))
                    batch = next(self.batches)
                self.model.step(batch - 1, 1e-3)


def processor_seconds(action: Callable[[], object]) -> float:
    """Of all threads of this process."""
    began = time.process_time()
    action()
    return time.process_time() - began


def measure(scratch: Path, size: Size) -> Measured:
    url = str(scratch / "rows.zarr")
    write_hidden(url, n_clips=size.clips, width=size.width, block=size.block)
    raw: dict[str, Any] = {}
    figures = [*_training(url, size, raw), *_stream(url, size, raw), *_side_by_side(scratch, size, raw)]
    return Measured(figures=figures, raw=raw)


def _training(url: str, size: Size, raw: dict[str, Any]) -> list[Figure]:
    state = stored_state(url)
    held = torch.empty(state.n, state.width)
    for number in range(-(-state.n // state.object_rows)):
        state.read(number, held[number * state.object_rows :].numpy())
    runs = {"store": Training(streamed(url), size.latents, size.steps)}
    runs["memory"] = Training(HeldRows(held), size.latents, size.steps)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(-1, size.repetitions):
        for name in list(runs)[:: 1 if repetition % 2 else -1]:
            took = processor_seconds(runs[name].run)
            if repetition >= 0:
                seconds[name].append(took)
    raw["processor_seconds_of_training"] = seconds
    how = (
        f"{size.steps} steps of {BATCH} rows of {size.width}, {size.latents} latents, from {OBJECTS} objects at a time "
        f"against a tensor in memory; processor time, median of {size.repetitions} ratios"
    )
    value = median_ratio(seconds["memory"], seconds["store"])
    name = "rows per second in training, store over memory"
    return [Figure(name=name, value=value, unit="times", bound=0.95, at_least=True, how=how)]


def _stream(url: str, size: Size, raw: dict[str, Any]) -> list[Figure]:
    rows, state = streamed(url), stored_state(url)
    epochs = iter(range(1, 10**6))
    cases = {"in order": lambda: in_order(state), "stream": lambda: drain(rows.epoch(next(epochs), BATCH))}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    repetitions = 3 * size.repetitions  # they are short
    with arithmetic(1):
        for case in cases.values():
            case()
        for repetition in range(repetitions):
            for name in list(cases)[:: 1 if repetition % 2 else -1]:
                seconds[name].append(processor_seconds(cases[name]))
    raw["stream"] = {
        name: {"seconds": taken, "rows_per_second": state.n / statistics.median(taken)}
        for name, taken in seconds.items()
    }
    how = (
        f"{state.n:,} rows of {size.width} in batches of {BATCH}, {OBJECTS} objects mixed at a time, against "
        f"`read_shards` object by object; processor time of all threads, median of {repetitions} ratios"
    )
    rise = fresh_process("dictionary_rows:stream_rise", url=url)
    window = OBJECTS * state.object_bytes
    raw["memory_rise_bytes"] = {"rise": rise, "window": window, "object": state.object_bytes}
    how_much = f"{rise / 1e6:.0f} MB, windows of {OBJECTS} objects; over an epoch, in a fresh process"
    return [
        Figure(
            name="rows per second without training, stream over objects in order",
            value=median_ratio(seconds["in order"], seconds["stream"]),
            unit="times", bound=0.33, at_least=True, how=how,
        ),
        Figure(
            name="memory of the stream, over two windows and an object", value=rise / (2 * window + state.object_bytes),
            unit="times", bound=1.05, at_least=False, how=how_much,
        ),
    ]  # fmt: skip


def _side_by_side(scratch: Path, size: Size, raw: dict[str, Any]) -> list[Figure]:
    url = str(scratch / "swept.zarr")
    write_hidden(url, n_clips=size.swept_clips, width=size.width // 4, block=size.swept_block)
    asked = {
        "task": TASK, "state": 1, "latents": size.swept_latents, "batch": 64, "epochs": size.epochs,
        "memory": 6 * stored_state(url).object_bytes,
    }  # fmt: skip
    all_at_once: list[dict[str, Any]] = [{"sparsity": SPARSITIES, "seed": SEEDS}]
    single: list[dict[str, Any]] = [{"sparsity": one, "seed": seed} for one in SPARSITIES for seed in SEEDS]
    counts: Counter[int] = Counter()
    read = StateRows.read

    def counted(self: StateRows, number: int, out: np.ndarray) -> None:
        counts[number] += 1
        read(self, number, out)

    def sweep(folder: Path, sweeps: list[dict[str, Any]], **more: Any) -> tuple[float, Counter[int]]:
        """Processor seconds, and how often each object was read."""
        counts.clear()
        took = processor_seconds(lambda: [run_sweep(url, sweep_of({**asked, **own, **more}), folder) for own in sweeps])
        return took, counts.copy()

    cases = {"together": all_at_once, "apart": single}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    reads: dict[str, Counter[int]] = {}
    StateRows.read = counted  # type: ignore[method-assign]
    try:
        for turn in range(size.sweeps):
            for name in list(cases)[:: 1 if turn % 2 else -1]:
                took, reads[name] = sweep(scratch / f"{name}{turn}", cases[name])
                seconds[name].append(took)
            if _files(scratch / f"together{turn}") != _files(scratch / f"apart{turn}"):
                raise ValueError("SAEs trained side by side are not those that are trained alone; expected equal files")
        _, longer = sweep(scratch / "longer", all_at_once, epochs=size.epochs + 1)
    finally:
        StateRows.read = read  # type: ignore[method-assign]
    n = len(single)
    of_object = {name: found.total() / len(found) for name, found in reads.items()}
    raw["side_by_side"] = {"processor_seconds": seconds, "reads_of_an_object": of_object, "epochs": size.epochs}
    how = f"{n} SAEs of {size.swept_latents} latents, {size.swept_clips:,} rows, streamed"
    return [
        Figure(
            name="SAEs of one state side by side, over one after the other",
            value=median_ratio(seconds["together"], seconds["apart"]), unit="times", bound=1.0, at_least=False,
            how=f"{how}, {size.epochs} epochs; equal files; processor time, median of {size.sweeps}",
        ),
        Figure(
            name="reads of an object in one epoch more, side by side",
            value=float(max(longer[number] - reads["together"][number] for number in longer)), unit="times",
            bound=1.001, at_least=False,
            how=f"{how}; in {size.epochs} epochs {of_object['together']:.3g}, with mean and scale, held-out rows and "
            f"measures, and {of_object['apart']:.3g} one after the other",
        ),
    ]  # fmt: skip


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    harness.main("dictionary_rows")


if __name__ == "__main__":
    main()
