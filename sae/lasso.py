"""Lasso paths: factors as sums of few codes, from the strongest penalty on.

Goal: what is to be known of a path at a fraction of its cost: codes stay sparse, each penalty goes on from the one
before, and none is tried beyond what held-out clips have any use for.
Conventions: codes are float64 (clip, code), a scipy.sparse.csr_array or an array. Weights are those of codes divided by
their deviation over the clips that are fitted to, and of a factor of deviation 1; codes that are constant there have
weight 0. A penalty is alpha of

    1 / (2 n) |y - y^|^2 + alpha |w|_1

This file alone knows scikit-learn.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

PENALTIES = tuple(0.01 ** (i / 19) for i in range(20))
"""Shares of the least penalty that leaves no weight."""
MAX_STALE_PENALTIES = 3  # without any gain, after which no weaker one is tried
MAX_SPARSE = 0.25  # share of codes that are not 0, up to which they are kept as sparse ones
MAX_ITERATIONS = 1000

Floats: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = Any
"""An array or a sparse one: scipy's have no types."""


def as_codes(values: Any) -> Codes:
    """Codes (clip, code) in whichever of the two forms is the quicker one. Raises ValueError unless all are finite."""
    given: Codes = sp.csr_array(values, copy=True) if sp.issparse(values) else np.asarray(values)
    if sp.issparse(given):
        given.sum_duplicates()
    n_values = given.shape[0] * given.shape[1]
    if not np.isfinite(given.data if sp.issparse(given) else given).all():
        raise ValueError("codes hold NaN or infinity; expected numbers for every clip that is ok")
    n_stored = given.count_nonzero() if sp.issparse(given) else np.count_nonzero(given)
    if n_stored <= MAX_SPARSE * n_values:
        return sp.csr_array(given, dtype=np.float64)
    return np.asarray(given.todense() if sp.issparse(given) else given, np.float64)


class Standardised:
    """Codes of some clips on one scale, for as many factors as there are."""

    def __init__(self, codes: Codes, clips: NDArray[np.intp]) -> None:
        """clips: the positions of those that are fitted to."""
        self.n_codes, self.n = codes.shape[1], len(clips)
        own: Codes = codes[clips]
        self.sparse = bool(sp.issparse(own))
        self.values: Codes
        ends = (own.max(axis=0), own.min(axis=0))
        highest, lowest = (end.toarray().ravel() for end in ends) if self.sparse else ends
        self.columns = np.flatnonzero(highest > lowest)
        own = own[:, self.columns]
        mean = np.asarray(own.mean(axis=0)).ravel()
        if self.sparse:
            own = own.tocsc()
            of = np.repeat(np.arange(len(mean)), np.diff(own.indptr))
            squares = np.bincount(of, (own.data - mean[of]) ** 2, len(mean))
            self.deviation = np.sqrt((squares + (self.n - np.diff(own.indptr)) * mean**2) / self.n)
            self.values = sp.csc_matrix(own)
            self.values.data = own.data / self.deviation[of]
        else:
            own = own - mean
            self.deviation = np.sqrt(np.square(own).mean(axis=0))
            self.values = np.asfortranarray(own / self.deviation)
        self.offset = mean / self.deviation

    def largest_penalty(self, y: Floats) -> float:
        """The least penalty that leaves no weight, for a factor (clip) of mean 0."""
        return float(np.abs(self.values.T @ y).max(initial=0.0)) / self.n

    def path(self, y: Floats, penalties: Sequence[float], max_iterations: int = MAX_ITERATIONS) -> Iterator[Floats]:
        """Weights (code that varies) of a factor (clip) of mean 0 by each penalty, each begun from the one before."""
        if not len(self.columns):
            yield from (np.zeros(0) for _ in penalties)
            return
        # Sparse codes are centred by the solver as it goes, others are already.
        model = Lasso(warm_start=True, fit_intercept=self.sparse, copy_X=False, max_iter=max_iterations)
        for penalty in penalties:
            model.alpha = penalty
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # weak ones need not end: held-out clips decide
                model.fit(self.values, y, check_input=False)
            yield np.array(model.coef_, np.float64)

    def predict(self, weights: Floats, codes: Codes | None = None) -> Floats:
        """What weights add to a factor's mean, for the clips fitted to, or other codes (clip, code that varies)."""
        if codes is None:
            sums = self.values @ weights - self.sparse * (self.offset @ weights)
        else:
            sums = codes @ (weights / self.deviation) - self.offset @ weights
        return np.asarray(sums, np.float64)

    def whole(self, weights: Floats) -> Floats:
        """Weights (code) of all codes."""
        every = np.zeros(self.n_codes)
        every[self.columns] = weights
        return every


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """Clips that are fitted to, and clips held out from them."""

    fit: NDArray[np.intp]
    held_out: NDArray[np.intp]
    standardised: Standardised
    codes: Codes
    """Of the clips held out (clip, code that varies)."""

    @classmethod
    def of(cls, codes: Codes, fit: NDArray[np.intp], held_out: NDArray[np.intp]) -> "Side":
        """Of codes of all clips, by positions."""
        own = Standardised(codes, fit)
        return cls(fit=fit, held_out=held_out, standardised=own, codes=codes[held_out][:, own.columns])

    def path(self, y: Floats, penalties: Sequence[float]) -> Iterator[tuple[Floats, Floats]]:
        """By each penalty the weights (code that varies), and what is left of a factor of held-out clips (clip).

        y: of all clips.
        """
        mean = y[self.fit].mean()
        for weights in self.standardised.path(y[self.fit] - mean, penalties):
            yield weights, y[self.held_out] - mean - self.standardised.predict(weights, self.codes)


def chosen_path(outer: Side, inner: Sequence[Side], y: Floats) -> list[tuple[Floats, Floats]]:
    """Weights and what is left of held-out clips, as `Side.path`, by each penalty down to the one that is chosen.

    y: of all clips, of deviation 1 over those of `outer` that are fitted to. inner: of these clips.
    The chosen penalty is the one with the least squared error, the mean over `inner`. The search goes from strong to
    weak, and ends where three penalties have brought nothing.
    """
    own = y[outer.fit]
    largest = outer.standardised.largest_penalty(own - own.mean())
    if not largest:
        return list(outer.path(y, (1.0,)))
    penalties = [largest * share for share in PENALTIES]
    errors: list[float] = []
    for left in zip(*(side.path(y, penalties) for side in inner), strict=True):
        errors.append(float(np.mean([np.square(of).mean() for _, of in left])))
        if len(errors) - 1 - int(np.argmin(errors)) >= MAX_STALE_PENALTIES:
            break
    return list(outer.path(y, penalties[: int(np.argmin(errors)) + 1]))
