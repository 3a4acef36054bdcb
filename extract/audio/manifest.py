"""Manifests: tables with one row per clip to corpora, and tables of labels for clips that a store has already.

Goal: read a table (CSV, TSV, Parquet or DataFrame) strictly, so that no clip or label is guessed.
Conventions: paths are relative to the audio root with "/" between folders; times in seconds; labels are text
as the table has it, "" meaning no label. Rows in messages count as in a spreadsheet: the header is row 1.
Columns: `path` (or `file_name`), optional `id`, `start`, `stop`, `prompt`, `unit_sec`; every other column is a label,
`split` and `fold` included.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ...messages import clean, quoted
from ...store.location import URL, is_url
from ...store.provenance import MAX_UNIT_SEC
from ...store.schema import check_label_name
from .audio_root import AudioRoot, Folder, root_at
from .corpus import Clips, Corpus
from .text_table import as_text_table, read_text_table

PATHS = ("path", "file_name")
RESERVED = (*PATHS, "id", "start", "stop", "prompt", "unit_sec")
MAX_SECONDS = 1e8  # of a start or stop: three years, which every sample rate can count
MAX_NAMED = 8  # columns that a message lists
Source = str | Path  # of a table, for messages: a local path, a URL, or what else it is


def corpus_of(corpus: Corpus | str | Path | pd.DataFrame, audio_root: str | Path | None = None) -> Corpus:
    """The corpus that a manifest, or a DataFrame with a manifest's columns, describes; a Corpus as it is.

    audio_root: as in `read_manifest`; relative paths of a DataFrame start from the current folder by default.
    Raises as `read_manifest`.
    """
    if isinstance(corpus, Corpus):
        return corpus
    if isinstance(corpus, pd.DataFrame):
        return _corpus(as_text_table(corpus, "the table"), "the table", Path(), audio_root)
    return read_manifest(corpus, audio_root)


def read_manifest(path: str | Path, audio_root: str | Path | None = None) -> Corpus:
    """The corpus that a manifest describes.

    path: a file, or a URL as s3://BUCKET/FILE.csv.
    audio_root: the folder or URL that relative paths start from; default the manifest's own. Absolute paths, and URLs,
        become relative to it; if all are absolute local paths and some lie elsewhere, the default is their deepest
        common folder.
    Raises FileNotFoundError for a manifest that is not there, ValueError (file, row, expected, found, remedy)
    for one that cannot be read, has no path column, unusable label columns, impossible times, or two clips of
    one name.
    """
    path = path if is_url(path) else Path(path)
    home = path.parent if isinstance(path, Path) else path.rpartition("/")[0]
    return _corpus(read_text_table(path), path, home, audio_root)


def _corpus(frame: pd.DataFrame, path: Source, home: str | Path, audio_root: str | Path | None) -> Corpus:
    """The corpus that a text table describes. home: the default audio root."""
    label_columns = _label_columns(frame, path)
    files = frame[_path_column(frame, path)]
    _check_blank(files, path)
    root, files = _rooted(files, path, home, audio_root)
    start, stop = _times(frame, path)
    if "id" in frame:
        names = frame["id"]
        _check_blank(names, path)
        _check_duplicates(names, path, remedy="give each row an id of its own")
    else:
        names = _names(files, start, stop)
        _check_duplicates(names, path, remedy="drop the repeats or add a column 'id' of distinct names")
    labels = _labels(frame, label_columns)
    for column in label_columns:
        if (labels[column] == "").all():
            raise ValueError(
                f"{path}: label column {column!r} is empty in every row; expected at least one label; drop the column"
            )
    table = pd.DataFrame({"name": names, "path": files, "start": start, "stop": stop})
    if "prompt" in frame:
        table["prompt"] = frame["prompt"]
    return Corpus(clips=Clips(root=root, table=table), labels=labels, unit_sec=_unit_sec(frame, path))


def read_labels(path: str | Path, names: Sequence[str]) -> pd.DataFrame:
    """Label columns of a table, one row per clip of `names` and in that order; "" for clips without a row.

    Which clip a row is about is said by `clip` or `id` (the clip's name), else by `path` (or `file_name`)
    with `start` and `stop` if there are any: a manifest of the same clips will do.
    Raises FileNotFoundError, or ValueError for rows about clips that are not in `names`, for two rows about
    one clip, and for a table without label columns.
    """
    path = path if is_url(path) else Path(path)
    frame = read_text_table(path)
    key = next((column for column in ("clip", "id") if column in frame), None)
    if key is None:
        key = _path_column(frame, path, instead="'clip', 'id' or ")
        keys = _names(_tidy(frame[key]), *_times(frame, path))
    else:
        keys = frame[key]
    _check_duplicates(keys, path, remedy="keep one row per clip")
    columns = _label_columns(frame.drop(columns=key), path)
    if not columns:
        raise ValueError(f"{path}: expected label columns beside {key!r}, found none; add one")
    unknown = keys[~keys.isin(list(names))]
    if len(unknown):
        raise ValueError(
            f"{path}: {len(unknown)} of {len(keys)} rows are about clips that the task does not have, "
            f"the first {quoted(unknown.iloc[0])} in {_rows(unknown.index[:1])}; expected names such as "
            f"{quoted(next(iter(names), 'none'))}; correct or drop these rows"
        )
    table = _labels(frame, columns).set_axis(pd.Index(keys))
    return table.reindex(pd.Index(names), fill_value="").reset_index(drop=True)


def _path_column(frame: pd.DataFrame, path: Source, instead: str = "") -> str:
    found = [column for column in PATHS if column in frame]
    if len(found) != 1:
        more = f" and {frame.shape[1] - MAX_NAMED} more" if frame.shape[1] > MAX_NAMED else ""
        raise ValueError(
            f"{path}: expected {instead}one column 'path' (or 'file_name'), found the columns "
            f"{', '.join(map(quoted, frame.columns[:MAX_NAMED]))}{more}; "
            f"{'keep one of the two' if found else 'rename or add it'}"
        )
    return found[0]


def _labels(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Label columns, in which a cell of blanks is no label."""
    labels: pd.DataFrame = frame[columns].apply(lambda column: column.where(column.str.strip() != "", ""))
    return labels


def _label_columns(frame: pd.DataFrame, path: Source) -> list[str]:
    labels = [str(column) for column in frame.columns if column not in RESERVED]
    for column in labels:
        if re.fullmatch(r"|Unnamed: \d+|__index_level_\d+__", column):
            raise ValueError(
                f"{path}: column {column!r} is a row index or has no name; expected a label column; "
                "write the table with index=False, or name the column"
            )
        try:
            check_label_name(column)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return labels


def _check_blank(column: "pd.Series[str]", path: Source) -> None:
    blank = np.flatnonzero(column.str.strip() == "")
    if blank.size:
        raise ValueError(
            f"{path}: column {column.name!r} is blank in {_rows(blank)}; expected a value in every row; fill it in"
        )


def _check_duplicates(names: "pd.Series[str]", path: Source, remedy: str) -> None:
    again = names.duplicated()
    if again.any():
        name = names[again].iloc[0]
        raise ValueError(
            f"{path}: {quoted(name)} is in {_rows(np.flatnonzero(names == name))} ({int(again.sum())} repeats "
            f"in all); expected each clip once; {remedy}"
        )


def _tidy(files: "pd.Series[str]") -> "pd.Series[str]":
    """Paths without "./" and doubled "/", so that one file has one name; ".." stays, it may cross a link."""
    odd = files.str.contains("//", regex=False) | files.str.contains("/./", regex=False)
    odd |= files.str.startswith("./")
    odd &= ~files.str.match(URL)
    return files.mask(odd, files[odd].map(lambda text: str(PurePosixPath(text)))) if odd.any() else files


def _rooted(
    files: "pd.Series[str]", path: Source, home: str | Path, audio_root: str | Path | None
) -> tuple[AudioRoot, "pd.Series[str]"]:
    """The audio root, and paths relative to it."""
    files = _tidy(files)
    root = root_at(home if audio_root is None else audio_root)
    local = files.str.startswith("/")
    absolute = local | files.str.match(URL)
    if not absolute.any():
        return root, files
    inside = files.str.startswith(f"{root}/")
    if audio_root is None and local.all() and not inside.all():
        root = Folder(Path(os.path.commonpath((files.str.rpartition("/")[0] + "/").unique().tolist())))
        inside = absolute
    outside = np.flatnonzero(absolute & ~inside)
    if outside.size:
        first = quoted(clean(str(files.iat[outside[0]])))
        raise ValueError(
            f"{path}: {first} in {_rows(outside[:1])} is not under the audio root {root}; "
            "expected all audio under one folder or URL; give that as the audio root"
        )
    return root, _tidy(files.mask(absolute, files.str[len(str(root).rstrip("/")) + 1 :]))


def _times(frame: pd.DataFrame, path: Source) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """start and stop in seconds, NaN where open; a stop alone starts at 0, a start of 0 alone is no start."""
    start, stop = (_numbers(frame, column, path) + 0.0 for column in ("start", "stop"))  # + 0: -0.0 becomes 0.0
    start = start.mask(start.isna() & stop.notna(), 0.0).mask((start == 0) & stop.isna())
    wrong = np.flatnonzero((start < 0) | (stop <= start) | (start > MAX_SECONDS) | (stop > MAX_SECONDS))
    if wrong.size:
        i = int(wrong[0])
        until = f"{stop.iat[i]:g}" if stop.notna().iat[i] else "at the end"
        raise ValueError(
            f"{path}: {_rows(wrong)} {'has' if wrong.size == 1 else 'have'} start {start.iat[i]:g} and stop "
            f"{until} or the like; expected seconds, 0 <= start < stop <= {MAX_SECONDS:g}; correct them"
        )
    return start, stop


def _numbers(frame: pd.DataFrame, column: str, path: Source) -> "pd.Series[float]":
    """A column as float64, NaN where blank or where there is no such column."""
    if column not in frame:
        return pd.Series(np.nan, index=frame.index)
    text = frame[column]
    numbers = pd.to_numeric(text, errors="coerce").astype(np.float64)
    wrong = np.flatnonzero((text != "") & ~np.isfinite(numbers))
    if wrong.size:
        raise ValueError(
            f"{path}: column {column!r} has {quoted(str(text.iat[wrong[0]]))} in {_rows(wrong[:1])}; "
            "expected seconds, as 2.5, or nothing; correct it"
        )
    return numbers


def _unit_sec(frame: pd.DataFrame, path: Source) -> float | None:
    found = _numbers(frame, "unit_sec", path).unique().tolist()
    if len(found) > 1 or not (np.isnan(found[0]) or 0 < found[0] <= MAX_UNIT_SEC):
        raise ValueError(
            f"{path}: column 'unit_sec' has {', '.join(f'{x:g}' for x in found[:3])}; expected one positive length in "
            f"seconds, up to {MAX_UNIT_SEC:g}, for all rows, or none; make it constant or drop it"
        )
    return None if np.isnan(found[0]) else float(found[0])


def _names(files: "pd.Series[str]", start: "pd.Series[float]", stop: "pd.Series[float]") -> "pd.Series[str]":
    """path, plus `#start-stop` for parts of files; seconds as the shortest text that reads back the same."""
    part = start.notna() | stop.notna()
    if not part.any():
        return files
    begin, end = (x[part].map(repr).str.removesuffix(".0").replace("nan", "") for x in (start, stop))
    return files.mask(part, files[part] + "#" + begin + "-" + end)


def _rows(indices: "np.ndarray[Any, Any] | pd.Index[Any]") -> str:
    """Positions 0, 1, 5, ... as "rows 2, 3, 7 and 12 more"."""
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"row{'s' * (len(indices) > 1)} {', '.join(str(int(i) + 2) for i in indices[:3])}{more}"
