"""Other ways to say which neuron is specific for which category, and how far they agree with AAPE.

Goal: scores to compare selections with, on equal terms: every selector picks as many neurons per category.
Conventions: one category against the rest of the labelled clips. Scores are float64 (layer, neuron, category), high
for a neuron that is active, or strongly active, in the category; NaN where clips are too few or nothing varies.
Lazy in, lazy out. "rest" pools the clips of all other categories.

LAP, MAD and CAS are selectors of Zhao, Schuller and Sisman, "Discovering and Causally Validating Emotion-Sensitive
Neurons in Large Audio-Language Models", arXiv 2601.03115, as we read them: they count generated tokens, we clips.
Their fourth, LAPE, is the rule "lape" of `rules`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..rates import activation_counts, activation_probability, category_mean
from .selection import Selection
from .selectivity import CELL_DIMS, ONE_CHUNK, in_one_chunk


def rate_difference(active: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Activation rate in the category minus that in the rest: (layer, neuron, category) in [-1, 1].

    active, labels: as for `activation_counts`.
    """
    inside, outside, n_in, n_out = _inside_and_outside(active, labels)
    score = inside / _positive(n_in) - outside / _positive(n_out)
    return _named(score, "rate_difference", "difference of activation rates", "1")


def mutual_information(active: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Mutual information of "active" and "of this category", in nats, negative for neurons that avoid the category.

        I = sum over a, c in {0, 1} of p(a, c) ln(p(a, c) / (p(a) p(c))),   0 ln 0 = 0

    times -1 where the rate in the category is below that in the rest: I alone has no sign.
    Magnitude at most ln 2. active, labels: as for `activation_counts`.
    """
    inside, outside, n_in, n_out = _inside_and_outside(active, labels)
    n = n_in + n_out
    score = xr.zeros_like(inside, dtype=np.float64)
    for cell, of_activity, of_category in (
        (inside, inside + outside, n_in),
        (outside, inside + outside, n_out),
        (n_in - inside, n - inside - outside, n_in),
        (n_out - outside, n - inside - outside, n_out),
    ):
        some = cell > 0
        independent = (of_activity * of_category).where(some, 1)
        score = score + cell / n * np.log((cell * n).where(some, 1) / independent)
    liked = inside * n_out >= outside * n_in
    score = score.where(liked, -score).where((n_in > 0) & (n_out > 0))
    return _named(score, "mutual_information", "signed mutual information", "nat")


def d_prime(mean: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Distance of the category from the rest in standard deviations: (layer, neuron, clip) -> (layer, neuron,
    category).

        d' = (m_in - m_out) / sqrt((v_in + v_out) / 2)

    m and v are mean and variance (divided by n - 1) of the clips' mean activations.
    """
    difference, q_in, q_out, n_in, n_out = _moments(mean, labels)
    spread = (q_in / _positive(n_in - 1) + q_out / _positive(n_out - 1)) / 2
    return _named(difference / np.sqrt(_positive(spread)), "d_prime", "d'", "1")


def point_biserial(mean: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """Correlation of a clip's mean activation with "of this category": (layer, neuron, category) in [-1, 1].

        r = (m_in - m_out) / s sqrt(n_in n_out / n^2)

    s is the standard deviation (divided by n) over all labelled clips.
    """
    difference, q_in, q_out, n_in, n_out = _moments(mean, labels)
    n = n_in + n_out
    variance = (q_in + q_out + n_in * n_out / n * difference**2) / n
    score = difference / np.sqrt(_positive(variance)) * np.sqrt(n_in * n_out) / n
    return _named(score, "point_biserial", "point-biserial correlation", "1")


def probability(active: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """LAP: the share of the category's clips in which a neuron is active, P: (layer, neuron, category) in [0, 1].

    By it alone, neurons that are always active come first in every category. active, labels: as for
    `activation_counts`.
    """
    p = activation_probability(active, labels).drop_vars("n_clips")
    return _named(p, "probability", "activation probability", "1")


def probability_margin(active: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """CAS, contrastive activation selection: (layer, neuron, category) in [-1, 1].

        margin = P - highest P of any other category

    At most one category of a neuron has a positive margin. NaN where no other category has clips. active, labels: as
    for `activation_counts`.
    """
    p = activation_probability(active, labels).drop_vars("n_clips")
    margin: xr.DataArray = xr.apply_ufunc(
        _margin,
        in_one_chunk(p, ["category"]),
        input_core_dims=[["category"]],
        output_core_dims=[["category"]],
        dask="parallelized",
        dask_gufunc_kwargs=ONE_CHUNK,
        output_dtypes=[np.float64],
    )
    return _named(margin, "probability_margin", "margin of activation probability", "1")


def mean_difference(mean: xr.DataArray, labels: xr.DataArray) -> xr.DataArray:
    """MAD, mean activation difference: (layer, neuron, clip) -> (layer, neuron, category), in units of the mean.

        difference = m - mean over the other categories of their m

    m is the mean over the category's clips; every category weighs the same, however many clips it has. NaN where no
    other category has clips.
    """
    m = category_mean(mean, labels).drop_vars("n_clips")
    others = (m.sum("category") - m) / _positive(m.notnull().sum("category") - 1)
    score = m - others
    dust = 1e-12 * abs(m).max("category")
    score = score.where(score.isnull() | (abs(score) > dust), 0)
    return _named(score, "mean_difference", "difference of mean activations", "1")


OF_BITS = (rate_difference, mutual_information, probability, probability_margin)
OF_MEANS = (d_prime, point_biserial, mean_difference)


def highest_scores(score: xr.DataArray, neurons: xr.DataArray | int) -> xr.DataArray:
    """Members: the neurons of highest score in each category, bool (layer, neuron, category).

    neurons: how many, one number or one per category (category), such as `member.sum(["layer", "neuron"])` of a
    selection to compare with. Ties go to the lowest (layer, neuron); NaN is never a member.
    """
    many = neurons if isinstance(neurons, xr.DataArray) else xr.full_like(score["category"], neurons, dtype=np.int64)
    member: xr.DataArray = xr.apply_ufunc(
        _highest,
        in_one_chunk(score, ["layer", "neuron"]),
        many,
        input_core_dims=[["layer", "neuron"], []],
        output_core_dims=[["layer", "neuron"]],
        vectorize=True,
        dask="parallelized",
        dask_gufunc_kwargs=ONE_CHUNK,
        output_dtypes=[bool],
    )
    return member.transpose(*CELL_DIMS).rename("member").assign_attrs(long_name="of highest score")


def decides(score: xr.DataArray, neurons: xr.DataArray) -> xr.DataArray:
    """Whether scores say which neurons are highest in each category: bool (category).

    False where fewer neurons have a score than are to be picked (category), or even the highest score is shared by
    more: whom `highest_scores` picks is then a matter of their order.
    """
    best = score.max(["layer", "neuron"])
    tied = (score == best).sum(["layer", "neuron"])
    return (score.notnull().sum(["layer", "neuron"]) >= neurons) & (tied <= neurons) & (neurons > 0)


def agreement(members: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Jaccard index of the neurons of each two selectors in each category: (selector, other_selector, category).

        |A and B| / |A or B|, NaN where both are empty

    members: bool (layer, neuron, category) by the selector's name, all of the same neurons and categories.
    """
    names = list(members)
    stacked = xr.concat(
        [member.reset_coords(drop=True) for member in members.values()],
        dim=xr.DataArray(names, dims="selector", name="selector"),
        join="exact",
    ).astype(np.float32)
    other = stacked.rename(selector="other_selector")
    common = xr.dot(stacked, other, dim=["layer", "neuron"]).astype(np.float64)
    either = stacked.sum(["layer", "neuron"]) + other.sum(["layer", "neuron"]) - common
    ratio: xr.DataArray = common / _positive(either)
    return ratio.transpose("selector", "other_selector", "category").rename("agreement").assign_attrs(
        long_name="common neuron ratio of two selectors", units="1"
    )  # fmt: skip


def selector_agreement(
    ds: xr.Dataset, label: str, member: xr.DataArray, selection: Selection | None = None
) -> pd.DataFrame:
    """Mean common neuron ratio over the categories of each two selectors, each picking as many neurons per category.

    A category counts only where both selectors say whom to pick (`decides`); empty where none does.
    ds: a task as the reader shows it; member: bool (layer, neuron, category) of the selection, whose clips count.
    Computes.
    Raises LookupError for probabilities made elsewhere.
    """
    if "active_bits" not in ds:
        raise LookupError("probabilities made elsewhere have no clips to score; expected a store extracted here")
    codes, valid = ds.otoscope.codes(label, selection), ds["neuron_valid"]
    scores = [score(ds["active_bits"], codes) for score in OF_BITS]
    if "mean" in ds:
        scores += [score(ds["mean"], codes) for score in OF_MEANS]
    many = member.sum(["layer", "neuron"]).reset_coords(drop=True)
    own = "contrast" if selection is not None and selection.rule == "contrast" else "aape"
    members, decided = {own: member}, {own: many > 0}
    for score in scores:
        values = score.where(valid).compute()
        members[str(score.name)] = highest_scores(values, many)
        decided[str(score.name)] = decides(values, many)
    names = xr.DataArray(list(members), dims="selector", name="selector")
    known = xr.concat([each.reset_coords(drop=True) for each in decided.values()], dim=names)
    both = known & known.rename(selector="other_selector")
    table: Any = agreement(members).where(both).mean("category").to_pandas()
    frame: pd.DataFrame = table.reset_index()
    return frame


def _inside_and_outside(
    active: xr.DataArray, labels: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, xr.DataArray]:
    """Active clips in the category and in the rest (layer, neuron, category), clips in both (category); float64."""
    inside = activation_counts(active, labels).astype(np.float64)
    n_in = inside["n_clips"].astype(np.float64).drop_vars("n_clips")
    inside = inside.drop_vars("n_clips")
    return inside, inside.sum("category") - inside, n_in, n_in.sum() - n_in


def _moments(
    mean: xr.DataArray, labels: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, xr.DataArray, xr.DataArray]:
    """Mean in the category minus that in the rest; squared deviations summed, and clips, in both; float64."""
    mean = mean.astype(np.float64)  # squares of float16 would overflow
    m_in = category_mean(mean, labels)
    n_in = m_in["n_clips"].astype(np.float64).drop_vars("n_clips")
    m_in = m_in.drop_vars("n_clips")
    squares = category_mean(mean**2, labels).drop_vars("n_clips")
    n_out = n_in.sum() - n_in
    total, total_squares = (m_in * n_in).sum("category"), (squares * n_in).sum("category")
    m_out = (total - (m_in * n_in).fillna(0)) / _positive(n_out)
    q_in = n_in * (squares - m_in**2)
    q_out = total_squares - (squares * n_in).fillna(0) - n_out * m_out**2
    # Differences of nearly equal sums: what rounding leaves of nothing is nothing.
    dust, difference = 1e-12 * total_squares, m_in - m_out
    difference = difference.where((difference.isnull()) | (difference**2 > 1e-12 * dust / n_in.sum()), 0)
    return difference, q_in.where(q_in > dust, 0), q_out.where(q_out > dust, 0), n_in, n_out


def _positive(values: xr.DataArray) -> xr.DataArray:
    return values.where(values > 0)


def _margin(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """P minus the highest P of any other category, the last axis."""
    known = np.where(np.isnan(p), -np.inf, p)
    *_, second, first = np.moveaxis(np.sort(np.insert(known, 0, -np.inf, axis=-1), axis=-1), -1, 0)
    highest = np.where(known == first[..., None], second[..., None], first[..., None])
    return p - np.where(np.isinf(highest), np.nan, highest)


def _highest(score: NDArray[np.float64], many: int) -> NDArray[np.bool_]:
    order = np.argsort(-score, axis=None, kind="stable")[: int(many)]  # NaN comes last
    member = np.zeros(score.size, bool)
    member[order] = True
    return member.reshape(score.shape) & ~np.isnan(score)


def _named(score: xr.DataArray, name: str, long_name: str, units: str) -> xr.DataArray:
    return score.transpose(*CELL_DIMS).rename(name).assign_attrs(long_name=long_name, units=units)
