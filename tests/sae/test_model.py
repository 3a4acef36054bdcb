"""A step's gradients are those of the loss as it is written down."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from otoscope.sae.model import WEIGHTS, Model
from otoscope.sae.recipe import Recipe, recipe_named

WIDTH, LATENTS, ROWS = 12, 40, 30
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def small(**changes: Any) -> Recipe:
    return recipe_named(**{"latents": LATENTS, "sparsity": "0.9", "batch": ROWS, "init": "independent", **changes})


def rows(seed: int = 1, n: int = ROWS) -> Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def codes_of(pre: Tensor, recipe: Recipe) -> Tensor:
    """By sorting."""
    positive = pre.clamp(min=0)
    if recipe.batch_topk:
        return positive * (positive >= positive.flatten().sort(descending=True).values[recipe.k * len(pre) - 1])
    return positive * (positive >= positive.sort(dim=1, descending=True).values[:, recipe.k - 1 : recipe.k])


@pytest.mark.parametrize("sparsity", ["0.9", "0.5"])  # by sums, by dense products
@pytest.mark.parametrize("batch_topk", [False, True])
@pytest.mark.parametrize("auxk", [False, True])
def test_gradients_are_those_that_autograd_finds(sparsity: str, batch_topk: bool, auxk: bool) -> None:
    recipe = small(sparsity=sparsity, batch_topk=batch_topk, auxk=auxk)
    model, x = Model(recipe, WIDTH, CPU), rows()
    model.fired[::2] = True
    model.end_epoch()  # every second latent is taken for dead, which some of them are not in this batch
    with torch.no_grad():
        found = model.gradients(x)

    w, b, d = (getattr(model, name).double().requires_grad_() for name in WEIGHTS)
    pre = x.double() @ w.T + b
    z = codes_of(pre, recipe)
    loss = (z @ d - x).square().mean()
    if auxk:
        dead = torch.arange(1, LATENTS, 2)
        e = (x - z @ d).detach()
        among = pre[:, dead]
        kept = among * (among >= among.sort(dim=1, descending=True).values[:, WIDTH // 2 - 1 : WIDTH // 2])
        loss = loss + (kept @ d[dead] - e).square().sum() / (e - e.mean(dim=0)).square().sum() / 32
    for name, expected in zip(WEIGHTS, torch.autograd.grad(loss, (w, b, d)), strict=True):
        torch.testing.assert_close(getattr(found, name).double(), expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(model.fired, (z > 0).any(dim=0) | (torch.arange(LATENTS) % 2 == 0))
    if batch_topk:
        assert model.threshold == pytest.approx(z[z > 0].min().item(), rel=1e-6)


@pytest.mark.parametrize("n_dead", [3, 17])  # fewer than half of the width, and more
def test_auxk_is_the_slope_of_its_loss_in_numpy(n_dead: int) -> None:
    """Differences of the loss along random directions, in float64; what is left is held fast."""
    model, x = Model(small(auxk=True), WIDTH, CPU), rows()
    without = Model(small(), WIDTH, CPU)
    model.fired[n_dead:] = True
    model.end_epoch()
    with torch.no_grad():
        ours, plain = model.gradients(x), without.gradients(x)
    weights = [getattr(model, name).numpy().astype(np.float64) for name in WEIGHTS]
    slopes = [(getattr(ours, name) - getattr(plain, name)).numpy().astype(np.float64) for name in WEIGHTS]
    data = x.numpy().astype(np.float64)

    def largest_of(weights: Any, kept: int, pre_of: slice) -> Any:
        w, b, d = weights
        pre = (data @ w.T + b)[:, pre_of]
        z = np.zeros_like(pre)
        for row, values in enumerate(pre):
            largest = np.argsort(values)[::-1][:kept]
            z[row, largest] = values[largest]
        return z, z @ d[pre_of]

    z, _ = largest_of(weights, model.recipe.k, slice(None))
    left = data - np.maximum(z, 0) @ weights[2]

    def loss(weights: Any) -> float:
        _, again = largest_of(weights, min(WIDTH // 2, n_dead), slice(0, n_dead))
        share = ((left - again) ** 2).sum() / ((left - left.mean(axis=0)) ** 2).sum()
        return share / 32 * min(n_dead / (WIDTH // 2), 1)

    rng = np.random.default_rng(0)
    for at in range(3):
        direction = [rng.normal(size=value.shape) * (i == at) for i, value in enumerate(weights)]
        ends = [loss([v + sign * 1e-6 * e for v, e in zip(weights, direction, strict=True)]) for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / 2e-6
        found = sum((slope * e).sum() for slope, e in zip(slopes, direction, strict=True))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_first_weights_depend_on_the_seed_alone_and_are_those_of_linear_layers() -> None:
    assert torch.equal(Model(small(), WIDTH, CPU).encoder, Model(small(lr=0.1), WIDTH, CPU).encoder)
    assert not torch.equal(Model(small(), WIDTH, CPU).encoder, Model(small(seed=1), WIDTH, CPU).encoder)
    free = Model(recipe_named("published", latents=1000, seed=2), 300, CPU)
    layers = torch.nn.Linear(300, 1000), torch.nn.Linear(1000, 300)
    for ours, theirs in (
        (free.encoder, layers[0].weight),
        (free.bias, layers[0].bias),
        (free.decoder, layers[1].weight),
    ):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.01)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
    tied = Model(small(init="transposed"), WIDTH, CPU)
    assert torch.equal(tied.encoder, tied.decoder)
    assert not tied.bias.any()
    torch.testing.assert_close(tied.decoder.norm(dim=1), torch.ones(LATENTS))


@pytest.mark.parametrize("unit_norm", [False, True])
def test_a_step_is_adams_and_leaves_norms_as_the_recipe_has_them(unit_norm: bool) -> None:
    model = Model(small(unit_norm=unit_norm, lr=0.01), WIDTH, CPU)
    plain = {name: getattr(model, name).clone().requires_grad_() for name in WEIGHTS}
    adam = torch.optim.Adam(list(plain.values()), lr=0.01, foreach=False, fused=False)
    for seed in range(4):
        with torch.no_grad():
            model.step(rows(seed), 0.01)
        z = codes_of(rows(seed) @ plain["encoder"].T + plain["bias"], model.recipe)
        adam.zero_grad()
        (z @ plain["decoder"] - rows(seed)).square().mean().backward()
        adam.step()
        if unit_norm:
            with torch.no_grad():
                plain["decoder"].copy_(F.normalize(plain["decoder"], dim=1))
    for name in WEIGHTS:
        torch.testing.assert_close(getattr(model, name), plain[name].detach(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("sparsity", ["0.9", "0.5"])
def test_reconstructions_are_of_single_rows(sparsity: str) -> None:
    model, x = Model(small(sparsity=sparsity), WIDTH, CPU), rows()
    expected = codes_of(x @ model.encoder.T + model.bias, model.recipe) @ model.decoder
    torch.testing.assert_close(model.reconstruct(x), expected)
    batched = Model(small(sparsity=sparsity, batch_topk=True), WIDTH, CPU)
    with torch.no_grad():
        batched.gradients(x)
        batched.gradients(rows(2))
    threshold = batched.threshold
    assert threshold is not None
    pre = x @ batched.encoder.T + batched.bias
    torch.testing.assert_close(batched.reconstruct(x), torch.where(pre > threshold, pre, 0.0) @ batched.decoder)
