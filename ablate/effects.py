"""What an intervention did to each category, and whether chance would have done it too.

Goal: from logits with and without an intervention, and with its matched controls, to effects with intervals, paired
tests, and the rank of the intervention among its controls.
Conventions: intervention 0 is none, 1 the one in question, 2 and on its controls. Scores are float64 (measure,
intervention, clip). A change is after minus before. NaN where there are no clips.
    accuracy        1 where the highest logit is that of the clip's category (the first one at a tie), else 0
    margin          logit of the clip's category minus the highest of the others
    log_loss        -log softmax of the clip's category, in nats
    predicted       1 where the highest logit is that of the category `target`: did the clip become one of these?
    target_margin   logit of `target` minus the highest of the others
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..analysis.categories import category_names
from ..analysis.null.significance import exceedance
from .paired import Floats, bootstrap_interval, difference_interval, mcnemar, sign_flip
from .request import SIDES

MEASURES = ("accuracy", "margin", "log_loss", "predicted", "target_margin")
TARGET_MEASURES = MEASURES[3:]  # where there is a target
SHARES = ("accuracy", "predicted")  # 0 or 1 per clip
UNITS = {"log_loss": "nat"}
# Sign of the change that is evidence of harm.
HARM = {"accuracy": -1, "margin": -1, "log_loss": 1, "predicted": 1, "target_margin": 1}
LONG_NAMES = {
    "before": "mean without intervention",
    "after": "mean with the intervention",
    "change": "change by the intervention",
    "low": "lower end of the 95 % interval of the change",
    "high": "upper end of the 95 % interval of the change",
    "p_paired": "p that the clips did not change: exact McNemar for shares, else sign flips",
    "control_change": "change by each matched control",
    "excess": "change beyond the mean change by the controls",
    "excess_low": "lower end of the 95 % interval of the excess",
    "excess_high": "upper end of the 95 % interval of the excess",
    "z": "excess in standard deviations of the controls",
    "p_rank": "share of controls and the intervention itself that reach its change",
    "p_corrected": "the same, corrected over categories by the maximum statistic",
}


def clip_scores(
    logits: NDArray[np.floating], truth: NDArray[np.integer], target: int | None = None
) -> tuple[Floats, NDArray[np.int32]]:
    """Scores (measure, ..., clip) and the predicted category (..., clip) of logits (..., clip, category).

    truth: (clip) code of each clip's category. target: code of the category that clips are to become.
    Raises ValueError for fewer than two categories, and for logits that are not finite: no category is the highest.
    """
    values = np.asarray(logits, np.float64)
    if values.shape[-1] < 2 or not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"logits are of {values.shape[-1]} categories, {n_bad} of them NaN or infinity; "
            "expected numbers for at least two categories to tell apart"
        )
    predicted = values.argmax(axis=-1).astype(np.int32)

    def margin(code: NDArray[np.integer]) -> tuple[Floats, Floats]:
        """Logits of a category per clip, and how far they lie above all others."""
        at = np.broadcast_to(code, values.shape[:-1])[..., None]
        own = np.take_along_axis(values, at, axis=-1)[..., 0]
        others = values.copy()
        np.put_along_axis(others, at, -np.inf, axis=-1)
        return own, own - others.max(axis=-1)

    own, above = margin(truth)
    top = values.max(axis=-1)
    log_sum = np.log(np.exp(values - top[..., None]).sum(axis=-1)) + top
    scores = [(predicted == truth).astype(np.float64), above, log_sum - own]
    if target is not None:
        code = np.full(len(truth), target)
        scores += [(predicted == target).astype(np.float64), margin(code)[1]]
    return np.stack(scores), predicted


def compare(
    scores: Floats,
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    categories: Sequence[str],
    *,
    side: str = "harm",
    seed: int = 0,
    changed: NDArray[np.bool_] | None = None,
) -> xr.Dataset:
    """Effects of intervention 1 by category, with its controls: dims measure, category, control, predicted.

    scores: (measure, intervention, clip) and predicted (intervention, clip), as of `clip_scores`; truth: (clip) codes.
    side: the change that counts as evidence in p_rank and p_corrected: "harm" (lower accuracy and margin, higher
        log-loss; more clips predicted to be of `target`), "help" (the reverse of the first three) or "either".
    changed: bool (intervention, clip), whether the embedding is another one than without [whether any score is]. The
        coordinate n_changed counts the clips that the intervention changed; the attributes of that name, and
        controls_n_changed, those that it and each control did in all.

    p_rank = (1 + controls that change as much or more) / (1 + controls): with 200 controls at least 1/201. p_corrected
    compares with the most extreme category of each control, each on the scale of its own spread, so that the chance
    that any category falls below a level is at most that level; see `exceedance`. Both are exact if the set is, under
    the null, as good as one more control. Variables that begin with `overall_` are over all clips and have no category.
    Intervals are 95 %: Tango's for changes of shares, else bootstrap, NaN where all clips changed alike, as one does.
    Where a change is NaN, so is all that is said of it.
    Raises ValueError for an unknown side, fewer than two categories, and shapes that do not fit.
    """
    if len(categories) < 2:
        raise ValueError(f"found {len(categories)} categories; expected at least two to tell apart")
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; expected one of {', '.join(SIDES)}")
    n_measures, n_interventions, n_clips = scores.shape
    if n_interventions < 2 or predicted.shape != (n_interventions, n_clips) or truth.shape != (n_clips,):
        raise ValueError(
            f"scores are {scores.shape}, predicted {predicted.shape}, truth {truth.shape}; expected (measure, "
            "intervention, clip), (intervention, clip), (clip) with at least 2 interventions"
        )
    measures = MEASURES[:n_measures]
    if changed is None:
        changed = (scores != scores[:, :1]).any(axis=0)
    scores = np.where(np.isfinite(scores), scores, np.nan)
    groups = [np.flatnonzero(truth == code) for code in range(len(categories))] + [np.arange(n_clips)]
    found = [_group(scores[:, :, clips], measures, seed) for clips in groups]
    effect = {name: np.stack([group[name] for group in found], axis=1) for name in found[0]}
    effect |= _ranks(effect, measures, side)
    one = ("measure", "category")
    data: dict[str, Any] = {}
    for name, values in effect.items():
        more = ("control",) if name == "control_change" else ()
        about = {"long_name": LONG_NAMES[name]}
        data[name] = ((*one, *more), values[:, :-1], about)
        if name != "p_corrected":
            data[f"overall_{name}"] = (("measure", *more), values[:, -1], about)
    n = len(categories)
    for when, codes in (("before", predicted[0]), ("after", predicted[1])):
        counts = np.bincount(truth.astype(np.int64) * n + codes, minlength=n * n).reshape(n, n)
        data[f"predicted_{when}"] = (("category", "predicted"), counts, {"units": "clips"})
    right = predicted[:2] == truth
    data["lost"] = ("category", np.bincount(truth[right[0] & ~right[1]], minlength=n))
    data["gained"] = ("category", np.bincount(truth[~right[0] & right[1]], minlength=n))
    names = [str(name) for name in categories]
    return xr.Dataset(
        data,
        coords={
            "measure": np.array(measures, dtype=object),
            "units": ("measure", np.array([UNITS.get(name, "1") for name in measures], dtype=object)),
            "category": category_names(names),
            "predicted": category_names(names, "predicted"),
            "control": np.arange(n_interventions - 2),
            "n_clips": ("category", np.array([len(clips) for clips in groups[:-1]])),
            "n_changed": ("category", np.bincount(truth[changed[1]], minlength=n)),
        },
        attrs={
            "side": side,
            "n_controls": n_interventions - 2,
            "n_clips": n_clips,
            "n_changed": int(changed[1].sum()),
            "controls_n_changed": changed[2:].sum(axis=1).tolist(),
        },
    )


def _group(scores: Floats, measures: Sequence[str], seed: int) -> dict[str, Floats]:
    """Effects over some clips: (measure, intervention, clip) -> (measure) each, control_change (measure, control)."""
    n_measures, n_interventions, n = scores.shape
    nothing = np.full(n_measures, np.nan)
    if n == 0:
        names = ("before", "after", "change", "low", "high", "p_paired", "excess", "excess_low", "excess_high")
        return dict.fromkeys(names, nothing) | {"control_change": np.full((n_measures, n_interventions - 2), np.nan)}
    before, after, controls = scores[:, 0], scores[:, 1], scores[:, 2:]
    change = after - before
    beyond = after - controls.mean(axis=1) if n_interventions > 2 else np.full_like(change, np.nan)
    low, high = bootstrap_interval(np.concatenate([change, beyond]), seed=seed)
    p = nothing.copy()
    for i, name in enumerate(measures):
        if not np.isfinite(change[i]).all():
            continue
        if name in SHARES:
            lost, gained = (int((change[i] == sign).sum()) for sign in (-1, 1))
            p[i] = mcnemar(lost, gained)
            low[i], high[i] = difference_interval(lost, gained, n)
        else:
            p[i] = sign_flip(change[i], seed=seed)
    return {
        "before": before.mean(axis=1), "after": after.mean(axis=1), "change": change.mean(axis=1),
        "low": low[:n_measures], "high": high[:n_measures], "p_paired": p, "excess": beyond.mean(axis=1),
        "excess_low": low[n_measures:], "excess_high": high[n_measures:],
        "control_change": controls.mean(axis=2) - before.mean(axis=1)[:, None],
    }  # fmt: skip


def _ranks(effect: dict[str, Floats], measures: Sequence[str], side: str) -> dict[str, Floats]:
    """z, p_rank and p_corrected (measure, group), of which the last group is all clips and not corrected for."""
    change, controls = effect["change"], effect["control_change"]
    p, corrected, z = (np.full(change.shape, np.nan) for _ in range(3))
    if controls.shape[-1]:
        differ = np.ptp(np.round(controls, 12), axis=-1) > 0  # what sums rounded to is no difference
        z = np.divide(effect["excess"], controls.std(axis=-1), out=np.full(change.shape, np.nan), where=differ)
        for i, name in enumerate(measures):
            every = np.column_stack([change[i], controls[i]])  # (group, the intervention and its controls)
            if side == "either":
                evidence = np.abs(every - every.mean(axis=1, keepdims=True))
            else:
                evidence = every * (HARM[name] if side == "harm" or name in TARGET_MEASURES else -HARM[name])
            evidence = np.round(evidence, 12)  # changes of shares tie exactly, whatever their sums rounded to
            for part in (slice(None, -1), slice(-1, None)):
                own = evidence[part].T
                tested = np.isfinite(own).all(axis=0)
                p[i, part], corrected[i, part] = exceedance(own[0], own[1:], tested)
    return {"z": z, "p_rank": p, "p_corrected": corrected}
