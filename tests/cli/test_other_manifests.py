"""A store and a manifest that does not go on from it: one line says how they differ, before an encoder is loaded."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.commands import extraction, otoscope, refused
from ..support.finished_store import Finished

Rows = list[dict[str, str]]


def changed(row: dict[str, str], **cells: str) -> dict[str, str]:
    return {**row, **cells}


WAYS: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "shorter": (lambda rows: rows[:5], "lists only the first 5; expected all of them at its beginning"),
    "one clip less": (lambda rows: [*rows[:3], *rows[4:]], r"lacks 1 of them, the first 'audio/003\.wav'"),
    "reordered": (lambda rows: rows[::-1], r"another order \(number 1 is 'audio/036\.wav', not 'audio/000\.wav'\)"),
    "a clip in between": (
        lambda rows: [rows[0], changed(rows[1], id="new"), *rows[1:]],
        r"another order \(number 2 is 'new', not 'audio/001\.wav'\)",
    ),
    "other names": (
        lambda rows: [changed(row, id=f"clip {i}") for i, row in enumerate(rows)],
        r"lacks 37 of them, the first 'audio/000\.wav' \(its own first is 'clip 0'\)",
    ),
    "another file": (
        lambda rows: [*rows[:9], changed(rows[9], path="audio/000.wav"), *rows[10:]],
        r"gives 'audio/009\.wav' another source \('audio/000\.wav', not 'audio/009\.wav'\)",
    ),
    "a part": (
        lambda rows: [*rows[:2], changed(rows[2], start="0.01"), *rows[3:]],
        r"'audio/002\.wav' another source \('audio/002\.wav' from 0\.01 s to its end, not 'audio/002\.wav'\)",
    ),
    "prompts": (lambda rows: [changed(row, prompt="what?") for row in rows], "has prompts, which they have not"),
    "other labels": (
        lambda rows: [*rows[:4], changed(rows[4], kind="z"), *rows[5:]],
        r"'kind' \(of 'audio/004\.wav' 'b', not 'z'\); expected .*`otoscope label .* TABLE --replace`",
    ),
    "another column": (
        lambda rows: [changed(row, size="1") for row in rows],
        "lacks the manifest's label column 'size'; expected .*`otoscope label .* TABLE`",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_manifest_that_does_not_go_on_from_the_store(finished: Finished, tmp_path: Path, way: str) -> None:
    change, message = WAYS[way]
    with finished.manifest.open(newline="", encoding="utf-8") as file:
        rows = [{"id": row["path"], "start": "", "prompt": "", **row} for row in csv.DictReader(file)]
    rows = change(rows)
    drop = [] if way == "prompts" else ["prompt"]
    with (tmp_path / "m.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [name for name in rows[-1] if name not in drop], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    given = ("--audio-root", finished.manifest.parent, "--keep", "mean,positive_frames,embedding,hidden")
    for more in ((), ("--dry-run",)):
        refused(
            message, *extraction(finished.url, tmp_path / "m.csv", *given, *more), "--encoder", "module:absent.py:none",
            watched=Path(finished.url),
        )  # fmt: skip


def test_lists_in_label_cells_are_noticed(tmp_path: Path, finished: Finished) -> None:
    cells = ["a", "b", "a,b"]
    rows = [f'audio/{i:03d}.wav,"{cells[i % 3]}"' for i in range(37)]
    (tmp_path / "m.csv").write_text("\n".join(["path,tags", *rows]) + "\n")
    message = "label column 'tags': 'a,b' is one category, and looks like a list of several ('a' is another category)"
    done = otoscope(*extraction(tmp_path / "s", tmp_path / "m.csv", "--audio-root", finished.manifest.parent))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(message) == 1
    done = otoscope("label", tmp_path / "s", "--task", "t", tmp_path / "m.csv")
    assert f"note: {message}" in done.stderr
