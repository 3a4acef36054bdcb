"""Labels, tables and figures by command: every kind in every ending, and what a bad question gets."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from otoscope.analysis.kinds import TABLES

from ..support import closed_form
from ..support.amounts import quick_sample
from ..support.commands import LABELS, call, done, extraction, otoscope, refused
from ..support.finished_store import Finished
from ..support.wav_corpora import write_corpus, write_manifest


@pytest.mark.parametrize("label", quick_sample(["ünï, cöde", "kind", "zahl"], 1))
def test_labels_that_are_numbers_unicode_or_contain_commas(original: str, tmp_path: Path, label: str) -> None:
    options = ("--task", f"t:{label}", "--percentile", 40)
    for ending in ("csv", "parquet", "md", "tex"):
        done("neurons", original, *options, "-o", tmp_path / f"n.{ending}")
        assert (tmp_path / f"n.{ending}").stat().st_size > 20
    read = pd.read_csv(tmp_path / "n.csv", dtype={"category": str})
    pd.testing.assert_frame_equal(read, pd.read_parquet(tmp_path / "n.parquet"), check_dtype=False)
    assert set(read["category"]) <= set(LABELS[label])
    done("table", "probability", original, *options, "-o", tmp_path / "p.csv")
    assert pd.read_csv(tmp_path / "p.csv").columns.tolist()[2:] == (
        ["9", "10", "11"] if label == "zahl" else sorted(set(LABELS[label]))
    )
    for ending in ("pdf", "png", "svg"):
        assert done("figure", "overlap", original, *options, "-o", tmp_path / f"o.{ending}").strip().endswith(ending)
        assert (tmp_path / f"o.{ending}").stat().st_size > 1000


def test_a_label_column_added_later(store: Path, tmp_path: Path) -> None:
    names = [f"audio/{i:03d}.wav" for i in range(37)]
    write_manifest(tmp_path / "later.csv", names[::-1], {"grün": [str(i % 2) for i in range(37)][::-1]})
    assert done("label", store, "--task", "t", tmp_path / "later.csv") == f"{store} task t: grün\n"
    assert json.loads(done("info", store))["tasks"]["t"]["labels"]["grün"] == ["0", "1"]
    assert done("verify", store) == "intact\n"
    done("label", store, "--task", "t", tmp_path / "later.csv")
    write_manifest(tmp_path / "other.csv", names, {"grün": ["x"] * 37})
    add = ("label", store, "--task", "t", tmp_path / "other.csv")
    refused("label column 'grün' with other values; expected a new name, or --replace", *add, watched=store)
    done(*add, "--replace")
    (tmp_path / "strange.csv").write_text("path,x\nz.wav,1\n")
    refused(
        "1 of 1 rows are about clips that the task does not have", *add[:-1], tmp_path / "strange.csv", watched=store
    )
    refused("no task 'u' in .*; it holds t", "label", store, "--task", "u", tmp_path / "other.csv", watched=store)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("neurons", "--task", "t:one"), r"t:one has 1 category with clips \('x'\); expected at least 2"),
        (
            ("neurons", "--task", "t:nope"),
            "no label column 'nope' in this task; those that exist: kind, one, split",
        ),
        (("neurons", "--task", "u"), "no task 'u' in store; it holds t"),
        (("neurons", "--task", "t"), r"found 4 labellings \(store t:kind, .*expected one: name it as TASK:LABEL"),
        (("table", "overlap"), r"found 3 labellings .*expected one"),
        (("table", "depth", "--task", "t:nope"), "no label column 'nope'"),
        (("table", "overlap", "--task", "t:kind", "--percentile", "40", "--against", "u"), "no task 'u'"),
        (("neurons", "--task", "t:kind", "--percentile", "0"), "percentile is 0; expected a number above 0"),
        (
            ("neurons", "--task", "t:kind", "--percentile", "viel"),
            "--percentile is 'viel'; expected a number such as 1",
        ),
        (("neurons", "--task", "t:kind", "--percentile", "u=2"), "--percentile u=... names no task that was asked for"),
        (
            ("neurons", "--task", "t:kind", "--percentile", "0.01"),
            "no neuron is selected out of 14; expected at least one",
        ),
        (("neurons", "--task", "t:kind", "--reading", "frame", "--threshold", "1"), "expected reading 'clip' for it"),
        (
            ("neurons", "--task", "t:kind", "--percentile", "40", "-o", "absent/n.csv"),
            "no folder absent; expected it for n.csv",
        ),
        (
            ("neurons", "--task", "t:kind", "--percentile", "40", "-o", "n.doc"),
            "cannot write to 'n.doc'; expected",
        ),
        (
            ("figure", "depth", "--task", "t:kind", "--percentile", "40", "-o", "f.doc"),
            "cannot write to 'f.doc'; expected",
        ),
    ],
)
def test_bad_questions(
    original: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    position = 2 if arguments[0] != "neurons" else 1
    refused(message, *arguments[:position], original, *arguments[position:], watched=tmp_path)


def test_a_question_that_needs_what_was_not_kept(corpus: Path, tmp_path: Path) -> None:
    done(*extraction(tmp_path / "s", corpus, "--keep", "active_bits"))
    ask = ("neurons", tmp_path / "s", "--task", "t:kind")
    for more, name in ((("--reading", "frame"), "positive_frames"), (("--threshold", 1), "mean")):
        refused(f"keeps no '{name}', expected for .*: extract with --keep {name}", *ask, *more, watched=tmp_path)


def test_a_saturated_store_names_the_remedy_and_the_remedy_works(tmp_path: Path) -> None:
    """Through a ReLU every neuron is active in every clip, though not in every frame."""
    source = Path(closed_form.__file__).read_text()
    for old, new in (
        ("self.neurons.weight =", "self.act = nn.ReLU()\n        self.neurons.weight ="),
        ("self.neurons(tokens)", "self.act(self.neurons(tokens))"),
        ('["layers.*.neurons"]', '["layers.*.act"]'),
    ):
        assert old in source
        source = source.replace(old, new)
    (tmp_path / "relu.py").write_text(source)
    columns = {"kind": [str(i % 3) for i in range(37)]}
    manifest = write_corpus(tmp_path, [10 * (20 + i % 7) for i in range(37)], columns=columns)[0]
    done(*extraction(tmp_path / "s", manifest, "--encoder", f"module:{tmp_path}/relu.py:closed_form"))
    ask = ("--task", "t:kind", "--percentile", 30)
    for start in (
        ("neurons", tmp_path / "s"),
        ("table", "stats", tmp_path / "s"),
        ("table", "overlap", tmp_path / "s"),
    ):
        refused("equal the highest one, 1, so that no neuron .*: use --reading frame", *start, *ask, watched=tmp_path)
    refused("use --reading frame", "figure", "depth", tmp_path / "s", *ask, "-o", tmp_path / "f.pdf", watched=tmp_path)
    done("table", "probability", tmp_path / "s", *ask)  # nothing is selected, so nothing is refused
    assert "layers." in done("neurons", tmp_path / "s", *ask, "--reading", "frame")


@pytest.mark.parametrize("kind", quick_sample(TABLES, 3))
def test_every_table_in_every_ending(original: str, tmp_path: Path, kind: str) -> None:
    options: tuple[object, ...] = ("--task", "t:kind", "--percentile", 40)
    options += ("--threshold", "q80") if kind == "neuron-thresholds" else ()
    shown = done("table", kind, original, *options)
    assert shown.startswith("|")
    for ending in ("csv", "parquet", "md", "tex"):
        assert done("table", kind, original, *options, "-o", tmp_path / f"x.{ending}") == f"{tmp_path}/x.{ending}\n"
    assert (tmp_path / "x.md").read_text() == shown
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "x.csv"), pd.read_parquet(tmp_path / "x.parquet"), check_dtype=False
    )
    assert "\\toprule" in (tmp_path / "x.tex").read_text()


@pytest.mark.parametrize("kind", ["overlap", "depth"])
@pytest.mark.parametrize("ending", quick_sample(["pdf", "png", "svg"], 1))
def test_every_figure_in_every_ending(
    original: str, finished: Finished, tmp_path: Path, kind: str, ending: str
) -> None:
    options = ("--task", "t:kind", "--percentile", 40, "-o", tmp_path / f"x.{ending}")
    done("figure", kind, original, finished.url, *options)
    start = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}[ending]
    assert (tmp_path / f"x.{ending}").read_bytes().startswith(start)


def test_overlap_of_two_labellings_and_a_percentile_of_one_task(original: str, tmp_path: Path) -> None:
    options = ("--task", "t:kind", "--against", "t:ünï, cöde", "--percentile", "t=40", "--percentile", 1)
    done("table", "overlap", original, *options, "-o", tmp_path / "x.csv")
    table = pd.read_csv(tmp_path / "x.csv")
    assert table["category"].tolist() == ["a", "b", "c"]
    assert sorted(table.columns[1:]) == sorted({"é, ü", "日本", "x|y"})
    done("figure", "overlap", original, *options, "-o", tmp_path / "x.png")


@pytest.mark.slow
def test_a_selection_that_means_little_is_warned_of_in_one_line_by_every_command(original: str, tmp_path: Path) -> None:
    """And the remedy that the line names is one that works."""
    ask = (original, "--task", "t:kind", "--percentile", 40)
    warned = re.compile(r"store t:kind: the selected neurons \(1\) are not more selective .*: use --threshold q80")
    against = ("--against", "t:kind", "-o", tmp_path / "f.png")
    by_one_way: list[tuple[Any, ...]] = [("table", kind, *ask) for kind in ("paper", "thresholds", "depth")]
    by_one_way += [("figure", "depth", *ask, *against[2:]), ("selectors", *ask), ("compare", "--by", "neuron", *ask)]
    remedied: list[tuple[Any, ...]] = [
        ("neurons", *ask),
        ("table", "stats", *ask),
        ("table", "overlap", *ask, *against[:2]),
    ]
    remedied += [("figure", "overlap", *ask, *against), ("null", *ask, *against[:2], "--permutations", 19)]
    for words in (*by_one_way, *remedied):
        result = call(*words)
        assert result.exit_code == 0, result.stderr
        assert [bool(warned.fullmatch(line)) for line in result.stderr.splitlines()].count(True) == 1, words
        assert "selective" not in result.stdout.replace("figure selectivity", "")
        if words in remedied:
            assert "not more selective" not in call(*words, "--threshold", "q80").stderr
    for kind in ("probability", "aape"):  # nothing is selected
        assert call("table", kind, *ask).stderr == ""
    lines = otoscope("ablate", "set", *ask, "--set", "all(a)", "--clips", "all").stderr.splitlines()
    assert [bool(warned.fullmatch(f"store {line}")) for line in lines].count(True) == 1, lines


def test_the_official_table_of_statistics_has_the_columns_it_had(original: str, tmp_path: Path) -> None:
    ask = (original, "--task", "t:kind", "--percentile", 40)
    done("table", "stats", *ask, "--official", "ssl", "-o", tmp_path)
    done("table", "stats", *ask, "-o", tmp_path / "own.csv")
    official = pd.read_csv(tmp_path / "task_level_neuron_statistics_analysis.csv")
    own = pd.read_csv(tmp_path / "own.csv")
    assert official.columns.tolist() == [
        "store", "task", "categories", "neurons_per_category", "coverage_ratio", "selected", "activity_threshold",
        "aape_threshold", "probability_threshold", "percentile", "rule",
    ]  # fmt: skip
    assert set(own) - set(official) == {"categories_per_neuron", "aape_share_selected", "aape_share_all"}
    pd.testing.assert_frame_equal(own[official.columns], official)
