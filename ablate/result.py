"""Results of ablations as tables and files.

Goal: a result is one Parquet file that pandas reads, and comes back as the same data set.
Conventions: one row per measure and category, and one per measure over all clips (`overall` is true and `category`
empty); beside the counts of clips a column per variable, `control_change` a list over the controls. All else
(request, seeds, digests, notes, counts by category and prediction) is JSON under the key "otoscope" of the file's
schema.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from ..analysis.categories import category_names
from ..documents import parse_json
from ..files import check_target, partial_path, whole_file
from ..messages import one_line
from ..store.frames import read_parquet

KEY = b"otoscope"
FORMAT = 3  # of files
COUNTS = ("n_clips", "n_changed")
CONFUSIONS = ("predicted_before", "predicted_after")
LIST = "control_change"
FIRST = ("measure", "category", "overall", *COUNTS)  # columns before those of numbers
ENDINGS = (".parquet",)


def result_table(result: xr.Dataset) -> pd.DataFrame:
    """One row per measure and category, those over all clips last: measure, category, overall, counts, effects.

    The controls' changes are left out; their mean, lowest and highest are there.
    """
    frame = _rows(result)
    changes = frame.pop(LIST)
    for name, of in (("mean", np.mean), ("min", np.min), ("max", np.max)):
        frame[f"control_{name}"] = [float(of(values)) if len(values) else np.nan for values in changes]
    return frame


def clips_table(result: xr.Dataset) -> pd.DataFrame:
    """One row per tested clip: clip, category, predicted_before, predicted_after, and each measure before and after.

    Of a result as `run_study` gives it; files do not hold what is per clip.
    """
    columns = {"clip": result["clip"].values, "category": result["truth"].values}
    columns |= {f"predicted_{when}": result[f"clip_predicted_{when}"].values for when in ("before", "after")}
    for measure in result["measure"].values:
        for when in ("before", "after"):
            columns[f"{measure}_{when}"] = result[f"clip_{when}"].sel(measure=measure).values
    return pd.DataFrame(columns)


def _rows(result: xr.Dataset) -> pd.DataFrame:
    one = [str(name) for name, values in result.data_vars.items() if values.dims == ("measure", "category")]
    rows = []
    for measure in result["measure"].values:
        of = result.sel(measure=measure)
        for i, category in enumerate(of["category"].values):
            row: dict[str, Any] = {"measure": measure, "category": category, "overall": False}
            row |= {name: int(of[name][i]) for name in COUNTS}
            row |= {name: float(of[name][i]) for name in one} | {LIST: of[LIST].values[i].tolist()}
            rows.append(row)
    for measure in result["measure"].values:
        of = result.sel(measure=measure)
        row = {"measure": measure, "category": "", "overall": True}
        row |= {name: int(result.attrs[name]) for name in COUNTS}
        row |= {name: float(of[f"overall_{name}"]) if f"overall_{name}" in of else np.nan for name in one}
        rows.append(row | {LIST: of[f"overall_{LIST}"].values.tolist()})
    return pd.DataFrame(rows)


def write_result(result: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a result as Parquet; the file appears whole or not at all.

    Raises as `check_target`.
    """
    about = {
        "format": FORMAT, "attrs": result.attrs, "units": [str(unit) for unit in result["units"].values],
        "confusions": {name: result[name].values.tolist() for name in CONFUSIONS},
        "long_names": {str(n): v.attrs["long_name"] for n, v in result.data_vars.items() if "long_name" in v.attrs},
        "lost": result["lost"].values.tolist(), "gained": result["gained"].values.tolist(),
    }  # fmt: skip
    table = pa.Table.from_pandas(_rows(result), preserve_index=False)
    metadata = {**(table.schema.metadata or {}), KEY: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}
    with whole_file(path, ENDINGS) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial)


def check_writable(path: str | os.PathLike[str], endings: Collection[str] = ENDINGS) -> None:
    """Raise what writing a file there would: better known before a run than after.

    Raises ValueError for a name with another ending, FileNotFoundError for a folder that does not exist, OSError where
    no file can be written.
    """
    target = check_target(path, endings)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; expected the name of a file: choose another")
    partial = partial_path(target)
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write in {target.parent} ({error.strerror}); expected a folder that takes {target.name}: use "
            "another"
        ) from error


def read_result(path: str | os.PathLike[str]) -> xr.Dataset:
    """The result that `write_result` wrote, without what it held per clip.

    Raises FileNotFoundError where there is none, ValueError for another file or format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; expected the result of `otoscope ablate run`")
    try:
        return result_of_table(read_parquet(Path(path)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a valid result of an ablation ({one_line(error)}); expected a file as `otoscope ablate run "
            "-o` writes it"
        ) from error


def holds(path: str | os.PathLike[str], digest: str) -> bool:
    """Whether a file holds the result of the study with this digest. Raises ValueError for a file of another kind."""
    return Path(path).is_file() and bool(read_result(path).attrs["digest"] == digest)


def result_of_table(table: pa.Table) -> xr.Dataset:
    """A result as `read_result` gives it, of an Arrow table with the columns and metadata of its file.

    Raises ValueError for another table.
    """
    try:
        return _result_of(table)
    except (LookupError, TypeError, AttributeError, ArithmeticError, pa.ArrowException, MemoryError) as error:
        raise ValueError(f"{type(error).__name__}: {one_line(error)}") from error


def _result_of(table: pa.Table) -> xr.Dataset:
    about = parse_json((table.schema.metadata or {})[KEY])
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}, not {FORMAT}")
    frame = table.replace_schema_metadata(None).to_pandas()
    inside, overall = frame[~frame["overall"]], frame[frame["overall"]]
    measures, names = list(overall["measure"]), list(inside["category"].iloc[: len(inside) // len(overall)])
    rows = [(measure, name) for measure in measures for name in names]
    attrs, kinds = dict(about["attrs"]), {**dict.fromkeys(COUNTS, int), "digest": str, "request": dict}
    if (
        list(frame.columns[: len(FIRST)]) != list(FIRST)
        or not pd.api.types.is_bool_dtype(frame["overall"])
        or not all(pd.api.types.is_integer_dtype(frame[name]) for name in COUNTS)
        or list(zip(inside["measure"], inside["category"], strict=True)) != rows
        or len(set(rows)) < len(rows)
        or not all(isinstance(attrs.get(name, kind()), kind) for name, kind in kinds.items())
        or not {*COUNTS} <= {*attrs}
    ):
        raise ValueError("its rows are not those of every measure and category in order, or its request is damaged")
    shape = (len(measures), len(names))
    data: dict[str, Any] = {}
    for name in frame.columns[len(FIRST) :]:
        about_it = {"long_name": about["long_names"][name]}
        if name == LIST:
            changes = np.array(inside[name].tolist(), float).reshape(*shape, -1)
            data[name] = (("measure", "category", "control"), changes, about_it)
            data[f"overall_{name}"] = (("measure", "control"), np.array(overall[name].tolist(), float), about_it)
            continue
        data[name] = (("measure", "category"), inside[name].to_numpy(float).reshape(shape), about_it)
        if f"overall_{name}" in about["long_names"]:
            data[f"overall_{name}"] = ("measure", overall[name].to_numpy(float), about_it)
    for name in CONFUSIONS:
        counts = np.array(about["confusions"][name]).reshape(len(names), -1)
        data[name] = (("category", "predicted"), counts, {"units": "clips"})
    return xr.Dataset(
        data | {name: ("category", np.array(about[name])) for name in ("lost", "gained")},
        coords={
            "measure": np.array(measures, dtype=object),
            "units": ("measure", np.array(about["units"], dtype=object)),
            "category": category_names(names),
            "predicted": category_names(names, "predicted"),
            "control": np.arange(data[LIST][1].shape[-1]),
            **{name: ("category", inside[name].to_numpy()[: len(names)]) for name in COUNTS},
        },
        attrs=attrs,
    )
