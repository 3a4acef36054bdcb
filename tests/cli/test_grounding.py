"""`otoscope grounding` and its figure, as they are typed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import otoscope
from otoscope.analysis.crossed.table import grounding_table, read_grounding

from ..support.commands import call, done, refused
from ..support.crossed import columns_of, responses, write_crossed

SIZES, N = (3, 4, 3, 3), 140
ASK = ("--task", "emotion")


def made(url: Path, failed: tuple[int, ...] = (), **changes: list[str]) -> str:
    d = {"d_audio": np.tile([1.5, 0.0], N // 2), "d_text": np.tile([0.0, 1.5], N // 2)}
    mean = np.stack([responses(SIZES, N, seed=seed, **d) for seed in (0, 1)])
    split = {"split": ["test" if int(name) > 1 else "train" for name in columns_of(SIZES)["replicate"]]}
    write_crossed(str(url), mean, {**columns_of(SIZES), **split, **changes}, failed)
    return str(url)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("crossed") / "lm.zarr")


def test_the_table_is_what_the_notebook_gives(crossed: str, tmp_path: Path) -> None:
    files = [str(tmp_path / f"gc.{ending}") for ending in ("parquet", "csv")]
    for file in files:
        assert done("grounding", crossed, *ASK, "-o", file) == f"{file}\n"
    ds = otoscope.open(crossed)["emotion"].to_dataset()
    expected = grounding_table(ds.otoscope.grounding())
    table = pd.read_parquet(files[0])
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert len(table) == 2 * N
    assert table["state"].value_counts()[["audio", "text"]].min() > 0.7 * N
    other = pd.read_csv(files[1]).assign(cut=expected["cut"])
    pd.testing.assert_frame_equal(other, expected, check_dtype=False)
    assert "state" in done("grounding", crossed, *ASK, "--where", "wording!=w2").splitlines()[0]
    for file in files:
        assert read_grounding(file)["d_A"].equals(table["d_A"])
        assert done("figure", "grounding", file, "-o", tmp_path / "gc.svg") == f"{tmp_path / 'gc.svg'}\n"
    drawn = (tmp_path / "gc.svg").read_text()
    assert "3 sound categories of 4 sounds x 3 text categories of 3 wordings" in " ".join(drawn.split())


def test_options_reach_the_coefficient(crossed: str, tmp_path: Path) -> None:
    file, how = str(tmp_path / "gc.csv"), {"where": ("split=test",), "permutations": 20, "seed": 5, "threshold": 0.1}
    given = ("--where", "split=test", "--aape", "--permutations", 20, "--seed", 5, "--threshold", "0.1")
    done("grounding", crossed, *ASK, *given, "-o", file)
    ds = otoscope.open(crossed)["emotion"].to_dataset()
    expected = grounding_table(ds.otoscope.grounding(aape=True, **how))
    table = pd.read_csv(file)
    assert {"gc_aape", "aape_excess_A"} < set(table)
    pd.testing.assert_frame_equal(table.assign(cut=expected["cut"]), expected, check_dtype=False)
    assert set(table["J"]) == {3}
    columns = ("--audio-class", "text_class", "--text-class", "audio_class", "--audio", "text", "--wording", "audio")
    refused("no label column 'text' in this task", "grounding", crossed, *ASK, *columns, "-o", file, watched=tmp_path)
    done("grounding", crossed, *ASK, "--blind", "text", "-o", file)
    assert set(pd.read_csv(file)["state"]) == {"construction"}


def test_failed_clips_take_their_rows_along_and_it_is_reported(tmp_path: Path) -> None:
    url = made(tmp_path / "lm.zarr", failed=(10,))  # of the second sound of the first category
    result = call("grounding", url, *ASK, "-o", tmp_path / "gc.csv")
    assert result.exit_code == 0, result.output
    note = "lm emotion: 1 of 108 pairs failed: 27 are left out so that all classes have as many, of 3 sounds ('sound 0"
    assert result.stderr.startswith(note)
    table = pd.read_csv(tmp_path / "gc.csv")
    assert set(table["J"]) == {3}
    done("grounding", url, *ASK, "--where", "replicate!=2", "-o", tmp_path / "other.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "other.csv"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--where", "wording=w1"), "found 1 wording of a text class; expected at least 2: more wordings"),
        (("--where", "audio_class=A1"), "found 1 audio class; expected at least 2"),
        (("--where", "audio!=sound 0.1"), "audio class 'A2' has 4 sounds, 'A0' 3; expected as many of each"),
        (("--audio", "wording"), "sound 'w0' is of audio class 'A0' and of 'A1'; expected one audio class"),
        (("--audio", "replicate"), "sound '1' is of audio class 'A0' and of 'A1'"),
        (("--wording", "text_class"), "sound 'sound 0.0' is there more than once with wording 'T0' of 'T0'"),
        (("--replicate", "take"), "no label column 'take' in this task; those that exist: audio, audio_class, "),
        (("--permutations", "9"), "--permutations was given without --aape, which alone uses it: leave it out"),
        (("--seed", "-1"), "seed from 0"),
        (("--task", "cremad"), "no task 'cremad' in lm; it holds emotion"),
    ],
)
def test_mistakes_are_one_line(crossed: str, more: tuple[str, ...], message: str, tmp_path: Path) -> None:
    refused(message, "grounding", crossed, *ASK, *more, "-o", tmp_path / "gc.csv", watched=tmp_path)


def test_a_store_that_is_not_crossed(original: str, tmp_path: Path) -> None:
    message = "no label column 'audio_class' in this task"
    refused(message, "grounding", original, "--task", "t", "-o", tmp_path / "gc.csv", watched=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="d_T"), "it has no column d_T"),
        (lambda table: table.head(0), "it has no row"),
        (lambda table: table.assign(state="sound"), "it has a state 'sound'"),
        (lambda table: table.assign(d_A="x"), "could not convert string to float: 'x'"),
        (lambda table: table.assign(d_A=-1.0), "it has negative numbers, or lacks some"),
        (lambda table: table.assign(K=np.nan), "it has negative numbers, or lacks some"),
    ],
)
def test_tables_that_are_none_of_grounding(crossed: str, change, message: str, tmp_path: Path) -> None:
    done("grounding", crossed, *ASK, "-o", tmp_path / "gc.csv")
    change(pd.read_csv(tmp_path / "gc.csv")).to_csv(tmp_path / "gc.csv", index=False)
    ask = ("figure", "grounding", tmp_path / "gc.csv", "-o", tmp_path / "f.pdf")
    error = refused(f"holds no grounding of neurons .{message}", *ask, watched=tmp_path)
    assert "`otoscope grounding -o` makes one" in error


def test_figures_of_other_things(crossed: str, tmp_path: Path) -> None:
    ask, out = ("figure", "grounding"), ("-o", tmp_path / "f.pdf")
    refused("lm.zarr is not a regular file; expected a table of", *ask, crossed, *out, watched=tmp_path)
    refused("found 2 results; expected one", *ask, "a.csv", "b.csv", *out, watched=tmp_path)
    refused("--rule was given for the figure grounding", *ask, "a.csv", "--rule", "lape", *out, watched=tmp_path)
