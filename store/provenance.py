"""What made a task: identity (what may never differ) and plan (what was to be done).

Goal: two runs may share a task only if their numbers mean the same, and the error names the fields that differ.
Conventions: JSON values only; digests are SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8), in hex.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from .blocks import MAX_OBJECT_CLIPS

SEMANTICS = 1  # raised when the meaning of a stored number changes
FRAME_RULES = ("audio", "published", "all", "last")
VARIABLES = ("active_bits", "mean", "positive_frames", "frame_count", "embedding", "hidden")
ALWAYS_KEPT = ("active_bits", "frame_count")
MEAN_DTYPES = ("float16", "float32")
PRECISIONS = ("float32", "bfloat16", "float16")  # that may be asked for
MAX_UNIT_SEC = 3600.0  # seconds of one clip in a forward pass
PART = 65_536  # of a list's values
# The largest plan: ten times the clips, neurons and states of any that we know of. What is larger is an error or an
# attack, and would take memory before anything of it is read.
MAX_CLIPS, MAX_BLOCKS, MAX_BLOCK_CLIPS = 10**8, 2**20, 2**20
MAX_BATCH, MAX_THREADS = 2**20, 2**16
MAX_LAYERS, MAX_WIDTH = 4096, 2**22  # width: of a layer, of the embedding, of a hidden state
MAX_NEURONS = 2**24  # layers times the widest
MAX_LABELS = 4096  # columns
KEPT_BY_DEFAULT = ("active_bits", "mean", "positive_frames", "frame_count", "embedding")


# Of one number; of a precision that is not listed it is taken to be that of bfloat16, 2^-8.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}


def tolerance(precision: str, fine: float) -> float:
    """`fine`, which holds in float32, or ten times a coarser precision's rounding: 0.005 in float16, else 0.04."""
    return max(fine, 10 * ROUNDING.get(precision, 2.0**-8))


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, in hex; a long list is not turned into text at once."""
    if not isinstance(value, list):
        return hashlib.sha256(_canonical(value)).hexdigest()
    return digest_of_parts(value[start : start + PART] for start in range(0, len(value), PART))


def digest_of_parts(parts: Iterable[list[Any]]) -> str:
    """The same of a list that is given in parts, none of them empty."""
    digest, between = hashlib.sha256(b"["), b""
    for part in parts:
        digest.update(between + _canonical(part)[1:-1])
        between = b","
    digest.update(b"]")
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Record:
    """To and from JSON, and comparison by field, for the frozen dataclasses below."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Fields that are not written where they are None."""

    def to_json(self) -> dict[str, Any]:
        """JSON object of the fields, without optional ones that are None; `from_json(to_json())` equals the record."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        return {k: v for k, v in value.items() if v is not None or k not in self.OPTIONAL}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Record of a JSON object. Raises ValueError where fields are missing, unknown, or of another type."""
        expected, types = {f.name for f in fields(cls)}, get_type_hints(cls)  # type: ignore[arg-type]
        if not isinstance(value, Mapping):
            raise ValueError(f"{cls.__name__.lower()} is {type(value).__name__}; expected an object of fields")
        if not expected - cls.OPTIONAL <= set(value) <= expected:
            raise ValueError(
                f"{cls.__name__.lower()} has fields {sorted(value)}; expected {sorted(expected)}: it is damaged, or "
                "was written by another version"
            )
        for name, found in value.items():
            if not _fits(found, types[name]):
                kind = types[name].__name__ if isinstance(types[name], type) else types[name]
                raise ValueError(f"{name} is {_short(found)}; expected {kind}")
        return cls(**{k: tuple(map(_frozen, v)) if isinstance(v, list) else v for k, v in value.items()})

    def differences(self, other: Self) -> list[str]:
        """One "field: ours, not theirs" per field that differs; empty when equal."""
        return differences(self.to_json(), other.to_json())


def differences(ours: Any, theirs: Any) -> list[str]:
    """One "field: ours, not theirs" per field of JSON values that differs; empty when equal."""
    return list(_differences("", ours, theirs))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a field's type, lists for tuples."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        many = isinstance(value, list | tuple)
        wanted = parts[:1] * len(value) if many and parts[-1] is Ellipsis else parts
        return many and len(value) == len(wanted) and all(map(_fits, value, wanted))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return kind is Any or (isinstance(value, origin or kind) and (kind is bool or not isinstance(value, bool)))


def _differences(path: str, ours: Any, theirs: Any) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from _differences(f"{path}.{key}".lstrip("."), ours.get(key), theirs.get(key))
    elif ours != theirs:
        yield f"{path}: {_short(ours)}, not {_short(theirs)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:40]}... ({digest_of(value)[:8]})"


@dataclass(frozen=True, kw_only=True)
class Identity(Record):
    """What must match on every append to a task, and for any comparison of numbers."""

    OPTIONAL = frozenset({"derived_from"})

    encoder: str
    """Family, as "m2d" or "tiny-ssl"."""
    weights: str
    """SHA-256 over names, types, shapes and values of the weights."""
    front_end: Mapping[str, Any]
    """All that fixes the numbers between file and model."""
    sites: tuple[tuple[str, int], ...]
    """(module name, neurons) of each layer, in order."""
    embedding: int
    """Width of the embedding."""
    hidden: tuple[int, int]
    """(states, width) of the hidden states; (0, 0) where the encoder offers none."""
    frames: str
    """Which frames count: "audio", "published", "all" or "last"."""
    precision: str = "float32"
    """What matrix products are computed in, "bfloat16" or "float16", else the type of the numbers at the sites."""
    device: str = "cpu"
    """Kind of device, "cpu" or "cuda"; which one it was is in each block's version."""
    semantics: int = SEMANTICS
    """Version of the meaning of the stored numbers."""
    derived_from: Mapping[str, Any] | None = None
    """Of a derived task: `identity`, the digest of the source task's identity, and what it was derived by."""

    def __post_init__(self) -> None:
        if self.semantics != SEMANTICS:
            raise ValueError(f"semantics is {self.semantics}; expected {SEMANTICS}: take the otoscope that wrote it")
        if self.frames not in FRAME_RULES:
            raise ValueError(f"no frames rule {self.frames!r}; expected one of {', '.join(FRAME_RULES)}")
        if not self.sites:
            raise ValueError("an encoder without sites has no neurons; expected at least one site")
        widths = [width for _, width in self.sites]
        if not (min(widths) >= 1 and max(widths) <= MAX_WIDTH and len(widths) <= MAX_LAYERS):
            raise ValueError(
                f"{len(widths)} sites of {min(widths)} to {max(widths)} neurons; expected at most {MAX_LAYERS} of 1 to "
                f"{MAX_WIDTH}"
            )
        if len(widths) * max(widths) > MAX_NEURONS:
            raise ValueError(
                f"{len(widths)} sites, the widest of {max(widths)} neurons; expected a product up to {MAX_NEURONS}"
            )
        if not (0 <= self.embedding <= MAX_WIDTH and 0 <= self.hidden[0] <= MAX_LAYERS):
            raise ValueError(
                f"embedding of {self.embedding}, {self.hidden[0]} hidden states; expected up to {MAX_WIDTH} and "
                f"{MAX_LAYERS}"
            )
        if not 0 <= self.hidden[1] <= MAX_WIDTH:
            raise ValueError(f"hidden states of width {self.hidden[1]}; expected up to {MAX_WIDTH}")

    @property
    def n_neurons(self) -> int:
        """Neurons of the widest layer: the length of the neuron axis."""
        return max(width for _, width in self.sites)

    @property
    def n_check(self) -> int:
        """Values of the array `check`: the embedding's and all sites'."""
        return self.embedding + sum(width for _, width in self.sites)


def check_unit_sec(unit_sec: float | None) -> None:
    """Raise ValueError for another length than None, the native one, or up to MAX_UNIT_SEC."""
    if unit_sec is not None and not 0 < unit_sec <= MAX_UNIT_SEC:
        raise ValueError(f"unit_sec is {unit_sec:g}; expected seconds above 0 and up to {MAX_UNIT_SEC:g}, or native")


@dataclass(frozen=True, kw_only=True)
class Plan(Record):
    """What is to be done for one task; extended only by appending clips."""

    OPTIONAL = frozenset({"prompts"})

    n_clips: int
    names: str
    """SHA-256 over the clips' names, in order."""
    sources: str
    """SHA-256 over the clips' paths and spans, in order."""
    block: int
    """Clips per block."""
    batch: int
    """Most clips in one forward pass."""
    threads: int
    """Threads of one worker's arithmetic."""
    unit_sec: float | None
    """Seconds that every clip is cropped or padded to; None keeps native lengths."""
    variables: tuple[str, ...]
    """Kept variables, in the order of `VARIABLES`."""
    mean_dtype: str = "float16"
    """Stored type of `mean`: "float16" or "float32"."""
    prompts: str | None = None
    """SHA-256 over the clips' prompts, in order, where they have any."""

    def with_clips_of(self, other: "Plan") -> "Plan":
        """The same for the clips of another plan."""
        names = ("n_clips", "names", "sources", "prompts")
        return replace(self, **{name: getattr(other, name) for name in names})

    def __post_init__(self) -> None:
        largest = {"n_clips": MAX_CLIPS, "block": MAX_BLOCK_CLIPS, "batch": MAX_BATCH, "threads": MAX_THREADS}
        for name, limit in largest.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1 and at most {limit}")
        if -(-self.n_clips // self.block) > MAX_BLOCKS:
            raise ValueError(
                f"{self.n_clips} clips in blocks of {self.block}; expected at most {MAX_BLOCKS}: take larger ones"
            )
        check_unit_sec(self.unit_sec)
        if self.block > MAX_OBJECT_CLIPS and self.block % MAX_OBJECT_CLIPS:
            limit = MAX_OBJECT_CLIPS
            raise ValueError(f"block is {self.block}; expected at most {limit} clips, or a multiple of {limit}")
        unknown = [v for v in self.variables if v not in VARIABLES]
        if unknown:
            raise ValueError(f"no variable {', '.join(unknown)} to keep; expected some of {', '.join(VARIABLES)}")
        if self.variables != kept(self.variables):
            raise ValueError(f"variables are {', '.join(self.variables)}; expected {', '.join(kept(self.variables))}")
        if self.mean_dtype not in MEAN_DTYPES:
            raise ValueError(f"mean_dtype is {self.mean_dtype}; expected float16 or float32")


def kept(names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The variables a run stores for `--keep`: those asked for and those always kept, in the order of VARIABLES."""
    wanted = set(KEPT_BY_DEFAULT if names is None else names) | set(ALWAYS_KEPT)
    return tuple(v for v in VARIABLES if v in wanted) + tuple(sorted(wanted - set(VARIABLES)))


@dataclass(frozen=True, kw_only=True)
class StoredLabel(Record):
    """Where a label column is, and what it holds."""

    array: str
    """Name of the array: the column's valid generation."""
    digest: str
    """SHA-256 over its values, in order."""


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """What a task's own document says of it."""

    identity: Identity
    plan: Plan
    labels: Mapping[str, StoredLabel]
    """By column."""
    source: str
    """Digest of the file that an encoder was made by, "" where it was none of the user's."""
    check: int
    """CRC-32C of the array `check`."""
    metadata: str
    """SHA-256 over the metadata of all arrays."""

    def to_json(self) -> dict[str, Any]:
        """JSON object of all fields, and `digest`, over them."""
        value = {
            "identity": self.identity.to_json(),
            "plan": self.plan.to_json(),
            "labels": {name: label.to_json() for name, label in self.labels.items()},
            "source": self.source,
            "check": self.check,
            "metadata": self.metadata,
        }
        return {**value, "digest": digest_of(value)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TaskRecord":
        """Record of a JSON object. Raises ValueError where it does not match its digest, or is out of range."""
        given = {name: field for name, field in value.items() if name != "digest"}
        if digest_of(given) != value.get("digest") or set(given) != {f.name for f in fields(cls)}:
            raise ValueError("it does not match its digest; its zarr.json is damaged")
        if not _fits(given["source"], str) or not _fits(given["check"], int) or len(given["labels"]) > MAX_LABELS:
            raise ValueError(f"its source is no text, its check no number, or it has over {MAX_LABELS} label columns")
        labels = {name: StoredLabel.from_json(label) for name, label in given["labels"].items()}
        parts = {"identity": Identity.from_json(given["identity"]), "plan": Plan.from_json(given["plan"])}
        return cls(**{**given, **parts, "labels": labels})
