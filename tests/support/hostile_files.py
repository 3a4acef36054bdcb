"""Files that are given to commands, made by somebody else to fill memory, to hang, or to be taken for other numbers.

Each case writes files into a folder that holds a finished store `s`, and gives the command that reads them.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save

from otoscope.ablate.effects import clip_scores, compare
from otoscope.ablate.result import KEY, write_result

from .hostile_stores import TEXTS, deep, put_pipe, put_sparse

Command = tuple[object, ...]
Data = bytes | Callable[[], bytes]  # large ones are made when they are wanted
Case = Callable[[Path], Command]


# What files hold

YAML: dict[str, Data] = {
    "laughs": b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
        b"%c: &%c [%b]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("m"))
    ),
    "alias": b"int_gain: &g 0\nint_neurons: [[0, 3], [0, *g]]\n", "itself": b"a: &a [*a]\n",
    "lists": deep("[]", 100_000), "deep": b"int_gain: 0\nint_neurons: " + deep("[]", 60),
    "objects": b"{a: " * 50_000 + b"1" + b"}" * 50_000, "blocks": b"".join(b" " * i + b"a:\n" for i in range(3000)),
    "python": b"!!python/object/apply:os.system ['touch x']\n", "tag": b"int_gain: !!int ''\nint_neurons: []\n",
    "base-60": b"int_gain: " + b"1:" * 400_000 + b"1\nint_neurons: []\n",
    "date": b"int_gain: 2001-99-99\nint_neurons: []\n",
    "hexadecimal": b"int_gain: 0x" + b"f" * 9_000 + b"\nint_neurons: [[0, 3]]\n",
    "digits": b"int_gain: " + b"9" * 6000 + b"\nint_neurons: [[0, 3]]\n",
    "binary": b"int_gain: 0b_\nint_neurons: [[0, 3]]\n",
    "nan": b"int_gain: .nan\nint_neurons: [[0, 3]]\n",
    "large": lambda: b"int_gain: 0\nint_neurons: [" + b"[0, 3], " * 3_000_000 + b"]\n",
    "wide": b"int_gain: 0\nint_neurons: [" + b"a," * 500_000 + b"]\n", "merge": b"<<: [{a: 1}, {b: 2}]\n",
    "key": b"? [a, b]\n: 1\n",
    "keys": b"? {a: 1}\n: 1\n",
    "two": b"a: 1\n--- \nb: 2\n",
    "empty": b"",
    "zeros": bytes(99),
    "latin": b"a: \xe9\n",
    "controls": b"int_gain: 0\nint_neurons: '\x1b[31m'\n",
    "text": b"int_gain: 0\nint_neurons: many\n",
    "negative": b"int_gain: 0\nint_neurons: [[0, -3]]\n",
    "layer": b"int_gain: 0\nint_neurons: [[99999999999999999999999, 3]]\n",
    "float": b"int_gain: 0\nint_neurons: [[0, 3.5]]\n", "true": b"int_gain: true\nint_neurons: [[0, 3]]\n",
}  # fmt: skip

SETS: dict[str, Data] = {
    "none": b"{}",
    "pairs": b'{"pairs": "03", "name": "", "why": {}}',
    "text": b'{"pairs": [["0", "3"]], "name": "", "why": {}}',
    "float": b'{"pairs": [[0, 3.0]], "name": "", "why": {}}', "true": b'{"pairs": [[true, 3]], "name": "", "why": {}}',
    "huge": b'{"pairs": [[0, 123456789012345678901234567890]], "name": "", "why": {}}',
    "far": b'{"pairs": [[0, 9007199254740993]], "name": "", "why": {}}',
    "name": b'{"pairs": [[0, 3]], "name": {"a": 1}, "why": {}}',
    "controls": b'{"pairs": [[0, 99999]], "name": "\\u001b[31m\\u202e\\r", "why": {}}',
    "why": b'{"pairs": [[0, 3]], "name": "", "why": [' + deep("[]", 30) + b"]}",
    "unknown": b'{"pairs": [], "run": "rm", "name": "", "why": {}}',
    "many": lambda: b'{"pairs": [' + b"[0,3]," * 2_000_000 + b'[0,3]], "name": "", "why": {}}',
}  # fmt: skip

TABLES: dict[str, Data] = {
    "empty": b"",
    "zeros": bytes(4096),
    "header": b"layer,neuron\n",
    "text": b"layer,neuron\n0,x\n",
    "missing": b"layer,neuron\n0,\n",
    "float": b"layer,neuron\n0,3.5\n",
    "negative": b"layer,neuron\n0,-3\n",
    "huge": b"layer,neuron\n0,%b\n" % (b"9" * 5000),
    "beyond": b"layer,neuron\n0,18446744073709551615\n",
    "longer": b"layer,neuron\n0,1,2\n3,4,5\n",
    "twice": b"layer,layer,neuron\n0,0,3\n",
    "columns": lambda: b"layer,neuron" + b",x" * 2_000_000 + b"\n0,3\n",
    "commas": lambda: b"," * 5_000_000,
    "quote": b'layer,neuron\n0,"' + b"3\n" * 100_000,
    "rows": lambda: b"layer,neuron\n" + b"0,3\n" * 20_000_000,
    "latin": b"layer,neuron\n\xe9,3\n",
    "utf16": "layer,neuron\n0,3\n".encode("utf-16"),
    "nan": b"layer,neuron\nnan,nan\n", "infinite": b"layer,neuron\n0,1e400\n", "complex": b"layer,neuron\n0,3j\n",
}  # fmt: skip

PROBABILITIES: dict[str, Data] = {
    **TABLES,
    "one": b"layer,neuron,a\n0,0,0.5\n",
    "above": b"layer,neuron,a,b\n0,0,1.5,0\n",
    "nothing": b"layer,neuron,a\n0,0,nan\n",
    "layers": b"layer,neuron,a\n0.5,0,0.5\n",
    "below": b"layer,neuron,a\n-1,0,0.5\n",
    "same": b"layer,neuron,a\n0,0,0.5\n0,0,0.5\n",
    "spread": b"layer,neuron,a\n" + b"".join(b"%d,%d,0.5\n" % (i, i) for i in range(20_000)),
    "far": b"layer,neuron,a\n0,9999999999999999999999,0.5\n",
    "words": lambda: b"layer,neuron,a\n0,0," + b"x" * 10_000_000 + b"\n",
    "names": b"layer,neuron,\x1b[31m,=1+1\n0,0,0.5,0.25\n0,1,0.25,0.5\n",
}  # fmt: skip


def many_rows() -> pa.Table:
    zeros = pa.array(np.zeros(20_000_000, np.int8))
    return pa.table({"layer": zeros, "neuron": pa.DictionaryArray.from_arrays(zeros, [0])})


def frames() -> Iterator[tuple[str, pa.Table]]:
    """Parquet tables for those who expect numbers by layer and neuron."""
    yield "nested", pa.table({"layer": [[[0]]], "neuron": [{"a": 1}]})
    yield "text", pa.table({"layer": ["0"], "neuron": ["3"]})
    yield "time", pa.table({"layer": pa.array([0], pa.timestamp("ns")), "neuron": [3]})
    yield "decimal", pa.table({"layer": pa.array([0], pa.decimal128(38)), "neuron": [3]})
    yield "nulls", pa.table({"layer": pa.array([None], pa.int64()), "neuron": pa.nulls(1)})
    yield "boolean", pa.table({"layer": [True], "neuron": [False]})
    yield "negative", pa.table({"layer": [0], "neuron": [-3]})
    yield "columns", pa.table({f"c{i}": [0] for i in range(20_000)})
    yield "metadata", pa.table({"layer": [0], "neuron": [3]}).replace_schema_metadata({b"pandas": deep("[]", 50_000)})
    yield (
        "index",
        pa.table({"layer": [0], "neuron": [3]}).replace_schema_metadata(
            {b"pandas": b'{"index_columns": ["layer"], "columns": [], "column_indexes": []}'}
        ),
    )
    yield "twice", pa.Table.from_arrays([pa.array([0]), pa.array([1]), pa.array([3])], ["layer", "layer", "neuron"])


def result() -> Any:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20)
    scores, predicted = clip_scores(rng.normal(size=(6, 20, 3)), truth, None)
    found = compare(scores, predicted, truth, ["a", "b", "c"])
    return found.assign_attrs(request={"set": "shared(a,c)"}, digest="abc")


@cache
def written_result() -> pa.Table:
    with TemporaryDirectory() as folder:
        write_result(result(), Path(folder, "whole.parquet"))
        return pq.read_table(Path(folder, "whole.parquet"))


def results() -> Iterator[tuple[str, Callable[[], pa.Table]]]:
    """Results of ablations that no run of ours wrote."""
    table = written_result()
    about = json.loads(table.schema.metadata[KEY])

    def with_about(text: bytes) -> Callable[[], pa.Table]:
        return lambda: table.replace_schema_metadata({KEY: text})

    for name, text in TEXTS.items():
        yield f"about {name}", with_about(text)
    for field in ("attrs", "units", "confusions", "long_names", "lost", "gained", "format"):
        for value in (None, [], {}, "x", 10**12, {"predicted_before": [[1]], "predicted_after": 5}):
            yield f"{field} {str(value)[:8]}", with_about(json.dumps({**about, field: value}).encode())
    attrs = about["attrs"]
    for name, odd in (("n_clips", "x"), ("request", []), ("digest", 5)):
        yield f"attrs {name}", with_about(json.dumps({**about, "attrs": {**attrs, name: odd}}).encode())
    yield "no attrs", with_about(json.dumps({name: value for name, value in about.items() if name != "attrs"}).encode())
    order = np.arange(len(table))
    yield "order", lambda: table.take(np.roll(order, 1))
    yield "exchanged", lambda: table.take(np.r_[1, 0, 2 : len(table)])
    yield "fewer", lambda: table.slice(0, 5)
    yield "none", lambda: table.slice(0, 0)
    yield "twice", lambda: table.take(np.r_[0, 0 : len(table)])
    yield "overall", lambda: table.set_column(2, "overall", pa.array([True] * len(table)))
    yield "inside", lambda: table.set_column(2, "overall", pa.array([False] * len(table)))
    yield "overall text", lambda: table.set_column(2, "overall", pa.array(["x"] * len(table)))
    yield "counts", lambda: table.set_column(3, "n_clips", pa.array(["x"] * len(table)))
    yield "names", lambda: table.set_column(1, "category", pa.array([["x"]] * len(table)))
    yield (
        "lists",
        lambda: table.set_column(
            table.column_names.index("control_change"), "control_change", pa.array([[0.0]] + [[]] * (len(table) - 1))
        ),
    )
    yield "renamed", lambda: table.rename_columns([f"x{i}" for i in range(table.num_columns)])
    yield "many", lambda: pa.concat_tables([table] * 200_000)


def write_tensors(objects: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in objects.items():
        torch.save(value, folder / name)


def published() -> Iterator[tuple[str, dict[str, Any]]]:
    """What folders of published files hold."""
    yield "expanded", {"over_zero.pt": torch.zeros(1, 1, 1).expand(10**5, 10**5, 2)}
    yield "expanded counts", {"activation.a.x.pt": {"n": 1, "over_zero": torch.zeros(1, 1).expand(10**6, 10**6)}}
    yield "counts text", {"activation.a.x.pt": {"n": "x", "over_zero": torch.ones(2, 3)}}
    yield "counts list", {"activation.a.x.pt": {"n": [1, 2], "over_zero": torch.ones(2, 3)}}
    yield "counts ragged", {"activation.a.x.pt": {"n": [[1], [2, 3]], "over_zero": [[1], [2, 3]]}}
    yield "counts deep", {"activation.a.x.pt": {"n": {}, "over_zero": torch.ones(2, 3)}}
    yield "text", {"over_zero.pt": "probabilities"}
    yield "ragged", {"over_zero.pt": [[[0.5, 0.5]], [[0.5]]]}
    yield "words", {"over_zero.pt": [["a", "b"]]}
    yield "complex", {"over_zero.pt": torch.ones(2, 3, 2, dtype=torch.complex64)}
    yield "sparse", {"over_zero.pt": torch.ones(2, 3, 2).to_sparse()}
    yield "meta", {"over_zero.pt": torch.ones(2, 3, 2, device="meta")}
    yield "gradient", {"over_zero.pt": torch.nn.Parameter(torch.full((2, 3, 2), 0.5))}
    yield "nan", {"over_zero.pt": torch.full((2, 3, 2), float("nan"))}
    yield "empty", {"over_zero.pt": torch.ones(0, 0, 2)}
    yield "features", {"over_zero.pt": torch.ones(2, 3, 2), "features.pt": torch.zeros(1, 1).expand(10**6, 10**6)}
    yield "features text", {"over_zero.pt": torch.ones(2, 3, 2), "features.pt": ["a"]}
    yield "labels", {"over_zero.pt": torch.ones(2, 3, 2), "gts.pt": torch.zeros(1, dtype=torch.int64).expand(10**10)}
    yield "labels beyond", {"over_zero.pt": torch.ones(2, 3, 2), "gts.pt": torch.tensor([0, 10**18])}
    yield "labels nan", {"over_zero.pt": torch.ones(2, 3, 2), "gts.pt": torch.tensor([float("nan")])}
    yield "labels mixed", {"over_zero.pt": torch.ones(2, 3, 2), "gts.pt": ["a", 1]}


def probes() -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """JSON and tensors of probes."""
    right = {"mean": (1, 5), "scale": (1, 5), "weight": (1, 2, 5), "bias": (1, 2)}
    ones = {name: np.ones(shape, np.float32) for name, shape in right.items()}
    about: dict[str, Any] = {
        "format": 1,
        "identity": "i",
        "labelling": "t:digit",
        "heads": ["all"],
        "categories": ["a", "b"],
        "about": {},
    }
    yield "whole", about, save(ones)
    for name in about:
        for value in (None, 5, [], [5], {"a": 1}, "x" * 10):
            if not (name in ("identity", "labelling") and isinstance(value, str)) and not (
                name == "about" and value in ({"a": 1}, [])
            ):
                yield f"{name} {value}", {**about, name: value}, save(ones)
    yield "shape", about, save({**ones, "weight": np.ones((2, 1, 5), np.float32)})
    yield "type", about, save({**ones, "weight": np.ones((1, 2, 5), np.int64)})
    yield "nan", about, save({**ones, "scale": np.full((1, 5), np.nan, np.float32)})
    yield "missing", about, save({"mean": ones["mean"]})
    yield "more", about, save({**ones, "extra": ones["mean"]})
    yield "no tensors", about, b""
    yield "header", about, (2**40).to_bytes(8, "little") + b"{}"
    yield "offsets", about, _tensors({"mean": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    yield "deep", about, len(deep("[]", 9000)).to_bytes(8, "little") + deep("[]", 9000)


def _tensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


# Cases


def asking(name: str, data: Data, command: Command, folder: Path) -> Command:
    """A file of a name, and a command, in which {} stands for the folder."""
    (folder / name).write_bytes(data() if callable(data) else data)
    return within(folder, command)


def within(folder: Path, command: Command) -> Command:
    return tuple(part.replace("{}", str(folder)) if isinstance(part, str) else part for part in command)


def asking_table(name: str, table: pa.Table | Callable[[], pa.Table], command: Command, folder: Path) -> Command:
    pq.write_table(table() if callable(table) else table, folder / name)
    return within(folder, command)


def asking_result(make: Callable[[], pa.Table], command: Command, folder: Path) -> Command:
    return asking_table("r.parquet", make(), command, folder)


def asking_tensors(objects: dict[str, Any], classes: bytes, command: Command, folder: Path) -> Command:
    write_tensors(objects, folder / "p")
    (folder / "p/classes.txt").write_bytes(classes)
    return within(folder, command)


def asking_archive(folder: Path) -> Command:
    """A file of torch whose entry unfolds to 4 GB."""
    (folder / "p").mkdir()
    torch.save(torch.ones(2, 3, 2), folder / "whole.pt")
    with (
        zipfile.ZipFile(folder / "whole.pt") as whole,
        zipfile.ZipFile(folder / "p/over_zero.pt", "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for entry in whole.infolist():
            with made.open(entry.filename, "w", force_zip64=True) as file:
                if "/data/" not in entry.filename:
                    file.write(whole.read(entry))
                    continue
                for _ in range(2**10):
                    file.write(bytes(2**20))
    (folder / "p/classes.txt").write_text("a\nb\n")
    return within(folder, ("table", "stats", "{}/p"))


def asking_probe(about: dict[str, Any], tensors: bytes, folder: Path) -> Command:
    if about.get("tensors") is None:
        about = {**about, "tensors": hashlib.sha256(tensors).hexdigest()}
    (folder / "probe.json").write_text(json.dumps(about))
    (folder / "probe.safetensors").write_bytes(tensors)
    return within(folder, ("python", "probe", "{}/probe"))


def special(make: Callable[[str, Path], None], name: str, command: Command, folder: Path) -> Command:
    make(name, folder)
    return within(folder, command)


SET = ("ablate", "set", "{}/s", "--task", "t:digit", "--set")
RESULT = ("ablate", "table", "{}/r.parquet")
FIGURE = ("figure", "ablation", "{}/r.parquet", "-o", "{}/f.png")
ARRANGE = (
    "figure",
    "overlap",
    "{}/s",
    "--task",
    "t:digit",
    "--percentile",
    "40",
    "-o",
    "{}/f.png",
    "--arrange",
    "{}/f.csv",
)
ORDERS: dict[str, Data] = {
    "deep quote": b'"' * 1_000_000,
    "field": b"a" * 500_000 + b",b\n",
    "lines": lambda: b"1\n" * 3_000_000,
    "zeros": bytes(100),
    "latin": b"\xe9\n",
    "wide": b"1,2,3\n",
    "twice": b"1\n1\n",
    "unknown": b"\x1b[31m\n",
    "large": lambda: b"1" * 20_000_000,
}  # fmt: skip
NSYNTH = ("corpus", "build", "nsynth", "{}", "-o", "{}/m.csv", "--partial")


def asking_nsynth(data: bytes, folder: Path) -> Command:
    for split in ("train", "valid", "test"):
        (folder / f"nsynth-{split}").mkdir()
        (folder / f"nsynth-{split}/examples.json").write_bytes(data)
    return within(folder, NSYNTH)


def cases() -> Iterator[tuple[str, Case]]:
    """(name, what writes the files into a folder and gives the command)."""
    for name, data in YAML.items():
        yield f"yaml {name}", partial(asking, "f.yaml", data, (*SET, "@{}/f.yaml"))
    for name in ("laughs", "lists", "objects", "python", "base-60", "keys", "controls"):
        command = (*SET, "(0,3)", "--base", "{}/f.yaml", "-o", "{}/out.yaml")
        yield f"yaml base {name}", partial(asking, "f.yaml", YAML[name], command)
    for name, data in {**TEXTS, **SETS}.items():
        yield f"set {name}", partial(asking, "f.json", data, (*SET, "@{}/f.json"))
    for name, data in TABLES.items():
        yield (
            f"neurons {name}",
            partial(asking, "f.csv", data, ("exemplars", "{}/s", "--task", "t", "--neurons", "{}/f.csv")),
        )
    for name, data in PROBABILITIES.items():
        yield (
            f"probabilities {name}",
            partial(asking, "f.csv", data, ("table", "stats", "{}/f.csv", "--percentile", "100")),
        )
    for name, data in {"empty": b"", "zeros": bytes(999), "magic": b"PAR1" + bytes(99) + b"PAR1"}.items():
        yield f"parquet {name}", partial(asking, "f.parquet", data, ("table", "stats", "{}/f.parquet"))
        yield f"result {name}", partial(asking, "r.parquet", data, RESULT)
    for name, table in (("rows", many_rows), *frames()):
        yield f"parquet neurons {name}", partial(asking_table, "f.parquet", table, (*SET, "@{}/f.parquet"))
        yield f"parquet table {name}", partial(asking_table, "f.parquet", table, ("table", "stats", "{}/f.parquet"))
    for name, make in results():
        yield f"result {name}", partial(asking_result, make, RESULT)
        yield f"figure of result {name}", partial(asking_result, make, FIGURE)
    for name, objects in published():
        yield f"published {name}", partial(asking_tensors, objects, b"a\nb\n", ("import", "{}/p", "{}/o.parquet"))
    for name, data in {"none": b"", "zeros": bytes(9), "latin": b"\xe9\nb\n", "many": b"a\n" * 10_000_000}.items():
        whole = {"over_zero.pt": torch.ones(2, 3, 2)}
        yield f"classes {name}", partial(asking_tensors, whole, data, ("table", "stats", "{}/p"))
    yield "published archive", asking_archive
    for name, data in ORDERS.items():
        yield f"order {name}", partial(asking, "f.csv", data, ARRANGE)
    for name, about, tensors in probes():
        if name != "whole":
            yield f"probe {name}", partial(asking_probe, about, tensors)
    for name in ("lists", "objects", "digits", "nan", "twice", "surrogate", "many", "number", "utf16"):
        yield f"nsynth {name}", partial(asking_nsynth, TEXTS[name])
    for name in ("lists", "digits", "many", "list", "number", "latin"):
        yield f"quickstart {name}", partial(asking, "quickstart.json", TEXTS[name], ("quickstart", "{}"))
    special_files: dict[str, Command] = {
        "f.yaml": (*SET, "@{}/f.yaml"),
        "f.json": (*SET, "@{}/f.json"),
        "f.csv": (*SET, "@{}/f.csv"), "r.parquet": RESULT,
        "g.csv": ("table", "stats", "{}/g.csv"),
    }  # fmt: skip
    for name, asked in special_files.items():
        yield f"pipe {name}", partial(special, put_pipe, name, asked)
        yield f"sparse {name}", partial(special, partial(put_sparse, 40 * 2**30), name, asked)
