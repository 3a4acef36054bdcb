"""FORMAT.md is the norm: its tables against the template, the records, and the metadata of a store really written."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otoscope.store import arrays, provenance, schema
from otoscope.store.block_values import BlockValues
from otoscope.store.changes.tasks import add_task, create
from otoscope.store.provenance import VARIABLES, Identity, Plan, kept

from ..support.finished_store import Finished
from ..support.known_store import Known

FORMAT = (Path(__file__).parents[2] / "store/FORMAT.md").read_text(encoding="utf-8")
Row = dict[str, str]


def table(*header: str) -> list[Row]:
    """The rows of the one table with this header."""
    head = "| " + " | ".join(header) + " |"
    assert FORMAT.count(head) >= 1, f"FORMAT.md has no table {head}"
    lines = FORMAT[FORMAT.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [dict(zip(header, [cell.strip() for cell in line.strip("|").split(" | ")], strict=True)) for line in lines]


ARRAYS = table("array", "dimensions", "type", "chunk", "shard", "fill", "zstd")
OPTIONAL = ("mean", "positive_frames", "embedding", "hidden")


def fields_of(section: str) -> list[str]:
    """First column of the table that follows a bold word or a phrase."""
    rows = FORMAT[FORMAT.index(section) :].split("\n\n")[1].splitlines()[2:]
    return [row.split("|")[1].strip().strip("`") for row in rows]


def sizes(identity: Identity, plan: Plan) -> dict[str, int]:
    """The names that FORMAT.md uses for sizes, worked out as its text says."""
    neurons = max(width for _, width in identity.sites)
    states, hidden = identity.hidden
    inner = min(neurons, 128)
    return {
        "layers": len(identity.sites), "clips": plan.n_clips, "neurons": neurons, "bytes": (neurons + 7) // 8,
        "embedding": identity.embedding, "states": states, "hidden": hidden, "block": plan.block,
        "checked": identity.embedding + sum(width for _, width in identity.sites),
        "blocks": (plan.n_clips + plan.block - 1) // plan.block, "digested": len(plan.variables) + 4,
        "rows": min(plan.block, 2048), "inner": inner, "neurons up to inner": (neurons + inner - 1) // inner * inner,
    }  # fmt: skip


SIZE_OF_DIM = {
    "layer": "layers", "clip": "clips", "neuron": "neurons", "neuron_byte": "bytes", "embedding_dim": "embedding",
    "check_value": "checked", "state": "states", "hidden_dim": "hidden", "block": "blocks", "digested": "digested",
}  # fmt: skip


def numbers(cell: str, known: dict[str, int]) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else known[part] for part in cell.split(", "))


def stated(identity: Identity, plan: Plan, labels: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(array, what FORMAT.md says of it) for everything that a task must have."""
    known = sizes(identity, plan)
    for row in ARRAYS:
        name = row["array"].strip("`")
        if (name in OPTIONAL and name not in plan.variables) or (name == "prompt" and plan.prompts is None):
            continue
        dims = tuple(row["dimensions"].split(", "))
        about = {
            "dims": dims,
            "shape": tuple(known[SIZE_OF_DIM[dim]] for dim in dims),
            "dtype": plan.mean_dtype if row["type"] == "mean_dtype" else row["type"],
            "chunks": numbers(row["chunk"], known),
            "shards": None if row["shard"] == "-" else numbers(row["shard"], known),
            "fill": {"NaN": np.nan, '""': "", "false": False}.get(row["fill"]),
            "compressed": row["zstd"] == "yes",
        }
        if about["fill"] is None:
            about["fill"] = int(row["fill"])
        for each in [f"label_{label}" for label in labels] if name == "label_*" else [name]:
            yield each, dict(about)


def every_plan() -> Iterator[tuple[Identity, Plan]]:
    identity = Identity(
        encoder="e", weights="w", front_end={"sample_rate": 8000}, sites=(("a", 300), ("b", 20)), embedding=7,
        hidden=(3, 9), frames="audio",
    )  # fmt: skip
    plan = Plan(
        n_clips=5000, names="n", sources="s", block=625, batch=32, threads=2, unit_sec=None, variables=kept(None)
    )
    yield identity, plan
    yield identity, replace(plan, variables=kept(OPTIONAL), mean_dtype="float32", block=4096, prompts="p")
    yield replace(identity, sites=(("a", 5),)), replace(plan, variables=kept(()), n_clips=3, block=32)
    yield replace(identity, sites=tuple((str(i), 3072) for i in range(12))), replace(plan, block=2048, n_clips=100_000)
    yield replace(identity, sites=(("a", 128), ("b", 129))), replace(plan, variables=kept(("hidden",)), block=1)


PLANS = list(every_plan())


@pytest.mark.parametrize(("identity", "plan"), PLANS)
def test_the_template_is_what_the_page_says(identity: Identity, plan: Plan) -> None:
    labels = ["octave", "kind, exactly"]
    template = schema.template(identity, plan, [f"label_{label}" for label in labels])
    expectations = dict(stated(identity, plan, labels))
    assert template.keys() == expectations.keys()
    for name, about in expectations.items():
        spec = template[name]
        found = {key: getattr(spec, key) for key in about}
        assert np.array_equal(found.pop("fill"), about.pop("fill"), equal_nan=about["dtype"].startswith("float")), name
        assert found == about, name
    assert template["status"].attrs["flag_values"] == [0, 1, 2]
    assert template["status"].attrs["flag_meanings"] == "pending ok failed"
    assert template["active_bits"].attrs.keys() >= {"packed_dim", "bitorder", "n_neurons"}
    assert template["digest"].attrs["digested"] == [*plan.variables, "reason", "audio_digest", "version", "status"]
    assert {*template} <= {*schema.ARRAYS, *(f"label_{label}" for label in labels)}


def test_the_records_have_the_fields_that_the_page_lists() -> None:
    assert fields_of("**Identity**: what") == [field.name for field in fields(Identity)]
    assert fields_of("**Plan**: what") == [field.name for field in fields(Plan)]
    assert {row["array"].strip("`") for row in ARRAYS} == {*schema.ARRAYS, "label_*"}
    assert {*schema.ARRAYS} >= set(VARIABLES)
    assert {dim for row in ARRAYS for dim in row["dimensions"].split(", ")} == set(schema.DIMENSIONS)


LIMITS = {
    "clips": provenance.MAX_CLIPS, "clips per block": provenance.MAX_BLOCK_CLIPS, "blocks": provenance.MAX_BLOCKS,
    "layers": provenance.MAX_LAYERS, "layers times neurons of the widest": provenance.MAX_NEURONS,
    "neurons of a layer, width of the embedding, of a hidden state": provenance.MAX_WIDTH,
    "hidden states": provenance.MAX_LAYERS, "label columns": provenance.MAX_LABELS,
    "bytes of a chunk (within a shard: of an inner chunk)": arrays.MAX_CHUNK_BYTES,
    "bytes of a stored object": arrays.MAX_OBJECT_BYTES, "objects of one array in one block": arrays.MAX_BLOCK_OBJECTS,
}  # fmt: skip


def test_the_largest_plan_is_what_the_page_says() -> None:
    stated = {row["what"]: row["at most"] for row in table("what", "at most")}
    assert stated.keys() == LIMITS.keys()
    for what, limit in LIMITS.items():
        base, _, exponent = stated[what].partition("^")
        assert int(base) ** int(exponent or 1) == limit, what


@pytest.mark.parametrize(("layers", "width"), [(12, 3072), (80, 28_672)])
def test_ten_million_clips_are_an_honest_plan(layers: int, width: int) -> None:
    identity, plan = PLANS[0]
    plan = replace(plan, variables=kept(OPTIONAL))
    large = replace(
        identity, sites=tuple((str(i), width) for i in range(layers)), embedding=3840, hidden=(layers, 8192)
    )
    made = arrays.metadata_of(large, replace(plan, n_clips=10**7, block=2048), ["label_a", "label_b"])
    assert made["mean"]["shape"] == [layers, 10**7, width]
    assert made["label_a"] == made["label_b"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"n_clips": 10**8 + 1, "block": 2048}, "n_clips is 100000001; expected at least 1 and at most 100000000"),
        ({"n_clips": 2**20 + 1, "block": 1}, "1048577 clips in blocks of 1; expected at most 1048576"),
        ({"block": 2**22}, "block is 4194304; expected at least 1 and at most 1048576"),
    ],
)
def test_a_larger_plan_is_refused(more: dict[str, int], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        replace(PLANS[0][1], **more)


@pytest.mark.parametrize(
    "more",
    [{"sites": (("a", 2**22 + 1),)}, {"sites": (("a", 1),) * 4097}, {"sites": (("a", 2**20),) * 65},
     {"embedding": 2**23},
     {"hidden": (5000, 1)}, {"hidden": (1, 2**23)}, {"sites": (("a", 0),)}],
)  # fmt: skip
def test_a_larger_encoder_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(PLANS[0][0], **more)


def test_objects_that_no_reader_takes_are_not_planned() -> None:
    identity, plan = PLANS[0]
    with pytest.raises(ValueError, match=r"array embedding would have chunks of .* take smaller blocks"):
        arrays.metadata_of(replace(identity, embedding=2**20), replace(plan, n_clips=10**6, block=2048))


def test_the_version_and_the_values_of_status_are_those_of_the_page() -> None:
    assert f"# The otoscope store, format {schema.FORMAT_VERSION}\n" in FORMAT
    assert f'| `format` | "{schema.FORMAT_VERSION}".' in FORMAT
    assert f"`status`: {schema.PENDING} pending, {schema.OK} ok, {schema.FAILED} failed" in FORMAT


def canonical_digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode("utf-8")).hexdigest()


def written_metadata(array: dict[str, Any]) -> dict[str, Any]:
    """What the page's table speaks of, from an array's zarr.json."""
    (regular,) = [array["chunk_grid"]["configuration"]["chunk_shape"]]
    codecs, shards = array["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        assert [codec["name"] for codec in codecs] == ["sharding_indexed"]
        shards, configuration = tuple(regular), codecs[0]["configuration"]
        regular, codecs = configuration["chunk_shape"], configuration["codecs"]
        assert configuration["index_codecs"][-1]["name"] == "crc32c"
    assert codecs[-1]["name"] == "crc32c"
    assert [codec["configuration"]["level"] for codec in codecs if codec["name"] == "zstd"] in ([], [1])
    endian = codecs[0].get("configuration", {}).get("endian", "little")
    assert endian == "little"
    return {
        "dims": tuple(array["dimension_names"]), "shape": tuple(array["shape"]), "dtype": array["data_type"],
        "chunks": tuple(regular), "shards": shards, "compressed": any(c["name"] == "zstd" for c in codecs),
        "fill": np.nan if array["fill_value"] == "NaN" else array["fill_value"],
    }  # fmt: skip


def test_a_written_store_is_what_the_page_says(finished: Finished) -> None:
    """From the files alone: no code of ours reads them."""
    root = json.loads(Path(finished.url, "zarr.json").read_text("utf-8"))
    about = root["attributes"]["otoscope"]
    assert set(about) == set(fields_of("The root group has one attribute"))
    assert about["format"] == "2.0"
    task = json.loads(Path(finished.url, "t/zarr.json").read_text("utf-8"))
    of_task = task["attributes"]["otoscope"]
    assert set(of_task) == set(fields_of("A task's group has one attribute"))
    assert of_task["digest"] == canonical_digest({k: v for k, v in of_task.items() if k != "digest"})
    arrays = {
        path.parent.name: json.loads(path.read_text("utf-8")) for path in Path(finished.url, "t").glob("*/zarr.json")
    }
    assert of_task["metadata"] == canonical_digest(arrays)
    assert task["consolidated_metadata"]["metadata"] == arrays
    assert set(root["consolidated_metadata"]["metadata"]) == {"t", *(f"t/{name}" for name in arrays)}

    identity, plan = Identity.from_json(of_task["identity"]), Plan.from_json(of_task["plan"])
    assert (plan.n_clips, plan.block, identity.hidden) == (37, 4, (3, 10))
    expectations = dict(stated(identity, plan, ["kind", "number"]))
    assert arrays.keys() == expectations.keys()
    for name, expected in expectations.items():
        found = written_metadata(arrays[name])
        assert np.array_equal(found.pop("fill"), expected.pop("fill"), equal_nan=expected["dtype"][:5] == "float"), name
        assert found == expected, name
        objects = [p for p in Path(finished.url, "t", name, "c").rglob("*") if p.is_file()]
        grid = expected["shards"] or expected["chunks"]
        whole = np.prod([-(-n // size) for n, size in zip(expected["shape"], grid, strict=True)])
        assert len(objects) == whole, f"{name}: also what equals the fill value is written"


def test_nothing_that_could_be_run_or_that_names_a_folder_is_stored(finished: Finished) -> None:
    folder = str(Path(finished.url).parent).encode()
    for path in Path(finished.url).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert folder not in data, path
            assert not re.search(rb"numpy\.core|__reduce__|\x80[\x02-\x05]c", data[:64]), path


def test_a_reader_refuses_another_major_version_and_takes_another_minor_one(known: Known, tmp_path: Path) -> None:
    url = str(tmp_path / "s")
    create(url)
    path = Path(url, "zarr.json")
    text = path.read_text("utf-8")
    path.write_text(text.replace('"2.0"', '"2.7"'), "utf-8")
    add_task(url, "t", known.origin, known.plan, known.clips)
    path.write_text(text.replace('"2.0"', '"20.0"'), "utf-8")
    with pytest.raises(ValueError, match=r"has format 20.0; expected 2.x: read it with the otoscope that wrote it"):
        add_task(url, "t", known.origin, known.plan, known.clips)


@pytest.mark.parametrize(("identity", "plan"), PLANS)
def test_sizes_known_beforehand_are_those_of_whole_objects(identity: Identity, plan: Plan) -> None:
    known = sizes(identity, plan)
    rows = -(-plan.n_clips // known["rows"]) * known["rows"]
    predicted = schema.sizes(identity, plan)
    assert list(predicted) == list(plan.variables)
    assert predicted["active_bits"] == known["layers"] * rows * known["bytes"]
    if "mean" in predicted:
        each = {"float16": 2, "float32": 4}[plan.mean_dtype]
        assert predicted["mean"] == known["layers"] * rows * known["neurons up to inner"] * each


@pytest.mark.parametrize(("identity", "plan"), PLANS)
def test_buffers_of_a_block_hold_fill_values(identity: Identity, plan: Plan) -> None:
    buffers = BlockValues(identity, plan, 3).arrays
    template = schema.template(identity, plan)
    assert list(buffers) == [*plan.variables, "reason", "audio_digest"]
    for name, values in buffers.items():
        expected = [3 if dim == "clip" else n for dim, n in zip(template[name].dims, template[name].shape, strict=True)]
        assert list(values.shape) == expected
        assert (values == template[name].fill).all() or np.isnan(values.astype("f8")).all()
