"""What is planted is there, and findings are counted as said."""

import numpy as np
import pytest

from .selection import Condition, Size, data_set, scores

SIZE = Size(layers=2, width=500, categories=(5,), shares=(10,), repeats=1, group_repeats=2)


@pytest.mark.parametrize("tailed", [False, True])
def test_planted_neurons_are_on_at_their_rates(tailed: bool) -> None:
    mean, labels, planted = data_set(Condition(categories=5, percent=10, alike=True, tailed=tailed), SIZE, 0)
    on, truth = mean.values.reshape(1000, -1) > 0, planted.values.reshape(1000, 5)
    assert truth.any(axis=1).sum() == truth.sum() == 100
    inside = truth[:, labels.values]
    own = truth.any(axis=1)
    assert on[own][inside[own]].mean() == pytest.approx(0.8, abs=0.05)
    assert on[own][~inside[own]].mean() == pytest.approx(0.1, abs=0.02)
    rate = on[~own].mean(axis=1)
    assert (rate > 0.75).sum() >= 500
    assert (rate < 0.05).sum() >= 100
    assert 150 <= labels.size <= 250


def test_a_quarter_is_planted_in_two_categories() -> None:
    for gelu in (False, True):
        _, _, planted = data_set(Condition(categories=5, percent=10, gelu=gelu), SIZE, 1)
        assert np.bincount(planted.sum("category").values.ravel()).tolist() == [900, 75, 25]


def test_scores_are_counted_over_repeats() -> None:
    truth = np.array([[1, 0], [0, 1], [0, 0]], bool)
    found, nothing = np.array([[1, 1], [0, 0], [1, 0]], bool), np.zeros((3, 2), bool)
    assert scores([(found, truth), (nothing, truth)]) == {
        "precision": pytest.approx(1 / 3), "recall": 0.25, "coverage": 0.25, "false": pytest.approx(1 / 3),
    }  # fmt: skip
    assert scores([(nothing, truth)]) == {"precision": 0, "recall": 0, "coverage": 0, "false": 0}
