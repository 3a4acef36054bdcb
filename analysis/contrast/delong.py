"""How sure an AUC is: DeLong's variance, of clips that come alone or in groups.

Conventions: as in `ranks`. Of a category, its clips are the positives, all other labelled clips the negatives.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adders import compiled
from ..null.resampling import Arrangement
from .ranks import Floats, Ranked


def delong_variance(ranked: Ranked, arrangement: Arrangement, of: NDArray[np.int64]) -> Floats:
    """Variance of the AUC (category, neuron): of the arrangement's clips, `of` in each category.

    Of each positive, V10 is the share of negatives below it; of each negative, V01 the share of positives above it;
    ties count half. With sums over the clips of a unit, less the AUC as often as the unit has
    positives or negatives, and k units that have any,

        S10 = k / (k - 1) / n_in sum (V10)^2,  S01 = k / (k - 1) / n_out sum (V01)^2,  S11 = k / (k - 1) sum V10 V01
        variance = S10 / n_in + S01 / n_out + 2 S11 / (n_in n_out)

    which of units of one clip is DeLong's. NaN where positives or negatives are of one unit.
    DeLong et al. 1988; Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data".
    """
    codes, cells, units = arrangement.codes, arrangement.cells, arrangement.first_and_unit[1]
    variance = np.empty((len(ranked.order), len(of)))
    if (cells.sum(axis=1) == 1).all():
        _of_clips(ranked.values, ranked.order, codes, of, variance)
    else:
        _of_units(ranked.values, ranked.order, codes, units, cells, of, variance)
    return variance.T


@compiled
def _of_clips(values: Any, order: Any, codes: Any, of: Any, variance: Any) -> None:
    """Of values and order (neuron, clip). V01 is the same for all negatives between two positives."""
    n, n_categories = len(codes), len(of)
    below, tied = np.zeros(n_categories), np.zeros(n_categories)
    seen = np.zeros(n_categories, np.int64)  # clips that are accounted for
    sums = np.zeros((n_categories, 4))  # of V10 and V01, and of their squares
    for neuron in range(len(order)):
        row, clips = values[neuron], order[neuron]
        below[:], seen[:], sums[:] = 0, 0, 0
        first = 0
        while first < n:
            last = first
            value = row[clips[first]]
            while last < n and row[clips[last]] == value:
                tied[codes[clips[last]]] += 1
                last += 1
            last = max(last, first + 1)  # NaN is not even as high as itself
            for i in range(first, last):
                c = codes[clips[i]]
                same = tied[c]
                if same == 0 or of[c] == n:
                    continue
                v10 = (first - below[c] + 0.5 * (last - first - same)) / (n - of[c])
                sums[c, 0] += same * v10
                sums[c, 1] += same * v10 * v10
                v01 = (of[c] - below[c]) / of[c]
                sums[c, 2] += (first - seen[c]) * v01
                sums[c, 3] += (first - seen[c]) * v01 * v01
                v01 -= 0.5 * same / of[c]
                sums[c, 2] += (last - first - same) * v01
                sums[c, 3] += (last - first - same) * v01 * v01
                below[c] += same
                seen[c] = last
                tied[c] = 0
            first = last
        for c in range(n_categories):
            n_in, n_out = of[c], n - of[c]
            tied[c] = 0
            if n_in < 2 or n_out < 2:
                variance[neuron, c] = np.nan
                continue
            s10 = max(0.0, sums[c, 1] - sums[c, 0] * sums[c, 0] / n_in) / (n_in - 1)
            s01 = max(0.0, sums[c, 3] - sums[c, 2] * sums[c, 2] / n_out) / (n_out - 1)
            variance[neuron, c] = s10 / n_in + s01 / n_out


@compiled
def _of_units(values: Any, order: Any, codes: Any, units: Any, cells: Any, of: Any, variance: Any) -> None:
    n, n_categories, n_units = len(codes), len(of), len(cells)
    below, tied = np.zeros(n_categories), np.zeros(n_categories)
    v10, v01 = np.zeros((n_units, n_categories)), np.zeros((n_units, n_categories))
    for neuron in range(len(order)):
        below[:], v10[:], v01[:] = 0, 0, 0
        first = 0
        while first < n:
            last = first + 1
            value = values[neuron, order[neuron, first]]
            while last < n and values[neuron, order[neuron, last]] == value:
                last += 1
            tied[:] = 0
            for i in range(first, last):
                tied[codes[order[neuron, i]]] += 1
            for i in range(first, last):
                clip = order[neuron, i]
                own, unit = codes[clip], units[clip]
                if n > of[own]:
                    v10[unit, own] += ((first - below[own]) + 0.5 * (last - first - tied[own])) / (n - of[own])
                for c in range(n_categories):
                    v01[unit, c] += (of[c] - below[c] - 0.5 * tied[c]) / max(1, of[c])
                v01[unit, own] -= (of[own] - below[own] - 0.5 * tied[own]) / of[own]  # a positive is no negative
            for c in range(n_categories):
                below[c] += tied[c]
            first = last
        for c in range(n_categories):
            n_in, n_out = of[c], n - of[c]
            auc = 0.0
            for unit in range(n_units):
                auc += v10[unit, c]
            auc /= max(1, n_in)
            with_in, with_out, either = 0, 0, 0
            s10, s01, s11 = 0.0, 0.0, 0.0
            for unit in range(n_units):
                m_in = cells[unit, c]
                m_out = cells[unit].sum() - m_in
                a, b = v10[unit, c] - m_in * auc, v01[unit, c] - m_out * auc
                with_in += m_in > 0
                with_out += m_out > 0
                either += (m_in > 0) or (m_out > 0)
                s10 += a * a
                s01 += b * b
                s11 += a * b
            if with_in < 2 or with_out < 2:
                variance[neuron, c] = np.nan
                continue
            s10 *= with_in / (with_in - 1) / n_in
            s01 *= with_out / (with_out - 1) / n_out
            s11 *= either / (either - 1)
            total = s10 / n_in + s01 / n_out + 2 * s11 / (n_in * n_out)
            variance[neuron, c] = max(0.0, total)
