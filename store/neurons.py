"""NeuronSet: (layer, neuron) pairs and why they were chosen; what analysis hands to ablation.

Goal: one noun for "these neurons", however they were found, that can be combined, checked, written and read.
Conventions: a pair is (layer, neuron), both counted from 0; pairs are sorted and unique. Two sets are equal when they
hold the same neurons, whatever they are called. `widths` is the number of neurons of each layer, in order.
"""

import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..documents import parse_json, read_document
from ..files import whole_file
from ..messages import one_line
from .frames import read_frame
from .provenance import Record, digest_of

ENDINGS = (".json", ".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class NeuronSet(Record):
    """Some neurons of an encoder.

        NeuronSet(pairs=[(9, 347), (3, 2540)], name="by hand")      # pairs are put in order

    `a | b`, `a & b` and `a - b` are the neurons in either, in both, and in `a` alone; the result is named after both.
    Raises ValueError for a pair that is not two whole numbers from 0 on.
    """

    pairs: tuple[tuple[int, int], ...]
    """(layer, neuron), sorted, each once."""
    name: str = field(default="", compare=False)
    """How a person calls it, as "shared(60,72)"."""
    why: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Where it comes from, JSON values only: identity digest of the store, task, label, how it was selected."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(sorted({_pair(pair) for pair in self.pairs})))

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.pairs)

    def __contains__(self, pair: object) -> bool:
        return pair in self.pairs

    def __or__(self, other: Self) -> "NeuronSet":
        return self._combined(other, {*self.pairs} | {*other.pairs}, "|")

    def __and__(self, other: Self) -> "NeuronSet":
        return self._combined(other, {*self.pairs} & {*other.pairs}, "&")

    def __sub__(self, other: Self) -> "NeuronSet":
        return self._combined(other, {*self.pairs} - {*other.pairs}, "-")

    def _combined(self, other: "NeuronSet", pairs: set[tuple[int, int]], sign: str) -> "NeuronSet":
        parts = [{"name": part.name, **part.why} for part in (self, other)]
        return NeuronSet(pairs=tuple(pairs), name=f"({self.name} {sign} {other.name})", why={"of": parts})

    @property
    def digest(self) -> str:
        """SHA-256 of the pairs: equal sets have equal digests."""
        return digest_of([list(pair) for pair in self.pairs])

    @property
    def by_layer(self) -> dict[int, NDArray[np.int64]]:
        """Sorted neurons of each layer that has any; layers in order."""
        found: dict[int, list[int]] = {}
        for layer, neuron in self.pairs:
            found.setdefault(layer, []).append(neuron)
        return {layer: np.array(neurons, np.int64) for layer, neurons in found.items()}

    @property
    def counts(self) -> dict[int, int]:
        """Number of neurons in each layer that has any; layers in order."""
        return {layer: len(neurons) for layer, neurons in self.by_layer.items()}

    def mask(self, widths: Sequence[int]) -> NDArray[np.bool_]:
        """Membership as bool (layer, neuron), as wide as the widest layer. Raises as `check` does."""
        self.check(widths)
        member = np.zeros((len(widths), max(widths)), bool)
        if self.pairs:
            member[tuple(np.array(self.pairs).T)] = True
        return member

    def check(self, widths: Sequence[int]) -> None:
        """Raise LookupError naming the neurons that an encoder of these widths does not have."""
        absent = [(layer, n) for layer, n in self.pairs if layer >= len(widths) or n >= widths[layer]]
        if absent:
            wide = sorted(set(widths))
            each = f"{wide[0]}" if len(wide) == 1 else f"{wide[0]} to {wide[-1]}"
            raise LookupError(
                f"neuron set {self.name or 'without a name'} has {len(absent)} of {len(self)} neurons that do not "
                f"exist, the first {absent[0]}; expected layers 0 to {len(widths) - 1} of {each} neurons: use a set "
                "made for this encoder"
            )

    def shifted(self, by: int, widths: Sequence[int]) -> "NeuronSet":
        """The same layers, every neuron index moved by `by`, around the end of its layer.

        With 1 this is the control of the published ablation lists. Raises as `check` does.
        """
        self.check(widths)
        pairs = tuple((layer, (neuron + by) % widths[layer]) for layer, neuron in self.pairs)
        return replace(self, pairs=pairs, name=f"{self.name}{by:+d}", why={"shifted": by, **self.why})

    def to_table(self) -> pd.DataFrame:
        """One row per neuron: layer, neuron."""
        layer, neuron = np.array(self.pairs, np.int64).reshape(-1, 2).T
        return pd.DataFrame({"layer": layer, "neuron": neuron})


def _pair(pair: Any) -> tuple[int, int]:
    try:
        layer, neuron = map(operator.index, pair)
    except (TypeError, ValueError):
        layer = neuron = -1
    if layer < 0 or neuron < 0 or isinstance(pair, str | bytes) or any(isinstance(n, bool) for n in pair):
        raise ValueError(f"{pair!r} is not a valid neuron; expected two whole numbers from 0 on: (layer, neuron)")
    return layer, neuron


def read_neuron_set(path: str | os.PathLike[str]) -> NeuronSet:
    """The neurons of a file: .json as `write_neuron_set` makes it, .csv or .parquet with columns layer and neuron.

    Other columns are ignored. A neuron that has several rows, one for each of its categories, is in the set once.
    Raises FileNotFoundError where there is none, ValueError for another ending or contents that are not as described.
    """
    pairs, about = _read(Path(path))
    return NeuronSet(pairs=tuple(pairs), **about)


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """(layer, neuron) of each neuron of a file once, in the file's order. Otherwise as `read_neuron_set`."""
    return list(dict.fromkeys(_read(Path(path))[0]))


def _read(path: Path) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """Pairs in the order of the file, and name and why of the set."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"cannot read neurons from {path.name!r}; expected a name ending in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected a table of neurons: `otoscope neurons -o` makes one")
    try:
        if ending == ".json":
            found = NeuronSet.from_json(parse_json(read_document(path)))
            return list(found), {"name": found.name, "why": found.why}
        frame = read_frame(path)
    except (ValueError, TypeError, OSError) as error:  # what json, pandas and pyarrow raise for other contents
        raise ValueError(
            f"{path} holds no neurons ({one_line(error)}); expected columns layer and neuron, or JSON of a neuron set"
        ) from error
    if not {"layer", "neuron"} <= set(frame.columns):
        raise ValueError(f"{path} has the columns {', '.join(map(str, frame.columns))}; expected layer and neuron")
    if len(frame) and not all(pd.api.types.is_integer_dtype(frame[column]) for column in ("layer", "neuron")):
        raise ValueError(f"{path} has layers or neurons that are not whole numbers; expected 0, 1, ...")
    pairs = zip(frame["layer"].tolist(), frame["neuron"].tolist(), strict=True)
    return list(pairs), {"name": path.name, "why": {"file": path.name}}


def write_neuron_set(neurons: NeuronSet, path: str | os.PathLike[str]) -> None:
    """Write a set as .json (with its name and why), .csv or .parquet (layer, neuron). The file appears whole or not.

    Raises ValueError for another ending, FileNotFoundError for a folder that does not exist.
    """
    with whole_file(path, ENDINGS) as partial:
        match Path(path).suffix.lower():
            case ".json":
                partial.write_text(json.dumps(neurons.to_json(), ensure_ascii=False) + "\n", encoding="utf-8")
            case ".csv":
                neurons.to_table().to_csv(partial, index=False, lineterminator="\n")
            case _:
                neurons.to_table().to_parquet(partial, index=False)
