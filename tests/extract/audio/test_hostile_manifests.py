"""Hostile manifests are read right or refused in a line; never a traceback, never a gigabyte, never 20 seconds."""

import csv
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otoscope.extract.audio.manifest import read_manifest

from ...support.hostile_manifests import CASES, MAX_BYTES

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.support.hostile_manifests", str(tmp_path_factory.mktemp("hostile"))]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True, stdin=subprocess.DEVNULL
    )
    return {found.pop("case"): found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_hostile_manifest_is_refused_in_a_line_or_read_right(outcomes: dict[str, Any], case: str) -> None:
    hostile, found = CASES[case], outcomes[case]
    assert found.pop("bytes") < MAX_BYTES
    if not hostile.refused:
        assert found == {"names": hostile.names, "labels": hostile.labels}
        return
    assert set(found) == {"refused"}, found
    message = found["refused"]
    assert re.search(hostile.refused, message), message
    assert "\n" not in message
    assert len(message) < 1000
    assert message.isprintable()


def mutated(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.randint(1, 6)):
        i, piece = (
            rng.randrange(len(content) + 1),
            rng.choice([b'"', b",", b"\n", b"\r", b'""', b'",', b" ", b"x", b"\xc3"]),
        )
        content = content[:i] + piece + content[i + rng.randint(0, 2) :]
    return content


@pytest.mark.parametrize("seed", range(10))
def test_damaged_csv_is_refused_or_read_as_the_standard_library_reads_it(tmp_path: Path, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / "m.csv"
    rows = [["path", "k", "l"], *([f"{i}.wav", rng.choice(["x", "a,b", 'say "y"', " "]), str(i)] for i in range(6))]
    whole = io.StringIO()
    csv.writer(whole, lineterminator="\n").writerows(rows)
    read = 0
    for _ in range(60):
        path.write_bytes(mutated(rng, whole.getvalue().encode()))
        try:
            corpus = read_manifest(path)
        except ValueError:
            continue
        read += 1
        text = path.read_bytes().decode("utf-8-sig")
        header, *cells = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        want = [dict(zip(header, row, strict=True)) for row in cells]
        for column in corpus.labels:
            assert corpus.labels[column].tolist() == [row[column] if row[column].strip() else "" for row in want]
    assert read
