"""The walk of docs/grounding.md, from CREMA-D's layout to a table of emotions by emotions, as it is written there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otoscope.ablate import read_result
from otoscope.ablate.swap.result import pair_table, read_swaps
from otoscope.analysis.crossed.table import read_grounding

from ...support.audio_language_models import RATE, write_folder
from ...support.commands import done
from ...support.wav_corpora import write_wav_file

PAGE = Path(__file__).parents[3] / "docs" / "grounding.md"
WORDS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SMALL = ("--percentile", "20", "--threshold", "median")
"""By so few sounds the rule contrast finds nothing, as it should; and 200 controls take a while."""


def commands() -> list[list[str]]:
    """The commands of the walk, variables put in."""
    part = PAGE.read_text().split("## From CREMA-D")[1].split("\n## ")[0]
    given, found = {}, []
    for line in re.findall(r"^    (.*)$", part, flags=re.M):
        if name := re.fullmatch(r'([A-Z]+)="(.*)"', line):
            given[name[1]] = name[2]
        elif line.startswith("otoscope "):
            found.append(shlex.split(re.sub(r"\$([A-Z]+)", lambda name: given[name[1]], line))[1:])
    return found


def download(folder: Path) -> None:
    """Tones in the layout of CREMA-D: four actors, two sentences, six emotions."""
    rng, splits = np.random.default_rng(0), []
    (folder / "CREMA-D").mkdir()
    actors = range(1001, 1005)
    rows = [f"{actor},30,{'Male' if actor % 2 else 'Female'},Caucasian,Not Hispanic" for actor in actors]
    (folder / "CREMA-D" / "VideoDemographics.csv").write_text("\n".join(["ActorID,Age,Sex,Race,Ethnicity", *rows, ""]))
    for actor in actors:
        for sentence in ("DFA", "IEO"):
            for k, emotion in enumerate(WORDS):
                name = f"{actor}_{sentence}_{emotion}_XX.wav"
                tone = np.sin(2 * np.pi * (300 + 450 * k + 10 * (actor - 1000)) * np.arange(3_000) / RATE)
                wave = np.round(6000 * tone + 400 * rng.standard_normal(3_000)).astype("<i2")
                write_wav_file(folder / "CREMA-D" / "AudioWAV" / name, wave, RATE)
                splits.append({"file_name": name, "split": "train" if actor < 1003 else "test"})
    pd.DataFrame(splits).to_csv(folder / "splits.csv", index=False)
    prompts = [
        (f"{{audio}} {asked} {word}?", name) for name, word in WORDS.items() for asked in ("he is", "she sounds")
    ]
    pd.DataFrame(prompts, columns=["prompt", "text_class"]).to_csv(folder / "prompts.csv", index=False)


@pytest.mark.slow
def test_the_documented_walk_ends_in_tables_of_emotions_by_emotions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    download(tmp_path)
    write_folder(tmp_path / "DIR", sound={"max_source_positions": 150})  # a window of 3 s
    written = commands()
    assert [" ".join(line[:2]) for line in written].count("ablate run") == 2

    def run(line: list[str], emotion: str = "ANG") -> None:
        line = [part.replace("all(ANG)", f"all({emotion})").replace("-ANG.", f"-{emotion}.") for part in line]
        line = ["2" if before == "--clips" else part for before, part in zip(["", *line], line, strict=False)]
        if "--group" in line:
            at = line.index("--group")
            line[at : at + 2] = [*SMALL, *["--controls", "39" if line[1] == "swap" else "2"] * ("--set" in line)]
        done(*line, *["--batch", "144"] * (line[0] == "extract"))

    for line in written:
        run(line)
    (off,) = (line for line in written if line[:2] == ["ablate", "run"] and "--mode" not in line)
    for emotion in list(WORDS)[1:]:
        run(off, emotion)
    changes = {name: read_result(f"off-{name}.parquet")["change"].sel(measure="accuracy").to_series() for name in WORDS}
    table = pd.DataFrame(changes).T
    assert list(table.index) == list(table.columns) == list(WORDS)
    assert table.notna().all(axis=None)
    assert read_result("gain-ANG.parquet").attrs["gain"] == 2
    swaps = read_swaps("swap-ANG.parquet")
    assert swaps.attrs["neurons"]["why"]["selected_on"].startswith("144 clips")
    assert swaps.attrs["notes"] == []
    for name in ("E_A", "E_T"):
        pairs = pair_table(swaps, name).to_numpy()
        assert np.isnan(np.diag(pairs)).all()
        assert np.isfinite(pairs[~np.eye(6, dtype=bool)]).all()
    assert set(read_grounding("gc.parquet")["K"]) == {6}
    assert Path("swap-ANG.pdf").stat().st_size > 1000
