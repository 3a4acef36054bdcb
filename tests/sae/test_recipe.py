"""A recipe counts exactly, and says what it does not take."""

import pytest

from otoscope.sae.recipe import recipe_named


@pytest.mark.parametrize(
    ("sparsity", "latents", "k"),
    [
        ("0.75", 2048, 512), ("0.80", 2048, 409), ("0.85", 2048, 307), ("0.9", 2048, 204), ("0.95", 2048, 102),
        ("0.99", 2048, 20), ("0.9", 10, 1), ("0.7", 10, 3), ("0.3", 1000, 700), ("0.71", 100, 29),
    ],
)  # fmt: skip
def test_k_is_exact(sparsity: str, latents: int, k: int) -> None:
    """In floating point (1 - 0.9) 10 is below 1, and (1 - 0.71) 100 below 29.00000000000001."""
    assert recipe_named(sparsity=sparsity, latents=latents).k == k


def test_the_learning_rate_falls_in_a_line_over_the_last_steps() -> None:
    recipe = recipe_named(lr=0.01, decay="0.2")
    assert [recipe.lr_at(step, 20) for step in range(20)] == pytest.approx([0.01] * 17 + [0.0075, 0.005, 0.0025])
    assert {recipe_named("published").lr_at(step, 20) for step in range(20)} == {1e-3}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sparsity": "0"}, "leaves 2048 of them"), ({"sparsity": "0.9999"}, "leaves 0 of them"),
        ({"sparsity": "some"}, "'some' is not a valid sparsity"), ({"decay": "1.1"}, "decay is 1.1; expected 0 to 1"),
        ({"decay": "late"}, "'late' is not a valid decay"), ({"lr": float("nan")}, "lr is nan"),
        ({"init": "zero"}, "no init 'zero'"), ({"batch": 0}, "batch is 0"), ({"latents": 1}, "1 latents; expected 2"),
        ({"seed": 2**32}, "seed is 4294967296"), ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        recipe_named(**changes)


def test_a_recipe_comes_back_from_its_document() -> None:
    recipe = recipe_named("published", sparsity="0.9", seed=3)
    assert type(recipe).from_json(recipe.to_json()) == recipe
