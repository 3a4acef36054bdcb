"""Selections held against other clips by command: columns, notes, refusals."""

from pathlib import Path

import pandas as pd

import otoscope
from otoscope.analysis.null.permutation import bootstrap
from otoscope.analysis.selection.check import select
from otoscope.analysis.selection.selection import Selection

from ..support.commands import call, done, refused

ASK = ("--task", "t:kind", "--percentile", 40, "--threshold", "q80")
BESIDE = ["confirm_auc", "confirm_auc_low", "confirm_auc_high", "confirm_p", "confirm_probability", "holds_up"]


def test_neurons_and_stats_say_what_holds_up(original: str, tmp_path: Path) -> None:
    confirm = ("--confirm", "split=test", "--permutations", 99)
    result = call("neurons", original, *ASK, *confirm, "--bootstrap", 40, "-o", tmp_path / "n.csv")
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(tmp_path / "n.csv")
    assert table.columns[-7:].tolist() == [*BESIDE, "stability"]
    how = Selection(percentile=40, threshold="q80", confirm=("split=test",), permutations=99)
    ds = otoscope.open(original)["t"].ds
    found = select(ds, "kind", how)
    assert len(table) == int(found["member"].sum())
    assert table["auc"].is_monotonic_decreasing
    drawn = bootstrap(ds.otoscope.sample("kind", how), how, draws=40)
    for row in table.to_dict("records"):
        at = {name: row[name] for name in ("layer", "neuron", "category")}
        assert row["confirm_p"] == float(found["confirm_p"].sel(at))
        assert row["stability"] == float(drawn["stability"].sel(at))
    (note,) = [line for line in result.stderr.splitlines() if "hold up" in line]
    share, n_clips = found.attrs["hold_up"], found.attrs["hold_up_clips"]
    assert f"{share:.1%} of {len(table)} selected cells hold up on {n_clips} clips with" in note
    done("table", "stats", original, *ASK, *confirm, "-o", tmp_path / "s.csv")
    stats = pd.read_csv(tmp_path / "s.csv")
    assert stats["hold_up"].tolist() == [found.attrs["hold_up"]]
    assert stats["hold_up_shuffled"].tolist() == [found.attrs["hold_up_shuffled"]]


def test_what_cannot_confirm_is_refused(original: str, tmp_path: Path) -> None:
    for message, *more in (
        ("has no category with clips", "--confirm", "split=test", "--where", "split=test"),
        ("no clip has split 'tset'", "--confirm", "split=tset"),
        ("the condition is 'split'", "--confirm", "split"),
        ("no p can be below", "--confirm", "split=test", "--permutations", 9),
        ("draws of a bootstrap; expected 39", "--bootstrap", 5),
        ("--permutations was given with --rule lape", "--permutations", 50),
    ):
        refused(message, "neurons", original, *ASK, *more, "-o", tmp_path / "n.csv", watched=tmp_path)


def test_tests_that_find_nothing_are_an_answer(original: str) -> None:
    result = call("neurons", original, "--task", "t:kind", "--min-effect", 0.99)
    assert result.exit_code == 0
    assert "no neuron is specific for a category: with 1,000 permutations the smallest q is" in result.stderr
    assert result.stdout.startswith("| category")
