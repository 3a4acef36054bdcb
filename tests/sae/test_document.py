"""docs/sae.md is run as it stands, on the bundled corpus of notes, from the store to Figure 4."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from otoscope.extract.audio.corpora.synth import synthesise

from ..support.commands import done

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
PAGE = (Path(__file__).parents[2] / "docs" / "sae.md").read_text(encoding="utf-8").replace("\\\n", " ")
SMALLER = {
    "sae train": ["--epochs", "4", "--batch", "32"],
    "sae probe": ["--folds", "2"],
    "sae compare": ["--folds", "2"],
    "sae disentangle": ["--folds", "3"],
}
ENDS = ("neurons", "table stats", "ablate run", "figure ablation")
"""Of the walk, which test_walk.py asks for; nothing comes of them here."""


def test_the_page_walks_from_recordings_to_figure_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Octaves for digits, and six parts of each for speakers; few epochs and folds, small batches."""
    monkeypatch.chdir(tmp_path)
    notes = pd.read_csv(synthesise(tmp_path, notes_per_octave=8, events_per_category=0)["fm"], dtype=str)
    speaker = [f"s{i}" for i in notes.groupby("octave").cumcount() % 6]
    notes.rename(columns={"octave": "digit"}).assign(speaker=speaker).to_csv("digits.csv", index=False)
    commands = re.findall(r"^    otoscope (.+)$", PAGE, re.MULTILINE)
    assert len(commands) > 20
    for command in commands:
        if command.startswith(ENDS):
            continue
        words = shlex.split(command)
        done(*words, *SMALLER.get(" ".join(words[:2]), []))
        if "-o" in words:
            written = Path(words[words.index("-o") + 1])
            assert written.is_dir() or written.stat().st_size > 100
    table = pd.read_csv("disentangled.csv")
    assert set(table["of"]) == {"state", "neurons", "principal components", "latents"}
    assert set(table["control"].dropna()) == {"none", "untrained"}
    assert table["factor"].nunique() == 88
