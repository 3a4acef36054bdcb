"""The same function of every task of a store, its results put together.

Goal: results with a real `task` dimension, lazily.
Conventions: a task is a child of the store's tree.
"""

from collections.abc import Callable
from typing import Any

import xarray as xr

from . import accessor  # noqa: F401  registers ds.otoscope, which the functions given use
from .categories import category_names


def across(tree: xr.DataTree, function: Callable[[xr.Dataset], xr.DataArray | xr.Dataset]) -> xr.DataArray | xr.Dataset:
    """A function of each task's data set, put together along a dimension `task`, by name and lazily.

        across(tree, lambda ds: ds.otoscope.probability("gender"))      # (task, layer, neuron, category)

    Tasks need not have the same categories: where one lacks a category the result is NaN (and bools, which
    have no NaN, become 1.0, 0.0 and NaN).
    Raises ValueError for a tree without tasks, and whatever the function raises.
    """
    tasks = {name: child.to_dataset() for name, child in tree.children.items() if child.has_data}
    if not tasks:
        raise ValueError("this tree holds no task; expected one group per task: open a store with otoscope.open")
    results: list[Any] = [function(ds) for ds in tasks.values()]
    for dim in ("category", "other_category"):
        axes = [list(r.indexes[dim]) for r in results if dim in r.dims]
        if any(axis != axes[0] for axis in axes):
            every = list(dict.fromkeys(name for axis in axes for name in axis))  # in order of appearance
            names = category_names(every, dim)
            results = [_with_room_for_nan(r, dim).reindex({dim: names}) if dim in r.dims else r for r in results]
    by_task = [{str(n) for n, c in r.coords.items() if "category" in c.dims} for r in results]
    joined: xr.DataArray | xr.Dataset = xr.concat(
        results,
        dim=xr.DataArray(list(tasks), dims="task", name="task"),
        data_vars="all",
        coords=sorted(set.intersection(*by_task) - {"category"}),
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )
    return joined


def _with_room_for_nan(result: Any, dim: str) -> Any:
    if isinstance(result, xr.Dataset):
        return result.map(_with_room_for_nan, keep_attrs=True, args=(dim,))
    return result.astype(float) if result.dtype == bool and dim in result.dims else result
