"""The metadata of a task's arrays, as identity, plan and labels make them.

Goal: whatever a store says of its arrays is compared with this before anything of them is read, so that no shape,
codec or size in it is anybody else's.
Conventions: an array's metadata is the content of its zarr.json.
"""

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from .provenance import Identity, Plan
from .schema import STRING, ArraySpec, template

MAX_CHUNK_BYTES = 2**28  # of what is read at once
MAX_OBJECT_BYTES = 2**34  # of a shard, of which single chunks are read
MAX_BLOCK_OBJECTS = 2**14  # of one array and one block
ANY_LABEL = "label_"


def create_array(group: zarr.Group, name: str, spec: ArraySpec) -> zarr.Array[Any]:
    """An array in a group as it is to be."""
    packing = [ZstdCodec(level=1)] if spec.compressed else []
    return group.create_array(
        name,
        shape=spec.shape,
        dtype=np.dtypes.StringDType() if spec.dtype == STRING else spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        compressors=[*packing, Crc32cCodec()],
        serializer="auto"
        if spec.dtype == STRING or np.dtype(spec.dtype).itemsize == 1
        else BytesCodec(endian="little"),
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes=dict(spec.attrs),
        config={"write_empty_chunks": True},
    )


def metadata_of(identity: Identity, plan: Plan, labels: Collection[str] = ()) -> dict[str, Any]:
    """The metadata of every array of a task by name. labels: names of the arrays of label columns.

    Raises ValueError where objects would be larger, or more of them in a block, than any reader takes.
    """
    wanted = {"sites": [("", width) for _, width in identity.sites], "embedding": identity.embedding}
    made: dict[str, Any] = json.loads(_metadata(json.dumps([wanted, identity.hidden, plan.to_json()])))
    label = made.pop(ANY_LABEL)
    return made | dict.fromkeys(labels, label)


@lru_cache(maxsize=256)
def _metadata(given: str) -> str:
    """Of what shapes depend on, as JSON, to JSON: it is asked for with every block that is written."""
    wanted, hidden, plan = json.loads(given)
    identity = Identity(
        encoder="", weights="", front_end={}, sites=tuple(map(tuple, wanted["sites"])), embedding=wanted["embedding"],
        hidden=tuple(hidden), frames="all",
    )  # fmt: skip
    memory: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    specs = template(identity, Plan.from_json(plan), [ANY_LABEL])
    check_sizes(specs, plan["block"])
    for name, spec in specs.items():
        create_array(group, name, spec)
    return json.dumps({name: json.loads(memory[f"{name}/zarr.json"].to_bytes()) for name in specs})


def check_sizes(specs: Mapping[str, ArraySpec], block: int) -> None:
    """Raise ValueError for arrays whose objects are larger, or more of them in a block, than any reader takes."""
    for name, spec in specs.items():
        itemsize = 8 if spec.dtype == STRING else np.dtype(spec.dtype).itemsize
        chunk, whole = (int(np.prod(shape, dtype=object)) * itemsize for shape in (spec.chunks, spec.object_shape))
        of_block = [
            block if dim == "clip" else 1 if dim == "block" else n for dim, n in zip(spec.dims, spec.shape, strict=True)
        ]
        parts = (-(-n // max(size, 1)) for n, size in zip(of_block, spec.object_shape, strict=True))
        objects = int(np.prod([*parts], dtype=object))
        if chunk > MAX_CHUNK_BYTES or whole > MAX_OBJECT_BYTES or objects > MAX_BLOCK_OBJECTS:
            raise ValueError(
                f"array {name} would have chunks of {chunk} bytes in objects of {whole} bytes, {objects} to a block; "
                f"expected at most {MAX_CHUNK_BYTES}, {MAX_OBJECT_BYTES} and {MAX_BLOCK_OBJECTS}: take smaller blocks"
            )
