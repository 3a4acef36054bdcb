"""Model folders and checkpoints of strangers: one line each, before anything of them takes up memory or time."""

import json
import subprocess
import sys
from pathlib import Path

from ...support import hostile_folders

ROOT = Path(__file__).parents[3]


def test_each_is_refused_in_one_line(tmp_path: Path) -> None:
    """In a process of its own, whose memory and time are limited."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.hostile_folders", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert "ran" not in found.stdout.splitlines()
    results = [json.loads(line) for line in found.stdout.splitlines()]
    good = [each for each in results if each["case"].endswith(", good")]
    assert [each["message"] for each in good] == [""] * 7
    hostile = [each for each in results if not each["case"].endswith(", good")]
    assert len(hostile) == len(hostile_folders.SPEECH) + len(hostile_folders.CHECKPOINTS) + sum(
        map(len, hostile_folders.OTHERS.values())
    )
    assert len(hostile) > 120
    for each in hostile:
        assert each["error"] in ("ValueError", "LookupError", "FileNotFoundError", "OSError"), each
        assert each["message"].isprintable(), each
        assert len(each["message"]) < 1000, each
        assert each["seconds"] < hostile_folders.MAX_SECONDS, each
