"""Tables as text: CSV, TSV, Parquet files and DataFrames to a DataFrame whose every cell is the text that they hold.

Goal: "NA", "01" and "a,b" stay labels, and a table that is damaged raises an error instead of being guessed at.
Conventions: no missing values, "" instead. Rows in messages count as a spreadsheet does: the header is row 1.
"""

import csv
import io
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ...messages import CONTROL, CONTROLS, one_line
from ...store.remote import read_url

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_text_table(path: Path | str, separator: str | None = None) -> pd.DataFrame:
    """All columns of a table as text, in the file's order; a str is a URL.

    separator: between the cells of a CSV file [a comma; a tab where its name ends in .tsv].
    CSV and TSV: UTF-8 with one header row, cells verbatim, empty lines skipped. Parquet: text and categories
    as they are, booleans "True" and "False", whole floats as whole numbers, nulls and NaN "".
    Raises FileNotFoundError; ValueError for another ending, for a file that cannot be read or has ragged
    rows, for columns of one name, for cells with line breaks or control characters, for no rows.
    """
    ending = PurePath(path).suffix.lower()
    if ending not in (*SEPARATORS, ".parquet"):
        raise ValueError(f"{path}: expected a table ending in .csv, .tsv or .parquet; rename or convert it")
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"no table {path}; expected a .csv, .tsv or .parquet file; check the path")
    data = path if isinstance(path, Path) else _fetched(path)
    header, columns = (
        _read_parquet(data, path) if ending == ".parquet" else _read_csv(data, path, separator or SEPARATORS[ending])
    )
    return _checked(header, columns, path)


def as_text_table(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """A DataFrame without its index, every cell as the text that `read_text_table` finds in a Parquet file of it.

    name: what messages call it. Raises ValueError as `read_text_table`.
    """
    header = [str(column) for column in frame.columns]
    return _checked(header, [_as_text(frame.iloc[:, i], header[i], name) for i in range(len(header))], name)


def _checked(header: list[str], columns: list[Any], path: Path | str) -> pd.DataFrame:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(
            f"{path}: expected distinct column names, found {', '.join(map(repr, twice))} repeated; rename"
        )
    broken = next((name for name in header if CONTROL.search(name) or "\n" in name), None)
    if broken is not None:
        raise ValueError(
            f"{path}: the header has a line break or a control character in {broken!r}; expected one line of text; "
            "look for a quote that is not closed"
        )
    if not columns or not len(columns[0]):
        raise ValueError(f"{path}: expected a header and one row per clip, found no rows; write it again")
    for name, column in zip(header, columns, strict=True):
        row = pc.index(pc.match_substring_regex(column, f"[\n{CONTROLS}]"), True).as_py()
        if row >= 0:
            raise ValueError(
                f"{path}: column {name!r} has a line break or a control character in row {row + 2}; "
                "expected one line of text; look for a quote that is not closed"
            )
    return pd.DataFrame({name: column.to_pandas() for name, column in zip(header, columns, strict=True)})


def _fetched(url: str) -> io.BytesIO:
    try:
        return io.BytesIO(read_url(url))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no table {url}; expected a .csv, .tsv or .parquet file; check the URL") from error


def _read_csv(data: Path | io.BytesIO, path: Path | str, separator: str) -> tuple[list[str], list[Any]]:
    try:
        raw = data.open("rb") if isinstance(data, Path) else io.BytesIO(data.getvalue())
        with io.TextIOWrapper(raw, newline="", encoding="utf-8-sig") as file:
            lines = (line for line in file if line.strip("\r\n"))
            width = len(next(csv.reader(lines, delimiter=separator), ()))
        table = pa.csv.read_csv(
            data,
            # Names are ours to check, so the header is read as a row; one thread, so that errors name rows.
            read_options=pa.csv.ReadOptions(use_threads=False, autogenerate_column_names=True),
            parse_options=pa.csv.ParseOptions(delimiter=separator),
            convert_options=pa.csv.ConvertOptions(
                column_types={f"f{i}": pa.string() for i in range(width)}, strings_can_be_null=False
            ),
        )
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, one header and as many fields in every row; "
            f"found: {one_line(error)}; correct that row or save the table again as UTF-8"
        ) from error
    return [str(column[0]) for column in table.columns], [column[1:] for column in table.columns]


def _read_parquet(data: Path | io.BytesIO, path: Path | str) -> tuple[list[str], list[Any]]:
    try:
        table = pa.parquet.ParquetFile(data).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: expected a Parquet file; found: {one_line(error)}; write it again") from error
    columns = [_as_text(column, name, path) for name, column in zip(table.column_names, table.columns, strict=True)]
    return table.column_names, columns


def _as_text(column: Any, name: str, path: Path | str) -> Any:
    """A column of Arrow or pandas as an Arrow column of text without nulls."""
    try:
        return _cast(pa.table({"column": column})["column"] if isinstance(column, pd.Series) else column)
    except pa.ArrowException as error:
        kind = column.dtype if isinstance(column, pd.Series) else column.type
        raise ValueError(
            f"{path}: column {name!r} holds {kind}; expected text, numbers or booleans; convert or drop it"
        ) from error


def _cast(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = pc.if_else(column, "True", "False")
    elif pa.types.is_floating(column.type):
        numbers = pc.cast(column, pa.float64())
        whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**53))
        integers = pc.cast(pc.if_else(whole, numbers, 0.0), pa.int64())
        text = pc.if_else(whole, pc.cast(integers, pa.string()), pc.cast(column, pa.string()))
        column = pc.if_else(pc.is_nan(numbers), "", text)
    return pc.fill_null(pc.cast(column, pa.string()), "")
