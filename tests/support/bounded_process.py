"""Commands as processes of bounded memory and time: what hostile files do to whoever opens them.

One process imports all once, and forks for each command, so that hundreds cost seconds. Each fork may take a gibibyte
of address space above the imports, and is killed after a time.
"""

import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ABOVE_IMPORTS = 2**30
SECONDS = 20  # of the processor
CLOCK_FACTOR = 6  # times as long by the clock: a machine may be busy, and what waits for ever uses no processor


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended."""

    status: int
    """Exit status, or minus the signal that killed it."""
    out: str
    err: str
    seconds: float

    @property
    def harm(self) -> str:
        """What no input may do, "" where nothing of it was done."""
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name} after {self.seconds:.0f} s"
        if "Traceback" in self.err or self.status not in (0, 2):
            return f"a traceback or status {self.status}: {self.err[-600:]}"
        errors = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        if self.status == 2 and (len(errors) != 1 or not self.err.endswith(f"{errors[0]}\n")):
            return f"no error of one line: {self.err[-600:]}"
        return ""


class Bounded:
    """A process from which commands are forked; closed at the end of a `with` statement."""

    def __enter__(self) -> Self:
        # Every thread would reserve 64 MB of address space for itself, which is not memory that it takes.
        settings = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.bounded_process"], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, env={**os.environ, **settings, "MPLBACKEND": "agg"},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:  # which closes its pipes and waits
            pass

    def run(self, *arguments: object, seconds: float = SECONDS) -> Outcome:
        """Run a command of otoscope, or a function of `tests.support.asked_in_python` as ("python", name, ...)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([seconds, *map(str, arguments)]) + "\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))


def main() -> None:
    """The process: a command per line of standard input, its outcome as a line of standard output."""
    from importlib import import_module

    from otoscope.cli.main import COMMANDS, load

    for group in COMMANDS.values():
        for name in group:
            load(name)
    for name in (
        "otoscope.analysis.accessor", "otoscope.analysis.asked", "otoscope.analysis.published.given",
        "otoscope.analysis.figures.overlap", "otoscope.ablate.study", "otoscope.extract.capture",
        "sklearn.linear_model",
        "otoscope.store.reader", "otoscope.store.verify", "tests.support.asked_in_python", "torch", "matplotlib.pyplot",
        "otoscope.extract.audio.corpora.nsynth", "otoscope.serve.client", "fsspec.implementations.memory",
    ):  # fmt: skip
        import_module(name)
    for line in sys.stdin:
        seconds, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(forked(arguments, seconds)) + "\n")
        sys.stdout.flush()


def forked(arguments: list[str], seconds: float) -> dict[str, Any]:
    """Run a command in a fork of this process."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = os.fork()
        if not child:
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
            os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
            os._exit(limited(arguments))
        status = None
        while status is None:
            found, ended = os.waitpid(child, os.WNOHANG)
            if found:
                status = os.waitstatus_to_exitcode(ended)
            elif time.monotonic() - begun > CLOCK_FACTOR * seconds:
                os.kill(child, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            else:
                time.sleep(0.002)
        texts = {name: path.read_text("utf-8", "surrogateescape") for name, path in (("out", out), ("err", err))}
    return {"status": status, "seconds": time.monotonic() - begun, **texts}


def limited(arguments: list[str]) -> int:
    """Run a command in this process, which ends afterwards: its exit status."""
    import traceback

    from otoscope.cli.main import cli
    from tests.support import asked_in_python

    faulthandler.enable()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ABOVE_IMPORTS, taken + ABOVE_IMPORTS))
    status = 0
    try:
        if arguments[0] == "python":
            getattr(asked_in_python, arguments[1])(*arguments[2:])
        else:
            cli(arguments, prog_name="otoscope")
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()
