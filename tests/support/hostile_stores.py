"""Stores that somebody else has made, to fill memory, to hang, or to show what nobody measured.

Each is the known store with one thing changed; where documents are changed, their digests are made to agree, as who
means harm would do.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
from numcodecs import Zstd

from otoscope.store.arrays import metadata_of
from otoscope.store.provenance import Identity, Plan, digest_of

Spoil = Callable[[Path], None]
Document = dict[str, Any]
NAMES = "\x1b[31mred \x07 \u202elate \u2028 \x9b1m"


# Documents


def deep(brackets: str, n: int) -> bytes:
    return (brackets[0] * n + brackets[1] * n).encode()


TEXTS: dict[str, bytes] = {
    "empty": b"", "zeros": bytes(64), "latin": b'{"zarr_format": "\xe9"}', "mark": b"\xef\xbb\xbf{}",
    "utf16": "{}".encode("utf-16"), "lists": deep("[]", 100_000), "objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep": b'{"a":' + deep("[]", 400) + b"}", "digits": b'{"zarr_format": ' + b"9" * 5000 + b"}",
    "nan": b'{"zarr_format": NaN}', "infinity": b'{"zarr_format": -Infinity}', "overflow": b'{"zarr_format": 1e999}',
    "twice": b'{"zarr_format": 3, "zarr_format": 3}', "list": b"[]", "text": b'"zarr"', "number": b"3", "null": b"null",
    "surrogate": b'{"\\ud800": 3}', "cut": b'{"zarr_format": 3, "node', "many": b"[" + b"[]," * 6_000_000 + b"[]]",
    "attributes": b'{"zarr_format": 3, "node_type": "group", "attributes": [1]}',
    "consolidated": b'{"zarr_format": 3, "node_type": "group", "attributes": {"otoscope": {"format": "2.0"}}, '
    b'"consolidated_metadata": [7]}',
    "format": b'{"zarr_format": 3, "node_type": "group", "attributes": {"otoscope": {"format": [2.0]}}}',
    "kind": b'{"zarr_format": 2, "node_type": "array", "attributes": {"otoscope": {"format": "2.0"}}}',
}  # fmt: skip
DOCUMENTS = ("zarr.json", "t/zarr.json", "t/mean/zarr.json", "t/lock.new")


def put(key: str, data: bytes, store: Path) -> None:
    path = store / key
    path.unlink(missing_ok=True)  # it may be a link to the original
    path.write_bytes(data)


def signed(document: Document) -> bytes:
    """A task's document with the digests of what it says."""
    about = document["attributes"]["otoscope"]
    about["metadata"] = digest_of(document["consolidated_metadata"]["metadata"])
    about["digest"] = digest_of({name: value for name, value in about.items() if name != "digest"})
    return json.dumps(document).encode()


def resign(change: Callable[[Document], object], store: Path) -> None:
    document = json.loads((store / "t/zarr.json").read_bytes())
    change(document)
    put("t/zarr.json", signed(document), store)


def about(document: Document) -> Document:
    found: Document = document["attributes"]["otoscope"]
    return found


VALUES: tuple[Any, ...] = (
    None, "x", "9" * 400, -1, 0, 1.5, float("nan"), 10**12, 2**40, 2**63, 10**30, [], [[[]]], {}, True, [["a", 2**40]],
    [-5, 7], [["a", -3]], ["active_bits", "active_bits"], ["clip"],
)  # fmt: skip
FIELDS = {
    "plan": ("n_clips", "names", "block", "batch", "threads", "unit_sec", "variables", "mean_dtype", "prompts"),
    "identity": (
        "encoder",
        "front_end",
        "sites",
        "embedding",
        "hidden",
        "frames",
        "semantics",
        "derived_from",
        "device",
    ),
}


def set_field(record: str, field: str, value: Any, document: Document) -> None:
    about(document)[record][field] = value


def set_about(field: str, value: Any, document: Document) -> None:
    about(document)[field] = value


def replan(identity: dict[str, Any], plan: dict[str, Any], document: Document) -> None:
    """Another plan, and the metadata of all arrays as it makes them, where anything can be made of it."""
    stored = about(document)
    stored["identity"] |= identity
    stored["plan"] |= plan
    arrays = [label["array"] for label in stored["labels"].values()]
    made = metadata_of(Identity.from_json(stored["identity"]), Plan.from_json(stored["plan"]), arrays)
    document["consolidated_metadata"]["metadata"] = made


PLANS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clips": ({}, {"n_clips": 10**8, "block": 2048}),
    "blocks": ({}, {"n_clips": 10**8, "block": 96}),
    "single": ({}, {"n_clips": 2**20, "block": 1}),
    "honest": ({"sites": [[str(i), 3072] for i in range(12)]}, {"n_clips": 10**7, "block": 2048}),
    "layers": ({"sites": [[str(i), 4096] for i in range(4096)]}, {"n_clips": 70, "block": 32}),
    "wide": ({"sites": [["a", 2**20]]}, {"n_clips": 70, "block": 70}),
    "states": ({"hidden": [4096, 2**14]}, {"n_clips": 70, "block": 32}),
}


# Metadata of arrays


def change_array(name: str, change: Callable[[Document], object], document: Document) -> None:
    change(document["consolidated_metadata"]["metadata"][name])


def set_path(*path_and_value: Any) -> Callable[[Document], None]:
    *path, last, value = path_and_value

    def change(array: Document) -> None:
        inside: Any = array
        for step in path:
            inside = inside[step]
        inside[last] = value

    return change


GZIP = {"name": "gzip", "configuration": {"level": 5}}
BLOSC = {
    "name": "blosc",
    "configuration": {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0},
}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
SHARDED = ("codecs", 0, "configuration")
ARRAY_CHANGES: dict[str, tuple[str, Callable[[Document], object]]] = {
    "shape-nan": ("mean", set_path("shape", [2, "NaN", 300])),
    "shape-text": ("status", set_path("shape", "seventy")),
    "shape-huge": ("status", set_path("shape", [10**15])),
    "shape-negative": ("clip", set_path("shape", [-70])),
    "shape-rank": ("mean", set_path("shape", [2, 70])),
    "chunk-zero": ("status", set_path("chunk_grid", "configuration", "chunk_shape", [0])),
    "chunk-one": ("status", set_path("chunk_grid", "configuration", "chunk_shape", [1])),
    "chunk-huge": ("embedding", set_path("chunk_grid", "configuration", "chunk_shape", [2**40, 5])),
    "grid": ("mean", set_path("chunk_grid", {"name": "rectilinear", "configuration": {}})),
    "keys": ("mean", set_path("chunk_key_encoding", {"name": "v2", "configuration": {"separator": "."}})),
    "keys-out": ("mean", set_path("chunk_key_encoding", {"name": "default", "configuration": {"separator": "/../"}})),
    "type-wide": ("status", set_path("data_type", "float64")),
    "type-raw": ("status", set_path("data_type", "r8000000000")),
    "type-time": ("start", set_path("data_type", {"name": "numpy.datetime64", "configuration": {"unit": "s"}})),
    "type-fixed": (
        "clip", set_path("data_type", {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**31}}),
    ),
    "type-unknown": ("mean", set_path("data_type", "pickle")),
    "fill-one": ("status", set_path("fill_value", 1)),
    "fill-text": ("mean", set_path("fill_value", "x" * 1000)),
    "fill-huge": ("active_bits", set_path("fill_value", 10**18)),
    "gzip": ("start", set_path("codecs", [BYTES, GZIP])),
    "blosc": ("active_bits", set_path("codecs", [BYTES, BLOSC])),
    "no-checksum": ("status", set_path("codecs", [{"name": "bytes"}])),
    "no-codecs": ("status", set_path("codecs", [])),
    "codec-unknown": ("status", set_path("codecs", [{"name": "pickle", "configuration": {}}])),
    "codec-numcodecs": ("clip", set_path("codecs", [{"name": "numcodecs.pickle", "configuration": {}}])),
    "zstd-level": ("clip", set_path("codecs", 1, "configuration", "level", 10**9)),
    "big-endian": ("mean", set_path(*SHARDED, "codecs", 0, "configuration", "endian", "big")),
    "index-start": ("mean", set_path(*SHARDED, "index_location", "start")),
    "index-plain": ("mean", set_path(*SHARDED, "index_codecs", [BYTES])),
    "shard-nested": (
        "mean",
        set_path(*SHARDED, "codecs", [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [1, 1, 1], "codecs": [BYTES], "index_codecs": [BYTES]}}]),
    ),
    "shard-tiny": ("mean", set_path(*SHARDED, "chunk_shape", [1, 1, 1])),
    "dims": ("mean", set_path("dimension_names", ["clip", "layer", "neuron"])),
    "dims-none": ("mean", set_path("dimension_names", None)),
    "dims-same": ("mean", set_path("dimension_names", ["clip", "clip", "clip"])),
    "bits": ("active_bits", set_path("attributes", "n_neurons", 10**12)),
    "bits-text": ("active_bits", set_path("attributes", "n_neurons", "many")),
    "digested": ("digest", set_path("attributes", "digested", ["mean"] * 10**5)),
    "digested-none": ("digest", set_path("attributes", "digested", None)),
    "attributes-deep": ("mean", set_path("attributes", "a", json.loads(deep("[]", 20)))),
    "transformers": ("mean", set_path("storage_transformers", [{"name": "x"}])),
    "node": ("mean", set_path("node_type", "group")),
}  # fmt: skip


def arrays_more(document: Document) -> None:
    copies = document["consolidated_metadata"]["metadata"]
    copies |= {f"extra{i}": copies["status"] for i in range(4000)}


def arrays_fewer(document: Document) -> None:
    del document["consolidated_metadata"]["metadata"]["mean"]


def labels_more(document: Document) -> None:
    label = about(document)["labels"]["digit"]
    about(document)["labels"] |= {f"x{i}": {**label, "array": f"label_x{i}"} for i in range(5000)}
    copies = document["consolidated_metadata"]["metadata"]
    copies |= {f"label_x{i}": copies["label_digit"] for i in range(5000)}


def label_elsewhere(array: str, document: Document) -> None:
    about(document)["labels"]["digit"]["array"] = array


def root_more(store: Path) -> None:
    document = json.loads((store / "zarr.json").read_bytes())
    copies = document["consolidated_metadata"]["metadata"]
    copies |= {f"t/extra{i}": copies["t/status"] for i in range(4000)} | {f"gone{i}": copies["t"] for i in range(500)}
    put("zarr.json", json.dumps(document).encode(), store)


# Objects

OBJECTS = {
    "status": "t/status/c/1", "digest": "t/digest/c/1/0", "version": "t/version/c/1", "mean": "t/mean/c/0/1/0",
    "bits": "t/active_bits/c/0/1/0", "names": "t/clip/c/0", "paths": "t/path/c/0", "start": "t/start/c/0",
    "label": "t/label_digit/c/0", "reason": "t/reason/c/0", "frames": "t/frame_count/c/0", "hidden": "t/hidden/c/0/0/0",
    "embedding": "t/embedding/c/0/0", "site": "t/site/c/0", "root": "zarr.json", "task": "t/zarr.json",
    "array": "t/mean/zarr.json", "lock": "t/lock.new", "audio": "t/audio_digest/c/0", "check": "t/check/c/0",
}  # fmt: skip
FOLDERS = {"task": "t", "status": "t/status", "objects": "t/mean/c"}


def with_checksum(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


def frame_of_zeros(n: int, declared: int | None = None) -> bytes:
    """A zstd frame of n zero bytes, four for each 128 KiB. declared: the size in its header, -1 for none [n]."""
    header = b"\x28\xb5\x2f\xfd"
    size = n if declared is None else declared
    header += b"\xe0" + size.to_bytes(8, "little") if size >= 0 else b"\x00\x58"
    blocks = []
    while n:
        part = min(n, 2**17)
        n -= part
        blocks.append(((part << 3 | 2 | (not n)).to_bytes(3, "little")) + b"\0")
    return header + b"".join(blocks)


def strings(count: int, length: int, body: bytes) -> bytes:
    return count.to_bytes(4, "little") + length.to_bytes(4, "little") + body


PACKED: dict[str, bytes] = {
    "bomb": frame_of_zeros(2**32 + 5),
    "bomb-small": frame_of_zeros(2**29),
    "size-unsaid": frame_of_zeros(2**32, -1),
    "size-less": frame_of_zeros(2**30, 65_540),
    "size-more": frame_of_zeros(100, 2**50),
    "two-frames": frame_of_zeros(100) + frame_of_zeros(2**32),
    "count": Zstd(level=1).encode(strings(2**31, 3, b"abc")),
    "count-none": Zstd(level=1).encode(b"\0\0\0\0"),
    "length": Zstd(level=1).encode(strings(65_536, 2**31, b"abc")),
    "skipped": b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
    "no-frame": b"PK\x03\x04" * 100,
}


def put_pipe(key: str, store: Path) -> None:
    path = store / key
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def put_socket(key: str, store: Path) -> None:
    path = store / key
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        before = os.getcwd()
        os.chdir(path.parent)
        made.bind(path.name)
        os.chdir(before)


def put_folder(key: str, store: Path) -> None:
    path = store / key
    path.unlink(missing_ok=True)
    path.mkdir()


def put_link(target: str, key: str, store: Path) -> None:
    path = store / key
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def put_sparse(n: int, key: str, store: Path) -> None:
    path = store / key
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(n)


def put_outside(key: str, store: Path) -> None:
    """A link to a file beside the store that is right in all else."""
    path, outside = store / key, store.parent / f"outside-{store.name}"
    outside.write_bytes(path.read_bytes() if path.is_file() else b"{}")
    put_link(str(outside), key, store)


def move_folder(key: str, store: Path) -> None:
    """A folder that lies beside the store, and a link to it."""
    outside = store.parent / f"outside-{store.name}"
    (store / key).rename(outside)
    (store / key).symlink_to(outside)


# Locks and names


def put_lock(lock: Document, store: Path) -> None:
    state = about(json.loads((store / "t/zarr.json").read_bytes()))["digest"][:16]
    put(f"t/lock.{state}", json.dumps(lock).encode(), store)


LOCKS: dict[str, Document] = {
    "process": {"successor": "x", "process": 10**18, "machine": os.uname().nodename, "command": "c", "since": "s"},
    "process-text": {"successor": 5, "process": "1; reboot", "machine": ["x"], "command": {"a": 1}},
    "names": {"successor": "x", "process": 1, "machine": NAMES, "command": NAMES * 100, "since": NAMES},
    "check": {"successor": "x", "check": 7, "source": []},
}


def put_task(name: str, store: Path) -> None:
    """Another task, under a name that no task can have."""
    (store / name).mkdir()
    put(f"{name}/zarr.json", (store / "t/zarr.json").read_bytes(), store)


def cases() -> Iterator[tuple[str, Spoil]]:
    """(name, what it does to a copy of the known store)."""
    for key in DOCUMENTS:
        for name, data in TEXTS.items():
            yield f"text {name} {key}", partial(put, key, data)
    for record, fields in FIELDS.items():
        for field in fields:
            for value in VALUES:
                yield f"{record}.{field} {str(value)[:20]}", partial(resign, partial(set_field, record, field, value))
    for field in ("labels", "source", "check", "identity", "plan"):
        for value in (None, [], "x", 10**30, {"a": {"array": "label_a", "digest": 5}}):
            yield f"{field} {str(value)[:20]}", partial(resign, partial(set_about, field, value))
    for name, (identity, plan) in PLANS.items():
        yield f"plan {name}", partial(resign, partial(replan, identity, plan))
    for name, (array, change) in ARRAY_CHANGES.items():
        yield f"array {name}", partial(resign, partial(change_array, array, change))
    for name, alter in {"more": arrays_more, "fewer": arrays_fewer, "labels": labels_more}.items():
        yield f"arrays {name}", partial(resign, alter)
    for array in ("mean", "../../x", "label_digit/../../x", "label_digit.0", "label_" + "x" * 5000):
        yield f"label in {array[:30]}", partial(resign, partial(label_elsewhere, array))
    yield "root more", root_more
    for name, key in OBJECTS.items():
        yield f"pipe {name}", partial(put_pipe, key)
        yield f"socket {name}", partial(put_socket, key)
        yield f"folder {name}", partial(put_folder, key)
        yield f"device {name}", partial(put_link, "/dev/zero", key)
        yield f"loop {name}", partial(put_link, Path(key).name, key)
        yield f"outside {name}", partial(put_outside, key)
        yield f"sparse {name}", partial(put_sparse, 40 * 2**30, key)
        yield f"empty {name}", partial(put_sparse, 0, key)
    for name, key in FOLDERS.items():
        yield f"folder outside {name}", partial(move_folder, key)
    for name, data in PACKED.items():
        for array in ("names", "label", "reason", "start", "paths"):
            yield f"{name} {array}", partial(put, OBJECTS[array], with_checksum(data))
    for count in (0, 2, 2**31, 2**32 - 1):
        yield f"plain strings {count}", partial(put, OBJECTS["version"], with_checksum(strings(count, 3, b"abc")))
    for name, lock in LOCKS.items():
        yield f"lock {name}", partial(put_lock, lock)
    for name in (NAMES.replace("/", ""), "..x", "a\nb", "x" * 250, "__y"):
        yield f"task {name[:10]!r}", partial(put_task, name)


def with_controls(known: Any) -> Any:
    """The known store with control characters in every name that the format lets in."""
    clips, n = known.clips, len(known.clips)
    odd = replace(
        clips, name=[f"{NAMES}{i}\n" for i in range(n)], path=[f"{NAMES}{i}.wav" for i in range(n)],
        labels={"digit": [f"{NAMES}{label}\n" for label in clips.labels["digit"]]},
    )  # fmt: skip
    identity = replace(
        known.identity, encoder=NAMES, sites=((NAMES, 300), ("b", 20)), front_end={"sample_rate": 1, NAMES: NAMES}
    )
    return replace(known, identity=identity, clips=odd, plan=replace(known.plan, **odd.digests))
