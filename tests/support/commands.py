"""Commands as they are typed: what succeeds, and what a refusal is.

A refusal is exit status 2, one line that says what is expected, what was found and what to do, no traceback, and not a
byte changed anywhere.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from otoscope.cli.main import cli

from . import closed_form
from .stored_files import tree_of

CLOSED_FORM = f"module:{closed_form.__file__}:closed_form"
NOTES = re.compile(
    r"[\d,]+/[\d,]+ clips .*|[\d,/]+ (clips|swaps) in .*|failed: .*"
    r"|\.\.\. and \d+ more: .*|.* neurons \(.*\); \d+ controls; .*"
    r"|.* neurons; \d+ controls; .* swaps among .*|.* was not selected here: .*|no clip is of .*: all clips are swapped"
    r"|.*: the selected neurons \(\d+\) are .*"
)
LABELS = {
    "kind": ["abc"[i % 3] for i in range(37)],
    "zahl": [str(9 + i % 3) for i in range(37)],
    "ünï, cöde": [("é, ü", "日本", "x|y")[i % 3] for i in range(37)],
    "one": ["x"] * 37,
    "split": [("train", "test")[i % 2] for i in range(37)],
}


def command(*arguments: object) -> list[str]:
    """The real `otoscope` command as a list for subprocess."""
    return [sys.executable, "-c", "from otoscope.cli.main import main; main()", *map(str, arguments)]


def otoscope(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the real `otoscope` command."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, **options)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="otoscope")


def done(*arguments: object) -> str:
    """Standard output of a command that succeeds."""
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "Error" not in result.stderr
    return result.stdout


def refused(message: str, *arguments: object, watched: Path) -> str:
    """The error of a command that is refused; the files under `watched` are as they were."""
    before = tree_of(watched)
    result = call(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    *notes, error = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert all(NOTES.fullmatch(note) for note in notes), notes
    assert re.search(message, error), error
    assert tree_of(watched) == before
    return error


def extraction(url: Path | str, manifest: Path, *more: object) -> tuple[object, ...]:
    given = ("--encoder", CLOSED_FORM, "--task", "t", "--threads", 1, "--block", 4, "--batch", 3)
    return ("extract", url, "--corpus", manifest, *given, *more)
