"""Training side by side, killed and begun again, folded, and as it is published."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from otoscope.extract.models.dictionary import read_dictionary, write_dictionary
from otoscope.sae.measures import mmcs
from otoscope.sae.model import first_weights
from otoscope.sae.recipe import Recipe, recipe_named
from otoscope.sae.rows import HeldRows
from otoscope.sae.training import Trained, to_dictionary, train

from ..support.planted_rows import planted_rows

pytestmark = pytest.mark.usefixtures("one_thread")


def small(**changes: Any) -> Recipe:
    return recipe_named(**{"latents": 48, "sparsity": "0.9", "batch": 32, "epochs": 3, **changes})


@pytest.fixture(scope="module")
def values() -> Tensor:
    return planted_rows(250, 16, 24, 3)[0]


def both(values: Tensor) -> tuple[HeldRows, HeldRows]:
    return HeldRows(values[:200], order_seed=5), HeldRows(values[200:])


def files(trained: Trained, folder: Path) -> dict[str, bytes]:
    write_dictionary(to_dictionary(trained, state=2, base="abc"), folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


MIXED = (
    small(), small(seed=1), small(sparsity="0.75"), small(auxk=True, lr=0.01), small(batch_topk=True, latents=40),
    small(centre=False, scale=False, init="independent", unit_norm=False), small(control="untrained"),
    small(control="random-decoder", batch_topk=True), small(control="untrained", batch_topk=True),
)  # fmt: skip


def test_side_by_side_is_alone(values: Tensor, tmp_path: Path) -> None:
    together = train(*both(values), MIXED)
    for i, recipe in enumerate(MIXED):
        (alone,) = train(*both(values), [recipe])
        assert files(together[i], tmp_path / f"a{i}") == files(alone, tmp_path / f"b{i}")


@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize(("control", "stays"), [("untrained", "encoder bias decoder"), ("random-decoder", "decoder")])
def test_of_a_control_stays_what_it_names(values: Tensor, control: str, stays: str, unit_norm: bool) -> None:
    (of_control,) = train(*both(values), [small(control=control, unit_norm=unit_norm)])
    (trained,) = train(*both(values), [small(unit_norm=unit_norm)])
    drawn = first_weights(of_control.recipe, values.shape[1])
    scale = {"encoder": 1 / drawn["encoder"].norm(), "bias": 1.0, "decoder": 1 / drawn["decoder"].norm()}
    for name in ("encoder", "bias", "decoder"):
        found = getattr(of_control, name)
        found = found * (1 if name == "bias" else 1 / found.norm())
        same = torch.allclose(found, drawn[name] * scale[name], atol=1e-6)
        assert same == (name in stays), name
    assert of_control.measures["train"].mse > trained.measures["train"].mse


@pytest.mark.slow
def test_two_threads_give_the_same_bytes_again(values: Tensor, tmp_path: Path) -> None:
    once, again = (train(*both(values), MIXED, threads=2) for _ in range(2))
    for i, (one, other) in enumerate(zip(once, again, strict=True)):
        assert files(one, tmp_path / f"a{i}") == files(other, tmp_path / f"b{i}")


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_killed_is_at_once(values: Tensor, tmp_path: Path, after: int) -> None:
    """After any epoch: each has a checkpoint, and the untrained ones no epochs."""

    def kill(epoch: int, errors: list[float]) -> None:
        assert len(errors) == sum(recipe.passes >= epoch for recipe in MIXED) == len(MIXED) - 1 - (epoch > 1)
        if epoch == after:
            raise Killed

    at_once = train(*both(values), MIXED)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(*both(values), MIXED, checkpoint=checkpoint, each=kill)
    seen: list[int] = []
    again = train(*both(values), MIXED, checkpoint=checkpoint, each=lambda epoch, _: seen.append(epoch))
    assert seen == list(range(after + 1, 4))
    for i, (one, other) in enumerate(zip(at_once, again, strict=True)):
        assert files(one, tmp_path / f"a{i}") == files(other, tmp_path / f"b{i}")


def test_killed_while_a_checkpoint_is_written(values: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before stays, whole."""
    at_once = train(*both(values), MIXED)
    real, written = Path.replace, []

    def dying(path: Path, target: Path) -> Path:
        written.append(path.stat().st_size)
        if len(written) == 2:
            raise Killed
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(Killed):
            train(*both(values), MIXED, checkpoint=tmp_path / "checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    again = train(*both(values), MIXED, checkpoint=tmp_path / "checkpoint")
    for i, (one, other) in enumerate(zip(at_once, again, strict=True)):
        assert files(one, tmp_path / f"a{i}") == files(other, tmp_path / f"b{i}")


def test_a_checkpoint_of_another_training_is_refused(values: Tensor, tmp_path: Path) -> None:
    file, rows = tmp_path / "checkpoint", both(values)
    train(*rows, [small()], checkpoint=file)
    for match, others, recipes, threads in (
        ("recipes differ", rows, [small(seed=2)], 1),
        ("threads differ", rows, [small()], 2),
        ("order differ", (HeldRows(rows[0].values), rows[1]), [small()], 1),
        ("rows, held-out rows differ", both(values + 1), [small()], 1),
    ):
        with pytest.raises(ValueError, match=f"is of another training: {match}; expected the same.*delete it"):
            train(*others, recipes, checkpoint=file, threads=threads)
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a whole checkpoint of a training; expected one: delete it"):
            train(*rows, [small()], checkpoint=file)


@pytest.mark.parametrize("recipe", MIXED[:5], ids=str)
def test_centre_and_scale_are_folded(values: Tensor, recipe: Recipe) -> None:
    """Raw states give the codes that prepared rows give, and their reconstructions are raw."""
    (trained,) = train(*both(values), [recipe])
    raw = values[:200].double().numpy()
    mean = raw.mean(axis=0)
    scale = np.sqrt(16 / ((raw - mean) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(trained.centre, mean, rtol=1e-6)
    prepared = (raw - mean) * scale
    pre = prepared @ (trained.encoder.double().numpy() / scale).T + trained.bias.double().numpy()
    z = np.maximum(pre, 0)
    if recipe.batch_topk:
        z *= pre > trained.threshold.double().numpy()
    else:
        z *= z >= np.sort(z, axis=1)[:, -recipe.k][:, None]
    dictionary = to_dictionary(trained, state=0)
    np.testing.assert_allclose(dictionary.encode(values[:200]), z, atol=1e-5)
    decoder = trained.decoder.double().numpy() * scale
    np.testing.assert_allclose(np.linalg.norm(decoder, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(dictionary.decode(torch.from_numpy(z).float()), z @ decoder / scale + mean, atol=1e-5)
    errors = ((z @ decoder / scale + mean - raw) ** 2).mean()
    assert trained.measures["train"].mse == pytest.approx(errors, rel=1e-4)
    assert trained.measures["held_out"].mse == pytest.approx(trained.history[trained.epoch - 1], rel=1e-4)


def test_published_is_what_is_printed(values: Tensor) -> None:
    """Linear layers, TopK of ReLU, mean squared error and Adam, by torch's own modules; the best epoch of all rows."""
    recipe = recipe_named("published", latents=48, sparsity="0.9", epochs=4, seed=7)
    assert (recipe.batch, recipe.lr, recipe_named("published").epochs) == (32, 1e-3, 100)
    rows = both(values)
    (trained,) = train(*rows, [recipe])
    first = first_weights(recipe, 16)
    encoder, decoder = torch.nn.Linear(16, 48), torch.nn.Linear(48, 16, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(first["encoder"])
        encoder.bias.copy_(first["bias"])
        decoder.weight.copy_(first["decoder"].T)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def forward(x: Tensor) -> Tensor:
        positive = torch.relu(encoder(x))
        largest = positive.topk(4, dim=1)
        return decoder(torch.zeros_like(positive).scatter(1, largest.indices, largest.values))

    best, kept = float("inf"), (torch.zeros(()), torch.zeros(()))
    for epoch in range(4):
        for x in rows[0].epoch(epoch, 32):
            adam.zero_grad()
            torch.nn.functional.mse_loss(forward(x), x).backward()
            adam.step()
        with torch.no_grad():
            error = torch.nn.functional.mse_loss(forward(values[200:]), values[200:]).item()
        assert trained.history[epoch] == pytest.approx(error, rel=1e-4)
        if error <= best:
            best, kept = error, (encoder.weight.detach().clone(), decoder.weight.detach().clone())
    torch.testing.assert_close(trained.encoder, kept[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trained.decoder, kept[1].T, rtol=1e-4, atol=1e-5)
    assert not trained.centre.any()


def test_the_best_epoch_is_kept(values: Tensor) -> None:
    """Trained on eight rows, it is soon worse on others."""
    recipe = small(batch=8, epochs=30, lr=0.03)
    (trained,) = train(HeldRows(values[:8]), HeldRows(values[200:]), [recipe])
    assert trained.epoch < 30
    assert trained.history[trained.epoch - 1] == min(trained.history)
    assert trained.measures["held_out"].mse == pytest.approx(min(trained.history), rel=1e-4)


def test_planted_features_are_found(tmp_path: Path) -> None:
    """Also by the file, and where the mean is five times the spread; as it is published, they are not."""
    values, features = planted_rows(3000, 32, 48, 3)
    recipe = recipe_named(latents=96, sparsity="0.96", batch=64, epochs=8)
    published = recipe_named("published", latents=96, sparsity="0.96", batch=64, epochs=8)
    rows = HeldRows(values[:2800]), HeldRows(values[2800:])
    ours, theirs = train(*rows, [recipe, published])
    write_dictionary(to_dictionary(ours, state=1), tmp_path / "sae")
    similarity, found = mmcs(features, read_dictionary(tmp_path / "sae").decoder)
    assert similarity > 0.99
    assert found == 1
    assert mmcs(features, theirs.decoder)[0] < 0.6
    assert theirs.measures["train"].dead > ours.measures["train"].dead + 0.2


def test_bad_rows_and_recipes_are_refused_in_a_line(values: Tensor) -> None:
    rows, held = both(values)
    bad = values.clone()
    bad[3, 3] = float("nan")
    for match, training_rows, held_out, recipes in (
        ("200 training rows are fewer than a batch of 256; .*: choose --batch 200", rows, held, [small(batch=256)]),
        ("the state is the same in all 200 training rows", HeldRows(values[:1].repeat(200, 1)), held, [small()]),
        ("training rows hold NaN or infinity", HeldRows(bad), held, [small()]),
        ("held-out rows hold NaN or infinity", rows, HeldRows(bad), [small()]),
        ("there are no held-out rows", rows, HeldRows(values[:0]), [small()]),
        ("rows held out are 15 wide; expected 16", rows, HeldRows(values[:, 1:]), [small()]),
        ("batch 16, epochs 3; batch 32, epochs 3; expected one", rows, held, [small(), small(batch=16)]),
        ("recipes to train side by side have no member", rows, held, []),
        ("gave no numbers in any epoch.*lower the learning rate", HeldRows(values * 1e30), held, [small(scale=False)]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match) as error:
            train(training_rows, held_out, recipes)
        assert "\n" not in str(error.value)


def test_the_document_says_how_it_was_trained(values: Tensor) -> None:
    (trained,) = train(*both(values), [small()])
    about = to_dictionary(trained, state=1, about={"store": "s"}).about
    assert about["config"] == {**small().to_json(), "threads": 1, "device": "cpu"}
    assert (about["store"], len(about["history"])) == ("s", 3)
    assert set(about["measures"]) == {"train", "held_out"}
    assert replace(trained, epoch=1).history == trained.history
