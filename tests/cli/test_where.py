"""--where, by every command that asks: it is heard, and what it cannot be asked is one line."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import otoscope
from otoscope.analysis.selection.confirm import with_effects
from otoscope.analysis.selection.selection import Selection
from otoscope.analysis.tables import neurons_table
from otoscope.extract.capture import capture

from ..support.amounts import quick_sample
from ..support.closed_form import closed_form
from ..support.commands import done, refused
from ..support.wav_corpora import LENGTHS, write_corpus

HOW = ("--percentile", 60, "--reading", "frame")
TRAIN = ("--where", "split=train")


@pytest.fixture(scope="module")
def two(original: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store with a second task, "u", which has no split."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(original, folder / "s")
    manifest, _ = write_corpus(folder, LENGTHS, seed=1)
    capture(closed_form(), str(manifest), str(folder / "s"), task="u", block=4, batch=3, threads=1)
    return str(folder / "s")


def questions(store: str) -> dict[str, tuple[object, ...]]:
    one = ("--task", "t:kind", *HOW)
    return {
        "neurons": ("neurons", store, *one),
        "overlap": ("table", "overlap", store, *one),
        "stats": ("table", "stats", store, "--task", "t", *HOW),
        "figure": ("figure", "overlap", store, *one, "--caption", "none"),
        "null": ("null", store, *one, "--permutations", 20),
        "selectors": ("selectors", store, *one),
        "compare": ("compare", store, *one, "--by", "neuron"),
        "exemplars": ("exemplars", store, "--task", "t", "--neuron", "1,2", "-k", 5),
        "ablate set": ("ablate", "set", store, *one, "--set", "all(b)", "--clips", "all"),
    }


@pytest.mark.parametrize("name", quick_sample(questions(""), 3))
def test_every_command_asks_the_clips_that_satisfy(original: str, name: str, tmp_path: Path) -> None:
    ask, ending = questions(original)[name], "svg" if name == "figure" else "csv"
    files = [tmp_path / f"{i}.{ending}" for i in range(3)]
    ways = (("--where", "kind!=a"), ("--where", "kind=c", "--where", "kind=b"), ())
    for file, where in zip(files, ways, strict=True):
        done(*ask, *where, "-o", file)
    one, other, everything = (file.read_bytes() for file in files)
    assert one == other
    assert one != everything or name == "ablate set"  # the neuron of b is the same one


def test_a_command_says_what_the_notebook_does(original: str, tmp_path: Path) -> None:
    done("neurons", original, "--task", "t:kind", *HOW, *TRAIN, "--where", "zahl!=9", "-o", tmp_path / "n.csv")
    ds = otoscope.open(original)["t"].ds
    own = ds.isel(clip=((ds["split"] == "train") & (ds["zahl"] != "9")).values)
    how = Selection(percentile=60, reading="frame")
    found = own.otoscope.class_specific("kind", how).compute()
    expected = neurons_table(with_effects(own, "kind", how, found))
    assert set(expected["category"]) <= {"b", "c"}  # 9 is a, which is gone
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "n.csv"), expected, check_dtype=False)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("kind=a", r"1 category|no clip has"),
        ("zahl=9,split=train,kind=b", "no clip has zahl=9, split=train, kind=b"),
        ("colour=red", "no label column 'colour' in this task; those that exist: kind, one, split, "),
        ("split=valid", "no clip has split 'valid'; expected one of 'test', 'train'"),
        ("split=", "the condition is 'split='; expected COLUMN=VALUE or COLUMN!=VALUE"),
        ("split", "the condition is 'split'; expected"),
    ],
)
def test_what_cannot_be_asked_is_one_line(original: str, where: str, message: str, tmp_path: Path) -> None:
    given = [word for each in where.split(",") for word in ("--where", each)]
    for name, ask in questions(original).items():
        if (name, where) != ("exemplars", "kind=a") and name != "stats":  # of t there are other labellings
            output = ("-o", tmp_path / "f.png") if name == "figure" else ()
            refused(message, *ask, *given, *output, watched=tmp_path)


def test_a_task_that_lacks_the_column_is_named_and_not_left_out(two: str, tmp_path: Path) -> None:
    lacks = r"s task u: no label column 'split' in this task; those that exist: kind"
    refused(lacks, "table", "stats", two, *HOW, *TRAIN, watched=tmp_path)
    refused(lacks, "compare", two, "--by", "neuron", *HOW, *TRAIN, watched=tmp_path)
    against = ("--task", "t:kind", *HOW, *TRAIN, "--against", "u:kind")
    refused(lacks, "null", two, *against, watched=tmp_path)
    refused(lacks, "table", "overlap", two, *against, watched=tmp_path)
    refused(lacks, "ablate", "set", two, *against[:-2], "--set", "all(u:kind:a)", watched=tmp_path)
    done("table", "stats", two, "--task", "t", *HOW, *TRAIN)


def test_against_goes_by_the_same_clips(two: str, tmp_path: Path) -> None:
    ask = ("table", "overlap", two, *HOW, "--task", "u:kind", "--where", "kind!=a", "--against", "t:kind")
    done(*ask, "-o", tmp_path / "o.csv")
    table = pd.read_csv(tmp_path / "o.csv")
    assert (table["category"].tolist(), list(table.columns[1:])) == (["b", "c"], ["b", "c"])


def test_probabilities_made_elsewhere_have_no_clips_to_choose(original: str, tmp_path: Path) -> None:
    done("table", "probability", original, "--task", "t:kind", "-o", tmp_path / "p.csv")
    for command in (("neurons",), ("table", "probability"), ("table", "stats"), ("table", "aape"), ("selectors",)):
        ask = (*command, tmp_path / "p.csv", "--task", "p:class", *HOW, "--where", "split=train")
        refused("probabilities made elsewhere have no clips to choose by split=train", *ask, watched=tmp_path)
