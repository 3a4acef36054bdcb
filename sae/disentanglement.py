"""Disentanglement: how well codes tell factors of held-out clips, and how few codes it takes.

Goal: informativeness and completeness that depend neither on the number of codes nor on clips that were learnt from,
undefined where a factor is not told at all; and the published arithmetic beside them, by its name.
Conventions: codes (clip, code) are float, an array or a sparse one; factors (clip, factor). Groups (clip), such as
singers, are never on both sides of a fold, in the inner folds either. Units of codes and factors do not matter.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from .lasso import Floats, Side, Standardised, as_codes, chosen_path

FOLDS, MIN_FOLDS = 5, 3
INNER_FOLDS = 10  # or as many as there are groups to fit to: a penalty chosen on much smaller parts is too strong
SHARE = 0.9  # of R2, until which codes are counted
ERRORS = 2  # standard errors by which R2 must exceed 0
PENALTY, MAX_ITERATIONS, EPSILON = 0.1, 10_000, 1e-6  # published


def disentangle(
    codes: Any,
    factors: ArrayLike,
    groups: Sequence[str] | NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    folds: int = FOLDS,
) -> xr.Dataset:
    """Of factors (clip, factor) by codes (clip, code): the numbers below by factor, and `published_dci`'s.

        r2                1 - sum (y - y^)^2 / sum (y - mean of y)^2 of a fold's held-out groups, at most 1, by the
                          Lasso whose penalty was chosen within the groups that it was fitted to; mean over folds
        r2_se             its standard error over folds
        r2_fold           (factor, fold)
        predicted         whether r2 - 2 r2_se > 0
        codes_until       codes with a weight where the path from the strongest penalty on first has 90 % of a fold's r2
        effective_codes   exp(entropy of |w|) of the chosen weights: m where the weight lies evenly on m codes
    The last two are means over folds whose r2 exceeds 0, and NaN for a factor that is not predicted. All of a factor is
    NaN that is constant in a fold, on either side. names: of the factors.
    Raises ValueError for fewer than 3 folds, fewer groups than folds, values that are not finite, and shapes that do
    not fit.
    """
    x, y, of = as_codes(codes), np.asarray(factors, np.float64), np.asarray(groups).astype(str)
    if y.ndim != 2 or not x.shape[0] == len(y) == len(of):
        raise ValueError(f"codes {x.shape}, factors {y.shape} and groups {of.shape}; expected as many clips in each")
    listed = [str(i) for i in range(y.shape[1])] if names is None else list(names)
    if not np.isfinite(y).all():
        name = listed[int(np.flatnonzero(~np.isfinite(y).all(axis=0))[0])]
        raise ValueError(f"factor {name} holds NaN or infinity; expected numbers: leave those clips out")
    if folds < MIN_FOLDS:
        raise ValueError(f"{folds} folds; expected at least {MIN_FOLDS}")
    fold = folds_of(of, folds)
    found = np.full((3, y.shape[1], folds), np.nan)
    with threadpool_limits(1):
        for i in range(folds):
            fit, held_out = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
            if (n_groups := len(set(of[fit].tolist()))) < MIN_FOLDS:
                raise ValueError(
                    f"{len(set(of.tolist()))} groups in {folds} folds leave {n_groups} to fit to; expected at least "
                    f"{MIN_FOLDS}, by which the penalty is chosen: choose another column, or more folds"
                )
            n_inner = min(INNER_FOLDS, n_groups)
            parts = folds_of(of[fit], n_inner)
            inner = [Side.of(x, fit[parts != j], fit[parts == j]) for j in range(n_inner)]
            outer = Side.of(x, fit, held_out)
            for j, values in enumerate(y.T):
                found[:, j, i] = _of_fold(outer, inner, values)
        published = published_dci(x, y)
    r2 = found[0]
    mean, error = r2.mean(axis=1), r2.std(axis=1, ddof=1) / folds**0.5
    predicted = mean - ERRORS * error > 0
    counts = {
        name: np.where(predicted, np.nansum(values, axis=1) / np.maximum((~np.isnan(values)).sum(axis=1), 1), np.nan)
        for name, values in zip(("codes_until", "effective_codes"), found[1:], strict=True)
    }
    variables = {"r2": mean, "r2_se": error, "predicted": predicted, **counts}
    own = xr.Dataset(
        {**{name: ("factor", values) for name, values in variables.items()}, "r2_fold": (("factor", "fold"), r2)},
        attrs={"n_clips": len(y), "n_groups": len(set(of.tolist())), "folds": folds},
    )
    return own.merge(published).assign_coords(factor=listed)


def folds_of(groups: NDArray[Any], n: int) -> NDArray[np.intp]:
    """A fold from 0 for each clip, by groups (clip), the folds about equal in clips.

    Large groups come first, each into the fold that has the fewest clips yet; those of one size in an order that their
    names alone decide. Raises ValueError for fewer groups than folds.
    """
    sizes = Counter(groups.tolist())
    if len(sizes) < n:
        raise ValueError(
            f"{len(sizes)} groups for {n} folds; expected as many at least, so that each fold holds out groups of its "
            "own: choose another column, or fewer folds"
        )
    order = sorted(sizes, key=lambda name: (-sizes[name], hashlib.sha256(str(name).encode()).digest()))
    clips, of = [0] * n, {}
    for name in order:
        of[name] = clips.index(min(clips))
        clips[of[name]] += sizes[name]
    return np.array([of[name] for name in groups.tolist()])


def _of_fold(outer: Side, inner: Sequence[Side], y: Floats) -> tuple[float, float, float]:
    """R2 on held-out clips, codes until 90 % of it, and effective codes; NaN where it is not told at all."""
    nan = float("nan")
    if any(np.ptp(y[clips]) == 0 for clips in (outer.fit, outer.held_out)):
        return nan, nan, nan
    standard = (y - y[outer.fit].mean()) / y[outer.fit].std()
    total = np.square(standard[outer.held_out] - standard[outer.held_out].mean()).sum()
    path = chosen_path(outer, inner, standard)
    r2 = [1 - float(np.square(left).sum() / total) for _, left in path]
    if r2[-1] <= 0:
        return r2[-1], nan, nan
    first = next(i for i, value in enumerate(r2) if value >= SHARE * r2[-1])
    return r2[-1], float(np.count_nonzero(path[first][0])), effective_number(path[-1][0])


def effective_number(weights: ArrayLike) -> float:
    """exp(H), H = - sum of p ln p in nats, p = |w| / sum of |w|: m where m weights are equal and the others 0.

    From 1 to the number of weights; NaN where all are 0.
    """
    size = np.abs(np.asarray(weights, np.float64))
    p = size[size > 0] / size.sum() if size.any() else np.full(1, np.nan)
    return float(np.exp(-(p * np.log(p)).sum()))


def published_dci(codes: Any, factors: ArrayLike) -> xr.Dataset:
    """The published arithmetic: a Lasso of penalty 0.1 on standardised clips, scored on these same clips.

        published_r2                 (factor)
        published_completeness       (factor), 1 - H_f / ln(codes), of p = |w| / (sum over codes + 1e-6) and
                                     H = - sum of p ln(p + 1e-6)
        published_disentanglement    (code), likewise over factors
        published_importance         (code), sum of |w| over factors / (sum of all + 1e-6)
        published_average            the mean over codes of importance x disentanglement, as it is computed there
        weighted_disentanglement     their sum, which is the average that is meant
    What it does, it does: a factor that no code tells has completeness 1, codes that never fire count in ln(codes).
    A constant factor has R2 NaN. One code, or one factor, has no ln to divide by: NaN.
    """
    x, y = as_codes(codes), np.asarray(factors, np.float64)
    standardised = Standardised(x, np.arange(len(y)))
    weights, r2 = np.zeros((x.shape[1], y.shape[1])), np.full(y.shape[1], np.nan)
    for j, values in enumerate(y.T):
        if np.ptp(values) == 0:
            continue
        own = (values - values.mean()) / values.std()
        (found,) = standardised.path(own, (PENALTY,), MAX_ITERATIONS)
        weights[:, j] = np.abs(standardised.whole(found))
        r2[j] = 1 - float(np.square(own - standardised.predict(found)).mean())
    importance = weights.sum(axis=1) / (weights.sum() + EPSILON)
    of_codes = _one_less_entropy(weights, axis=1)
    return xr.Dataset(
        {
            "published_r2": ("factor", r2),
            "published_completeness": ("factor", _one_less_entropy(weights, axis=0)),
            "published_disentanglement": ("code", of_codes),
            "published_importance": ("code", importance),
            "published_average": ((), (importance * of_codes).mean()),
            "weighted_disentanglement": ((), (importance * of_codes).sum()),
        }
    )


def _one_less_entropy(weights: Floats, axis: int) -> Floats:
    """1 - H / ln n along an axis of n weights."""
    p = weights / (weights.sum(axis=axis, keepdims=True) + EPSILON)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 + (p * np.log(p + EPSILON)).sum(axis=axis) / np.log(weights.shape[axis]))
