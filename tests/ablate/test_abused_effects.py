"""Effects, intervals and ranks of an ablation where there is little or nothing to tell them from.

As in `tests/analysis/test_abused_tables.py`: what exists is counted plainly, the rest is NaN or refused.
"""

import math

import numpy as np
import pytest

from otoscope.ablate.effects import clip_scores, compare
from otoscope.ablate.paired import bootstrap_interval, difference_interval, mcnemar, sign_flip
from otoscope.ablate.result import result_table
from otoscope.analysis.tables import markdown

from ..support.amounts import some


def study(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Logits (intervention, clip, category), truth (clip), categories."""
    rng = np.random.default_rng(seed)
    n_categories, n_clips, n_controls = int(rng.integers(1, 5)), int(rng.integers(0, 16)), int(rng.integers(0, 6))
    truth = np.minimum(rng.geometric(0.5, n_clips) - 1, n_categories - 1)
    logits = rng.normal(size=(2 + n_controls, n_clips, n_categories))
    match rng.integers(0, 6):
        case 0:
            logits[:] = logits[:1]  # nothing changes anything
        case 1:
            logits = np.round(logits)  # ties
        case 2:
            logits[1:] = logits[:1] + 0.5 * (np.arange(n_categories) == 0)  # every clip changes alike
        case 3:
            logits[2:] = logits[2:3] if n_controls else logits[2:]  # controls that are all alike
        case 4:
            if n_clips:
                logits[rng.integers(0, 2 + n_controls), 0, 0] = rng.choice([np.nan, np.inf, -np.inf])
    return logits, truth, n_categories


def check(seed: int) -> None:
    logits, truth, n_categories = study(seed)
    names = [f"c{i}" for i in range(n_categories)]
    if n_categories < 2 or not np.isfinite(logits).all():
        with pytest.raises(ValueError, match="expected numbers for at least two categories"):
            clip_scores(logits, truth)
        if n_categories < 2:
            with pytest.raises(ValueError, match="expected at least two to tell apart"):
                compare(np.zeros((3, 2, 4)), np.zeros((2, 4), int), np.zeros(4, int), names)
        return
    scores, predicted = clip_scores(logits, truth)
    if seed % 3 == 0 and len(truth):
        scores[:, seed % len(logits), 0] = np.nan  # a clip without scores
    result = compare(scores, predicted, truth, names)
    n_controls = len(logits) - 2
    cells = [("", c, np.flatnonzero(truth == c)) for c in range(n_categories)]
    cells.append(("overall_", 0, np.arange(len(truth))))
    asked = ("before", "change", "low", "high", "p_paired", "excess", "excess_low", "excess_high", "z", "p_rank")
    for prefix, c, clips in cells:
        for m in range(3):
            cell = {name: float(result[f"{prefix}{name}"][m if prefix else (m, c)]) for name in asked}
            mine = scores[m][:, clips]
            there = len(clips) > 0 and bool(np.isfinite(mine[:2]).all())
            change = mine[1] - mine[0]
            assert math.isfinite(cell["change"]) == math.isfinite(cell["p_paired"]) == there
            differs = there and np.ptp(change) > 1e-9
            assert math.isfinite(cell["low"]) == math.isfinite(cell["high"]) == (there if m == 0 else differs)
            if there:
                assert cell["change"] == pytest.approx(change.mean(), abs=1e-12)
                assert not cell["low"] >= cell["high"]
                assert not cell["low"] > cell["change"] + 1e-9
            ranked = there and n_controls > 0 and bool(np.isfinite(mine).all())
            assert math.isfinite(cell["p_rank"]) == ranked
            assert math.isfinite(cell["excess"]) == (len(clips) > 0 and n_controls > 0 and np.isfinite(mine[1:]).all())
            assert not cell["excess_low"] >= cell["excess_high"]
            spread = mine[2:].mean(axis=1).std() if ranked else 0.0
            assert math.isfinite(cell["z"]) == (spread > 1e-12)
            if ranked:
                sign = (-1, -1, 1)[m]
                controls = sign * (mine[2:].mean(axis=1) - mine[0].mean())
                reached = int((controls >= sign * change.mean() - 1e-10).sum())
                assert cell["p_rank"] == pytest.approx((1 + reached) / (1 + n_controls))
            if not prefix:
                corrected = float(result["p_corrected"][m, c])
                assert math.isfinite(corrected) == ranked
                assert not corrected < 1 / (1 + n_controls)
    rows = markdown(result_table(result)).splitlines()[2:]
    assert not {"nan", "inf", "-inf"} & {cell.strip() for row in rows for cell in row.split("|")}


def check_paired(seed: int) -> None:
    rng = np.random.default_rng([seed, 2])
    n = int(rng.integers(0, 30))
    change = np.round(rng.normal(size=n), int(rng.integers(0, 3)))
    if n and rng.random() < 0.3:
        change[rng.random(n) < 0.9] = rng.choice([0.0, 0.1, np.nan])
    known = n > 0 and np.isfinite(change).all()
    p = sign_flip(change, flips=99)
    assert math.isfinite(p) == known
    assert not p <= 0
    (low,), (high,) = bootstrap_interval(change[None], draws=50)
    assert math.isfinite(low) == math.isfinite(high) == bool(known and np.ptp(change) > 0)
    assert not low >= high
    lost, gained = int((change < 0).sum()), int((change > 0).sum())
    low, high = difference_interval(lost, gained, n)
    assert math.isfinite(low) == math.isfinite(high) == (n > 0)
    assert not low >= high
    assert 0 < mcnemar(lost, gained) <= 1


def test_effects_exist_where_clips_differ() -> None:
    for seed in range(120):
        check(seed)
        check_paired(seed)


@pytest.mark.slow
def test_effects_exist_where_clips_differ_in_many_studies() -> None:
    for seed in range(1000, 1000 + some(400, of=3000)):
        check(seed)
    for seed in range(1000, 1000 + some(1500, of=10_000)):
        check_paired(seed)
