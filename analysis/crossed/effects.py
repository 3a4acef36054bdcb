"""Mean squares of a crossed layout, neuron by neuron, and what they say of each effect.

Goal: all arithmetic of one neuron in machine code, so that no result depends on what is computed beside it.
Conventions: r[a, j, t, m] is the response to sound j of audio class a with wording m of text class t; a bar over r with
some indices is the mean over the others. Sounds are C (within A), wordings W (within T). Mean squares are (term,
neuron) in the order of `TERMS`, in the squared unit of the responses; s are variances of category means in it. All of a
neuron without a finite response for each pair is NaN.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adders import compiled

Floats = NDArray[np.float64]
Sizes = tuple[int, int, int, int]
"""K, J, L, M."""

TERMS = ("A", "C", "T", "W", "AT", "AW", "CT", "E")
EFFECTS = ("A", "T", "AT")
DRAWS = 400  # of the mean squares; an even number
CONFIDENCE = 0.95
TILE = 64  # neurons, whose responses lie side by side in what is read
NOTHING = 1e-24  # of all squares: less is left by rounding alone


def degrees(sizes: Sizes) -> Floats:
    """Degrees of freedom (term) of the mean squares."""
    K, J, L, M = sizes
    of = (K - 1, K * (J - 1), L - 1, L * (M - 1), (K - 1) * (L - 1), (K - 1) * L * (M - 1), K * (J - 1) * (L - 1),
          K * (J - 1) * L * (M - 1))  # fmt: skip
    return np.array(of, np.float64)


def mean_squares(responses: NDArray[Any], sizes: Sizes) -> Floats:
    """(pair, neuron), pairs in the order (a, j, t, m) -> (term, neuron).

    MS_A  = JLM sum (r_a - r)^2 / (K-1)               MS_AT = JM sum (r_at - r_a - r_t + r)^2 / ((K-1)(L-1))
    MS_C  = LM sum (r_aj - r_a)^2 / (K(J-1))          MS_AW = J sum (r_atm - r_at - r_tm + r_t)^2 / ((K-1)L(M-1))
    MS_T  = KJM sum (r_t - r)^2 / (L-1)               MS_CT = M sum (r_ajt - r_aj - r_at + r_a)^2 / (K(J-1)(L-1))
    MS_W  = KJ sum (r_tm - r_t)^2 / (L(M-1))          MS_E  = sum (r - r_atm - r_ajt + r_at)^2 / (K(J-1)L(M-1))
    """
    found = np.empty((len(TERMS), responses.shape[1]))
    for first in range(0, responses.shape[1], TILE):
        part = slice(first, first + TILE)
        by_neuron = np.ascontiguousarray(responses[:, part].T, np.float64)
        _squares(by_neuron, *sizes, found[:, part])
    total = found.sum(axis=0)
    found[found <= NOTHING * total] = 0
    return found / degrees(sizes)[:, None]


@compiled
def _squares(values: Any, n_a: int, n_j: int, n_t: int, n_m: int, found: Any) -> None:
    """Sums of squares (term, neuron) of responses (neuron, pair), which are shifted in place."""
    ajt, atm = np.empty((n_a, n_j, n_t)), np.empty((n_a, n_t, n_m))
    at, aj, tm = np.empty((n_a, n_t)), np.empty((n_a, n_j)), np.empty((n_t, n_m))
    a_, t_ = np.empty(n_a), np.empty(n_t)
    for neuron in range(len(values)):
        shift = values[neuron, 0]  # that of a constant neuron is exact
        row = values[neuron].reshape(n_a, n_j, n_t, n_m)
        ajt[:], atm[:], tm[:], aj[:], at[:] = 0, 0, 0, 0, 0
        for a in range(n_a):
            for j in range(n_j):
                for t in range(n_t):
                    for m in range(n_m):
                        value = row[a, j, t, m] - shift
                        row[a, j, t, m] = value
                        ajt[a, j, t] += value
                        atm[a, t, m] += value
        for a in range(n_a):
            for t in range(n_t):
                for j in range(n_j):
                    aj[a, j] += ajt[a, j, t]
                    ajt[a, j, t] /= n_m
                for m in range(n_m):
                    tm[t, m] += atm[a, t, m]
                    at[a, t] += atm[a, t, m]
                    atm[a, t, m] /= n_j
        a_[:], t_[:] = 0, 0
        every = 0.0
        for a in range(n_a):
            for t in range(n_t):
                a_[a] += at[a, t]
                t_[t] += at[a, t]
                every += at[a, t]
        at /= n_j * n_m
        aj /= n_t * n_m
        tm /= n_a * n_j
        a_ /= n_j * n_t * n_m
        t_ /= n_a * n_j * n_m
        every /= n_a * n_j * n_t * n_m
        ss_a = ss_c = ss_t = ss_w = ss_at = ss_aw = ss_ct = ss_e = 0.0
        for t in range(n_t):
            ss_t += (t_[t] - every) ** 2
            for m in range(n_m):
                ss_w += (tm[t, m] - t_[t]) ** 2
        for a in range(n_a):
            ss_a += (a_[a] - every) ** 2
            for j in range(n_j):
                ss_c += (aj[a, j] - a_[a]) ** 2
            for t in range(n_t):
                cell = at[a, t]
                ss_at += (cell - a_[a] - t_[t] + every) ** 2
                for m in range(n_m):
                    ss_aw += (atm[a, t, m] - cell - tm[t, m] + t_[t]) ** 2
                for j in range(n_j):
                    ss_ct += (ajt[a, j, t] - aj[a, j] - cell + a_[a]) ** 2
                    for m in range(n_m):
                        ss_e += (row[a, j, t, m] - atm[a, t, m] - ajt[a, j, t] + cell) ** 2
        found[0, neuron], found[1, neuron] = n_j * n_t * n_m * ss_a, n_t * n_m * ss_c
        found[2, neuron], found[3, neuron] = n_a * n_j * n_m * ss_t, n_a * n_j * ss_w
        found[4, neuron], found[5, neuron] = n_j * n_m * ss_at, n_j * ss_aw
        found[6, neuron], found[7, neuron] = n_m * ss_ct, ss_e


def variances(squares: Floats, sizes: Sizes) -> Floats:
    """s (effect, neuron) of A, T and AT: unbiased, so that they are below 0 as often as above where nothing is there.

    s_A  = (MS_A - MS_C - MS_AW + MS_E) / (JLM)
    s_T  = (MS_T - MS_W - MS_CT + MS_E) / (KJM)
    s_AT = (MS_AT - MS_AW - MS_CT + MS_E) / (JM)
    """
    (K, J, L, M), (a, c, t, w, at, aw, ct, e) = sizes, squares
    return np.stack([(a - c - aw + e) / (J * L * M), (t - w - ct + e) / (K * J * M), (at - aw - ct + e) / (J * M)])


OF_EFFECT = {"A": (0, (1, 5)), "T": (2, (3, 6)), "AT": (4, (5, 6))}
"""Which mean square is the effect's, and which two are its noise."""


def p_values(squares: Floats, sizes: Sizes) -> Floats:
    """p (effect, neuron) of the quasi-F ratios of A, T and AT; NaN where nothing of the effect or its noise varies.

        F'_A = (MS_A + MS_E) / (MS_C + MS_AW),   F'_T = (MS_T + MS_E) / (MS_W + MS_CT),
        F'_AT = (MS_AT + MS_E) / (MS_AW + MS_CT)

    with Satterthwaite's degrees of freedom of each sum, (sum of MS)^2 / sum of MS^2/df.
    Clark 1973, "The language-as-fixed-effect fallacy"; Satterthwaite 1946.
    """
    from scipy.special import fdtrc  # takes a quarter of a second to load

    df = degrees(sizes)
    found = np.full((len(EFFECTS), squares.shape[1]), np.nan)
    for p, (own, noise) in zip(found, OF_EFFECT.values(), strict=True):
        above, below = squares[own] + squares[7], squares[noise[0]] + squares[noise[1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = above / below
            of_above = satterthwaite(squares, df, (own, 7))
            of_below = satterthwaite(squares, df, noise)
        certain = (below == 0) & (above > 0)
        tested = below > 0
        p[tested] = fdtrc(of_above[tested], of_below[tested], ratio[tested])
        p[tested & (above == 0)] = 1
        p[certain] = 0
    return found


def satterthwaite(squares: Floats, df: Floats, terms: tuple[int, int]) -> Floats:
    """Degrees of freedom (neuron) of the sum of two mean squares; NaN where both are 0."""
    one, other = terms
    of_both = (squares[one] + squares[other]) ** 2
    found: Floats = of_both / (squares[one] ** 2 / df[one] + squares[other] ** 2 / df[other])
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """What mean squares are multiplied by in each draw, the same for every neuron."""

    factors: Floats
    """df / chi-square of as many (term, draw), of the random terms C, W, AW, CT and E."""
    normal: Floats
    """Of the effects A and T (effect, draw)."""


@cache
def draws_of(sizes: Sizes, seed: int) -> Draws:
    """Draws of a seed: quantiles at equal steps, each term's in an order of its own, so that few draws do.

    Half of them are the others with the modalities exchanged: intervals change places with them exactly.
    """
    from scipy.special import chdtri, ndtri

    half = DRAWS // 2
    df = dict(zip(TERMS, degrees(sizes), strict=True))
    steps, rng = (np.arange(half) + 0.5) / half, np.random.default_rng([seed, DRAWS])
    drawn = {name: rng.permutation(steps) for name in ("C", "W", "AW", "CT", "A", "T", "E")}
    other = {"C": "W", "W": "C", "AW": "CT", "CT": "AW", "A": "T", "T": "A", "E": "E"}
    both = {name: np.concatenate([own, drawn[other[name]]]) for name, own in drawn.items()}
    factors = np.stack([df[name] / chdtri(df[name], both[name]) for name in ("C", "W", "AW", "CT", "E")])
    return Draws(factors=factors, normal=np.stack([ndtri(both[name]) for name in ("A", "T")]))


def intervals(squares: Floats, sizes: Sizes, seed: int) -> Floats:
    """Ends (low and high, neuron) of the 95 % interval of GC = d_A / (d_A + d_T), d = sqrt(max(s, 0)).

    In each draw theta = MS df / chi2(df) for the random terms; noise_A = theta_C + theta_AW - theta_E, at least 0;
    x = MS_A (K-1) / noise_A; lambda = (sqrt(x) + z)^2 - (K-1), z normal; s_A = lambda noise_A / ((K-1) JLM), and T
    likewise. A draw in which neither effect is there may have been any GC. Ends are quantiles of GC over the draws.
    """
    draws, (K, J, L, M) = draws_of(sizes, seed), sizes
    ends = np.empty((2, squares.shape[1]))
    _intervals(np.ascontiguousarray(squares.T), draws.factors, draws.normal, K - 1, L - 1, J * L * M, K * J * M, ends)
    return ends


@compiled
def _drawn(square: Any, noise: Any, z: Any, df: int, n: int) -> Any:
    """d of an effect of one draw."""
    if noise <= 0:
        return np.sqrt(square / n)
    root = np.sqrt(square * df / noise) + z
    return np.sqrt(max((root * root - df) * noise / (df * n), 0.0))


@compiled
def _intervals(squares: Any, factors: Any, normal: Any, df_a: int, df_t: int, n_a: int, n_t: int, ends: Any) -> None:
    n_draws = factors.shape[1]
    gc = np.empty(n_draws)
    share = (1 - CONFIDENCE) / 2 * (n_draws - 1)
    below = int(share)
    for neuron in range(len(squares)):
        ms = squares[neuron]
        known, unknown = 0, 0
        for i in range(n_draws):
            theta_e = ms[7] * factors[4, i]
            of_sound = ms[1] * factors[0, i] + ms[5] * factors[2, i] - theta_e
            of_text = ms[3] * factors[1, i] + ms[6] * factors[3, i] - theta_e
            d_a, d_t = _drawn(ms[0], of_sound, normal[0, i], df_a, n_a), _drawn(ms[2], of_text, normal[1, i], df_t, n_t)
            if d_a + d_t > 0:
                gc[known] = d_a / (d_a + d_t)
                known += 1
            else:
                unknown += 1
        if not ms[0] + ms[2] + ms[7] >= 0:  # NaN
            ends[0, neuron], ends[1, neuron] = np.nan, np.nan
            continue
        ordered = np.sort(gc[:known])
        for end in range(2):
            # From the low end unknown draws come first, as 0, from the high end likewise, as 1.
            edge, values = float(end), np.empty(2)
            for step in range(2):
                at = below + step - unknown
                if at < 0:
                    values[step] = edge
                else:
                    values[step] = ordered[at] if end == 0 else ordered[known - 1 - at]
            ends[end, neuron] = values[0] + (values[1] - values[0]) * (share - below)
