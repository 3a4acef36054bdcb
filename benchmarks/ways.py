"""Which files does a clip pass on its way to the store, a selection on its way to a table, an ablation to its result?

    python -m benchmarks.ways [CHECKOUT ...]       this checkout by default; another one to compare with

A call counts where one of its arguments holds what travels: samples, activations, probabilities, logits or what was
made of them (arrays and tensors of floats, cubes of bits and counts, whole or in a record, list or mapping, and for a
selection tables), in whatever thread. A step leads from one file to another between two such calls; steps that are
repeated, for every layer or clip, count once. Shown are the steps in the order in which they are first taken, how many
there are, and the steps between rooms by which the way comes back to a room that it had left. The encoder is a box on
the way, for any torch model may stand there: its own files (adapters, front ends, hooks) are not looked at.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
ROOMS = ("store", "cluster", "extract", "analysis", "sae", "ablate", "serve")
ASKED = ("Encoder", "Extraction", "Recipe", "Job", "Study", "Corpus", "Clips")
"""The model, the list of the clips, and all that is asked: known beforehand, whoever holds them."""
ENCODER = ("extract/models/", "extract/encoders/", "extract/encoder.py", "extract/tap.py", "extract/logmel.py")
MIN_SAMPLES = 100  # floats in a row from which on they are a waveform, and not a few times or sizes


def holds_data(value: Any, tables: bool, depth: int = 2) -> bool:
    """Whether a value is, or holds within `depth` levels, what travels. tables: whether data frames do, too."""
    kind = type(value)
    name, module = kind.__name__, kind.__module__.partition(".")[0]
    if name == "Clip" or (isinstance(value, bytes) and len(value) > 1000):
        return True
    if name in ("ndarray", "Tensor"):
        floats = value.dtype.kind == "f" if name == "ndarray" else value.is_floating_point()
        n = value.size if name == "ndarray" else value.numel()
        return bool(value.ndim >= 3 or (floats and (value.ndim == 2 or n >= MIN_SAMPLES)))
    if module == "xarray" and name == "DataArray":
        return value.chunks is None and value.variable._in_memory and holds_data(value.values, tables)
    if module == "xarray" and name == "Dataset":
        return any(holds_data(variable, tables) for variable in value.data_vars.values())
    if module == "pandas":
        return tables and name == "DataFrame"
    if depth == 0 or name in ASKED:
        return False
    if isinstance(value, list | tuple):
        return any(holds_data(each, tables, depth - 1) for each in value[:4])
    if isinstance(value, dict):
        return any(holds_data(each, tables, depth - 1) for each in value.values())
    if is_dataclass(value) and module == "otoscope":
        return any(holds_data(getattr(value, field.name, None), tables, depth - 1) for field in fields(value))
    return False


class Recorder:
    """The files of a checkout that data enter while the `with` block runs."""

    def __init__(self, checkout: Path, tables: bool) -> None:
        self.checkout, self.tables, self.files = str(checkout.resolve()) + "/", tables, list[str]()

    def __enter__(self) -> "Recorder":
        threading.setprofile(self.look)
        sys.setprofile(self.look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def look(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or self.checkout not in code.co_filename or "/.venv/" in code.co_filename:
            return
        file = str(Path(code.co_filename).resolve()).removeprefix(self.checkout).removeprefix("src/otoscope/")
        if file.startswith(("benchmarks/", "tests/", *ENCODER)) or (self.files and self.files[-1] == file):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = frame.f_locals
        if any(holds_data(given.get(name), self.tables) for name in names if name != "self"):
            self.files.append(file)


def trace(checkout: Path, scratch: Path) -> dict[str, list[str]]:
    """The three ways through a checkout, whose package this process imports."""
    import click
    import dask

    import otoscope
    from otoscope.store.blocks import Block
    from otoscope.store.writer import reset_block

    try:
        from otoscope.cli.main import cli
    except ImportError:  # before the commands had a folder of their own
        from otoscope.cli import cli  # type: ignore[attr-defined, no-redef]
    try:
        from otoscope.extract.audio.corpora.synth import synthesise
    except ImportError:
        from otoscope.extract.corpora.synth import synthesise  # type: ignore[import-not-found, no-redef]

    def command(*words: object) -> None:
        with open(scratch / "out", "a") as out:
            sys.stdout, sys.stderr = out, out
            try:
                cli.main([str(word) for word in words], standalone_mode=False)
            except click.ClickException as error:
                raise SystemExit(error.format_message()) from error
            finally:
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__

    manifest = synthesise(scratch / "audio", notes_per_octave=20, events_per_category=1)["fm"]
    header, *rows = manifest.read_text().splitlines()
    one = scratch / "audio" / "one.csv"
    one.write_text("\n".join([header, rows[0]]) + "\n")
    store = str(scratch / "store.zarr")
    otoscope.capture("tiny-ssl", str(manifest), store, task="fm", threads=1, block=256, batch=256)  # one piece
    about = ("--task", "fm:octave", "--percentile", 5)
    command("neurons", store, *about, "-o", scratch / "warm.csv")  # what is loaded and compiled once is no one's way
    extract = ("extract", scratch / "one.zarr", "--encoder", "tiny-ssl", "--task", "fm", "--threads", 1)
    command(*extract, "--corpus", one)
    reset_block(
        str(scratch / "one.zarr"), Block(task="fm", index=0, start=0, stop=1)
    )  # the task is there, its clip is not
    dask.config.set(scheduler="synchronous")  # threads that are there already are not looked at
    ways: dict[str, Callable[[], None]] = {
        "clip: manifest to store": lambda: command(*extract, "--corpus", one),
        "selection: accessor to table": lambda: command("neurons", store, *about, "-o", scratch / "neurons.csv"),
        "ablation: request to result": lambda: command(
            "ablate", "run", store, *about, "--set", "(2,3) (3,5)", "--encoder", "tiny-ssl", "--corpus", manifest,
            "--controls", 2, "-o", scratch / "result.parquet",
        ),
    }  # fmt: skip
    found = {}
    for name, way in ways.items():
        with Recorder(checkout, tables=name.startswith("selection")) as recorder:
            way()
        found[name] = recorder.files
    return found


def room_of(file: str) -> str:
    return file.partition("/")[0] if file.startswith(ROOMS) else "commands"


def steps_of(files: list[str]) -> list[tuple[str, str]]:
    """Steps from a file to the next, each once, in the order in which they are first taken."""
    return list(dict.fromkeys(itertools.pairwise(files)))


def steps_back(files: list[str]) -> list[str]:
    """Steps, each once, from a room to one that was entered before it."""
    rooms = list(map(room_of, files))
    order = list(dict.fromkeys(rooms))
    return [f"{a} to {b}" for a, b in steps_of(rooms) if order.index(b) < order.index(a)]


def main() -> None:
    if sys.argv[1:2] == ["--trace"]:
        print(json.dumps(trace(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    for checkout in map(Path, sys.argv[1:] or [str(ROOT)]):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, __file__, "--trace", str(checkout), scratch]
            environment = {"PYTHONPATH": str(checkout.resolve() / "src"), "PATH": "/usr/bin:/bin", "HOME": scratch}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        for name, files in json.loads(done.stdout.splitlines()[-1]).items():
            steps, back = steps_of(files), steps_back(files)
            print(f"\n{checkout.resolve().name}, {name}")
            print(
                f"{len(set(files))} files, {len(steps)} steps between files; back to a room: {', '.join(back) or '-'}"
            )
            chains: list[list[str]] = []
            for here, there in steps:
                if chains and chains[-1][-1] == here:
                    chains[-1].append(there)
                else:
                    chains.append([here, there])
            print("\n".join("  " + " > ".join(chain) for chain in chains))


if __name__ == "__main__":
    main()
