"""Tables as text: CSV, TSV, Parquet files and DataFrames to a DataFrame whose every cell is the text that they hold.

Goal: "NA", "01" and "a,b" stay labels, and a table that is damaged raises an error instead of being guessed at, as does
one that was made to fill memory, before it does.
Conventions: no missing values, "" instead. Rows in messages count as a spreadsheet does: the header is row 1.
"""

import codecs
import csv
import io
import re
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ...messages import CONTROL, CONTROLS, one_line, quoted
from ...store.remote import read_url

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SEPARATOR_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
MAX_FILE_BYTES = 4 << 30
MAX_HEADER_BYTES = 1 << 20  # of the first line
MAX_COLUMNS = 10_000
MAX_ROWS = 15_000_000  # of short cells in less than 1 GB of memory
MAX_CELL_BYTES = 1 << 16
MAX_TEXT_BYTES = 32 << 20  # that a small Parquet file may decode to: a thousand million equal rows take a few kB
MAX_RATIO = 100  # of text to file, for larger ones: the names of clips differ, so that no honest table packs so well
OTHER_FILES = (
    (rb"\xff\xfe|\xfe\xff", "UTF-16 text", "save the table again as UTF-8"),
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0", "a workbook or a ZIP archive", "save the table again as CSV in UTF-8"),
    (rb"\x1f\x8b", "a gzip archive", "unpack it"),
    (rb"PAR1", "a Parquet file", "give it a name that ends in .parquet"),
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
    (rb"(?s).?\0", "zero bytes, as UTF-16 text has them", "save the table again as UTF-8"),
    (rb"\s*<(?i:!doctype|html|\?xml)", "a web page", "download the table itself"),
    (rb"\s*(\{\s*[\"}]|\[\s*[\[{\"\]])", "JSON", "write the table as CSV or Parquet"),
    (rb"\"?sep=", "Excel's line 'sep=...' instead of a header", "delete that line, and save the table with commas"),
)
"""How files begin that are no CSV, what they are, and what to do."""


def read_text_table(path: Path | str, separator: str | None = None) -> pd.DataFrame:
    """All columns of a table as text, in the file's order; a str is a URL.

    separator: between the cells of a CSV file [a comma; a tab where its name ends in .tsv].
    CSV and TSV: UTF-8 with one header row, cells verbatim, empty lines skipped. Parquet: text and categories
    as they are, booleans "True" and "False", whole floats as whole numbers, nulls and NaN "".
    Raises FileNotFoundError; ValueError for another ending, for what is not a regular file, for a file that cannot be
    read, is of another kind, has ragged rows or other separators, for columns of one name or more than `MAX_COLUMNS`,
    for no rows or more than `MAX_ROWS`, for cells with line breaks, control characters or above `MAX_CELL_BYTES`, and
    for a file above `MAX_FILE_BYTES` or a Parquet file of more text than `MAX_TEXT_BYTES` and `MAX_RATIO` times its own
    size.
    """
    ending = PurePath(path).suffix.lower()
    if ending not in (*SEPARATORS, ".parquet"):
        raise ValueError(f"{path}: expected a table ending in .csv, .tsv or .parquet; rename or convert it")
    if isinstance(path, Path) and path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device; expected a .csv, .tsv or .parquet file: name that")
    if isinstance(path, Path) and not path.exists():
        raise FileNotFoundError(f"no table {path}; expected a .csv, .tsv or .parquet file; check the path")
    data = path if isinstance(path, Path) else _fetched(path)
    size = data.stat().st_size if isinstance(data, Path) else len(data.getbuffer())
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; expected at most {MAX_FILE_BYTES:,}: split the table")
    header, columns = _read_parquet(data, path, size) if ending == ".parquet" else _read_csv(data, path, separator)
    return _checked(header, columns, path)


def as_text_table(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """A DataFrame without its index, every cell as the text that `read_text_table` finds in a Parquet file of it.

    name: what messages call it. Raises ValueError as `read_text_table`.
    """
    header = [str(column) for column in frame.columns]
    _check_width(len(header), name)
    _check_rows(len(frame), name)
    return _checked(header, [_as_text(frame.iloc[:, i], header[i], name) for i in range(len(header))], name)


def _checked(header: list[str], columns: list[Any], path: Path | str) -> pd.DataFrame:
    long = next((name for name in header if len(name) > MAX_CELL_BYTES), None)
    if long is not None:
        raise ValueError(
            f"{path}: the header has {quoted(long)} of {len(long):,} characters; expected a name: correct it"
        )
    twice = sorted(name for name, n in Counter(header).items() if n > 1)
    if twice:
        named = ", ".join(map(quoted, twice[:3])) + (", ..." if len(twice) > 3 else "")
        raise ValueError(f"{path}: expected distinct column names, found {named} repeated; rename")
    broken = next((name for name in header if CONTROL.search(name) or "\n" in name), None)
    if broken is not None:
        raise ValueError(
            f"{path}: the header has a line break or a control character in {quoted(broken)}; expected one line of "
            "text; look for a quote that is not closed"
        )
    if not columns or not len(columns[0]):
        raise ValueError(f"{path}: expected a header and one row per clip, found no rows; write it again")
    for name, column in zip(header, columns, strict=True):
        row = pc.index(pc.match_substring_regex(column, f"[\n{CONTROLS}]"), True).as_py()
        if row >= 0:
            raise ValueError(
                f"{path}: column {quoted(name)} has a line break or a control character in row {row + 2}; "
                "expected one line of text; look for a quote that is not closed"
            )
        row = pc.index(pc.greater(pc.binary_length(column), MAX_CELL_BYTES), True).as_py()
        if row >= 0:
            raise ValueError(
                f"{path}: column {quoted(name)} has {len(column[row].as_py()):,} characters in row {row + 2}; expected "
                f"at most {MAX_CELL_BYTES:,} bytes in a cell; shorten it"
            )
    return pd.DataFrame({name: column.to_pandas() for name, column in zip(header, columns, strict=True)})


def _fetched(url: str) -> io.BytesIO:
    try:
        return io.BytesIO(read_url(url))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no table {url}; expected a .csv, .tsv or .parquet file; check the URL") from error


def _check_width(n: int, path: Path | str) -> None:
    if n > MAX_COLUMNS:
        raise ValueError(f"{path} has {n:,} columns; expected at most {MAX_COLUMNS:,}; drop those that are no labels")


def _check_rows(n: int, path: Path | str) -> None:
    if n > MAX_ROWS:
        raise ValueError(f"{path} has more than {MAX_ROWS:,} rows; expected at most so many: split the table")


def _read_csv(data: Path | io.BytesIO, path: Path | str, separator: str | None) -> tuple[list[str], list[Any]]:
    by_name = SEPARATORS[PurePath(path).suffix.lower()]
    with data.open("rb") if isinstance(data, Path) else io.BytesIO(data.getvalue()) as file:
        start = file.read(MAX_HEADER_BYTES)
    begins = start.removeprefix(codecs.BOM_UTF8)
    for pattern, what, remedy in OTHER_FILES:
        if re.match(pattern, begins):
            raise ValueError(f"{path}: expected UTF-8 text with a header; found {what}; {remedy}")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start, final=len(start) < MAX_HEADER_BYTES)
        if len(start) == MAX_HEADER_BYTES and not re.search(r"[^\r\n][\r\n]", text):
            raise ValueError(f"{path}: its first line does not end within 1 MB; expected a header of column names")
        lines = (line for line in io.StringIO(text, newline="") if line.strip("\r\n"))
        header = next(csv.reader(lines, delimiter=separator or by_name), [])
        if separator is None:  # who gives one knows what columns there are
            _check_separator(header, by_name, path)
        _check_width(len(header), path)
        reader = pa.csv.open_csv(
            data,
            # Names are ours to check, so the header is read as a row; one thread, so that errors name rows.
            read_options=pa.csv.ReadOptions(use_threads=False, autogenerate_column_names=True),
            parse_options=pa.csv.ParseOptions(delimiter=separator or by_name),
            convert_options=pa.csv.ConvertOptions(
                column_types={f"f{i}": pa.string() for i in range(len(header))}, strings_can_be_null=False
            ),
        )
        batches, n = [], -1
        for batch in reader:
            batches.append(batch)
            n += len(batch)
            _check_rows(n, path)
        table = pa.Table.from_batches(batches, reader.schema)
        if table.num_columns != len(header):  # what has no type here would be read as numbers
            raise pa.ArrowInvalid(f"{len(header)} or {table.num_columns} fields in the header")
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, one header and as many fields in every row; "
            f"found: {one_line(error)}; correct that row or save the table again as UTF-8"
        ) from error
    return [str(column[0]) for column in table.columns], [column[1:] for column in table.columns]


def _check_separator(header: list[str], separator: str, path: Path | str) -> None:
    """Raise ValueError for a header of one cell that other separators divide."""
    other = next((s for s in SEPARATOR_NAMES if s != separator and s in header[0]), None) if len(header) == 1 else None
    if other is not None:
        ending = next((f", or give it a name that ends in {e}" for e, s in SEPARATORS.items() if s == other), "")
        raise ValueError(
            f"{path}: expected {SEPARATOR_NAMES[separator]} between cells, found the columns {quoted(header[0])}, with "
            f"{SEPARATOR_NAMES[other]} between them; save the table with {SEPARATOR_NAMES[separator]}{ending}"
        )


def _read_parquet(data: Path | io.BytesIO, path: Path | str, size: int) -> tuple[list[str], list[Any]]:
    try:
        file = pa.parquet.ParquetFile(data)
        schema, about = file.schema_arrow, file.metadata
        _check_width(len(schema), path)
        _check_rows(about.num_rows, path)
        for field in schema:
            if not _is_readable(field.type):
                raise _unreadable(field.name, field.type, path)
        packed = sum(max(0, about.row_group(i).total_byte_size) for i in range(about.num_row_groups))
        _check_text_bytes(max(packed, about.num_rows * len(schema) * 4), size, path)
        # Repeated text is kept once until its size is known.
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
        table = pa.parquet.ParquetFile(data, read_dictionary=texts).read()
        table.validate(full=True)
        _check_text_bytes(sum(map(_text_bytes, table.columns)), size, path)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError(f"{path}: expected a Parquet file; found: {one_line(error)}; write it again") from error
    columns = [_as_text(column, name, path) for name, column in zip(table.column_names, table.columns, strict=True)]
    return table.column_names, columns


def _is_readable(kind: Any) -> bool:
    """Whether a type of Arrow is one of single values that are text, numbers, booleans or times."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    numbers = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_decimal,
        types.is_temporal,
        types.is_null,
    )
    return any(is_such(kind) for is_such in (*texts, *numbers))


def _check_text_bytes(n: int, size: int, path: Path | str) -> None:
    if n > max(MAX_TEXT_BYTES, MAX_RATIO * size):
        raise ValueError(
            f"{path}: its {size:,} bytes hold {n:,} bytes of text or more; expected at most {MAX_RATIO} times its "
            "size, as rows are about different clips; write the table again"
        )


def _text_bytes(column: Any) -> int:
    """Bytes of text that a column decodes to; of a column of numbers, its own."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(pc.cast(chunk.dictionary, pa.large_string()))
        total += pc.sum(pc.cast(pc.take(lengths, chunk.indices), pa.int64())).as_py() or 0
    return total


def _as_text(column: Any, name: str, path: Path | str) -> Any:
    """A column of Arrow or pandas as an Arrow column of text without nulls."""
    try:
        return _cast(pa.table({"column": column})["column"] if isinstance(column, pd.Series) else column)
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError, NotImplementedError) as error:
        raise _unreadable(name, column.dtype if isinstance(column, pd.Series) else column.type, path) from error


def _unreadable(name: str, kind: Any, path: Path | str) -> ValueError:
    return ValueError(
        f"{path}: column {quoted(name)} holds {str(kind)[:80]}; expected text, numbers or booleans; convert or drop it"
    )


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
