"""Probabilities that were made elsewhere, used as a store.

Goal: every table and figure that needs activation probabilities alone is to be had from published files too.
Conventions: a table of probabilities has the columns layer, neuron and one per category, as `probability_table` makes
it; it and a folder of published files stand for a store with one task, whose one labelling is called "class". What
needs clips (other readings, exemplars, embeddings) such data do not have.
What ends in `_analysis`, or in `_vit`, is of one encoder each, as published, and makes up one store.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ...messages import one_line
from ...store.frames import ENDINGS, MAX_CELLS, read_frame
from ..categories import category_names
from ..spreadsheet import undefused
from .files import PROBABILITY, read_published

SUFFIXES = ("_analysis", "_vit")  # of published folders; the rest is the task


def is_given(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a table by its ending or a folder with `over_zero.pt`, and not a store."""
    return Path(path).suffix.lower() in ENDINGS or (Path(path) / PROBABILITY).is_file()


def published_store(path: str | os.PathLike[str]) -> str | None:
    """The store that such a folder or table is a part of by its ending, "analysis" or "vit"; None for one by itself."""
    stem = Path(path).resolve().stem
    return next((end.removeprefix("_") for end in SUFFIXES if stem.endswith(end)), None)


def open_given(path: str | os.PathLike[str]) -> xr.DataTree:
    """A table of probabilities, or a folder of published files, as a tree of one task named like the file.

    `esc50_analysis/` is the task "esc50", as is `esc50.parquet`. The data set holds `probability` (layer, neuron,
    category). Raises what `read_probability` and `read_published` raise.
    """
    is_table = Path(path).suffix.lower() in ENDINGS
    p = read_probability(path) if is_table else read_published(path)["probability"]
    stem = Path(path).resolve().stem
    task = next((stem.removesuffix(end) for end in SUFFIXES if stem.endswith(end)), stem)
    data = p.rename("probability").to_dataset()
    return xr.DataTree.from_dict({f"/{task}": data.assign_attrs(task=task, encoder="", n_pending=0)})


def read_probability(path: str | os.PathLike[str]) -> xr.DataArray:
    """Activation probabilities of a table (.parquet, .csv): float64 (layer, neuron, category) in [0, 1].

    NaN where the table has no row or no number, as in layers of unequal width.
    Raises FileNotFoundError where there is none, ValueError for one that is not such a table, or that has numbers for
    some categories of a neuron only: what it prefers is then not known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected a table of probabilities: `otoscope import` makes one")
    try:
        frame = read_frame(path, dtype=np.float64)
    except (ValueError, OSError) as error:  # pandas' own errors are both
        raise ValueError(
            f"{path} is not a table of numbers ({one_line(error)}); expected CSV or Parquet with layer, neuron and one "
            "column of numbers per category"
        ) from error
    if path.suffix.lower() == ".csv":
        frame = frame.rename(columns=undefused)
    categories = [name for name in frame.columns if name not in ("layer", "neuron")]
    numbers = all(pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns)
    if not {"layer", "neuron"} <= set(frame.columns) or not categories or not numbers:
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, frame.columns[:6]))}; expected layer, neuron and one column "
            "of numbers per category: `otoscope import` and `otoscope table probability` make such tables"
        )
    if not all((frame[name] >= 0).all() and (frame[name] % 1 == 0).all() for name in ("layer", "neuron")):
        raise ValueError(f"{path} has layers or neurons that are not whole numbers from 0; expected 0, 1, ...")
    frame = frame.astype({"layer": np.int64, "neuron": np.int64})
    if frame.duplicated(["layer", "neuron"]).any():
        raise ValueError(f"{path} has several rows for one neuron; expected one row per layer and neuron")
    values = frame[categories].to_numpy(np.float64)
    partly = np.flatnonzero(np.isnan(values).any(axis=1) & ~np.isnan(values).all(axis=1))
    if partly.size:
        layer, neuron = (frame[name].iloc[partly[0]] for name in ("layer", "neuron"))
        raise ValueError(
            f"{path} has no number in some categories of {partly.size} neurons, the first in layer {layer}, neuron "
            f"{neuron}; expected one in each, or in none: leave those rows or columns out"
        )
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"{path} has values outside [0, 1]; expected probabilities")
    layers, layer_at = np.unique(frame["layer"], return_inverse=True)
    neurons, neuron_at = np.unique(frame["neuron"], return_inverse=True)
    if len(layers) * len(neurons) * len(categories) > MAX_CELLS:
        raise ValueError(
            f"{path} has {len(layers)} layers, {len(neurons)} neurons and {len(categories)} categories; expected a "
            f"cube of at most {MAX_CELLS} probabilities"
        )
    cube = np.full((len(layers), len(neurons), len(categories)), np.nan)
    cube[layer_at, neuron_at] = values
    return xr.DataArray(
        cube,
        dims=("layer", "neuron", "category"),
        coords={"layer": layers, "neuron": neurons, "category": category_names([str(name) for name in categories])},
        name="probability",
        attrs={"long_name": "activation probability", "units": "1"},
    )
