"""Laws of layer probes: what is planted is found where it is, whatever the order of clips; what cannot be asked is a
line.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otoscope.extract.models.dictionary import write_dictionary
from otoscope.sae.labelled import find_labelled
from otoscope.sae.probes import probe_states
from otoscope.sae.resampled import draw_groups, interval
from otoscope.sae.stored_latents import find_latents

from ..support.commands import call, done, refused
from ..support.planted_units import N_CLIPS, planted_sae, write_all, write_planted
from ..support.state_store import planted_states, write_states

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    write_all(folder)
    write_dictionary(planted_sae(0), folder / "saes" / "planted0")
    write_dictionary(planted_sae(7, planted=False), folder / "saes" / "drawn7")
    return folder


def asked(folder: Path, *more: object, group: str = "singer") -> list[object]:
    return ["sae", "probe", folder / "s", *more, "--task", "t:kind", "--group", group]


def test_a_label_is_found_in_the_state_that_holds_it_and_in_its_latents(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    done(*asked(folder, folder / "l0", folder / "u"), "--saes", folder / "saes", "--folds", 2, "-o", out)
    table = pd.read_csv(out, keep_default_na=False, na_values=[""])
    assert table["kind"].tolist() == ["state", "state", "neurons", "principal components", "latents", "latents"]
    accuracy = table["accuracy"].tolist()
    assert accuracy[1] == accuracy[3] == accuracy[4] == 1
    assert max(accuracy[0], accuracy[2]) < 0.5
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    assert (table["chance"] == 1 / 3).all()
    assert (table["clips"] == N_CLIPS).all()
    assert (table["groups"] == 6).all()
    assert table["control"].tolist()[4:] == ["none", "untrained"]
    assert table["width"].tolist() == [24, 24, 30, 2 * 23, 20, 20]  # in one direction nothing changes
    np.testing.assert_allclose(table["sparsity"][4:], 1 - table["l0"][4:] / 20)
    assert set(table["how"]) == {"t:kind; logistic probe; 2 folds by singer"}


@pytest.mark.parametrize("recipe", [pytest.param("logistic", marks=pytest.mark.slow), "published"])
def test_the_order_of_clips_is_nothing(folder: Path, tmp_path: Path, recipe: str) -> None:
    write_planted(tmp_path / "s", order=np.random.default_rng(1).permutation(N_CLIPS).tolist())
    found = [find_labelled(str(url), "t:kind", group="singer", folds=2) for url in (folder / "s", tmp_path / "s")]
    here, there = (probe_states(of, recipe=recipe).table for of in found)
    pd.testing.assert_frame_equal(here, there, check_exact=True)


@pytest.mark.parametrize(("group", "splits"), [("singer", ""), ("", ""), ("singer", "fold"), ("", "fold")])
def test_no_singer_is_on_both_sides(tmp_path: Path, group: str, splits: str) -> None:
    """By the column that is named, or by one that says which clips belong together; folds that are given are kept."""
    n, states = 60, planted_states(2, 60, 6)
    singer = [f"s{i % 6}" for i in range(n)]
    labels = {"kind": ["ab"[i // 6 % 2] for i in range(n)], "singer": singer, "speaker": singer}
    if splits:
        labels["fold"] = [str(i % 3) for i in range(n)]
    write_states(tmp_path / "s", states, block=32, labels=labels)
    of = find_labelled(str(tmp_path / "s"), "t:kind", group=group, splits=splits)
    names = np.array(of.source.labels["singer"])[of.at]
    for head in range(len(of.splits.heads)):
        sides = [of.splits.train[head], of.splits.test_fold == head]
        assert not {*names[sides[0]]} & {*names[sides[1]]}
    assert len(of.splits.heads) == (3 if splits else 5)
    assert len(set(of.splits.groups.tolist())) == 6


def test_intervals_are_those_of_groups() -> None:
    """Clips of a group that are all alike count as one: the interval is as wide as of the groups' own numbers."""
    groups, codes = np.repeat(np.arange(12), 25), np.tile([0, 1, 2, 0, 1], 60)
    right = np.repeat(np.random.default_rng(0).random(12) < 0.6, 25)
    draws = draw_groups(groups, codes, 4000, 0)
    drawn = draws.sums(right) / draws.sums(np.ones(300))
    by_group = right[::25].mean()
    np.testing.assert_allclose(drawn.std(), np.sqrt(by_group * (1 - by_group) / 12), rtol=0.05)
    low, high = interval(float(right.mean()), drawn, 0, 1)
    assert low < by_group - 0.2
    assert high > by_group + 0.2
    plain = np.array([[right[groups == g].sum() for g in range(12)] @ row for row in draws.weights.astype(int)])
    np.testing.assert_array_equal(draws.sums(right), plain)


def test_what_cannot_be_probed_is_one_line(folder: Path, tmp_path: Path) -> None:
    def no(message: str, *arguments: object) -> None:
        refused(message, *arguments, watched=folder)

    store = folder / "s"
    no("clips of 1 categories of one; expected at least 2", "sae", "probe", store, "--task", "t:one")
    no("no label column 'choir'; its columns: alike, kind, one, singer", *asked(folder, group="choir"))
    no("found 1 groups of clips for 2 folds; expected at least two", *asked(folder, group="one"))
    no("found 6 groups of clips for 7 folds", *asked(folder), "--folds", 7)
    no("no task 'x' in ", "sae", "probe", store, "--task", "x:kind")
    no("found the labelling 't'; expected TASK:LABEL", "sae", "probe", store, "--task", "t")
    no("categories have clips in 1 and no training clips", *asked(folder, group="alike"))
    no("3 groups have clips in train and in test of fold s0", *asked(folder, group="alike"), "--splits", "singer")
    no("holds no latents; expected those of", *asked(folder, store))
    no("no layer 3; expected 0 to 0", *asked(folder, f"{folder / 'l0'}@3"))
    write_planted(tmp_path / "other", order=list(range(1, N_CLIPS)))
    result = call("sae", "probe", tmp_path / "other", folder / "l0", "--task", "t:kind", "--group", "singer")
    assert result.exit_code == 2
    assert "not the same as the 119 of" in result.stderr
    states = planted_states(2, N_CLIPS, 12)
    write_states(tmp_path / "narrow", states, block=32, labels={"kind": ["ab"[i % 2] for i in range(N_CLIPS)]})
    result = call("sae", "probe", tmp_path / "narrow", folder / "l0", "--task", "t:kind")
    assert result.exit_code == 2
    assert "holds latents of the states of another task; expected those of" in result.stderr


def test_without_hidden_states_there_is_nothing_to_probe(folder: Path) -> None:
    refused("task t keeps no hidden states; expected them", "sae", "probe", folder / "l0", "--task", "t:kind",
            watched=folder)  # fmt: skip


def test_layers_of_latents_are_found_by_their_names(folder: Path) -> None:
    of = find_labelled(str(folder / "s"), "t:kind", group="singer")
    for text in ("l0", "l0:t", "l0@0", "l0:t@0"):
        (layer,) = find_latents([str(folder / text)], of.source)
        assert (layer.state, layer.layer, layer.name) == (1, 0, "l0:t@0")
        assert layer.codes(of.at).shape == (N_CLIPS, 20)
