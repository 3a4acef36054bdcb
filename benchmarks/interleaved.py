"""Is a checkout slower than another? The questions of `make bench` in both, in turn, and the ratios of their figures.

    python -m benchmarks.interleaved CHECKOUT [QUESTION ...] [--rounds N]      another checkout against this one

Each checkout asks with its own `benchmarks/`, in a fresh process; whose turn is first changes with every round. Shown
are, per figure, the median over rounds of this checkout's value over the other's and their range. Figures that are the
larger the better are turned over, so that above 1 is always worse. Nothing is recorded.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from . import QUESTIONS
from .harness import ROOT

ASK = """
import importlib, json, sys, tempfile
from pathlib import Path
question = importlib.import_module(f"benchmarks.{sys.argv[1]}")
with tempfile.TemporaryDirectory(prefix="otoscope-bench-") as scratch:
    figures = question.measure(Path(scratch), question.FULL).figures
print(json.dumps({f.name: 1 / f.value if f.at_least and f.value else f.value for f in figures}))
"""


def asked(checkout: Path, question: str) -> dict[str, float]:
    """A question's figures by name, the smaller the better."""
    environment = {"PYTHONPATH": f"{checkout / 'src'}:{checkout}", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    command = [sys.executable, "-c", ASK, question]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interleaved", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("questions", nargs="*", default=QUESTIONS, metavar="QUESTION")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    both = [options.checkout.resolve(), ROOT]
    for question in options.questions:
        found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in both}
        for turn in range(options.rounds):
            for checkout in both[:: 1 if turn % 2 == 0 else -1]:
                found[checkout].append(asked(checkout, question))
        for name in found[ROOT][0]:
            pairs = [(ours.get(name), theirs.get(name)) for theirs, ours in zip(*found.values(), strict=True)]
            ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
            if ratios:
                spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
                print(f"{question}: {name}: {statistics.median(ratios):.3f} ({spread})", flush=True)


if __name__ == "__main__":
    main()
