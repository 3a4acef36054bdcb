"""The strength of the logistic probe: chosen by clips held out, well where they are few, not silently at an end."""

from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from otoscope.analysis.probe.cautions import cautions, chance_test
from otoscope.analysis.probe.probe import (
    ACCURACY_TIE,
    LOSS_TIE,
    MIN_VALID,
    PARTS,
    STRENGTHS,
    Probe,
    Recipe,
    fit_probe,
)
from otoscope.analysis.probe.splits import Splits, make_splits, parts_of

WIDTH, TRIED = 120, 9  # embedding; strengths


def drawn(
    n_categories: int,
    n_learned: int,
    n_tested: int,
    seed: int = 0,
    apart: float = 1.0,
    power: float = 1.0,
    width: int = WIDTH,
):
    """Embeddings whose categories lie `apart`, in noise of few directions; their codes, parts and names."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, width + 1) ** (-power / 2)
    codes = np.concatenate([np.arange(n_learned) % n_categories, rng.integers(0, n_categories, n_tested)])
    centres = apart * rng.normal(size=(n_categories, width)) * scale
    embedding = centres[codes] + scale * rng.normal(size=(len(codes), width))
    embedding += rng.normal(size=(len(codes), 16)) @ rng.normal(size=(16, width)) / 8
    parts = np.array(["train"] * n_learned + ["test"] * n_tested, dtype=object)
    return embedding.astype(np.float32), codes, parts, [f"clip{i:05d}" for i in range(len(codes))]


def fitted(embedding, codes, splits: Splits, **recipe) -> Probe:
    names = tuple(f"c{i}" for i in range(int(codes.max()) + 1))
    how = Recipe(**{"kind": "logistic", **recipe})
    return fit_probe(embedding, codes, splits, categories=names, identity="id", labelling="t:kind", recipe=how)


def accuracy(probe: Probe, embedding, codes, splits: Splits) -> float:
    tested = splits.test_fold >= 0
    return float((probe.logits(embedding, splits.test_fold)[tested].argmax(axis=1) == codes[tested]).mean())


def held_out(x, y, x_held, y_held) -> tuple[list[int], list[float]]:
    """Clips right and summed log-loss of each strength by plain scikit-learn."""
    right, loss = [], []
    x, x_held = x.astype(np.float64), x_held.astype(np.float64)
    for strength in STRENGTHS[:TRIED]:
        with threadpool_limits(1):
            scores = LogisticRegression(C=strength, max_iter=5000).fit(x, y).decision_function(x_held)
        right.append(int((scores.argmax(axis=1) == y_held).sum()))
        loss.append(float((logsumexp(scores, axis=1) - scores[np.arange(len(y_held)), y_held]).sum()))
    return right, loss


@pytest.mark.parametrize("n_valid", [MIN_VALID, MIN_VALID - 1])
def test_the_strength_by_plain_scikit_learn(n_valid: int) -> None:
    """By the validation clips where they are 100, else by the training clips, part by part."""
    embedding, codes, parts, names = drawn(4, 300, 40, 1, apart=0.35)
    parts[:n_valid] = "valid"
    splits = make_splits(parts, codes, names)
    head = fitted(embedding, codes, splits).about["heads"][0]
    learned, valid = parts == "train", parts == "valid"
    x = StandardScaler().fit(embedding[learned]).transform(embedding)
    if n_valid == MIN_VALID:
        trials = [(learned, valid)]
        assert head["chosen_by"] == "100 validation clips"
    else:
        part = parts_of(learned, codes, splits.groups, PARTS, 42)
        trials = [(learned & (part != i), part == i) for i in range(PARTS)]
        assert head["chosen_by"] == "5-fold cross-validation of 201 training clips"
    n = sum(held.sum() for _, held in trials)
    both = [held_out(x[fit], codes[fit], x[held], codes[held]) for fit, held in trials]
    right, loss = (np.sum([each[i] for each in both], axis=0) / n for i in range(2))
    near = np.flatnonzero(right >= right.max() - ACCURACY_TIE)
    expected = next(i for i in near if loss[i] <= loss[near].min() + LOSS_TIE)
    assert head["C"] == STRENGTHS[expected]
    assert head["accuracy"] == pytest.approx(right[expected], abs=0.011)
    assert head["log_loss"] == pytest.approx(loss[expected], abs=0.01)
    assert 0 < expected < len(STRENGTHS) - 1
    assert head["edge"] == ""


@pytest.mark.slow
def test_with_few_clips_and_many_categories_it_is_near_the_best_strength() -> None:
    """126 training and 14 validation clips of 7 categories, of which three of ten have another label than they should.

    Those 14 clips' log-loss alone loses a tenth, and for some tasks all: answers that follow the categories' shares.
    """
    lost, lost_by_14 = [], []
    for seed in range(4):
        embedding, codes, parts, names = drawn(7, 140, 600, seed, apart=0.5, width=300)
        rng = np.random.default_rng(seed)
        codes = np.where(rng.random(740) < 0.3, rng.integers(0, 7, 740), codes)
        codes[:140:10] = np.arange(14) % 7
        parts[:140:10] = "valid"
        splits = make_splits(parts, codes, names)
        assert (splits.train.sum(), splits.valid.sum()) == (126, 14)
        probe = fitted(embedding, codes, splits)
        learned, valid, tested = splits.train[0], splits.valid[0], splits.test_fold >= 0
        x = StandardScaler().fit(embedding[learned]).transform(embedding)
        best = max(right := held_out(x[learned], codes[learned], x[tested], codes[tested])[0]) / 600
        loss = held_out(x[learned], codes[learned], x[valid], codes[valid])[1]
        lost.append(best - accuracy(probe, embedding, codes, splits))
        lost_by_14.append(best - right[2 + int(np.argmin(loss[2:7]))] / 600)  # of C from 0.0001 to 1
        assert best > 0.3
        found = chance_test(probe, embedding[tested], splits.test_fold[tested], codes[tested])
        assert found["right"] / 600 == accuracy(probe, embedding, codes, splits)
        assert not any("chance" in line for line in cautions(probe, found))
    assert np.mean(lost) < 0.03
    assert max(lost) < 0.06
    assert np.mean(lost_by_14) > 0.1


def test_validation_clips_of_a_category_without_training_clips_do_not_decide() -> None:
    embedding, codes, parts, names = drawn(4, 400, 40, apart=0.5)
    parts[:120] = "valid"
    alone = fitted(embedding, codes, make_splits(parts, codes, names)).about["heads"][0]
    codes = codes.copy()
    codes[np.flatnonzero(parts == "valid")[:3]] = 4
    other = fitted(embedding, codes, make_splits(parts, codes, names)).about["heads"][0]
    assert other["C"] == alone["C"]
    assert other["accuracy"] == pytest.approx(alone["accuracy"], abs=0.02)


@pytest.mark.parametrize("kind", ["logistic", "published"])
@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.7, 0.1, 0.1, 0.1)])
def test_a_probe_of_shuffled_labels_is_named_and_a_real_one_is_not(kind: str, shares: tuple[float, ...]) -> None:
    embedding, codes, parts, names = drawn(4, 160, 80, apart=4.0, power=0.0)
    rng = np.random.default_rng(3)
    hopeless = rng.choice(4, len(codes), p=shares)
    for labels, named in ((codes, False), (hopeless, True)):
        splits = make_splits(parts, labels, names)
        probe = fitted(embedding, labels, splits, kind=kind, learning_rate=3e-3)
        tested = splits.test_fold >= 0
        found = chance_test(probe, embedding[tested], splits.test_fold[tested], labels[tested])
        assert found["by_chance"] == np.bincount(labels[tested]).max()
        found_lines = [line for line in cautions(probe, found) if "not better than chance" in line]
        assert bool(found_lines) == named
        if named:
            assert f"{found['right']} of 80 tested clips are right" in found_lines[0]
            assert "\n" not in found_lines[0]


def test_p_of_chance_counts_what_chance_would_give() -> None:
    """Against a hundred thousand draws of clips that are right as often as the most frequent category is there."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [10, 6, 4])
    answers = np.where(np.arange(20) % 4 == 0, truth, 0)
    eye = np.eye(3, dtype=np.float32)
    names = tuple("abc")
    probe = Probe(
        identity="id", labelling="t:kind", categories=names, heads=("test",), mean=np.zeros((1, 3), np.float32),
        scale=np.ones((1, 3), np.float32), weight=eye[None], bias=np.zeros((1, 3), np.float32),
    )  # fmt: skip
    found = chance_test(probe, eye[answers], np.zeros(20, int), truth)
    right = int((answers == truth).sum())
    assert (found["right"], found["by_chance"]) == (right, 10)
    assert found["p"] == pytest.approx((rng.binomial(20, 0.5, 100_000) >= right).mean(), abs=0.01)


def test_an_end_of_what_is_tried_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, codes, parts, names = drawn(4, 160, 80, apart=1.0, power=0.0)
    splits = make_splits(parts, codes, names)
    monkeypatch.setattr("otoscope.analysis.probe.probe.STRENGTHS", (1e-6, 1e-5, 1e-4))
    probe = fitted(embedding, codes, splits)
    (line,) = cautions(probe, {"p": 0.0})
    assert line == "the probe's strength C = 0.0001 is at an end of what is tried, 1e-06 to 0.0001"
    folds = make_splits([str(i % 4) for i in range(len(codes))], codes, names)
    (line,) = cautions(fitted(embedding, codes, folds), {"p": 0.0})
    assert line.endswith(" (4 of 4 heads)")


def test_a_published_probe_that_ran_out_of_epochs_is_named() -> None:
    embedding, codes, parts, names = drawn(4, 160, 80, apart=0.7)
    splits = make_splits(parts, codes, names)
    (line,) = cautions(fitted(embedding, codes, splits, kind="published", learning_rate=3e-5), {"p": 0.0})
    assert line.startswith("the probe's training ended at 200 epochs")


def test_categories_of_one_clip_leave_nothing_to_choose_by() -> None:
    embedding, codes, parts, names = drawn(5, 5, 20)
    probe = fitted(embedding, codes, make_splits(parts, codes, names))
    assert probe.about["heads"][0]["C"] == 1.0
    assert any("is a guess, as no clip could be held out" in line for line in cautions(probe, {"p": 0.0}))


def speakers(n: int, per_speaker: int) -> Any:
    return np.array([f"s{i // per_speaker}" for i in range(n)], dtype=object)


def test_groups_that_the_splits_respect_are_not_divided_and_others_are() -> None:
    n = 120
    codes, names = np.arange(n) % 3, [f"clip{i:03d}" for i in range(n)]
    across: Any = np.array([f"r{i % 7}" for i in range(n)], dtype=object)
    apart = speakers(n, 6)
    parts = np.where(np.arange(n) < 90, "train", "test").astype(object)

    def divided(splits: Splits, by: Any) -> int:
        part = parts_of(splits.train[0], codes, splits.groups, PARTS, 0)
        assert set(part[splits.train[0]]) == set(range(PARTS))
        assert set(part[~splits.train[0]]) == {-1}
        return sum(len(set(part[(by == one) & splits.train[0]])) > 1 for one in set(by))

    assert divided(make_splits(parts, codes, names, groupings=[across, apart]), apart) == 0
    assert divided(make_splits(parts, codes, names, groupings=[across]), across) > 0
    assert divided(make_splits(parts, codes, names), apart) > 0
    folds = np.array([f"{i // 20}" for i in range(n)], dtype=object)  # six; what they were made for is not known
    assert divided(make_splits(folds, codes, names), folds) == 0
    assert (
        divided(make_splits(np.array([str(i // 4 % 3) for i in range(n)]), codes, names), apart) > 0
    )  # three are too few


def test_parts_are_even_and_do_not_depend_on_the_order_of_clips() -> None:
    n = 200
    rng = np.random.default_rng(1)
    codes, names = rng.integers(0, 4, n), [f"clip{i:03d}" for i in range(n)]
    parts = np.where(np.arange(n) < 150, "train", "test").astype(object)
    order = rng.permutation(n)
    for groupings in ([], [speakers(n, 5)]):
        splits = make_splits(parts, codes, names, groupings=groupings)
        part = parts_of(splits.train[0], codes, splits.groups, PARTS, 7)
        shuffled = make_splits(
            parts[order], codes[order], [names[i] for i in order], groupings=[each[order] for each in groupings]
        )
        again = parts_of(shuffled.train[0], codes[order], shuffled.groups, PARTS, 7)
        np.testing.assert_array_equal(part[order], again)
        counts = np.array([np.bincount(codes[part == i], minlength=4) for i in range(PARTS)])
        if not groupings:
            assert np.ptp(counts, axis=0).max() <= 1
        assert np.ptp(counts.sum(axis=1)) <= 5
