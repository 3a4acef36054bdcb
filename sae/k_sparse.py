"""k-sparse probes: how well few units say whether a clip is of a category.

Goal: what the best one, two or five units of a kind know, on groups of clips that neither chose nor weighed them.
Conventions: one category against all others, and both sides weigh the same. On training clips, units are ranked by
|m1 - m0| / s, the means of their values on either side over the deviation within both; the first k are weighed by ridge
regression on +1 and -1, with a penalty that is the same for all; a clip counts as of the category where this sum
exceeds a cut, the one of highest balanced accuracy on training clips. Values are standardised by training clips.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..analysis.probe.splits import Splits

PENALTY = 1e-3  # beside variances of 1: for units that are copies of each other
MIN_VARIANCE = 1e-12  # within both sides, of values of variance 1

Floats = NDArray[np.float64]


def k_sparse_right(
    values: NDArray[np.floating], codes: NDArray[np.integer], splits: Splits, ks: Sequence[int]
) -> NDArray[np.bool_]:
    """Which answers are right: (k, clip, category), False for clips that no head tests.

    values: of units (clip, unit), at least as many as the largest k.
    """
    n = int(codes.max()) + 1
    right = np.zeros((len(ks), len(codes), n), bool)
    for head in np.unique(splits.test_fold[splits.test_fold >= 0]):
        train, test = splits.train[head] | splits.valid[head], splits.test_fold == head
        answers = _answers(values[train].astype(np.float64), codes[train], values[test].astype(np.float64), ks, n)
        right[:, test] = answers == (codes[test][:, None] == np.arange(n))
    return right


def balanced_accuracy(truly: Floats, falsely: Floats, of: Floats, others: Floats) -> Floats:
    """Mean over categories of the mean of both sides' shares of right answers: (..., category) -> (...), in [0, 1].

    truly, falsely: right answers on clips of the category, and on others; of, others: how many of either there are.
    Categories without tested clips on one side count nowhere.
    """
    known = (of > 0) & (others > 0)
    each = np.where(known, (truly / np.maximum(of, 1) + falsely / np.maximum(others, 1)) / 2, 0)
    mean: Floats = each.sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    return np.where(known.any(axis=-1), mean, np.nan)


def _answers(x: Floats, codes: NDArray[np.integer], tested: Floats, ks: Sequence[int], n: int) -> NDArray[np.bool_]:
    """Whether clips (k, tested clip, category) are taken for one of the category."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1)
    x, tested = (x - mean) / scale, (tested - mean) / scale
    first = _ranked(x, codes, n, max(ks))
    answers = np.zeros((len(ks), len(tested), n), bool)
    for category in range(n):
        of = codes == category
        if not 0 < of.sum() < len(of):
            continue  # nothing to learn, and nobody is tested by it
        own, others = x[:, first[category]], tested[:, first[category]]
        weight = np.where(of, 0.5 / of.sum(), 0.5 / (~of).sum())
        centre = weight @ own
        apart, target = own - centre, np.where(of, 1.0, -1.0)
        products, slope = (apart * weight[:, None]).T @ apart, (apart * weight[:, None]).T @ target
        for i, k in enumerate(ks):
            beta = np.linalg.solve(products[:k, :k] + PENALTY * np.eye(k), slope[:k])
            # Sums of each row by itself: rows that are equal have to come out equal.
            cut = _cut((apart[:, :k] * beta).sum(axis=1), of)
            answers[i, :, category] = ((others[:, :k] - centre[:k]) * beta).sum(axis=1) > cut
    return answers


def _ranked(x: Floats, codes: NDArray[np.integer], n: int, k: int) -> NDArray[np.intp]:
    """The k first units of each category (category, k); of equal ones the first."""
    of = (codes == np.arange(n)[:, None]).astype(np.float64)  # (category, clip)
    n1 = of.sum(axis=1, keepdims=True)
    n0 = len(codes) - n1
    sums, squares = of @ x, (x * x).sum(axis=0)
    m1, m0 = sums / np.maximum(n1, 1), (x.sum(axis=0) - sums) / np.maximum(n0, 1)
    within = (squares - n1 * m1**2 - n0 * m0**2) / len(codes)
    effect = np.abs(m1 - m0) / np.sqrt(np.maximum(within, MIN_VARIANCE))
    return np.argsort(-effect, axis=1, kind="stable")[:, :k]


def _cut(scores: Floats, of: NDArray[np.bool_]) -> float:
    """Between which scores the balanced accuracy is highest; of several such, the highest."""
    order = np.argsort(-scores, kind="stable")
    ordered, ours = scores[order], of[order]
    gain = np.cumsum(np.where(ours, (~of).sum(), -of.sum()))[:-1]  # whole numbers, so that ties are ties
    at = int(np.where(np.diff(ordered) < 0, gain, np.iinfo(np.int64).min).argmax())
    return float(ordered[at] + ordered[at + 1]) / 2
