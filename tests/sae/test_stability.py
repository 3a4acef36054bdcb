"""Laws of stability: a permutation is no change, what does not fire does not count, and chance is shown beside it."""

import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from otoscope.extract.models.dictionary import Dictionary, read_dictionary, write_dictionary
from otoscope.sae.measures import rates_of
from otoscope.sae.recipe import recipe_named
from otoscope.sae.rows import HeldRows
from otoscope.sae.stability import Match, latent_stability, sae_stability
from otoscope.sae.table import sae_table
from otoscope.sae.training import to_dictionary, train

from ..support.commands import done, refused
from ..support.planted_rows import planted_rows

WIDTH, LATENTS = 6, 12


N_ROWS = 4000


def fired(latents: list[int], n: int = LATENTS) -> str:
    """Those often enough, to the row; the next one a row too rarely."""
    counts = np.where(np.isin(np.arange(n), latents), 4, np.where(np.isin(np.arange(n) - 1, latents), 3, 0))
    return " ".join(map(str, counts.tolist()))


def dictionary(
    name: str, decoder: np.ndarray, fires: list[int] | None, *, state: int = 1, seed: int = 0, base: str = "b"
) -> Dictionary:
    rows = torch.tensor(decoder, dtype=torch.float32)
    bias, centre = torch.zeros(len(rows)), torch.zeros(rows.shape[1])
    about = {} if fires is None else {
        "fired": fired(fires, len(decoder)), "measures": {"train": {"rows": N_ROWS}},
        "config": {"seed": seed, "lr": 1e-3},
    }  # fmt: skip
    return Dictionary(
        encoder=rows.clone(), bias=bias, decoder=rows, centre=centre, k=2, state=state, base=base, name=name,
        about=about,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three of state 1, of which "b" is "a" shuffled, with another latent among those that fire; one of state 2."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(LATENTS, WIDTH))
    b = rng.normal(size=(LATENTS, WIDTH))
    b[[9, 8, 7, 6]] = [[2], [3], [0.5], [1]] * a[[0, 1, 2, 3]]  # type: ignore[assignment]
    saes = [
        dictionary("a", a, [0, 1, 2, 3]), dictionary("b", b, [5, 6, 7, 8, 9], seed=1),
        dictionary("c", rng.normal(size=(LATENTS, WIDTH)), [], seed=2), dictionary("d", a, [0], state=2),
        dictionary("e", a, [0], base="another"),
    ]  # fmt: skip
    for sae in saes:
        write_dictionary(sae, tmp_path / "saes" / sae.name)
    return tmp_path / "saes"


def test_the_match_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for n_a, n_b in ((5, 5), (3, 6), (6, 3)):
        a, b = rng.normal(size=(n_a, 4)), rng.normal(size=(n_b, 4))
        cosine = np.array([[x @ y / np.sqrt(x @ x) / np.sqrt(y @ y) for y in b] for x in a])
        few, many = sorted((n_a, n_b))
        wide = cosine if n_a <= n_b else cosine.T
        best = max(np.mean([wide[i, j] for i, j in enumerate(order)]) for order in permutations(range(many), few))
        found = Match.of(a, b).measures()
        assert found["pw_mcc"] == pytest.approx(best)
        assert found["best_a"] == pytest.approx(cosine.max(axis=1).mean())
        assert found["best_b"] == pytest.approx(cosine.max(axis=0).mean())


def test_what_is_the_same_but_for_order_and_norm_is_1() -> None:
    a = np.random.default_rng(0).normal(size=(50, 20))
    b = (a * np.linspace(0.1, 9, 50)[:, None])[::-1]
    assert Match.of(a, b).measures() == pytest.approx(dict.fromkeys(("pw_mcc", "above_0.7", "best_a", "best_b"), 1))
    half = Match.of(a[:25], b).measures()
    assert half["best_a"] == pytest.approx(1)
    assert half["best_b"] < 0.9
    assert Match.of(np.zeros((2, 20)), b).measures()["pw_mcc"] == 0
    assert all(np.isnan(value) for value in Match.of(a[:0], b).measures().values())


def test_chance_is_what_random_directions_come_to() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 256, 64))
    found = Match.of(a, b).measures()
    assert found["pw_mcc"] == pytest.approx(0.335, abs=0.01)
    assert found["best_a"] == pytest.approx(0.352, abs=0.01)
    assert found["above_0.7"] == 0


def test_pairs_are_those_of_one_state_and_latents_those_that_fire(folder: Path) -> None:
    table = sae_stability(folder)
    assert table[["a", "b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    row = table.iloc[0]
    assert (row["state"], row["differ"], row["firing_a"], row["firing_b"]) == (1, "seed", 4, 5)
    assert (row["pw_mcc"], row["above_0.7"], row["best_a"]) == pytest.approx((1, 1, 1))
    assert row["best_b"] < 1
    dice = np.random.default_rng(0)
    chance = Match.of(dice.normal(size=(4, WIDTH)), dice.normal(size=(5, WIDTH))).measures()
    assert row[[f"chance_{name}" for name in chance]].tolist() == list(chance.values())
    assert sae_stability(folder, seed=1)["chance_pw_mcc"][0] != row["chance_pw_mcc"]
    assert table.loc[1:, ["pw_mcc", "chance_pw_mcc"]].isna().all(axis=None)
    rarer = sae_stability(folder, min_rate=0).iloc[0]
    assert (rarer["firing_a"], rarer["firing_b"]) == (5, 6)
    assert rarer["pw_mcc"] < 1
    latents = latent_stability(folder)
    assert (latents["rate"] == 4 / N_ROWS).all()
    of_a = latents[(latents["sae"] == "a") & (latents["other"] == "b")]
    assert of_a[["latent", "match", "best"]].to_numpy().tolist() == [[i, 9 - i, 9 - i] for i in range(4)]
    np.testing.assert_allclose(of_a[["cosine", "best_cosine"]], 1)
    of_b = latents[latents["sae"] == "b"].set_index("latent")
    assert of_b["match"].dropna().to_dict() == {6: 3, 7: 2, 8: 1, 9: 0}
    assert of_b.index.tolist() == [5, 6, 7, 8, 9]


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    done("sae", "stability", folder, "-o", tmp_path / "s.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "s.csv"), sae_stability(folder), check_dtype=False)
    assert "best_cosine" in done("sae", "stability", folder, "--per-latent")
    (tmp_path / "one").mkdir()
    (folder / "d").rename(tmp_path / "one" / "d")
    refused(
        r"has no two SAEs of one state \(1 in all\); expected", "sae", "stability", tmp_path / "one", watched=tmp_path
    )
    refused("no SAE in .*; expected folders", "sae", "stability", tmp_path, watched=tmp_path)
    about = folder / "a" / "sae.json"
    whole = about.read_text()
    for damaged in ('"4 4"', '"x"', "7", f'"{fired([0]).replace("4", "4001")}"', f'"-{fired([0])}"'):
        about.write_text(re.sub(r'"fired": "[\d ]+"', f'"fired": {damaged}', whole))
        refused("latents of SAE a fire is not 12 counts", "sae", "stability", folder, watched=tmp_path)


def test_training_says_how_often_latents_fire(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also across the file; of one that does not say, all count."""
    values, _ = planted_rows(300, 8, 10, 2)
    recipe = recipe_named(latents=200, sparsity="0.995", batch=64, epochs=2)
    (trained,) = train(HeldRows(values[:250]), HeldRows(values[250:]), [recipe])
    write_dictionary(to_dictionary(trained, state=0), tmp_path / "saes" / "one")
    found = read_dictionary(tmp_path / "saes" / "one")
    fires = (found.encode(values[:250]) > 0).double().mean(dim=0).numpy()
    assert 0 < (fires > 0).sum() < 200
    np.testing.assert_allclose(rates_of(found), fires)
    assert "fired" not in sae_table(tmp_path / "saes")
    assert np.isnan(rates_of(dictionary("x", np.ones((5, 3)), None))).all()
    for name in ("x", "y"):
        write_dictionary(dictionary(name, np.eye(5), None), tmp_path / "bare" / name)
    assert sae_stability(tmp_path / "bare")["firing_a"].tolist() == [5]
    assert caplog.text.count("does not say how often its latents fire: all of them count") == 2


@pytest.mark.slow
def test_latents_of_planted_features_come_back(tmp_path: Path) -> None:
    values, _ = planted_rows(20_000, 64, 128, 5)
    rows = HeldRows(values[:18_000]), HeldRows(values[18_000:])
    recipes = [recipe_named(latents=256, sparsity="0.98", epochs=8, seed=seed) for seed in (0, 1)]
    for i, one in enumerate(train(*rows, recipes)):
        write_dictionary(to_dictionary(one, state=0), tmp_path / str(i))
    (row,) = sae_stability(tmp_path).to_dict("records")
    (ever,) = sae_stability(tmp_path, min_rate=0).to_dict("records")
    assert row["pw_mcc"] > 0.95
    assert row["chance_pw_mcc"] < 0.34
    assert 128 <= row["firing_a"] < 140
    assert ever["firing_a"] > 150
    assert ever["pw_mcc"] < 0.9
