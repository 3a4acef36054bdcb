"""What does the Ray executor cost per block, how does it scale, and what does its driver hold?

Scaling is measured with a simulated accelerator: a batch takes 100 ms and no processor, then its activations of 12
layers of 3,072 neurons are packed and written as a worker does. What is written is real; how many actors two cores can
serve is therefore decided by packing and writing, and `raw` says where the processors' time goes.
"""

import itertools
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.cluster.executor import Done, SerialExecutor
from otoscope.store.bits import pack
from otoscope.store.block_values import BlockValues
from otoscope.store.blocks import Block, blocks
from otoscope.store.changes.staged import ClipTable, Origin
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import Identity, Plan, kept
from otoscope.store.writer import write_block

from . import harness
from .harness import Figure, Measured, fresh_process, resident_bytes
from .synthetic import LAYERS, TASK, WIDTH

BATCH, BATCH_SECONDS = 32, 0.1


@dataclass(frozen=True, kw_only=True)
class Size:
    empty: int
    """Pieces of empty work whose overhead is measured."""
    planned: int
    """Pieces of empty work over which the driver's memory must stay flat."""
    actors: tuple[int, ...]
    clips: int
    block: int
    seconds: float
    """That each number of actors is watched for, once all of them have written a block."""
    repetitions: int


FULL = Size(empty=2000, planned=100_000, actors=(1, 2, 4, 8, 16), clips=16_384, block=256, seconds=15.0, repetitions=3)
SMALL = Size(empty=20, planned=50, actors=(1, 2), clips=64, block=8, seconds=0.1, repetitions=1)


def nothing() -> Callable[[int], None]:
    """A worker that does nothing."""
    return do_nothing


def do_nothing(_: int) -> None:
    pass


def overhead(n: int) -> dict[str, float]:
    """Seconds per piece of empty work, of each executor, once its workers are there."""
    from otoscope.cluster.ray import RayExecutor

    seconds = {}
    with RayExecutor(actors=2) as ray_executor:
        for executor in (SerialExecutor(), ray_executor):
            events = executor.run(nothing, iter(range(n + 1)))
            next(events)
            began = time.perf_counter()
            assert sum(1 for _ in events) == n
            seconds[executor.name] = (time.perf_counter() - began) / n
    return seconds


def driver(n: int) -> dict[str, Any]:
    """Resident bytes of the driver at each tenth of the planned pieces, its peak, and pieces per second."""
    from otoscope.cluster.ray import RayExecutor

    resident = []
    with RayExecutor(actors=2) as executor:
        planned = (Block(task=TASK, index=i, start=i, stop=i + 1) for i in range(n))
        began = None
        for i, _ in enumerate(executor.run(nothing, planned)):  # type: ignore[arg-type]
            began = began or time.perf_counter()
            if i % max(1, n // 10) == 0:
                resident.append(resident_bytes("VmRSS"))
        took = time.perf_counter() - (began or 0.0)
    return {"resident": resident, "peak": resident_bytes("VmHWM"), "rate": (n - 1) / took}


@dataclass(frozen=True, kw_only=True)
class Accelerated:
    """Makes workers with an accelerator of their own."""

    url: str
    identity: Identity
    plan: Plan

    def __call__(self) -> Callable[[Block], dict[str, float]]:
        rng = np.random.default_rng(0)
        means = rng.normal(0, 1, (LAYERS, BATCH, WIDTH)).astype(np.float32)
        device = threading.Lock()

        def work(block: Block) -> dict[str, float]:
            with device:
                for _ in range(0, len(block), BATCH):
                    time.sleep(BATCH_SECONDS)
            began = time.thread_time()
            values = BlockValues(self.identity, self.plan, len(block)).arrays
            values["frame_count"][:] = 320
            for first in range(0, len(block), BATCH):
                at = slice(first, min(first + BATCH, len(block)))
                for layer, mean in enumerate(means[:, : at.stop - at.start]):
                    values["active_bits"][layer, at] = pack(mean > 0)
                    values["mean"][layer, at] = mean
            packed = time.thread_time()
            write_block(self.url, block, values, np.ones(len(block), np.uint8), "simulated")
            return {"pack": packed - began, "write": time.thread_time() - packed, "process": time.process_time()}

        return work


def made(url: str, n_clips: int, block: int) -> tuple[Identity, Plan]:
    """A store that waits for its blocks."""
    names = [f"clip {i:06}" for i in range(n_clips)]
    nowhere = np.full(n_clips, np.nan)
    clips = ClipTable(name=names, path=names, start=nowhere, stop=nowhere)
    identity = Identity(
        encoder="simulated", weights="0" * 64, front_end={"sample_rate": 16_000},
        sites=tuple((f"blocks.{layer}.mlp.act", WIDTH) for layer in range(LAYERS)),
        embedding=768, hidden=(0, 0), frames="audio",
    )  # fmt: skip
    plan = Plan(
        n_clips=n_clips, **clips.digests, block=block, batch=BATCH, threads=1, unit_sec=None,
        variables=kept(("mean",)),
    )  # fmt: skip
    create(url)
    add_task(url, TASK, Origin(identity=identity, check=np.zeros(identity.n_check)), plan, clips)
    return identity, plan


def scaling(url: str, actors: int, n_clips: int, block: int, seconds: float) -> dict[str, Any]:
    """Blocks per second of so many actors, and what a block takes of the processors."""
    from otoscope.cluster.ray import RayExecutor

    make = Accelerated(url=url, identity=(given := made(url, n_clips, block))[0], plan=given[1])
    every = itertools.cycle(blocks(TASK, n_clips, block))
    with RayExecutor(actors=actors) as executor:
        return watched(executor.run(make, every), actors, seconds)


def watched(events: Iterator[Any], actors: int, seconds: float) -> dict[str, Any]:
    """The events of so many seconds, from when each actor has ended a block."""
    warm: Counter[str] = Counter()
    clock: dict[str, list[float]] = {}
    spent = {"pack": 0.0, "write": 0.0}
    n, began, busy = 0, 0.0, 0.0
    for event in events:
        assert isinstance(event, Done), event
        warm[event.worker] += 1
        if len(warm) < actors or not began:
            if len(warm) == actors:
                began, busy = time.perf_counter(), machine_seconds()
            continue
        n += 1
        clock.setdefault(event.worker, []).append(event.result["process"])
        for stage in spent:
            spent[stage] += event.result[stage]
        if time.perf_counter() - began > seconds:
            break
    took = time.perf_counter() - began
    used, timed = sum(c[-1] - c[0] for c in clock.values()), sum(len(c) - 1 for c in clock.values())
    return {
        "actors": actors, "blocks_per_second": n / took, "cores_busy": (machine_seconds() - busy) / took,
        "cpu_seconds_per_block": used / timed if timed else 0.0,
        **{f"{stage}_cpu_seconds_per_block": total / n for stage, total in spent.items()},
    }  # fmt: skip


def machine_seconds() -> float:
    """Processor seconds that this machine has spent on anything, this benchmark or not."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    ticks = [int(word) for word in words]
    return (sum(ticks) - ticks[3] - ticks[4]) / 100  # but idle and waiting for disks


def measure(scratch: Path, size: Size) -> Measured:
    empty = [fresh_process("cluster:overhead", n=size.empty) for _ in range(size.repetitions)]
    rates: dict[int, list[dict[str, Any]]] = {n: [] for n in size.actors}
    for repetition in range(size.repetitions):
        for n in size.actors:
            url = str(scratch / f"{n}.{repetition}")
            rates[n].append(
                fresh_process(
                    "cluster:scaling", url=url, actors=n, n_clips=size.clips, block=size.block, seconds=size.seconds
                )
            )
            shutil.rmtree(url, ignore_errors=True)  # a worker that is being ended may still write
    held = fresh_process("cluster:driver", n=size.planned)
    one = [each["blocks_per_second"] for each in rates[size.actors[0]]]
    efficiency = {
        n: float(
            np.median([each["blocks_per_second"] / (n * alone) for each, alone in zip(rates[n], one, strict=True)])
        )
        for n in size.actors[1:]
    }
    shown = 8 if 8 in efficiency else size.actors[-1]
    extra = float(np.median([1000 * (each["ray"] - each["serial"]) for each in empty]))
    how = f"median of {size.repetitions}"
    figures = [
        Figure(
            name="Ray executor, overhead per block over the serial one, empty work", value=extra, unit="ms", bound=20,
            at_least=False, how=f"2 actors, {size.empty:,} blocks, {how}",
        ),
        Figure(
            name=f"Ray executor, share of linear speed at {shown} actors", value=efficiency[shown], unit="of linear",
            bound=0.9, at_least=True,
            how=f"simulated accelerator (100 ms per batch of {BATCH}), real packing and writing of blocks of "
            f"{size.block} clips x {LAYERS * WIDTH:,} neurons, {size.seconds:g} s after warm-up, {how}",
        ),
        Figure(
            name="Ray executor, peak memory of the driver", value=held["peak"] / 1e9, unit="GB", bound=1.0,
            at_least=False, how=f"{size.planned:,} planned blocks of empty work",
        ),
        Figure(
            name="Ray executor, rise of the driver's memory after the first tenth", unit="MB", bound=20.0,
            value=(held["resident"][-1] - held["resident"][1]) / 1e6, at_least=False, how="the same",
        ),
        Figure(
            name="Ray executor, scheduling rate", value=held["rate"], unit="blocks/s", bound=50, at_least=True,
            how="the same",
        ),
    ]  # fmt: skip
    scaled = {str(n): each for n, each in rates.items()}
    return Measured(figures=figures, raw={"empty": empty, "efficiency": efficiency, "scaling": scaled, "driver": held})


def main() -> None:
    harness.main("cluster")


if __name__ == "__main__":
    main()
