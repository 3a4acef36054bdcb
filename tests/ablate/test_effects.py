"""Scores and comparisons, against plain torch, plain numpy and the laws of ranks."""

import numpy as np
import pytest
import torch

from otoscope.ablate.effects import clip_scores, compare
from otoscope.ablate.paired import mcnemar

NAMES = ["dog", "cat", "hen", "cow"]


def drawn(n_interventions=21, n_clips=60, seed=0, n_categories=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n_clips)  # no clips of the last category
    base = rng.normal(size=(n_clips, n_categories)) + 1.5 * np.eye(n_categories)[truth]
    logits = base + 0.5 * rng.normal(size=(n_interventions, n_clips, n_categories))
    logits[0] = base
    return logits, truth


def test_scores_by_plain_torch():
    logits, truth = drawn()
    scores, predicted = clip_scores(logits, truth, target=1)
    for i, of in enumerate(torch.tensor(logits)):
        loss = torch.nn.functional.cross_entropy(of, torch.tensor(truth), reduction="none")
        np.testing.assert_allclose(scores[2, i], loss.numpy(), rtol=1e-12)
    for (i, clip), name in np.ndenumerate(predicted):
        row, own = logits[i, clip].tolist(), truth[clip]
        assert row[name] == max(row)
        others = [value for code, value in enumerate(row) if code != own]
        assert scores[0, i, clip] == (row[own] > max(others))
        assert scores[1, i, clip] == row[own] - max(others)
        assert scores[3, i, clip] == (name == 1)
        assert scores[4, i, clip] == row[1] - max(row[0], row[2], row[3])


def test_two_categories_and_huge_logits():
    logits = np.array([[[1e4, -1e4], [3.0, 3.0]]])
    scores, predicted = clip_scores(logits, np.array([1, 1]))
    np.testing.assert_allclose(scores[:, 0], [[0, 0], [-2e4, 0], [2e4, np.log(2)]], rtol=1e-14)
    assert predicted.tolist() == [[0, 0]]  # the first one at a tie
    assert scores.shape == (3, 1, 2)


def plain(result, scores, truth, side_sign):
    """Means and ranks one category at a time."""
    for m in range(len(scores)):
        for code in range(3):
            mine = truth == code
            before, after = scores[m, 0, mine].mean(), scores[m, 1, mine].mean()
            controls = scores[m, 2:][:, mine].mean(axis=1) - before
            cell = result.isel(measure=m, category=code)
            assert float(cell["before"]) == pytest.approx(before)
            assert float(cell["after"]) == pytest.approx(after)
            assert float(cell["change"]) == pytest.approx(after - before)
            np.testing.assert_allclose(cell["control_change"], controls, atol=1e-12)
            assert float(cell["excess"]) == pytest.approx(after - before - controls.mean())
            assert float(cell["z"]) == pytest.approx((after - before - controls.mean()) / controls.std())
            reached = sum(side_sign[m] * c >= side_sign[m] * (after - before) - 1e-9 for c in controls)
            assert float(cell["p_rank"]) == pytest.approx((1 + reached) / (1 + len(controls)))


@pytest.mark.parametrize(("side", "signs"), [("harm", (-1, -1, 1)), ("help", (1, 1, -1))])
def test_effects_and_ranks_by_plain_numpy(side, signs):
    logits, truth = drawn()
    scores, predicted = clip_scores(logits, truth)
    result = compare(scores, predicted, truth, NAMES, side=side)
    plain(result, scores, truth, signs)
    lost = (predicted[0] == truth) & (predicted[1] != truth)
    assert result["lost"].values.tolist() == [int((lost & (truth == code)).sum()) for code in range(4)]
    gained = result["gained"].values
    for code in range(3):
        assert float(result["p_paired"][0, code]) == mcnemar(int(result["lost"][code]), int(gained[code]))
    assert float(result["overall_change"][1]) == pytest.approx((scores[1, 1] - scores[1, 0]).mean())
    np.testing.assert_allclose(result["overall_control_change"][1], (scores[1, 2:] - scores[1, 0]).mean(axis=1))
    for when, i in (("before", 0), ("after", 1)):
        for (category, name), n in np.ndenumerate(result[f"predicted_{when}"].values):
            assert n == ((truth == category) & (predicted[i] == name)).sum()
    assert result["n_clips"].values.tolist() == np.bincount(truth, minlength=4).tolist()
    assert result["units"].values.tolist() == ["1", "1", "nat"]


def test_a_category_without_clips_is_nan_everywhere():
    logits, truth = drawn()
    result = compare(*clip_scores(logits, truth), truth, NAMES)
    for name, values in result.data_vars.items():
        if "category" in values.dims and values.dtype == float:
            assert values.sel(category="cow").isnull().all(), name
            assert values.sel(category=NAMES[:3]).notnull().all(), name
        elif values.dtype == float:
            assert values.notnull().all(), name


def test_two_sided_evidence_is_the_distance_from_the_middle():
    logits, truth = drawn()
    scores, predicted = clip_scores(logits, truth)
    result = compare(scores, predicted, truth, NAMES, side="either")
    every = (scores[1, 1:] - scores[1, 0])[:, truth == 0].mean(axis=1)
    far = np.abs(every - every.mean())
    assert float(result["p_rank"][1, 0]) == pytest.approx((far >= far[0] - 1e-12).mean())


def test_a_set_among_its_like_is_rarely_significant():
    """The set a control like the others: p_corrected falls below 5 % anywhere in at most about 5 % of the studies."""
    hits, n = 0, 150
    for seed in range(n):
        logits, truth = drawn(40, 30, seed)
        result = compare(*clip_scores(logits, truth), truth, NAMES)
        hits += bool((result["p_corrected"].sel(measure="margin") <= 0.05).any())
    assert hits / n <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)


def test_two_hundred_controls_decide_among_fifty_categories():
    """One category is harmed, 49 are not: its corrected p is the least there is, 1/201, and no other is marked."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(50), 8)
    scores = np.zeros((3, 202, 400))
    scores[1] = rng.normal(0, 0.3, (202, 400)) + rng.normal(2, 1, 400)
    scores[1, 1, truth == 17] -= 1.5
    result = compare(scores, np.zeros((202, 400), int), truth, [str(i) for i in range(50)])
    p = result["p_corrected"].sel(measure="margin")
    assert float(p.sel(category="17")) == 1 / 201
    assert int((p <= 0.05).sum()) == 1
    assert float(result["p_rank"].sel(measure="margin", category="17")) == 1 / 201


def test_no_controls_no_ranks():
    logits, truth = drawn(2)
    result = compare(*clip_scores(logits, truth), truth, NAMES)
    assert result.sizes["control"] == 0
    for name in ("z", "p_rank", "p_corrected", "excess"):
        assert result[name].isnull().all()
    assert result["p_paired"].isel(category=0).notnull().all()


def test_what_does_not_fit_is_refused():
    logits, truth = drawn()
    scores, predicted = clip_scores(logits, truth)
    with pytest.raises(ValueError, match="side is 'left'; expected one of harm, help, either"):
        compare(scores, predicted, truth, NAMES, side="left")
    with pytest.raises(ValueError, match="at least 2 interventions"):
        compare(scores[:, :1], predicted[:1], truth, NAMES)
    with pytest.raises(ValueError, match=r"truth \(59,\)"):
        compare(scores, predicted, truth[1:], NAMES)
