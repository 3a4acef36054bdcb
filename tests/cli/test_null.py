"""Nulls by command: every reading and rule, the paper's percentiles, what is marked in a figure, what is refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import otoscope
from otoscope.analysis import class_specific
from otoscope.analysis.kinds import SIDES
from otoscope.analysis.null.overlaps import overlaps
from otoscope.analysis.selection.labellings import open_labellings, select_against, select_neurons
from otoscope.cli.options import selections_of
from otoscope.store.changes.tasks import add_labels

from ..support.commands import call, done, refused
from ..support.finished_store import Finished
from ..support.wav_corpora import write_corpus

FRAME = ("--reading", "frame")
FEW = ("--permutations", 20)


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tasks "esc50" and "gtzan" of the bundled encoder; by the reading "clip" they saturate."""
    folder = tmp_path_factory.mktemp("two")
    for task, seed in (("esc50", 1), ("gtzan", 2)):
        columns = {"kind": ["abcd"[i % 4] for i in range(24)], "fold": [str(i // 4 % 3) for i in range(24)]}
        manifest, _ = write_corpus(folder / task, [7000] * 24, rate=16_000, seed=seed, columns=columns)
        otoscope.capture("tiny-ssl", manifest, str(folder / "s"), task=task, threads=1, block=32)
    return str(folder / "s")


def test_percentiles_are_each_task_s_own(two_tasks: str, tmp_path: Path) -> None:
    ask = ("null", two_tasks, *FRAME, *FEW, "--task", "esc50:kind", "--percentile", "paper")
    done(*ask, "--rows", "neurons", "-o", tmp_path / "n.csv")
    table = pd.read_csv(tmp_path / "n.csv")
    assert len(table[["layer", "neuron"]].drop_duplicates()) == round(4 * 384 * 0.02)
    tree = otoscope.open(two_tasks)
    members = [
        class_specific(tree[task].ds.otoscope.probability("kind", reading="frame"), percentile=percentile)[
            "member"
        ].values.reshape(-1, 4)
        for task, percentile in (("esc50", 2), ("gtzan", 1))
    ]
    expected = [(a & b).sum() / (a | b).sum() for a in members[0].T for b in members[1].T]
    done(*ask, "--against", "gtzan:kind", "-o", tmp_path / "c.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "c.csv")["common_neuron_ratio"], expected)


def test_a_saturated_labelling_is_refused_and_the_remedy_works(two_tasks: str, tmp_path: Path) -> None:
    ask = ("null", two_tasks, "--task", "esc50:kind", "--percentile", 2, *FEW)
    refused("by the reading 'clip' .* so that no neuron stands out; .*use --reading frame", *ask, watched=tmp_path)
    for how, rows in (
        (FRAME, "cells"),
        ((*FRAME, "--rule", "paper"), "categories"),
        ((*FRAME, "--within", "fold", "--balanced"), "neurons"),
    ):
        shown = done(*ask, *how, "--rows", rows, "--bootstrap", 39)
        assert "_p_corrected" in shown
        assert "_low" in shown
        assert ("stability" in shown) == (rows == "neurons")


def test_every_reading_is_sampled(finished: Finished, tmp_path: Path) -> None:
    ds = otoscope.open(finished.url)["t"].ds
    for reading, threshold in (("clip", None), ("clip", 0.001), ("any", None), ("frame", None)):
        sample = ds.otoscope.sample("kind", rule="lape", reading=reading, threshold=threshold)
        counts, of = sample.counts(sample.codes, 3)
        p = ds.otoscope.probability("kind", reading=reading, threshold=threshold)
        p = p.transpose("category", "layer", "neuron").values
        np.testing.assert_array_equal(counts / of[:, None], p.reshape(3, -1)[:, ~np.isnan(p[0].ravel())])
    ask = ("null", finished.url, "--task", "t:kind", "--threshold", 0.001, *FEW, "--percentile", 40)
    done(*ask, "-o", tmp_path / "c.csv")
    expected = ds.otoscope.common_neuron_ratio("kind", percentile=40, threshold=0.001)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "c.csv")["common_neuron_ratio"], expected.values.ravel())


def test_the_summary_is_of_the_whole(two_tasks: str) -> None:
    log = call("null", two_tasks, "--task", "esc50:kind", "--percentile", 2, *FEW, *FRAME).stderr
    assert all(
        word in log for word in ("of 12 cells", "of 31 selected", "coverage", "neurons per category", "24 units")
    )


def test_a_figure_strikes_out_what_the_table_says(two_tasks: str, tmp_path: Path) -> None:
    ask = (two_tasks, *FRAME, *FEW, "--task", "esc50:kind", "--against", "gtzan:kind", "--seed", 3, "--percentile", 2)
    done("null", *ask, "-o", tmp_path / "c.csv")
    done("figure", "overlap", *ask, "-o", tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000
    selections = selections_of(("2",), reading="frame", permutations=20, seed=3)
    asked, _ = open_labellings((two_tasks,), ("esc50:kind",), selections, False)
    found = [select_neurons(each, selections.of(each.task)) for each in asked]
    others = select_against(found, (two_tasks,), "gtzan:kind", selections, False)
    ((store, ratio),) = overlaps(found, others, shuffled=True)
    table = pd.read_csv(tmp_path / "c.csv")
    assert store == "s"
    assert (ratio["category"].attrs["long_name"], ratio["other_category"].attrs["long_name"]) == (
        "esc50:kind", "gtzan:kind",
    )  # fmt: skip
    np.testing.assert_array_equal(
        ratio["within_null"].values.ravel(), ~table["common_neuron_ratio_significant"].to_numpy(bool)
    )
    np.testing.assert_array_equal(ratio["null_side"].values.ravel(), sides(table))


def sides(table: pd.DataFrame) -> list[str]:
    return table["common_neuron_ratio_side"].astype(object).fillna("").tolist()


def texts(svg: Path) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text()))


def test_one_side_or_both_and_what_was_expected(two_tasks: str, tmp_path: Path) -> None:
    ask = (two_tasks, *FRAME, "--permutations", 39, "--task", "esc50:kind", "--percentile", 20, "--within", "fold")
    p, names = {}, ("", "_null_mean", "_null_ratio", "_null_difference")
    for side in SIDES:
        log = call("null", *ask, "--side", side, "-o", tmp_path / "c.csv", "--figure", tmp_path / "n.svg").stderr
        assert bool(re.search(r"\d+ of 12 cells exceed shuffled labels, ", log)) == (side != "below")
        assert bool(re.search(r"(, \d+|12 cells) lie below( shuffled labels)?, and", log)) == (side != "above")
        words = {"both": "two-sided", "above": "one-sided, above", "below": "one-sided, below"}[side]
        note = texts(tmp_path / "n.svg")
        assert f"{words}, corrected for all cells by the most extreme; 39 permutations; within fold" in note
        assert "rule lape, 20 % of neurons; reading frame; 24 clips" in note
        table = pd.read_csv(tmp_path / "c.csv").set_index(["category", "other_category"])
        p[side] = table["common_neuron_ratio_p"].dropna()
        apart = table[table["common_neuron_ratio_p"].notna()]
        found, expected, times, difference = (apart[f"common_neuron_ratio{name}"] for name in names)
        np.testing.assert_allclose(found - expected, difference)
        np.testing.assert_allclose(found / expected, times)
        assert set(sides(table)) <= {"", "above", "below"}
    assert (p["above"] + p["below"] >= 1 - 1e-9).all()
    assert not p["both"].equals(p["above"])
    for show in ("ratio", "difference"):
        done("figure", "overlap", *ask, "--show", show, "--caption", "none", "-o", tmp_path / f"{show}.svg")
        drawn = texts(tmp_path / f"{show}.svg")
        assert {"ratio": "over its mean over", "difference": "minus its mean over"}[show] in drawn
        assert "two-sided" in drawn
        assert "rule lape" not in drawn
    refused("--show was given", "figure", "overlap", *ask[:1], *FRAME, "--task", "esc50:kind", "--show", "ratio",
            "-o", tmp_path / "f.png", watched=tmp_path)  # fmt: skip


def test_shuffling_is_for_overlaps_with_permutations(finished: Finished, tmp_path: Path) -> None:
    ask = ("--task", "t:kind", "--percentile", 40, "-o", tmp_path / "f.png")
    refused("--permutations was given", "figure", "depth", finished.url, *ask, *FEW, watched=tmp_path)
    refused("--balanced was given without", "figure", "overlap", finished.url, *ask, "--balanced", watched=tmp_path)
    refused("--group was given", "figure", "overlap", finished.url, *ask, "--group", "tone", watched=tmp_path)
    refused("--within was given", "neurons", finished.url, *ask[:4], "--within", "tone", watched=tmp_path)


def test_probabilities_made_elsewhere_have_no_clips_to_shuffle(two_tasks: str, tmp_path: Path) -> None:
    done("export", two_tasks, "--task", "gtzan:kind", tmp_path, "--official", "ssl", *FRAME)
    given = tmp_path / "gtzan_analysis"
    for command in ("null", "selectors"):
        refused("have no clips to .*; expected a store", command, given, "--task", "gtzan:class", watched=tmp_path)


def test_published_folders_of_one_encoder_are_one_store(two_tasks: str, tmp_path: Path) -> None:
    """So that tables and figures over several tasks can be had from them."""
    for task in ("esc50", "gtzan"):
        for training in ("ssl", "sl"):
            done("export", two_tasks, "--task", f"{task}:kind", tmp_path, "--official", training, *FRAME)
    folders = [tmp_path / f"{task}_{end}" for task in ("esc50", "gtzan") for end in ("analysis", "vit")]
    done("table", "paper", *folders, "-o", tmp_path / "given.csv")
    done("table", "paper", two_tasks, *FRAME, "-o", tmp_path / "own.csv")
    given, own = (pd.read_csv(tmp_path / name) for name in ("given.csv", "own.csv"))
    assert given["task"].tolist() == ["esc50:class", "gtzan:class", "average"]
    for name in ("analysis", "vit"):
        for column in ("neurons", "coverage"):
            np.testing.assert_allclose(given[f"{name} {column}"], own[f"s {column}"])
    cross = ("--task", "esc50", "--against", "gtzan:class", "--percentile", "paper")
    done("figure", "overlap", *folders, *cross, "--official", "-o", tmp_path)
    assert (tmp_path / "cross_task-esc50-gtzan.pdf").is_file()
    once_more = tmp_path / "more" / "esc50_analysis"
    once_more.parent.mkdir()
    once_more.symlink_to(folders[0])
    refused("esc50 of analysis once more; expected", "table", "stats", folders[0], once_more, watched=tmp_path)


def test_permutations_too_few_for_the_level_are_refused_before_the_work(original: str, tmp_path: Path) -> None:
    ask = ("--task", "t:kind", "--percentile", 40)
    for level, n in ((0.05, 18), (0.1, 8), (0.3, 2), (1e-6, 1000)):
        few = ("--permutations", n, "--level", level)
        message = rf"{n} permutations with level {level:g}, .*expected at least {round(1 / level + 0.5 - 1e-6) - 1} "
        for command in (("null", "/nowhere"), ("figure", "overlap", "/nowhere", "-o", tmp_path / "f.png")):
            refused(message, *command, *ask, *few, watched=tmp_path)
    for level, n in ((0.05, 19), (0.1, 9), (0.3, 3), (0.6, 1)):
        log = call("null", original, *ask, "--permutations", n, "--level", level).stderr
        assert "of 4 cells exceed shuffled labels, 0 lie below, and" in log  # two more have no neuron on either side
        assert "none of" not in log


def test_units_too_few_for_the_level_are_said_and_left_empty(original: str, tmp_path: Path) -> None:
    """Of 5 groups of two categories, 2 and 3, shuffling makes 10 ways at most."""
    ds = otoscope.open(original)["t"].ds
    kinds = ds.otoscope.label("kind").values.tolist()
    url = str(tmp_path / "s")
    shutil.copytree(original, url)
    groups = [f"{kind}{i // 3 % (3 if kind == 'a' else 2)}" for i, kind in enumerate(kinds)]
    add_labels(url, "t", {"speaker": groups})
    ask = ("null", url, "--task", "t:kind", "--percentile", 40, "--where", "kind!=c", "--group", "speaker")
    result = call(*ask, "--permutations", 19, "-o", tmp_path / "c.csv", "--figure", tmp_path / "f.svg")
    assert result.exit_code == 0
    assert (
        "can be beyond shuffled labels at 0.05, for with 19 permutations of 5 units no p is below 0.1" in result.stderr
    )
    assert pd.read_csv(tmp_path / "c.csv")["common_neuron_ratio_significant"].isna().all()


def test_a_labelling_against_itself_is_the_labelling(original: str, tmp_path: Path) -> None:
    ask = ("--task", "t:kind", "--percentile", 40, *FEW)
    for name, more in (("own", ()), ("itself", ("--against", "t:kind"))):
        done("null", original, *ask, *more, "--bootstrap", 39, "-o", tmp_path / f"{name}.csv")
        done("figure", "overlap", original, *ask, *more, "-o", tmp_path / f"{name}.png")
    own, itself = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("own", "itself"))
    pd.testing.assert_frame_equal(own, itself)
    diagonal = itself[itself["category"] == itself["other_category"]]
    assert diagonal.filter(regex="_p|_significant|_low|_high").isna().all(axis=None)
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "itself.png").read_bytes()


def test_a_group_that_is_the_category_is_refused(original: str, tmp_path: Path) -> None:
    ask = ("null", original, "--task", "t:kind", "--percentile", 40, *FEW)
    refused("would only rename the categories.*group by another column", *ask, "--group", "kind", watched=tmp_path)
