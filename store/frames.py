"""Tables of numbers that others wrote, CSV and Parquet, of bounded size.

Goal: a small file that unfolds to more than memory holds is refused before it is unfolded.
Conventions: columns have distinct names; an index that pandas wrote is a column as any other.
"""

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..documents import check_size

MAX_CELLS = 2**25  # rows times columns: the neurons of twelve layers of 3072, and 900 categories
MAX_COLUMNS = 2**13
MAX_FRAME_BYTES = 2**29
MAX_HEADER_BYTES = 2**20  # of the first line of a CSV file
ENDINGS = (".csv", ".parquet")


def read_frame(path: Path, **options: Any) -> pd.DataFrame:
    """A table by its ending. options: of `pandas.read_csv`.

    Raises ValueError for a file that is no such table, is too large, has two columns of a name or longer rows than its
    header, OSError as opening does.
    """
    if path.suffix.lower() == ".parquet":
        frame: pd.DataFrame = read_parquet(path).replace_schema_metadata(None).to_pandas()
        names = list(frame.columns)
    else:
        check_size(path.stat().st_size, MAX_FRAME_BYTES)
        with path.open("rb") as file:
            header = file.readline(MAX_HEADER_BYTES)
            n_lines = 1 + sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))
        try:
            names = next(csv.reader([header.decode("utf-8-sig")]), [])
        except csv.Error as error:
            raise ValueError(str(error)) from error
        _check_cells(n_lines, len(names))
        frame = pd.read_csv(path, **options)
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("its rows are longer than its header")
    if len(set(names)) < len(names):
        raise ValueError(f"it has several columns {max(names, key=names.count)[:40]!r}")
    return frame


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file. Raises ValueError for what is none, or is too large, OSError as opening does."""
    try:
        with pq.ParquetFile(path) as file:
            about = file.metadata
            _check_cells(about.num_rows, about.num_columns)
            check_size(sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)), MAX_FRAME_BYTES)
            return file.read()
    except (pa.ArrowException, MemoryError) as error:
        raise ValueError(str(error)) from error


def _check_cells(n_rows: int, n_columns: int) -> None:
    if n_rows * n_columns > MAX_CELLS or n_columns > MAX_COLUMNS:
        raise ValueError(
            f"it has {n_rows} rows of {n_columns} columns; expected at most {MAX_COLUMNS} columns and {MAX_CELLS} cells"
        )
