"""Time, memory and records: what all questions share.

Conventions: seconds, bytes; memory is the resident set of this process, from Linux' /proc.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

# What starts processes here measures them as users start them, with modules that are compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("otoscope", "torch", "numpy", "zarr", "xarray", "dask", "flox", "numba", "ray", "obstore")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number and the bound it is held against."""

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool
    """Whether the value must reach the bound; otherwise it must stay under it."""
    how: str

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value < self.bound


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a question came to."""

    figures: list[Figure]
    raw: dict[str, Any] = field(default_factory=dict)
    """Every single measurement, by name."""


Measure = Callable[[Path, Any], Measured]


def seconds_of(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def interleaved(cases: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each case, one after the other within every repetition, each repetition starting with the next."""
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(seconds_of(cases[name]))
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios of each repetition."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def read_objects(url: str, array: str, threads: int, chunk_bytes: int = 4 << 20, checked: bool = False) -> None:
    """Read the bytes of all objects of an array, so many at a time into one buffer of each thread, and do nothing more.

    checked: but take the CRC-32C of all of them.
    """
    files = [str(path) for path in sorted((Path(url) / array / "c").rglob("*")) if path.is_file()]

    def walk(thread: int) -> None:
        buffer = np.empty(chunk_bytes, np.uint8)
        for file in files[thread::threads]:
            descriptor, at = os.open(file, os.O_RDONLY), 0
            while n := os.preadv(descriptor, [buffer], at):  # type: ignore[list-item]  # an array is a buffer, stubs lag
                at += n
                if checked:
                    google_crc32c.extend(0, buffer[:n])
            os.close(descriptor)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(walk, range(threads)))


def fresh_process(function: str, **arguments: Any) -> Any:
    """What "module:function" of this folder returns (JSON values only) in a new process."""
    module, name = function.split(":")
    code = (
        f"import json, sys; from benchmarks.{module} import {name}; "
        f"print(json.dumps({name}(**json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory_rise(action: Callable[[], object]) -> int:
    """Bytes by which the resident set rises at most, while the action runs, above what it is before."""
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    action()
    return resident_bytes("VmHWM") - before


def resident_bytes(field_name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field_name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field_name}; expected Linux")


def main(question: str) -> None:
    """Measure one question at full size (or `--small`, which is only shown) and record it."""
    module = importlib.import_module(f"benchmarks.{question}")
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{question}", description=module.__doc__)
    parser.add_argument("--scratch", metavar="DIR", help="folder for stores and audio, emptied again [the system's]")
    parser.add_argument("--small", action="store_true", help="small sizes; shows what comes out, records nothing")
    options = parser.parse_args()
    size = module.SMALL if options.small else module.FULL
    load = os.getloadavg()[0]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="otoscope-bench-", dir=options.scratch) as scratch:
        measured: Measured = module.measure(Path(scratch), size)
    took = time.perf_counter() - began
    for figure in measured.figures:
        word = "at least" if figure.at_least else "under"
        verdict = "holds" if figure.holds else "MISSED"
        print(f"{figure.name}: {figure.value:.3g} {figure.unit} ({word} {figure.bound:g}) {verdict}")
    record = {
        "question": question,
        "figures": [{**asdict(figure), "holds": figure.holds} for figure in measured.figures],
        "size": asdict(size),
        "raw": _rounded(measured.raw),
        "date": date.today().isoformat(),
        "commit": _commit(),
        "took_seconds": round(took, 1),
        "load_before": round(load, 2),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    if options.small:
        print(json.dumps(record["raw"], indent=2))
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{question}.json").write_text(json.dumps(record, indent=2) + "\n")


def recorded(question: str, results: Path = RESULTS) -> dict[str, Any]:
    """What a question came to at full size. Raises FileNotFoundError where it has no result yet."""
    file = results / f"{question}.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; expected results of `python -m benchmarks.{question}`: run it")
    record: dict[str, Any] = json.loads(file.read_text())
    return record


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GB."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
    }


def _commit() -> str:
    """The commit that was measured, marked where files differ from it, those of results left out."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return (commit + "-dirty" * bool(changed)) if commit else "none yet"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
