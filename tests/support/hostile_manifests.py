"""Manifests that were damaged, mistaken for one, or made to hang a reader or fill its memory; each with what is right.

Read in processes of their own by `python -m tests.support.hostile_manifests FOLDER`, which prints a line of JSON for
each: its name, what came of it, seconds, and bytes of memory at most.
"""

import datetime
import decimal
import gzip
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from otoscope.extract.audio.corpus import Corpus
from otoscope.extract.audio.manifest import corpus_of

MAX_SECONDS = 20
MAX_BYTES = 1 << 30
MAX_ADDRESSES = 3 << 30  # of the reading process, so that a reader without bounds does not take the machine with it

Source = Path | pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Hostile:
    make: Callable[[Path], Source]
    """Write it into a folder, or make a table of it in memory."""
    refused: str = ""
    """Pattern of the message; "" where it is to be read."""
    names: list[str] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)


def text(content: str | bytes, name: str = "m.csv") -> Callable[[Path], Source]:
    def make(folder: Path) -> Source:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name

    return make


def sparse(start: bytes, size: int) -> Callable[[Path], Source]:
    def make(folder: Path) -> Source:
        with (folder / "m.csv").open("wb") as file:
            file.write(start)
            file.truncate(size)
        return folder / "m.csv"

    return make


def parquet(groups: int = 1, schema: pa.Schema | None = None, **columns: Any) -> Callable[[Path], Source]:
    """A Parquet file of these columns, so many times below each other."""

    def make(folder: Path) -> Source:
        table = pa.table(columns, schema=schema)
        with pq.ParquetWriter(folder / "m.parquet", table.schema, compression="zstd") as writer:
            for _ in range(groups):
                writer.write_table(table)
        return folder / "m.parquet"

    return make


def frame(**columns: Any) -> Callable[[Path], Source]:
    return lambda _folder: pd.DataFrame(columns)


def linked(to: str) -> Callable[[Path], Source]:
    def make(folder: Path) -> Source:
        (folder / "m.csv").symlink_to(to)
        return folder / "m.csv"

    return make


def pipe(folder: Path) -> Source:
    os.mkfifo(folder / "m.csv")
    return folder / "m.csv"


def local_socket(folder: Path) -> Source:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "m.csv"))
    return folder / "m.csv"


def directory(folder: Path) -> Source:
    (folder / "m.csv").mkdir()
    return folder / "m.csv"


def half_a_parquet_file(folder: Path) -> Source:
    parquet(path=[f"{i}.wav" for i in range(1000)])(folder)
    data = (folder / "m.parquet").read_bytes()
    (folder / "m.parquet").write_bytes(data[: len(data) // 2] + data[-100:])
    return folder / "m.parquet"


def text_that_is_not_utf8(folder: Path) -> Source:
    """Said to be text, and written as bytes."""
    file = parquet(path=[b"\xff\xfe.wav"], label=["x"])(folder)
    schema = pa.schema([("path", pa.string()), ("label", pa.string())])
    pq.write_table(pa.table([pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 6], "<i4").tobytes()), pa.py_buffer(b"\xff\xfe.wav")]
    ), pa.array(["x"])], schema=schema), folder / "m.parquet")  # fmt: skip
    return file


def repeated(value: Any, n: int, kind: pa.DataType | None = None) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value], kind))


MEGABYTE = "x" * 1_000_000
ONE = {"path": ["a.wav", "b.wav"]}
CASES = {
    "a cell of a megabyte": Hostile(make=text(f"path,label\na.wav,{MEGABYTE}\n"), refused=r"straddl|1,000,000 char"),
    "a cell above the bound": Hostile(
        make=text(f"path,label\na.wav,{'y' * 70_000}\n"), refused="70,000 characters in row 2"
    ),
    "a cell below the bound": Hostile(
        make=text(f"path,label\na.wav,{'y' * 60_000}\n"), names=["a.wav"], labels={"label": ["y" * 60_000]}
    ),
    "an id of a megabyte": Hostile(
        make=parquet(path=["a.wav"], id=[MEGABYTE]), refused="'id' has 1,000,000 characters"
    ),
    "ids of a megabyte, twice": Hostile(make=frame(path=["a", "b"], id=[MEGABYTE] * 2), refused="'id' has 1,000,000"),
    "a header of a megabyte": Hostile(make=text(f"path,{MEGABYTE}\na.wav,x\n"), refused="first line|field larger"),
    "a long column name": Hostile(make=text(f"path,{'n' * 9000}\na.wav,x\n"), refused="'n{80}'... cannot name a label"),
    "a million columns": Hostile(
        make=text("path," + ",".join(f"c{i}" for i in range(1_000_000)) + "\na.wav\n"),
        refused="first line does not end",
    ),
    "a hundred thousand columns": Hostile(
        make=text(",".join(map(str, range(100_000))) + "\n" + "," * 99_999 + "\n"), refused="100,000 columns; expected"
    ),
    "many columns in Parquet": Hostile(
        make=parquet(**{f"c{i}": ["x"] for i in range(10_001)}), refused="10,001 columns; expected"
    ),
    "many columns in memory": Hostile(make=lambda _: pd.DataFrame(np.zeros((1, 20_000))), refused="20,000 columns"),
    "many columns, none a path": Hostile(
        make=text(",".join(f"c{i}" for i in range(5000)) + "\n" + "," * 4999 + "\n"),
        refused=r"'c7' and 4992 more; rename",
    ),
    "zero bytes": Hostile(make=text(b"path,label\na.wav,x\0y\n"), refused="control character in row 2"),
    "zero bytes alone": Hostile(make=text(b"\0" * 5000), refused="zero bytes, as UTF-16"),
    "zero bytes in a table": Hostile(
        make=frame(path=["a\0.wav"]), refused="'path' has a line break or a control character in row 2"
    ),
    "UTF-16": Hostile(make=text("path,label\na.wav,é\n".encode("utf-16")), refused="found UTF-16 text; save"),
    "UTF-16 without its mark": Hostile(
        make=text("path,label\na.wav,x\n".encode("utf-16-le")), refused="zero bytes, as UTF-16"
    ),
    "UTF-32": Hostile(make=text("path\na.wav\n".encode("utf-32")), refused="UTF-16 text|control character"),
    "latin-1": Hostile(make=text("path,label\na.wav,é\n".encode("latin-1")), refused="save the table again as UTF-8"),
    "UTF-8 with a mark": Hostile(make=text("\ufeffpath,k\na,é\n"), names=["a"], labels={"k": ["é"]}),
    "two marks": Hostile(make=text("\ufeff\ufeffpath,label\na.wav,é\n"), refused="header has a .*control character"),
    "a quote that is never closed": Hostile(make=text('path,label\na.wav,"x\nb.wav,y\n'), refused="line break|quote"),
    "a quoted header never closed": Hostile(make=text('"path,label\na.wav,x\n' * 2000), refused="header has|fields"),
    "a column twice": Hostile(make=text("path,k,k\na,x,y\n"), refused="'k' repeated"),
    "the same column 9,000 times": Hostile(make=text("path" + ",k" * 9000 + "\n"), refused="'k' repeated; rename"),
    "a list in Parquet": Hostile(make=parquet(**ONE, k=[["x"], ["y"]]), refused="holds list<"),
    "a struct in Parquet": Hostile(make=parquet(**ONE, k=[{"a": 1}, {"a": 2}]), refused="holds struct<"),
    "a map in Parquet": Hostile(
        make=parquet(path=["a"], k=pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int64()))), refused="holds map<"
    ),
    "lists of many things": Hostile(
        make=parquet(path=["a"], k=pa.ListArray.from_arrays([0, 10_000_000], pa.array(np.zeros(10_000_000, np.int8)))),
        refused="holds list<",
    ),
    "bytes of one width": Hostile(make=parquet(path=["a"], k=pa.array([b"xy"], pa.binary(2))), refused="fixed_size"),
    "bytes that are no text": Hostile(make=parquet(path=["a"], k=[b"\xff\xfe"]), refused="'k' holds|Parquet file"),
    "text that is not UTF-8": Hostile(make=text_that_is_not_utf8, refused="expected a Parquet file"),
    "decimals": Hostile(
        make=parquet(**ONE, k=[decimal.Decimal("1.50"), None]), names=ONE["path"], labels={"k": ["1.50", ""]}
    ),
    "times": Hostile(
        make=parquet(path=["a"], k=[datetime.datetime(2024, 2, 29, 1, 2, 3)], d=[datetime.date(2024, 2, 29)]),
        names=["a"],
        labels={"k": ["2024-02-29 01:02:03.000000"], "d": ["2024-02-29"]},
    ),
    "whole numbers that floats do not hold": Hostile(
        make=parquet(**ONE, k=[2**63 - 1, -(2**63)], u=pa.array([2**64 - 1, 0], pa.uint64())),
        names=ONE["path"],
        labels={"k": ["9223372036854775807", "-9223372036854775808"], "u": ["18446744073709551615", "0"]},
    ),
    "categories in Parquet": Hostile(
        make=parquet(path=pa.array(["a", "b"]).dictionary_encode(), k=pa.array([7, None]).dictionary_encode()),
        names=["a", "b"],
        labels={"k": ["7", ""]},
    ),
    "a hundred million equal rows": Hostile(
        make=parquet(10, path=repeated("a", 10_000_000)), refused="15,000,000 rows"
    ),
    "twenty million equal rows of CSV": Hostile(make=text(b"path\n" + b"a\n" * 20_000_000), refused="15,000,000 rows"),
    "a million long equal rows": Hostile(make=parquet(path=repeated("y" * 60_000, 1_000_000)), refused="bytes of text"),
    "rows that zstd packs": Hostile(
        make=parquet(60, path=[f"{'z' * 50_000}{i}" for i in range(100)]), refused="bytes of text|is in rows"
    ),
    "equal rows below the bound": Hostile(
        make=parquet(path=repeated("a", 6_000_000)), refused="'a' is in rows 2, 3, 4 and"
    ),
    "ten million equal rows": Hostile(
        make=parquet(path=repeated("a", 10_000_000), start=pa.array(np.zeros(10_000_000), pa.float64())),
        refused="bytes of text",
    ),
    "half a Parquet file": Hostile(make=half_a_parquet_file, refused="expected a Parquet file"),
    "a gzip bomb": Hostile(
        make=text(gzip.compress(b"path\n" + b"a\n" * 50_000_000, 1), "m.csv.gz"), refused="ending in"
    ),
    "a gzip bomb called CSV": Hostile(make=text(gzip.compress(b"x" * 100_000_000, 1)), refused="found a gzip archive"),
    "JSON": Hostile(make=text('[{"path": "a.wav", "label": "x"}]'), refused="found JSON; write the table as CSV"),
    "JSON by lines": Hostile(make=text('{"path": "a.wav"}\n{"path": "b.wav"}\n'), refused="found JSON"),
    "a web page": Hostile(make=text("<!DOCTYPE html><html><body>404</body></html>"), refused="found a web page"),
    "a workbook": Hostile(make=text(b"PK\x03\x04" + bytes(range(256)) * 40), refused="found a workbook"),
    "a Git LFS pointer": Hostile(
        make=text("version https://git-lfs.github.com/spec/v1\noid x\n"), refused="git lfs pull"
    ),
    "Parquet called CSV": Hostile(make=text(b"PAR1" + b"\x15\x04" * 100), refused=r"ends in \.parquet"),
    "CSV called Parquet": Hostile(make=text("path\na.wav\n", "m.parquet"), refused="expected a Parquet file"),
    "semicolons": Hostile(
        make=text("path;label\na.wav;x\n"), refused="expected commas .* with semicolons between them"
    ),
    "semicolons and decimal commas": Hostile(make=text("path;start\na.wav;1,5\n"), refused="with semicolons between"),
    "tabs in CSV": Hostile(make=text("path\tlabel\na.wav\tx\n"), refused=r"with tabs .* a name that ends in \.tsv"),
    "commas in TSV": Hostile(make=text("path,label\na.wav,x\n", "m.tsv"), refused=r"expected tabs .* ends in \.csv"),
    "Excel's first line": Hostile(make=text("sep=;\npath;label\na.wav;x\n"), refused="'sep=...' .*delete that line"),
    "a folder": Hostile(make=directory, refused="is a folder, a pipe or a device"),
    "a pipe": Hostile(make=pipe, refused="is a folder, a pipe or a device"),
    "a socket": Hostile(make=local_socket, refused="is a folder, a pipe or a device"),
    "/dev/zero": Hostile(make=linked("/dev/zero"), refused="is a folder, a pipe or a device"),
    "a terminal": Hostile(make=linked("/dev/stdin"), refused="is a folder, a pipe or a device|no table|fields"),
    "a link to nothing": Hostile(make=linked("nothing"), refused="no table"),
    "a link to itself": Hostile(make=linked("m.csv"), refused="no table"),
    "40 GB of nothing": Hostile(make=sparse(b"path\na.wav\n", 40 << 30), refused="bytes; expected at most"),
    "3 GB of one line": Hostile(make=sparse(b"path\na.wav\n", 3 << 30), refused="straddl|zero byte"),
    "a first line without an end": Hostile(make=text("path" * 500_000), refused="first line does not end"),
    "2 MB of line ends": Hostile(make=text("\n" * 2_000_000), refused="first line|no rows|Empty CSV|one header"),
    "rows of unequal length": Hostile(make=text("path,k\na,x\nb,y,z\n"), refused="Expected 2 columns, got 3"),
    "a row of a hundred thousand cells": Hostile(make=text("path,k\na,x\n" + "," * 99_999), refused="got 100000"),
    "an endless start": Hostile(make=text("path,start\na.wav,inf\n"), refused="'start' has 'inf'"),
    "a stop beyond floats": Hostile(make=text("path,stop\na.wav,1e309\n"), refused="'stop' has '1e309'"),
    "a start of 1e308": Hostile(make=text("path,start\na.wav,1e308\n"), refused=r"start 1e\+308 .* <= 1e\+08"),
    "a decimal comma": Hostile(
        make=text('path,stop\na.wav,"1,5"\n'), refused="'1,5' in row 2; expected seconds, as 2.5"
    ),
    "a start that is no number": Hostile(make=text("path,start\na.wav,0x10\n"), refused="'0x10' in row 2"),
    "a tiny stop": Hostile(make=text("path,stop\na,5e-324\n"), names=["a#0-5e-324"]),
    "zeros of both signs": Hostile(
        make=text("path,start,stop\na,-0.0,1\nb,0,1\nc,-0,\n"), names=["a#0-1", "b#0-1", "c"]
    ),
    "one clip with zeros of both signs": Hostile(
        make=text("path,start,stop\na,-0.0,1\na,0,1\n"), refused="in rows 2, 3"
    ),
    "ids that steer a terminal": Hostile(
        make=text("path,id,k\na,\x1b[2J,x\nb,\u202eabc,y\n"), refused="'id' has .*control character in row 2"
    ),
    "such ids, twice": Hostile(
        make=text("path,id\nc,c\na,\u202ea\nb,\u202ea\n"), refused="'id' has .*control character in row 3"
    ),
    "an empty file": Hostile(make=text(""), refused="Empty CSV file"),
    "a mark alone": Hostile(make=text("\ufeff"), refused="."),
    "a header alone": Hostile(make=text("path,label\n"), refused="found no rows"),
    "a Parquet file without rows": Hostile(make=parquet(path=pa.array([], pa.string())), refused="found no rows"),
    "a Parquet file without columns": Hostile(make=parquet(), refused="found no rows"),
    "half a letter": Hostile(make=frame(path=pd.Series(["a\ud800.wav"], dtype=object)), refused="'path' holds"),
    "a whole number beyond 64 bits": Hostile(
        make=frame(path=["a"], k=pd.Series([2**70], dtype=object)), refused="'k' holds"
    ),
    "objects": Hostile(make=frame(path=["a"], k=[object()]), refused="'k' holds object"),
    "complex numbers": Hostile(make=frame(path=["a"], k=[1j]), refused="'k' holds complex128"),
    "intervals": Hostile(make=frame(path=["a"], k=[pd.Interval(0, 1)]), refused="'k' holds"),
    "carriage returns alone": Hostile(make=text("path,k\ra,x\rb,y\r"), names=["a", "b"], labels={"k": ["x", "y"]}),
    "ends of lines mixed": Hostile(make=text("path,k\r\na,x\n\r\nb,y"), names=["a", "b"], labels={"k": ["x", "y"]}),
    "ends of lines of Unicode": Hostile(
        make=text("path,k\na,x\u2028y\nb,\x85\x0bz\n"), refused="'k' has .*control character in row 2"
    ),
}


def outcome(source: Source) -> dict[str, Any]:
    try:
        corpus: Corpus = corpus_of(source)
    except (ValueError, LookupError, OSError) as error:  # what the command line prints as one line
        return {"refused": str(error)}
    except BaseException as error:
        return {"traceback": f"{type(error).__name__}: {error}"[:500]}
    labels = {str(name): corpus.labels[name].tolist() for name in corpus.labels}
    return {"names": corpus.clips.table["name"].tolist(), "labels": labels}


def in_a_process(work: Callable[[], object]) -> tuple[int, int]:
    """Run in a fork: how it ended, and bytes of memory at most."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_maxrss * 1024


def read_one(hostile: Hostile, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    in_memory = folder / "in memory"

    def write() -> None:
        if isinstance(made := hostile.make(folder), Path):
            (folder / "source").write_text(str(made))

    def read() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS + 1))
        signal.alarm(6 * MAX_SECONDS)  # a machine may be busy, and what waits for ever uses no processor
        source = folder / "source"
        found = outcome(Path(source.read_text()) if source.exists() else hostile.make(in_memory))
        (folder / "outcome").write_text(json.dumps(found))

    in_a_process(write)
    status, memory = in_a_process(read)
    found = json.loads((folder / "outcome").read_text()) if not status else {"killed": status}
    return {**found, "bytes": memory}


def main() -> None:
    for i, (name, hostile) in enumerate(CASES.items()):
        found = {"case": name, **read_one(hostile, Path(sys.argv[1]) / str(i))}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
