"""Results as tables: data frames and the files they are written to.

Goal: what a paper or a spreadsheet wants, from what the other files of this room compute.
Conventions: these functions compute what they are given. Columns and index names are those of the dimensions
(category, layer, neuron) and of the quantities (probability, aape in nats); shares are in [0, 1].
Contents: `neurons_table`, `stats_table`, `overlap_table`, `null_table`, `probability_table`, `aape_table`,
`thresholds_table`, `markdown`, `write_table`, `require_selection`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tabulate import tabulate

from .kinds import NULL_ROWS
from .null.results import PARTS
from .selection.rules import coverage_ratio, mean_class_specific

THRESHOLDS = ("activity_threshold", "aape_threshold", "probability_threshold")


def require_selection(selection: xr.Dataset, name: str, reading: str = "clip") -> None:
    """Raise ValueError, with what to do about it, where a selection cannot mean anything.

    selection: of `class_specific`; name: of the labelling, as in "cremad:gender"; reading: of its probabilities.
    Computes the selection's masks.
    """
    categories = [str(c) for c in selection["category"].values]
    if len(categories) < 2:
        found = f"1 category with clips ({categories[0]!r})" if categories else "no category with clips"
        raise ValueError(f"{name} has {found}; expected at least 2 to compare: use another label column")
    if bool(selection["saturated"]):
        remedy = "use " + (
            "--reading frame" if reading != "frame" else "--reading clip with a --threshold on the mean above 0"
        )
        if reading == "given":
            remedy = "make them again by another reading, as `otoscope export --reading frame` does"
        raise ValueError(
            f"{name}: by the reading {reading!r} {_saturation(selection)}, so that no neuron stands out; expected "
            f"probabilities that differ: {remedy}"
        )
    if not bool(selection["selected"].any()):
        exists = selection.coords.get("neuron_valid", xr.ones_like(selection["selected"]))
        raise ValueError(
            f"{name}: no neuron is selected out of {int(exists.sum())}; expected at least one at "
            f"percentile {selection.attrs['percentile']}: use a higher --percentile"
        )


def _saturation(selection: xr.Dataset) -> str:
    """What saturates, in words: the line that nothing exceeds is itself the highest probability."""
    if bool(selection["selected"].any()):
        which, highest = "more than 5 % of the selected neurons' probabilities equal", "probability_threshold"
    elif selection.attrs["rule"] == "paper":
        which, highest = "at least 95 % of the neurons reach in some category", "activity_threshold"
    else:
        which, highest = "more than 5 % of the activation probabilities equal", "activity_threshold"
    return f"{which} the highest one, {float(selection[highest]):.4g}"


def neurons_table(member: xr.DataArray, p: xr.DataArray, aape: xr.DataArray) -> pd.DataFrame:
    """One row per category and neuron specific for it: category, layer, (site,) neuron, probability, aape.

    In order of category, layer, neuron. member, p: (layer, neuron, category); aape: (layer, neuron).
    """
    found, values, entropy = (
        x.transpose("category", "layer", "neuron", missing_dims="ignore") for x in (member, p, aape)
    )
    category, layer, neuron = np.nonzero(found.values)
    columns: dict[str, Any] = {
        "category": found["category"].values[category],
        "layer": found["layer"].values[layer],
    }
    if "site" in member.coords:
        columns["site"] = member["site"].values[layer]
    columns["neuron"] = found["neuron"].values[neuron]
    columns["probability"] = values.values[category, layer, neuron]
    columns["aape"] = entropy.values[layer, neuron]
    return pd.DataFrame(columns)


def stats_table(selections: Mapping[tuple[str, str], xr.Dataset]) -> pd.DataFrame:
    """One row per selection, keyed (store, "task:label"), and the average of each store that has several.

    Columns: store, task, categories, neurons_per_category (mean), coverage_ratio, selected (neurons), the
    three thresholds, percentile, rule.
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
                **{name: float(selection[name]) for name in THRESHOLDS},
                "percentile": selection.attrs["percentile"],
                "rule": selection.attrs["rule"],
            }
        )
    table = pd.DataFrame(rows)
    averaged = ["neurons_per_category", "coverage_ratio"]
    for store in dict.fromkeys(store for store, _ in selections):
        own = table[(table["store"] == store) & (table["task"] != "average")]
        if len(own) > 1:
            average = {"store": store, "task": "average", **own[averaged].mean().to_dict()}
            table = pd.concat([table, pd.DataFrame([average])], ignore_index=True)
    return table.astype({"categories": "Int64", "selected": "Int64"})


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
    """What a permutation null says, and a bootstrap if it is in there: a column per part of the statistic.

    result: of `permutation_null`.
    rows: "cells" the ratio of every two categories, "categories" the number of neurons of each, "neurons" every
        class-specific neuron of each category with its AAPE, and its stability over the draws.
    """
    statistic = NULL_ROWS[rows]
    names = [statistic, *(f"{statistic}_{part}" for part in PARTS if f"{statistic}_{part}" in result)]
    if rows != "neurons":
        parts = result[names].drop_vars([] if rows == "categories" else "n_clips")
        return parts.to_dataframe().reset_index()
    member = result["member"].transpose("category", "layer", "neuron")
    category, layer, neuron = np.nonzero(member.values)
    places = {"category": category, "layer": layer, "neuron": neuron}
    columns: dict[str, Any] = {
        dim: member[dim].values[at] if dim in member.coords else at for dim, at in places.items()
    }
    columns |= {name: result[name].transpose("layer", "neuron").values[layer, neuron] for name in names}
    if "stability" in result:
        columns["stability"] = result["stability"].transpose(*places).values[category, layer, neuron]
    return pd.DataFrame(columns)


def probability_table(p: xr.DataArray) -> pd.DataFrame:
    """Activation probabilities: one row per layer and neuron, one column per category."""
    cube = p.transpose("layer", "neuron", "category")
    table = _neuron_rows(cube)
    for i, category in enumerate(cube["category"].values):
        table.insert(2 + i, str(category), cube.values[..., i].ravel(), allow_duplicates=True)
    return table


def aape_table(aape: xr.DataArray) -> pd.DataFrame:
    """AAPE of every neuron: layer, neuron, aape; empty for a neuron that never fires."""
    square = aape.transpose("layer", "neuron")
    return _neuron_rows(square).assign(aape=square.values.ravel())


def _neuron_rows(values: xr.DataArray) -> pd.DataFrame:
    layer, neuron = np.meshgrid(values["layer"].values, values["neuron"].values, indexing="ij")
    return pd.DataFrame({"layer": layer.ravel(), "neuron": neuron.ravel()})


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV (.csv), Parquet (.parquet), Markdown (.md) or LaTeX (.tex, needs booktabs).

    CSV and Parquet hold full precision, Markdown and LaTeX four digits. The file appears whole or not at all.
    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    target = Path(path)
    if target.suffix.lower() not in WRITERS:
        raise ValueError(f"cannot write a table to {target.name!r}; expected a name ending in {', '.join(WRITERS)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent}; expected it for {target.name}: create it")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        WRITERS[target.suffix.lower()](frame, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, lineterminator="\n")


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


def markdown(frame: pd.DataFrame) -> str:
    """A table as Markdown, numbers with four digits."""
    escaped = frame.rename(columns=_escape_pipe).map(lambda cell: _escape_pipe(_short(cell)))
    return _tabulate(frame, escaped, "github")


def _write_markdown(frame: pd.DataFrame, path: Path) -> None:
    path.write_text(markdown(frame) + "\n", encoding="utf-8")


def _write_latex(frame: pd.DataFrame, path: Path) -> None:
    path.write_text(_tabulate(frame, frame.map(_short), "latex_booktabs") + "\n", encoding="utf-8")


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
    return text.replace("|", r"\|")


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".md": _write_markdown,
    ".tex": _write_latex,
}
