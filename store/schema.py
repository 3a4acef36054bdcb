"""What a task's group holds: dimensions, variables, types, chunks, fill values. Pure.

Goal: say everything about a store before a byte is written; FORMAT.md states the same in words and a test compares.
Conventions: dimensions in disk order. An object is one stored key: a shard where an array has shards, else a chunk.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..messages import CONTROLS, quoted
from .blocks import MAX_OBJECT_CLIPS
from .provenance import Identity, Plan

FORMAT_VERSION = "2.0"
PENDING, OK, FAILED = 0, 1, 2  # values of `status`
NEURON_CHUNK = 128  # neurons in an inner chunk of means: one neuron over all clips stays cheap to read
NAME_CHUNK = 65_536  # clips in a chunk of names and labels
STRING = "string"
LABEL_NAME = re.compile(rf"(?!__)[^/\\\t\n{CONTROLS}]+")
MAX_NAME_BYTES = 200  # of a task or a label column, whose array's name is longer: file systems allow 255

RECORDS = ("reason", "audio_digest")  # written with every block, beside the kept variables
COMMITTING = ("version", "status")  # written with a block's digests, which cover them, and after them

DIMENSIONS = (
    "layer", "neuron", "clip", "neuron_byte", "embedding_dim", "check_value", "state", "hidden_dim", "block",
    "digested",
)  # fmt: skip
ARRAYS = (
    "layer", "site", "neuron", "neuron_valid", "clip", "path", "start", "stop", "prompt", "check", "active_bits",
    "mean", "positive_frames", "frame_count", "embedding", "hidden", "reason", "audio_digest", "version", "digest",
    "status",
)  # fmt: skip
SHOWN_BESIDE = ("active", "position", "probability")  # what a reader makes, or takes from published files

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
    "check": "embedding of a fixed sound, and the sites' means over its frames",
    "prompt": "what was asked about the clip",
    "digest": "CRC-32C of the block's values",
    "version": "code and device that wrote the block",
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


def check_label_name(name: str) -> None:
    """Raise ValueError for a name that no label column can have, since a stored task shows something else under it."""
    if name in {*ARRAYS, *DIMENSIONS, *SHOWN_BESIDE}:
        raise ValueError(
            f"{name!r} cannot name a label column: a variable or dimension of every task has this name; expected "
            "another name: rename the column"
        )
    if not LABEL_NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"{quoted(name)} cannot name a label column; expected at most 200 bytes without '/' and '\\' that do not "
            "begin with '__': rename it"
        )


def object_clips(block: int) -> int:
    """Clips in one stored object of a block."""
    return min(block, MAX_OBJECT_CLIPS)


def template(identity: Identity, plan: Plan, labels: Iterable[str] = ()) -> dict[str, ArraySpec]:
    """Every array of a task's group, by name. labels: names of the arrays of label columns, one generation of each."""
    n, block, rows = plan.n_clips, plan.block, object_clips(plan.block)
    n_layers, width = len(identity.sites), identity.n_neurons
    n_bytes, inner = -(-width // 8), min(width, NEURON_CHUNK)
    states, hidden = identity.hidden
    digested = [*plan.variables, *RECORDS, *COMMITTING]
    length = {"layer": n_layers, "clip": n, "neuron": width, "neuron_byte": n_bytes}
    length |= {
        "embedding_dim": identity.embedding,
        "check_value": identity.n_check,
        "state": states,
        "hidden_dim": hidden,
    }
    length |= {"block": -(-n // block), "digested": len(digested)}

    def spec(dims: str, dtype: str, chunks: tuple[int, ...], **more: Any) -> ArraySpec:
        names = tuple(dims.split())
        return ArraySpec(dims=names, shape=tuple(length[dim] for dim in names), dtype=dtype, chunks=chunks, **more)

    def cube(dims: str, dtype: str, inner: int, whole: int, **more: Any) -> ArraySpec:
        """Shards of whole blocks, or of their part of 2048 clips; in each, inner chunks of one layer."""
        n_outer = max(length[dims.split()[0]], 1)
        return spec(dims, dtype, (1, rows, inner), shards=(n_outer, rows, whole), **more)

    named: dict[str, Any] = {"chunks": (NAME_CHUNK,), "compressed": True}
    padded = -(-width // inner) * inner
    packed = {"packed_dim": "neuron", "bitorder": "little", "n_neurons": width}
    flags = {"flag_values": [PENDING, OK, FAILED], "flag_meanings": "pending ok failed"}
    everything = {
        "layer": spec("layer", "int32", (n_layers,)),
        "site": spec("layer", STRING, (n_layers,), fill=""),
        "neuron": spec("neuron", "int32", (width,)),
        "neuron_valid": spec("layer neuron", "bool", (n_layers, width), fill=False),
        "clip": spec("clip", STRING, **named, fill=""),
        "path": spec("clip", STRING, **named, fill=""),
        "prompt": spec("clip", STRING, **named, fill=""),
        "start": spec("clip", "float64", **named, fill=np.nan, attrs={"units": "s"}),
        "stop": spec("clip", "float64", **named, fill=np.nan, attrs={"units": "s"}),
        "check": spec("check_value", "float32", (identity.n_check,), fill=np.nan),
        "active_bits": cube("layer clip neuron_byte", "uint8", n_bytes, n_bytes, attrs=packed),
        "mean": cube("layer clip neuron", plan.mean_dtype, inner, padded, fill=np.nan),
        "positive_frames": cube("layer clip neuron", "uint16", inner, padded),
        "frame_count": spec("clip", "uint16", (block,)),
        "embedding": spec("clip embedding_dim", "float32", (block, identity.embedding), fill=np.nan),
        "hidden": cube("state clip hidden_dim", "float32", max(hidden, 1), max(hidden, 1), fill=np.nan),
        "reason": spec("clip", STRING, (block,), fill="", compressed=True),
        "audio_digest": spec("clip", "uint64", (block,)),
        "version": spec("block", STRING, (1,), fill=""),
        "digest": spec("block digested", "uint32", (1, len(digested)), attrs={"digested": digested}),
        "status": spec("clip", "uint8", (block,), attrs=flags),
    }
    optional = {"mean", "positive_frames", "embedding", "hidden"} - set(plan.variables)
    optional |= {"prompt"} if plan.prompts is None else set()
    arrays = {name: spec for name, spec in everything.items() if name not in optional}
    arrays |= {name: spec("clip", STRING, **named, fill="") for name in labels}
    return {
        name: replace(spec, attrs={"long_name": LONG_NAMES[name], **spec.attrs}) if name in LONG_NAMES else spec
        for name, spec in arrays.items()
    }


def sizes(identity: Identity, plan: Plan) -> dict[str, int]:
    """Bytes on disk of each kept variable, whole objects, before any file-system overhead."""
    arrays = template(identity, plan)
    return {name: arrays[name].nbytes for name in plan.variables}


def anatomy_values(identity: Identity) -> dict[str, np.ndarray]:
    """Values of the arrays that say what the layers and neurons are."""
    widths = np.array([width for _, width in identity.sites])
    return {
        "layer": np.arange(len(widths), dtype="i4"),
        "site": np.array([name for name, _ in identity.sites], dtype=object),
        "neuron": np.arange(identity.n_neurons, dtype="i4"),
        "neuron_valid": np.arange(identity.n_neurons) < widths[:, None],
    }
