"""What a task's group holds: dimensions, variables, types, chunks, fill values. Pure.

Goal: say everything about a store before a byte is written; FORMAT.md states the same in words and a test compares.
Conventions: dimensions in disk order. An object is one stored key: a shard where an array has shards, else a chunk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .blocks import MAX_OBJECT_CLIPS
from .labels import LABEL_PREFIX
from .provenance import Identity, Plan

FORMAT_VERSION = "1.0"
PENDING, OK, FAILED = 0, 1, 2  # values of `status`
NEURON_CHUNK = 128  # neurons in an inner chunk of means: one neuron over all clips stays cheap to read
NAME_CHUNK = 65_536  # clips in a chunk of names and labels
STRING = "string"

RECORDS = ("reason", "audio_digest")  # written with every block, beside the kept variables

LONG_NAMES = {
    "active_bits": "mean activation above 0, one bit per neuron",
    "mean": "mean activation over the counted frames",
    "positive_frames": "counted frames with positive activation",
    "frame_count": "counted frames",
    "embedding": "embedding, pooled as the encoder's authors do",
    "hidden": "hidden state, mean over the counted frames",
    "status": "state of extraction",
    "reason": "why extraction failed",
    "audio_digest": "BLAKE2b-64 of the audio file",
    "digest": "CRC-32C of the block's values",
    "version": "code that wrote the block",
    "neuron_valid": "neuron exists in the layer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array of a task's group."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    fill: Any = 0
    compressed: bool = False
    """zstd at level 1 before the checksum."""
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def object_shape(self) -> tuple[int, ...]:
        """Shape of what one stored key holds."""
        return self.shards or self.chunks

    @property
    def nbytes(self) -> int:
        """Bytes of the values uncompressed, whole objects; strings not counted."""
        if self.dtype == STRING:
            return 0
        whole = [-(-n // c) * c for n, c in zip(self.shape, self.object_shape, strict=True)]
        return int(np.prod(whole)) * np.dtype(self.dtype).itemsize


def object_clips(block: int) -> int:
    """Clips in one stored object of a block."""
    return min(block, MAX_OBJECT_CLIPS)


def template(identity: Identity, plan: Plan, labels: Mapping[str, Sequence[str]] | None = None) -> dict[str, ArraySpec]:
    """Every array of a task's group, by name. `labels` gives the categories of each label column."""
    n, block, rows = plan.n_clips, plan.block, object_clips(plan.block)
    n_blocks = -(-n // block)
    n_layers, width = len(identity.sites), identity.n_neurons
    n_bytes, inner = -(-width // 8), min(width, NEURON_CHUNK)
    cube: dict[str, Any] = {
        "dims": ("layer", "clip", "neuron"),
        "shape": (n_layers, n, width),
        "chunks": (1, rows, inner),
        "shards": (n_layers, rows, -(-width // inner) * inner),
    }
    states, hidden = identity.hidden
    per_clip: dict[str, Any] = {"dims": ("clip",), "shape": (n,), "chunks": (block,)}
    named: dict[str, Any] = {"dims": ("clip",), "shape": (n,), "chunks": (NAME_CHUNK,), "compressed": True}
    packed = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": width}
    flags = {"flag_values": [PENDING, OK, FAILED], "flag_meanings": "pending ok failed"}
    digested = [*plan.variables, *RECORDS]
    everything = {
        "layer": ArraySpec(dims=("layer",), shape=(n_layers,), dtype="int32", chunks=(n_layers,)),
        "site": ArraySpec(dims=("layer",), shape=(n_layers,), dtype=STRING, chunks=(n_layers,), fill=""),
        "neuron": ArraySpec(dims=("neuron",), shape=(width,), dtype="int32", chunks=(width,)),
        "neuron_valid": ArraySpec(
            dims=("layer", "neuron"),
            shape=(n_layers, width),
            dtype="bool",
            chunks=(n_layers, width),
            fill=False,
        ),
        "clip": ArraySpec(**named, dtype=STRING, fill=""),
        "path": ArraySpec(**named, dtype=STRING, fill=""),
        "start": ArraySpec(**named, dtype="float64", fill=np.nan, attrs={"units": "s"}),
        "stop": ArraySpec(**named, dtype="float64", fill=np.nan, attrs={"units": "s"}),
        "active_bits": ArraySpec(
            dims=("layer", "clip", "neuron_byte"),
            shape=(n_layers, n, n_bytes),
            dtype="uint8",
            chunks=(1, rows, n_bytes),
            shards=(n_layers, rows, n_bytes),
            attrs=packed,
        ),
        "mean": ArraySpec(**cube, dtype=plan.mean_dtype, fill=np.nan),
        "positive_frames": ArraySpec(**cube, dtype="uint16"),
        "frame_count": ArraySpec(**per_clip, dtype="uint16"),
        "embedding": ArraySpec(
            dims=("clip", "embedding_dim"),
            shape=(n, identity.embedding),
            dtype="float32",
            chunks=(block, identity.embedding),
            fill=np.nan,
        ),
        "hidden": ArraySpec(
            dims=("state", "clip", "hidden_dim"),
            shape=(states, n, hidden),
            dtype="float32",
            chunks=(1, rows, max(hidden, 1)),
            shards=(max(states, 1), rows, max(hidden, 1)),
            fill=np.nan,
        ),
        "reason": ArraySpec(**per_clip, dtype=STRING, fill="", compressed=True),
        "audio_digest": ArraySpec(**per_clip, dtype="uint64"),
        "version": ArraySpec(dims=("block",), shape=(n_blocks,), dtype=STRING, chunks=(1,), fill=""),
        "digest": ArraySpec(
            dims=("block", "digested"),
            shape=(n_blocks, len(digested)),
            dtype="uint32",
            chunks=(1, len(digested)),
            attrs={"digested": digested},
        ),
        "status": ArraySpec(**per_clip, dtype="uint8", attrs=flags),
    }
    optional = {"mean", "positive_frames", "embedding", "hidden"} - set(plan.variables)
    arrays = {name: spec for name, spec in everything.items() if name not in optional}
    for column, categories in (labels or {}).items():
        arrays[LABEL_PREFIX + column] = ArraySpec(
            **named, dtype="int32", fill=-1, attrs={"categories": list(categories)}
        )
    return {
        name: replace(spec, attrs={"long_name": LONG_NAMES[name], **spec.attrs}) if name in LONG_NAMES else spec
        for name, spec in arrays.items()
    }


def sizes(identity: Identity, plan: Plan) -> dict[str, int]:
    """Bytes on disk of each kept variable, whole objects, before any file-system overhead."""
    arrays = template(identity, plan)
    return {name: arrays[name].nbytes for name in plan.variables}
