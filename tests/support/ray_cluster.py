"""Machines for tests of whole runs on Ray: a cluster of several nodes on this one, whose nodes lack the package."""

import gc
import json
import os
import shutil
import subprocess
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
from ray.cluster_utils import Cluster

from otoscope.cluster.executor import IN_FLIGHT
from otoscope.extract.capture import capture
from otoscope.store.status import task_status

from . import closed_form, faulty_encoder
from .commands import command
from .stored_files import tree_of
from .wav_corpora import write_corpus

STORE = {"object_store_memory": 100 * 2**20}
SOON = {  # a node that is gone is taken for dead after about five seconds, one that is only slow is not
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 10,
}  # fmt: skip
UNIT = 50  # samples that clips are cut to
STARTED: "list[subprocess.Popen[str]]" = []
WITHOUT_PACKAGE = '''
import sys

class Nothing:
    """Finds no otoscope that is installed here: only what was sent along."""

    def find_spec(self, name, path=None, target=None):
        if name == "otoscope" and not any("py_modules_files" in path for path in sys.path):
            raise ModuleNotFoundError("No module named 'otoscope'")

sys.meta_path.insert(0, Nothing())
'''


def worker_hosts(above: int | None = None) -> list[psutil.Process]:
    """Processes of actors that host a worker, or are to; of one raylet, or of all."""
    found = []
    for process in psutil.Process(above).children() if above else psutil.process_iter():
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::WorkerHost"):
                found.append(process)
        except psutil.Error:
            continue
    return found


@dataclass
class Machines:
    """A head that does no work, and nodes that do."""

    cluster: Cluster
    environment: dict[str, str]
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, cpus: int = 2) -> Any:
        with _environment(self.environment):
            self.nodes.append(self.cluster.add_node(num_cpus=cpus, **STORE))
        return self.nodes[-1]

    def raylet(self, node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)

    def worker_hosts(self) -> list[psutil.Process]:
        """Those of this cluster; there may be others on the machine."""
        return [host for node in self.nodes for host in worker_hosts(self.raylet(node))]

    def strike(self, node: Any) -> None:
        """Kill -9 of a node."""
        os.kill(self.raylet(node), 9)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        forget()


def forget() -> None:
    """Let go of the handles that Ray keeps open of processes which are gone, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def end_commands() -> None:
    """End what a test started and left."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def machines(
    folder: Path, n_nodes: int, cpus: int = 2, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Machines]:
    """A head and so many nodes, whose workers see these environment variables."""
    (folder / "nodes").mkdir()
    (folder / "nodes" / "sitecustomize.py").write_text(WITHOUT_PACKAGE)
    environment = {"PYTHONPATH": str(folder / "nodes"), "RAY_USAGE_STATS_ENABLED": "0", **variables}
    with _environment(environment):
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SOON, **STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
    built = Machines(cluster, environment)
    try:
        for _ in range(n_nodes):
            built.add(cpus)
        yield built
    finally:
        cluster.shutdown()
        built.nodes.clear()
        forget()


@dataclass
class Job:
    """A corpus, an encoder, and the store that is to come of them."""

    folder: Path
    manifest: Path
    sounds: list[np.ndarray]
    options: tuple[Any, ...]
    block: int
    store: str = ""
    """URL of the store, where that is not in the folder."""

    @property
    def url(self) -> Path:
        return self.folder / "s"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def committed(self) -> int:
        """Blocks that are."""
        begun = (self.url / "t" / "zarr.json").exists()
        return len(task_status(str(self.url), "t").blocks()) if begun else 0

    def take(self, seconds: float) -> None:
        """From now on a batch takes so long, one that is under way included."""
        (self.folder / "seconds.new").write_text(str(seconds))
        (self.folder / "seconds.new").replace(self.folder / "seconds")

    def start(self, machines: Machines | None = None, *more: Any) -> "subprocess.Popen[str]":
        """The real command, on Ray; what it says on standard error goes to a file."""
        where = ("--address", machines.address) if machines else ()
        with (self.folder / "errors.log").open("a") as errors:
            process = subprocess.Popen(
                command("extract", self.store or self.url, "--corpus", self.manifest, "--report", self.report,
                        *self.options, "--executor", "ray", *where, *more),
                stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        STARTED.append(process)
        return process

    def errors(self) -> str:
        """All that its commands said on standard error."""
        return (self.folder / "errors.log").read_text()

    def run(self, machines: Machines | None = None, *more: Any) -> str:
        """Run it to its end, which is a good one; what it said on standard output."""
        process = self.start(machines, *more)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, self.errors()
        assert "Traceback" not in self.errors()
        return output

    def workers(self) -> list[dict[str, Any]]:
        """Workers of the latest command that committed a block; "actor 1" only looked at the encoder."""
        found: list[dict[str, Any]] = json.loads(self.report.read_text())["workers"]
        return [worker for worker in found if worker["done"] and worker["name"] != "actor 1"]

    def batches(self) -> list[tuple[int, int]]:
        """(CRC-32 of the waveforms, process) of each batch that an encoder was given."""
        log = self.folder / "batches.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def busy(self) -> set[int]:
        """Processes that have committed a block for certain: a third one is begun when one of the first two is done."""
        begun = Counter(process for batch, process in self.batches() if self.names.get(batch))
        return {process for process, n in begun.items() if n > IN_FLIGHT}

    @cached_property
    def names(self) -> dict[int, int]:
        """The block that has these waveforms, by their CRC-32."""
        clips = np.zeros((len(self.sounds), UNIT), np.float32)
        for row, sound in zip(clips, self.sounds, strict=True):
            row[: len(sound)] = sound[:UNIT] / np.float32(32768)
        blocks = [clips[first : first + self.block] for first in range(0, len(clips), self.block)]
        return {zlib.crc32(np.ascontiguousarray(block).tobytes()): i for i, block in enumerate(blocks)}

    def runs_of_blocks(self) -> Counter[int]:
        """How often each block was begun: with one batch to a block, that is what the encoder was given.

        Without block 0, whose clips each command gives to the encoder as it looks at it.
        """
        runs = Counter(self.names[batch] for batch, _ in self.batches() if batch in self.names)
        del runs[0]
        return runs


def job(folder: Path, n_clips: int, block: int = 4, seconds: float = 0.0, seed: int = 0) -> Job:
    """Blocks of one batch each, with a ragged last one; the first two workers begin together."""
    folder.mkdir(exist_ok=True)
    assert n_clips % block
    assert n_clips > 7 * block
    manifest, sounds = write_corpus(folder, [UNIT + 10 * (i % 5) for i in range(n_clips)], seed=seed)
    shutil.copy(str(faulty_encoder.__file__), folder / "faulty_encoder.py")
    shutil.copy(str(closed_form.__file__), folder / "closed_form.py")
    options = (
        "--encoder", f"module:{folder / 'faulty_encoder.py'}:slow", "--task", "t", "--threads", 1, "--block", block,
        "--batch", block, "--unit-sec", UNIT / closed_form.RATE,
    )  # fmt: skip
    built = Job(folder=folder, manifest=manifest, sounds=sounds, options=options, block=block)
    (folder / "workers").write_text("2")
    built.take(seconds)
    return built


def uninterrupted(folder: Path, like: Job) -> dict[str, bytes]:
    """The files of the store that a serial run makes of the same clips."""
    twin = job(folder, len(like.sounds), like.block)
    shutil.rmtree(folder / "audio")
    shutil.copytree(like.folder / "audio", folder / "audio")
    capture(
        f"module:{folder / 'faulty_encoder.py'}:slow", str(twin.manifest), str(twin.url), task="t", threads=1,
        block=like.block, batch=like.block, unit_sec=UNIT / closed_form.RATE,
    )  # fmt: skip
    return tree_of(twin.url)
