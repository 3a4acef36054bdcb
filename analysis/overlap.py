"""How much the neurons of two categories have in common, within a task or across tasks.

Goal: the common neuron ratios behind the heat maps.
Conventions: membership is bool (layer, neuron, category); two memberships must be of the same encoder.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..documents import read_document
from ..messages import one_line, quoted

MAX_ORDER_BYTES = 2**20  # of a file that orders categories


def common_neuron_ratio(member_a: xr.DataArray, member_b: xr.DataArray | None = None) -> xr.DataArray:
    """Jaccard index of the neurons of each two categories: (category, other_category) in [0, 1].

        |A and B| / |A or B|, NaN where both sets are empty

    member_a, member_b: bool (layer, neuron, category), for instance of two tasks; without the second, of the
    first with itself: symmetric, 1 on the diagonal. Lazy in, lazy out.
    Raises ValueError where layers and neurons differ.
    """
    a = member_a.reset_coords(drop=True)
    b = (member_a if member_b is None else member_b).reset_coords(drop=True)
    check_same_neurons(a, b)
    # Counts stay far below 2^24, where float32 ceases to be exact, for any encoder of less than 16 million
    # neurons.
    a, b = a.astype("float32"), b.astype("float32").rename(category="other_category")
    common = xr.dot(a, b, dim=["layer", "neuron"]).astype("float64")
    either = a.sum(["layer", "neuron"]) + b.sum(["layer", "neuron"]) - common
    ratio: xr.DataArray = (common / either.where(either > 0)).transpose("category", "other_category")
    return ratio.rename("common_neuron_ratio").assign_attrs(long_name="common neuron ratio", units="1")


def check_same_neurons(first: xr.DataArray, *others: xr.DataArray) -> None:
    """Raise ValueError unless all are over the same layers and neurons."""
    for other in others:
        shapes = [{dim: m.sizes[dim] for dim in ("layer", "neuron")} for m in (first, other)]
        indexed = [dim for dim in shapes[0] if dim in first.indexes and dim in other.indexes]
        if shapes[0] != shapes[1] or any(not first.indexes[dim].equals(other.indexes[dim]) for dim in indexed):
            raise ValueError(
                f"memberships over {shapes[0]} and {shapes[1]}; expected the same layers and neurons: "
                "only neurons of one encoder can be common"
            )


def labelled(ratio: xr.DataArray, labelling: str, other_labelling: str) -> xr.DataArray:
    """The same ratios with the labellings' names, as "esc50:category", on the dimensions, for figures to show."""
    coords = {
        dim: ratio[dim].assign_attrs(long_name=name)
        for dim, name in (("category", labelling), ("other_category", other_labelling))
    }
    return ratio.assign_coords(coords)


def read_arrangement(path: str | os.PathLike[str]) -> tuple[list[str], dict[str, str]]:
    """Order of categories and groups of those that have one, for `arranged`: a CSV of CATEGORY or CATEGORY,GROUP lines.

    Raises ValueError for a line of more columns.
    """
    try:
        text = read_document(path, MAX_ORDER_BYTES).decode("utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(keepends=True)) if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not CSV in UTF-8 ({one_line(error)}); expected CATEGORY,GROUP lines") from error
    if any(len(row) > 2 for row in rows):
        raise ValueError(f"{path} has a line of more than 2 columns; expected CATEGORY or CATEGORY,GROUP")
    return [row[0] for row in rows], {row[0]: row[1] for row in rows if len(row) == 2 and row[1]}


def arranged(ratio: xr.DataArray, order: Sequence[str] = (), groups: Mapping[str, str] | None = None) -> xr.DataArray:
    """The same ratios with the categories of both sides reordered and grouped: (category, other_category).

    order: categories that come first, in this order; the others follow in theirs.
    groups: category -> group. Categories of a group are put together, groups in the order in which they come to appear;
        categories without a group come last. The coordinates `group` (category) and `other_group` (other_category) say
        which, "" for none; figures draw lines between them.
    Raises LookupError for a category of neither side, ValueError for one that is named twice.
    """
    groups = groups or {}
    known = {str(name) for dim in ("category", "other_category") for name in ratio[dim].values}
    unknown = [name for name in (*order, *groups) if name not in known]
    if unknown:
        raise LookupError(f"no category {unknown[0]!r} to arrange; those that exist: {', '.join(sorted(known))}")
    if len(set(order)) < len(order):
        twice = next(name for name in order if list(order).count(name) > 1)
        raise ValueError(f"the order names {twice!r} twice; expected every category once")
    position = {name: i for i, name in enumerate(order)}
    for dim, coord in (("category", "group"), ("other_category", "other_group")):
        names = [str(name) for name in ratio[dim].values]
        ahead = sorted(range(len(names)), key=lambda i: position.get(names[i], len(position)))
        rank = {group: i for i, group in enumerate(dict.fromkeys(groups.get(names[i], "") for i in ahead))}
        rank[""] = len(rank)  # those of no group come last
        final = sorted(ahead, key=lambda i: rank[groups.get(names[i], "")])
        ratio = ratio.isel({dim: final})
        if groups:
            ratio = ratio.assign_coords({coord: (dim, np.array([groups.get(names[i], "") for i in final], object))})
    return ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlapMap:
    """Neurons in common of each two categories, of one labelling with itself or with another."""

    categories: tuple[str, ...]
    other_categories: tuple[str, ...]
    ratio: NDArray[np.float64]
    """Common neuron ratio (category, other_category), NaN where neither has neurons."""
    shared: NDArray[np.int64]
    """Neurons that both have (category, other_category)."""
    own: NDArray[np.int64]
    """Neurons of each (category)."""
    other: NDArray[np.int64]
    """Neurons of each (other_category)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """The neurons behind a cell of the map, each bool (layer, neuron)."""

    shared: NDArray[np.bool_]
    only_first: NDArray[np.bool_]
    only_second: NDArray[np.bool_]


def overlap_map(member_a: xr.DataArray, member_b: xr.DataArray | None = None) -> OverlapMap:
    """Ratios and counts of `common_neuron_ratio`, computed. Raises as it does."""
    member_b = member_a if member_b is None else member_b
    ratio = common_neuron_ratio(member_a, member_b).compute()
    a, b = (each.transpose("layer", "neuron", "category").values for each in (member_a, member_b))
    a, b = (each.reshape(-1, each.shape[2]) for each in (a, b))
    return OverlapMap(
        categories=tuple(map(str, ratio["category"].values)),
        other_categories=tuple(map(str, ratio["other_category"].values)),
        ratio=ratio.values,
        shared=(a.astype(np.float32).T @ b.astype(np.float32)).astype(np.int64),  # exact below 2^24
        own=np.count_nonzero(a, axis=0),
        other=np.count_nonzero(b, axis=0),
    )


def overlap_cell(member_a: xr.DataArray, category: str, member_b: xr.DataArray, other_category: str) -> Cell:
    """The neurons shared, only of the first, only of the second category.

    Raises LookupError for a category that does not exist, ValueError where layers and neurons differ.
    """
    check_same_neurons(member_a, member_b)
    first, second = (_member_of(member, name) for member, name in ((member_a, category), (member_b, other_category)))
    return Cell(shared=first & second, only_first=first & ~second, only_second=second & ~first)


def _member_of(member: xr.DataArray, category: str) -> NDArray[np.bool_]:
    names = [str(name) for name in member["category"].values]
    if category not in names:
        known = ", ".join(map(quoted, names[:20])) + ", ..." * (len(names) > 20)
        raise LookupError(f"no category {quoted(category)}; those that exist: {known}")
    own = member.isel(category=names.index(category)).transpose("layer", "neuron")
    return np.asarray(own.values, bool)
