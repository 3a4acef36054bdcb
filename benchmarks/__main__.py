"""All questions at full size, one after the other, each in a fresh process: `python -m benchmarks [--scratch DIR]`.

They take about an hour on two cores, and 9 GB in the scratch folder, which is emptied again.
"""

import subprocess
import sys

from . import QUESTIONS
from .harness import ROOT


def main() -> None:
    failed = []
    for question in QUESTIONS:
        print(f"\n{question}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{question}", *sys.argv[1:]], cwd=ROOT).returncode:
            failed.append(question)
    if failed:
        sys.exit(f"{', '.join(failed)} did not end")
    print("\n`python -m benchmarks.report` puts the table into the documentation")


if __name__ == "__main__":
    main()
