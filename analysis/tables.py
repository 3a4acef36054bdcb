"""Results as tables: data frames and the files they are written to.

Goal: what a paper or a spreadsheet wants, from what the other files of this room compute.
Conventions: these functions compute what they are given. Columns and index names are those of the dimensions
(category, layer, neuron) and of the quantities (probability, aape in nats); shares are in [0, 1].
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tabulate import tabulate

from ..files import whole_file
from ..messages import visible
from .kinds import NULL_ROWS
from .null.permutation import PARTS
from .selection.rules import THRESHOLDS, coverage_ratio, mean_class_specific
from .selection.selectivity import median_of, overall_rate, share_of_highest
from .spreadsheet import write_csv

EFFECTS = ("auc", "auc_low", "auc_high", "q")
"""Variables (layer, neuron, category) that a selection may have, each a column of its neurons; the first one sorts."""
CONFIRMED = ("confirm_auc", "confirm_auc_low", "confirm_auc_high", "confirm_p", "confirm_probability", "holds_up")
"""And those of clips that did not select, and of clips drawn anew, after all others."""
SELECTIVITY = ("categories_per_neuron", "aape_share_selected", "aape_share_all")
HOLD_UP = ("hold_up", "hold_up_shuffled")
"""Attributes of a selection that was held against other clips."""


def neurons_table(selection: xr.Dataset) -> pd.DataFrame:
    """One row per category and neuron specific for it; those of the largest effect first.

    selection: of `class_specific`. Columns: category, layer, (site,) neuron, and
        auc            where the selection has this variable (layer, neuron, category): of the category's clips
                       against all others; auc_low and auc_high, its 95 % interval, and q of the rule contrast likewise
        probability    P of the category
        next_highest   highest P of the other categories
        lowest         lowest P of all categories
        lift           P / overall rate, which is `overall_rate`'s: the share of all clips (or frames), and the mean
                       over categories where probabilities were made elsewhere, without counts
        aape           in nats
        aape_share     AAPE / ln(number of categories)
        n_categories   that the neuron is specific for
        confirm_...    on clips that did not select: `contrast.hold_up`; stability: `null.permutation.bootstrap`; both
                       where the selection has them
    The effect is auc where it is there (of neurons that fall silent, 1 - auc), else lift; ties are in order of
    category, layer and neuron.
    """
    p, member = selection["probability"], selection["member"]
    effects = [name for name in EFFECTS if name in selection]
    beside = [name for name in (*CONFIRMED, "stability") if name in selection]
    numbers = {
        "next_highest": _highest_of_others(p),
        "lowest": p.min("category"),
        "lift": p / overall_rate(p),
        "aape_share": share_of_highest(selection["aape"], p),
        "n_categories": member.sum("category"),
    }
    names = [*effects, "probability", "next_highest", "lowest", "lift", "aape", "aape_share", "n_categories", *beside]
    sites = ["site"] if "site" in selection.coords else []
    rows = selection.assign(numbers)
    frame = _member_rows(rows, [*sites, *names])[["category", "layer", *sites, "neuron", *names]]
    effect = frame["auc"].map(lambda auc: max(auc, 1 - auc)) if "auc" in frame else frame["lift"]
    return frame.iloc[np.argsort(-effect.to_numpy(), kind="stable")].reset_index(drop=True)


def _highest_of_others(p: xr.DataArray) -> xr.DataArray:
    """(layer, neuron, category) -> of each cell, the highest P of the neuron's other categories; NaN without any."""
    cube = p.transpose(..., "category")
    values = np.where(np.isnan(cube.values), -np.inf, cube.values)
    two = np.sort(values, axis=-1)[..., -2:] if values.shape[-1] > 1 else np.full((*values.shape[:-1], 2), -np.inf)
    others = np.where(values == two[..., 1:], two[..., :1], two[..., 1:])  # of two that are highest, each other's
    return cube.copy(data=np.where(np.isinf(others), np.nan, others))


def _member_rows(result: xr.Dataset, names: list[str]) -> pd.DataFrame:
    """One row per category, layer and neuron of `member`, in this order, with the values of these variables there."""
    ordered = result.transpose("category", "layer", "neuron", ..., missing_dims="ignore")
    dims = ordered["member"].dims
    at = dict(zip(dims, np.nonzero(ordered["member"].values), strict=True))
    columns = {str(dim): ordered[dim].values[at[dim]] for dim in dims}
    columns |= {name: ordered[name].values[tuple(at[dim] for dim in ordered[name].dims)] for name in names}
    return pd.DataFrame(columns)


def stats_table(selections: Mapping[tuple[str, str], xr.Dataset]) -> pd.DataFrame:
    """One row per selection, keyed (store, "task:label"), and the average of each store that has several.

    Columns: store, task, categories, neurons_per_category (mean), coverage_ratio, selected (neurons),
    categories_per_neuron (mean over the selected neurons that have any), aape_share_selected and aape_share_all (median
    AAPE / ln C of the selected neurons, and of all that fire), where clips confirm hold_up and hold_up_shuffled (shares
    of `contrast.hold_up`), the three thresholds, percentile, rule.
    """
    rows = []
    for (store, task), selection in selections.items():
        rows.append(
            {
                "store": store,
                "task": task,
                "categories": selection.sizes["category"],
                "neurons_per_category": float(mean_class_specific(selection["member"])),
                "coverage_ratio": float(coverage_ratio(selection["member"])),
                "selected": int(selection["selected"].sum()),
                **_selectivity(selection),
                **{name: selection.attrs[name] for name in HOLD_UP if name in selection.attrs},
                **{name: float(selection[name]) for name in THRESHOLDS},
                "percentile": selection.attrs["percentile"],
                "rule": selection.attrs["rule"],
            }
        )
    table = pd.DataFrame(rows)
    averaged = ["neurons_per_category", "coverage_ratio", *SELECTIVITY, *(name for name in HOLD_UP if name in table)]
    for store in dict.fromkeys(store for store, _ in selections):
        own = table[(table["store"] == store) & (table["task"] != "average")]
        if len(own) > 1:
            average = {"store": store, "task": "average", **own[averaged].mean().to_dict()}
            table = pd.concat([table, pd.DataFrame([average])], ignore_index=True)
    return table.astype({"categories": "Int64", "selected": "Int64"})


def _selectivity(selection: xr.Dataset) -> dict[str, float]:
    """The columns `SELECTIVITY` of `stats_table`; NaN where no neuron is meant."""
    share = share_of_highest(selection["aape"], selection["probability"])
    belongs, selected = selection["member"].sum("category").values, selection["selected"]
    mean = belongs.sum() / n if (n := np.count_nonzero(belongs)) else float("nan")
    numbers = float(mean), median_of(share, selected), median_of(share, xr.ones_like(selected))
    return dict(zip(SELECTIVITY, numbers, strict=True))


def thresholds_table(selections: Mapping[tuple[str, str], xr.Dataset]) -> pd.DataFrame:
    """One row per selection, keyed (store, "task:label"): its thresholds, its percentile and its rule."""
    table = stats_table(selections)
    table = table[table["task"] != "average"]
    return table[["store", "task", *THRESHOLDS, "percentile", "rule"]].reset_index(drop=True)


def overlap_table(ratio: xr.DataArray) -> pd.DataFrame:
    """Common neuron ratios (category, other_category) as a square: one row and one column per category."""
    square = ratio.transpose("category", "other_category")
    table = pd.DataFrame(square.values, columns=[str(c) for c in square["other_category"].values])
    table.insert(0, "category", [str(c) for c in square["category"].values], allow_duplicates=True)
    return table


def null_table(result: xr.Dataset, rows: str = "cells") -> pd.DataFrame:
    """The result of a permutation null, and of a bootstrap if it is in there: a column per part of the statistic.

    result: of `permutation_null`.
    rows: "cells" the ratio of every two categories, "categories" the number of neurons of each, "neurons" every
        class-specific neuron of each category with its AAPE, and its stability over the draws.
    Whether it is significant is empty where it was not tested, or no p can be as low as the level.
    """
    statistic = NULL_ROWS[rows]
    names = [statistic, *(f"{statistic}_{part}" for part in PARTS if f"{statistic}_{part}" in result)]
    if rows != "neurons":
        parts = result[names].drop_vars([] if rows == "categories" else "n_clips")
        table = parts.to_dataframe().reset_index()
    else:
        table = _member_rows(result, [*names, *(["stability"] if "stability" in result else [])])
    known = table[f"{statistic}_p_corrected"].notna() & (result.attrs["smallest_p"] <= result.attrs["level"])
    return table.assign(
        **{f"{statistic}_significant": table[f"{statistic}_significant"].astype("boolean").where(known)}
    )


def probability_table(p: xr.DataArray) -> pd.DataFrame:
    """Activation probabilities: one row per layer and neuron, one column per category.

    Raises ValueError for a category called like one of the first two columns.
    """
    if taken := {"layer", "neuron"} & {str(category) for category in p["category"].values}:
        raise ValueError(
            f"a category is called {min(taken)!r}, as a column of this table is; expected another name: label it "
            "otherwise"
        )
    cube = p.transpose("layer", "neuron", "category")
    layer, neuron = np.meshgrid(cube["layer"].values, cube["neuron"].values, indexing="ij")
    values = cube.values.reshape(layer.size, cube.sizes["category"])
    table = pd.DataFrame(values, columns=[str(category) for category in cube["category"].values])
    table.insert(0, "layer", layer.ravel(), allow_duplicates=True)
    table.insert(1, "neuron", neuron.ravel(), allow_duplicates=True)
    return table


def aape_table(aape: xr.DataArray) -> pd.DataFrame:
    """AAPE of every neuron: layer, neuron, aape; empty for a neuron that never fires."""
    return aape.reset_coords(drop=True).transpose("layer", "neuron").to_dataframe("aape").reset_index()


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV (.csv), Parquet (.parquet), Markdown (.md) or LaTeX (.tex, needs booktabs).

    CSV and Parquet hold full precision, Markdown and LaTeX four digits. In CSV, text that a spreadsheet would take for
    a formula has a "'" before it; Parquet holds text as it is. The file appears whole or not at all.
    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    with whole_file(path, WRITERS) as partial:
        WRITERS[Path(path).suffix.lower()](frame, partial)


def put_table(frame: pd.DataFrame, path: str | None) -> str:
    """Write a table as `write_table` does; the file's name, or without a path the table itself as Markdown."""
    if path is None:
        return markdown(frame)
    write_table(frame, path)
    return path


def markdown(frame: pd.DataFrame) -> str:
    """A table as Markdown, numbers with four digits."""
    escaped = frame.rename(columns=_escape_pipe).map(lambda cell: _escape_pipe(_short(cell)))
    return _tabulate(frame, escaped, "github")


def _tabulate(frame: pd.DataFrame, cells: pd.DataFrame, style: str) -> str:
    numeric = ["right" if pd.api.types.is_numeric_dtype(dtype) else "left" for dtype in frame.dtypes]
    # disable_numparse: a category named "007" stays as it is.
    rows = cells.values.tolist()
    alignment = numeric if rows else None
    text: str = tabulate(rows, list(cells.columns), style, disable_numparse=True, colalign=alignment)
    return text


def _short(cell: Any) -> str:
    if pd.isna(cell):
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _escape_pipe(text: str) -> str:
    return visible(text).replace("|", r"\|")


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": write_csv,
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".md": lambda frame, path: path.write_text(markdown(frame) + "\n", encoding="utf-8"),
    ".tex": lambda frame, path: path.write_text(
        _tabulate(frame, frame.map(_short), "latex_booktabs") + "\n", encoding="utf-8"
    ),
}
