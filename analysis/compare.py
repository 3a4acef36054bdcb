"""Where two models differ, and which neurons serve several tasks.

Goal: a model beside another, or beside its own random initialisation, by labelling, by layer and by category; and
within one model, what each neuron serves.
Conventions: neurons of two models cannot be matched, so models are compared by numbers: how many neurons, how
selective, how deep. Tables are data frames with a column `store` or one column per store. These functions compute.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .overlap import check_same_neurons
from .selection.rules import depth_histogram

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COMPARED = ("neurons_per_category", "coverage_ratio", "selected", "aape_threshold", "probability_threshold")


def labellings_side_by_side(stats: pd.DataFrame, columns: Sequence[str] = COMPARED) -> pd.DataFrame:
    """One row per labelling that both of two stores have, and their average: each quantity twice, and the difference.

    stats: of `stats_table`, with exactly two stores. Columns "NAME STORE", and "NAME difference": second minus first.
    Raises ValueError for another number of stores, or no labelling in common.
    """
    stores = list(dict.fromkeys(stats["store"]))
    if len(stores) != 2:
        raise ValueError(f"found {len(stores)} stores ({', '.join(stores)}); expected two to compare: name two")
    own = [stats[stats["store"] == store].set_index("task")[list(columns)].astype(float) for store in stores]
    both = [task for task in own[0].index if task in own[1].index and task != "average"]
    if not both:
        raise ValueError(f"{stores[0]} and {stores[1]} have no labelling in common; expected one at least")
    first, second = (table.loc[both] for table in own)
    if len(both) > 1:
        first, second = (pd.concat([table, table.mean().to_frame("average").T]) for table in (first, second))
    table = pd.DataFrame({"task": first.index})
    for name in columns:
        table[f"{name} {stores[0]}"] = first[name].values
        table[f"{name} {stores[1]}"] = second[name].values
        table[f"{name} difference"] = (second[name] - first[name]).values
    return table


def layers_side_by_side(models: Mapping[str, xr.Dataset], quantiles: Sequence[float] = QUANTILES) -> pd.DataFrame:
    """One row per store and layer: class-specific neurons, silent neurons, and the distribution of AAPE.

    models: store -> selection, as of `class_specific`; quantiles: in [0, 1], over the neurons of the layer that fire.
        AAPE of labellings with unequal numbers of categories does not compare.
    Columns store, layer, class_specific, silent (neurons whose AAPE is NaN), aape_q05, aape_q25, ...
    """
    tables = []
    for store, selection in models.items():
        square = selection["aape"].transpose("layer", "neuron")
        exists = selection["probability"].notnull().any("category")  # layers may be of unequal widths
        columns: dict[str, Any] = {
            "store": store,
            "layer": square["layer"].values,
            "class_specific": depth_histogram(selection["member"]).values,
            "silent": (square.isnull() & exists).sum("neuron").values,
        }
        for quantile in quantiles:
            columns[f"aape_q{round(quantile * 100):02d}"] = [_quantile(row, quantile) for row in square.values]
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _quantile(values: np.ndarray, quantile: float) -> float:
    """NaN left out; NaN for a layer that is silent altogether."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, quantile)) if known.size else float("nan")


def categories_side_by_side(members: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """One row per category, one column per store: class-specific neurons; empty where a store lacks the category.

    members: store -> bool (layer, neuron, category). In the order in which categories appear.
    """
    counts = {}
    for store, member in members.items():
        names = [str(c) for c in member["category"].values]
        counts[store] = pd.Series(member.sum(["layer", "neuron"]).values, index=names).astype("Int64")
    order = list(dict.fromkeys(name for series in counts.values() for name in series.index))
    table = pd.DataFrame({store: series.reindex(order) for store, series in counts.items()}, index=order)
    return table.rename_axis("category").reset_index()


def count_agreement(member_a: xr.DataArray, member_b: xr.DataArray) -> float:
    """Spearman's rank correlation, over the categories of both, of their numbers of neurons: in [-1, 1].

    1: the two models find the same categories easy and the same ones hard. Ties share their mean rank; NaN for fewer
    than three categories in common, since two points always lie on a line, or if all counts of one model are equal.
    """
    table = categories_side_by_side({"a": member_a, "b": member_b}).dropna()
    ranks = [table[name].astype(float).rank() for name in ("a", "b")]
    if len(table) < 3 or any(rank.nunique() < 2 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def serving(members: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """Which neurons serve which labelling, and how many: `serves` (task, layer, neuron), `n_tasks` (layer, neuron).

    A neuron serves a labelling if it is class-specific for at least one of its categories.
    members: labelling -> bool (layer, neuron, category), all of one encoder. Lazy in, lazy out.

        found = serving({"esc50:category": a, "gise51:category": b})
        found["serves"].sel(task="esc50:category") & (found["n_tasks"] == 1)     # those which serve it alone

    Raises ValueError for no member, or where layers and neurons differ.
    """
    if not members:
        raise ValueError("found no labelling; expected at least one whose neurons were selected")
    check_same_neurons(*members.values())
    served = {name: member.reset_coords(drop=True).any("category") for name, member in members.items()}
    serves = xr.concat(
        [each.transpose("layer", "neuron") for each in served.values()],
        dim=xr.DataArray(list(served), dims="task", name="task"),
    )
    serves = serves.assign_attrs(long_name="class-specific for a category of the task")
    return xr.Dataset(
        {"serves": serves, "n_tasks": serves.sum("task").assign_attrs(long_name="tasks served", units="tasks")}
    )


def serving_table(found: xr.Dataset) -> pd.DataFrame:
    """One row per neuron that serves any labelling: layer, neuron, n_tasks, tasks; those that serve most first.

    found: of `serving`; ties in order of layer and neuron; tasks are joined by ", ".
    """
    serves = found["serves"].transpose("task", "layer", "neuron")
    n_tasks = found["n_tasks"].transpose("layer", "neuron").values
    layer, neuron = np.nonzero(n_tasks)
    names = [str(name) for name in serves["task"].values]
    of_neuron = serves.values[:, layer, neuron].T  # (task, layer, neuron) -> (found, task)
    table = pd.DataFrame(
        {
            "layer": serves["layer"].values[layer],
            "neuron": serves["neuron"].values[neuron],
            "n_tasks": n_tasks[layer, neuron],
            "tasks": [", ".join(name for name, yes in zip(names, row, strict=True) if yes) for row in of_neuron],
        }
    )
    return table.sort_values("n_tasks", ascending=False, kind="stable", ignore_index=True)
