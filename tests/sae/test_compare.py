"""Laws of the comparison: what is planted makes latents better, and nothing else does; equal terms are equal."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otoscope.analysis.probe.splits import Splits, make_splits
from otoscope.sae.compare import KS, compare_units
from otoscope.sae.encoding import encode
from otoscope.sae.k_sparse import balanced_accuracy, k_sparse_right
from otoscope.sae.labelled import find_labelled
from otoscope.sae.stored_latents import find_latents
from otoscope.sae.units import active_as_often, signed_components

from ..support.commands import call, refused
from ..support.planted_units import LATENTS, N_CLIPS, PLANTED, planted_sae, write_all, write_planted

pytestmark = pytest.mark.usefixtures("one_thread")
ASKED = ("--task", "t:kind", "--group", "singer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_all(folder)
    return folder


def test_planted_latents_are_better_and_drawn_ones_are_not(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.csv"
    given, asked = ["sae", "compare", folder / "s"], [*ASKED, "--unit-draws", 1, "--control"]
    result = call(*given, folder / "l0", folder / "l1", *asked, f"drawn={folder / 'u'}", "-o", out)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(out).set_index("kind")
    assert table.index.tolist() == ["latents", "drawn", "neurons", "dimensions", "principal components"]
    assert table.loc["latents", ["k1", "k1_low", "k1_high", "coverage"]].tolist() == [1, 1, 1, 1]
    assert (table["k1"].drop("latents") < 0.9).all()
    assert table.loc["neurons", "k10"] < 0.6
    assert table["saes"].dropna().tolist() == [2, 1]
    assert (table["compared"] == LATENTS).all()
    np.testing.assert_allclose(table["rate"], table.loc["latents", "rate"])
    for name in ("aape", "serving", "coverage", *(f"k{k}" for k in KS)):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    *_, drawn, neurons, _, _ = result.stderr.splitlines()
    assert "state 1: one SAE each of drawn: what other seeds give is in no interval" in result.stderr
    assert drawn.startswith("state 1: latents are better than drawn: better by serving (0.")
    assert "better by aape (" in neurons
    assert re.search(r"k10 \(1, 0\.[45]", neurons)
    reverse = call(*given, folder / "u", *asked, f"planted={folder / 'l0'}")
    assert re.search(r"latents are worse than planted: worse by .*k1 \(0\.\d+, 1\)", reverse.stderr)


def test_the_order_of_clips_is_nothing(folder: Path, tmp_path: Path) -> None:
    write_planted(tmp_path / "s", order=np.random.default_rng(1).permutation(N_CLIPS).tolist())
    encode(str(tmp_path / "s"), "t", [planted_sae(0)], str(tmp_path / "l0"))
    found = []
    for where in (folder, tmp_path):
        of = find_labelled(str(where / "s"), "t:kind", group="singer")
        found.append(compare_units(of, find_latents([str(where / "l0")], of.source), unit_draws=1))
    pd.testing.assert_frame_equal(found[0].table, found[1].table, check_exact=True)
    assert found[0].answers == found[1].answers


def test_what_cannot_be_compared_is_one_line(folder: Path, tmp_path: Path) -> None:
    def no(message: str, *arguments: object) -> None:
        refused(message, "sae", "compare", folder / "s", *arguments, *ASKED, watched=folder)

    no("--control is 'u'; expected NAME=LATENTS", folder / "l0", "--control", "u")
    no("control is called 'neurons', as another kind", folder / "l0", "--control", f"neurons={folder / 'u'}")
    no("holds no latents; expected those of", folder / "s")
    encode(str(folder / "s"), "t", [planted_sae(9, latents=30)], str(tmp_path / "wide"))
    no(
        r"SAEs of state 1 are unlike \(l0:t@0: .* of 20 fire, wide:t@0: .* of 30 fire\)",
        folder / "l0",
        tmp_path / "wide",
    )


def test_units_are_active_in_as_many_clips() -> None:
    rng = np.random.default_rng(0)
    values, rates = rng.normal(size=(50, 9)).astype("f4"), np.arange(1, 51, 6)
    active = active_as_often(values, rates)
    assert sorted(active.sum(axis=0)) == rates.tolist()
    for unit, n in enumerate(active.sum(axis=0)):
        np.testing.assert_array_equal(np.flatnonzero(active[:, unit]), np.sort(np.argsort(-values[:, unit])[:n]))
    order = np.argsort((values > 0).sum(axis=0), kind="stable")
    np.testing.assert_array_equal(active.sum(axis=0)[order], rates)
    sparse = np.maximum(values - 1.5, 0)  # a code of 0 cannot be made active
    own = np.sort((sparse > 0).sum(axis=0))
    np.testing.assert_array_equal(active_as_often(sparse, own), sparse > 0)
    np.testing.assert_array_equal(active_as_often(sparse, own + 20), sparse > 0)


def test_signed_components_are_those_of_a_plain_decomposition() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(40, 6)) * np.arange(1, 7) + 3).astype("f4")
    values[:, 2] = values[:, 1]  # one direction less
    halves = signed_components(values)
    assert halves.shape == (40, 10)
    assert (halves >= 0).all()
    u, s, _ = np.linalg.svd(values - values.mean(axis=0, dtype="f8"), full_matrices=False)
    scores = halves[:, ::2].astype("f8") - halves[:, 1::2]
    np.testing.assert_allclose(np.abs(scores), np.abs(u * s)[:, :5], atol=1e-4)


def plain_k_sparse(x: np.ndarray, codes: np.ndarray, splits: Splits, k: int, category: int) -> np.ndarray:
    """One head, one category, clip by clip: by the words of `k_sparse`."""
    right = np.zeros(len(codes), bool)
    for head in range(len(splits.heads)):
        train, test = splits.train[head] | splits.valid[head], splits.test_fold == head
        mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
        a, b, y = (x[train] - mean) / deviation, (x[test] - mean) / deviation, codes[train] == category
        within = np.sqrt((((a[y] - a[y].mean(0)) ** 2).sum(0) + ((a[~y] - a[~y].mean(0)) ** 2).sum(0)) / len(a))
        first = np.argsort(-np.abs(a[y].mean(0) - a[~y].mean(0)) / within, kind="stable")[:k]
        weight = np.where(y, 1 / y.sum(), 1 / (~y).sum()) / 2
        centre = np.average(a[:, first], axis=0, weights=weight)
        own, target = (a[:, first] - centre) * np.sqrt(weight)[:, None], np.where(y, 1, -1) * np.sqrt(weight)
        padded = np.vstack([own, np.sqrt(1e-3) * np.eye(k)])
        beta = np.linalg.lstsq(padded, np.append(target, np.zeros(k)), rcond=None)[0]
        scores = np.sort((a[:, first] - centre) @ beta)[::-1]
        of_train = (a[:, first] - centre) @ beta
        cuts = (scores[:-1] + scores[1:]) / 2
        sides = [((of_train > cut)[y].sum() * (~y).sum() + (of_train <= cut)[~y].sum() * y.sum()) for cut in cuts]
        best = max(cut for cut, side in zip(cuts, sides, strict=True) if side == max(sides))
        right[test] = ((b[:, first] - centre) @ beta > best) == (codes[test] == category)
    return right


def test_k_sparse_probes_are_what_they_are_described_as() -> None:
    rng = np.random.default_rng(0)
    n, codes = 90, np.arange(90) % 3
    x = rng.normal(size=(n, 8))
    x[:, :3] += 1.2 * np.eye(3)[codes]
    groups, names = [f"s{i // 3 % 5}" for i in range(n)], [f"c{i:02}" for i in range(n)]
    splits = make_splits([str(i // 3 % 5) for i in range(n)], codes, names, groups=groups)
    found = k_sparse_right(x, codes, splits, (1, 2, 5))
    for i, k in enumerate((1, 2, 5)):
        for category in range(3):
            np.testing.assert_array_equal(found[i, :, category], plain_k_sparse(x, codes, splits, k, category))
    assert found.mean() > 0.7


def test_units_are_chosen_by_training_clips_alone() -> None:
    """A unit that tells categories apart in the tested clips only is not found."""
    rng = np.random.default_rng(0)
    codes, names = np.arange(80) % 2, [f"c{i}" for i in range(80)]
    parts = ["train" if i < 40 else "test" for i in range(80)]
    splits = make_splits(parts, codes, names)
    x = rng.normal(size=(80, 6))
    x[40:, 0] += 10 * codes[40:]
    x[:, 5] += 2.5 * codes
    right = k_sparse_right(x, codes, splits, (1,))[0]
    assert 0.8 < right[40:].mean() < 1
    assert not right[:40].any()


def test_balanced_accuracy_is_a_mean_of_both_sides() -> None:
    truly, falsely, of, others = (np.array(row, float) for row in ([3, 0, 0], [4, 8, 9], [4, 2, 0], [8, 8, 9]))
    assert balanced_accuracy(truly, falsely, of, others) == pytest.approx(((3 / 4 + 1 / 2) / 2 + (0 + 1) / 2) / 2)
    assert np.isnan(balanced_accuracy(truly[2:], falsely[2:], of[2:], others[2:]))
    assert PLANTED.stop < LATENTS
