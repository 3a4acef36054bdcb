"""What made a store: identity (what may never differ) and plan (what was to be done).

Goal: two runs may share a store only if their numbers mean the same, and the error names the fields that differ.
Conventions: JSON values only; digests are SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8), in hex.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from .blocks import MAX_OBJECT_CLIPS

SEMANTICS = 1  # raised when the meaning of a stored number changes
FRAME_RULES = ("audio", "published", "all")
VARIABLES = ("active_bits", "mean", "positive_frames", "frame_count", "embedding", "hidden")
ALWAYS_KEPT = ("active_bits", "frame_count")
MEAN_DTYPES = ("float16", "float32")
KEPT_BY_DEFAULT = ("active_bits", "mean", "positive_frames", "frame_count", "embedding")


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Record:
    """To and from JSON, and comparison by field, for the frozen dataclasses below."""

    def to_json(self) -> dict[str, Any]:
        """JSON object of all fields; `from_json(to_json())` is equal to the record."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Record of a JSON object. Raises ValueError where fields are missing or unknown."""
        expected = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if set(value) != expected:
            raise ValueError(
                f"{cls.__name__.lower()} has fields {sorted(value)}; expected {sorted(expected)}: it is damaged, or "
                "was written by another version"
            )
        return cls(**{k: tuple(map(_frozen, v)) if isinstance(v, list) else v for k, v in value.items()})

    def differences(self, other: Self) -> list[str]:
        """One "field: ours, not theirs" per field that differs; empty when equal."""
        return list(_differences("", self.to_json(), other.to_json()))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _differences(path: str, ours: Any, theirs: Any) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from _differences(f"{path}.{key}".lstrip("."), ours.get(key), theirs.get(key))
    elif ours != theirs:
        yield f"{path}: {_short(ours)}, not {_short(theirs)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:40]}... ({digest_of(value)[:8]})"


@dataclass(frozen=True, kw_only=True)
class Identity(Record):
    """What must match on every append to a store, and for any comparison of numbers."""

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
    """Which frames count: "audio", "published" or "all"."""
    precision: str = "float32"
    """Arithmetic of the forward pass."""
    device: str = "cpu"
    """Device class."""
    semantics: int = SEMANTICS
    """Version of the meaning of the stored numbers."""

    def __post_init__(self) -> None:
        if self.frames not in FRAME_RULES:
            raise ValueError(f"no frames rule {self.frames!r}; expected one of {', '.join(FRAME_RULES)}")
        if not self.sites:
            raise ValueError("an encoder without sites has no neurons; expected at least one site")

    @property
    def n_neurons(self) -> int:
        """Neurons of the widest layer: the length of the neuron axis."""
        return max(width for _, width in self.sites)


@dataclass(frozen=True, kw_only=True)
class Plan(Record):
    """What is to be done for one task; extended only by appending clips."""

    n_clips: int
    names: str
    """SHA-256 over the clips' names and sources, in order."""
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

    def __post_init__(self) -> None:
        for name in ("n_clips", "block", "batch", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.unit_sec is not None and not 0 < self.unit_sec < float("inf"):
            raise ValueError(f"unit_sec is {self.unit_sec}; expected seconds above 0, or native")
        if self.block > MAX_OBJECT_CLIPS and self.block % MAX_OBJECT_CLIPS:
            limit = MAX_OBJECT_CLIPS
            raise ValueError(f"block is {self.block}; expected at most {limit} clips, or a multiple of {limit}")
        unknown = [v for v in self.variables if v not in VARIABLES]
        if unknown:
            raise ValueError(f"no variable {', '.join(unknown)} to keep; expected some of {', '.join(VARIABLES)}")
        if self.mean_dtype not in MEAN_DTYPES:
            raise ValueError(f"mean_dtype is {self.mean_dtype}; expected float16 or float32")


def kept(names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The variables a run stores for `--keep`: those asked for and those always kept, in the order of VARIABLES."""
    wanted = set(KEPT_BY_DEFAULT if names is None else names) | set(ALWAYS_KEPT)
    return tuple(v for v in VARIABLES if v in wanted) + tuple(sorted(wanted - set(VARIABLES)))
