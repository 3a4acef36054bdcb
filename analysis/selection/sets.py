"""Names of neuron sets: from `shared(dog,cat)`, `(9,347) (10,393)` or `@FILE` to neurons.

Goal: every set that an ablation may use can be written in one line, by the categories of a store's selection.
Conventions:
    shared(A,B,...)     neurons that are specific for each of these categories: a cell of the overlap matrix
    only(A)             specific for A and for no other category of its labelling
    all(A)              specific for A
    (9,347) (10,393)    by hand, (layer,neuron)
    @FILE               of a file: .csv, .parquet, .json (see `store.neurons`), .yaml (a published list)
A is a category of the request's labelling, or TASK:LABEL:A of another one of the same store. A name with one of
, : ( ) " in it stands between double quotes, and a double quote in it is doubled: "says ""hi"", twice".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import xarray as xr

from ...store.neurons import NeuronSet, read_neuron_set
from ..published.neuron_lists import LIST_ENDINGS, read_published_list

KINDS = ("shared", "only", "all")
USAGE = "shared(A,B), only(A), all(A), (9,347) (10,393) or @FILE, a name with , : ( ) in it between double quotes"
NAME = r'"(?:[^"]|"")*"|[^,:()"]*'
CATEGORY = re.compile(rf"\s*(?:({NAME})\s*:\s*({NAME})\s*:\s*)?({NAME})\s*")
BY_HAND = re.compile(r"\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,?")

Members = Callable[[str, str], xr.DataArray]
"""(task, label) -> member, bool (layer, neuron, category) of the selection; raises LookupError for an unknown one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """One category, of the labelling named, or of the request's ("")."""

    task: str
    label: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSet:
    """What a set's name says, before any store is read."""

    text: str
    kind: str
    """One of `KINDS`, "hand" or "file"."""
    categories: tuple[Category, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    file: str = ""


def parse_set(text: str) -> NamedSet:
    """Understand the name of a set. Raises ValueError with the ways to write one."""
    stripped = text.strip()
    if stripped.startswith("@") and len(stripped) > 1:
        return NamedSet(text=stripped, kind="file", file=stripped[1:])
    if stripped.startswith("("):
        return NamedSet(text=stripped, kind="hand", pairs=_by_hand(stripped))
    kind, bracket, rest = stripped.partition("(")
    kind = kind.strip()
    if kind not in KINDS or not bracket or not rest.endswith(")"):
        raise ValueError(f"no neuron set is called {text!r}; expected {USAGE}")
    categories = _categories(rest[:-1], text)
    if (kind == "shared") != (len(categories) > 1):
        needed = "two or more categories" if kind == "shared" else "one category"
        raise ValueError(f"{text!r} names {len(categories)}; expected {needed} in {kind}(): write {USAGE}")
    return NamedSet(text=stripped, kind=kind, categories=categories)


def find_set(
    named: NamedSet,
    members: Members,
    task: str,
    label: str,
    *,
    identity: str = "",
    how: dict[str, object] | None = None,
) -> tuple[NeuronSet, float | None]:
    """The neurons of a named set, and the gain where a published list states one.

    members: gives the selection of a labelling of the store; task, label: the request's labelling.
    identity, how: digest of the task's identity and the options of the selection, recorded in the set's `why`.
    Raises LookupError naming the categories that exist, ValueError for a set without neurons, and what reading a file
    raises.
    """
    gain = None
    if named.kind == "file":
        if named.file.lower().endswith(LIST_ENDINGS):
            found, gain = read_published_list(named.file)
        else:
            found = read_neuron_set(named.file)
            found = found if found.name else replace(found, name=PurePath(named.file).name)
    elif named.kind == "hand":
        found = NeuronSet(pairs=named.pairs, name=named.text, why={"by": "hand"})
    else:
        found = _selected(named, members, task, label)
        why = {"task": task, "label": label, "set": named.text, "identity": identity, **(how or {})}
        found = NeuronSet(pairs=found.pairs, name=named.text, why=why)
    if not len(found):
        remedy = (
            "see `otoscope table overlap` for pairs that share some, or select more with a higher --percentile or a "
            "lower --min-effect"
        )
        raise ValueError(
            f"{named.text} has no neurons; expected at least one: "
            f"{'give a file that lists some' if named.kind == 'file' else remedy}"
        )
    return found, gain


def _selected(named: NamedSet, members: Members, task: str, label: str) -> NeuronSet:
    masks = []
    for category in named.categories:
        where = (category.task, category.label) if category.task else (task, label)
        member = members(*where).transpose("category", "layer", "neuron")
        names = [str(name) for name in member["category"].values]
        if category.name not in names:
            raise LookupError(
                f"no category {category.name!r} in {':'.join(where)}; those that exist: {', '.join(map(quoted, names))}"
            )
        own = names.index(category.name)
        mask = member.isel(category=own)
        if named.kind == "only":
            mask = mask & ~member.drop_isel(category=own).any("category")
        masks.append(mask.reset_coords(drop=True))
    chosen = masks[0]
    for mask in masks[1:]:
        chosen = chosen & mask
    layer, neuron = chosen.values.nonzero()
    at = zip(chosen["layer"].values[layer].tolist(), chosen["neuron"].values[neuron].tolist(), strict=True)
    return NeuronSet(pairs=tuple(at))


def offered(member: xr.DataArray) -> dict[str, int]:
    """Names of the sets of one category or two that have neurons, and how many: of member, bool (layer, neuron,
    category), as `find_set` would find them.
    """
    names = [quoted(str(name)) for name in member["category"].values]
    flat = member.transpose("category", "layer", "neuron").values.reshape(len(names), -1)
    alone = flat & (flat.sum(axis=0) == 1)
    common = flat.astype(np.float32) @ flat.T.astype(np.float32)  # exact up to 2^24 neurons
    found = {f"all({name})": int(flat[i].sum()) for i, name in enumerate(names)}
    found |= {f"only({name})": int(alone[i].sum()) for i, name in enumerate(names)}
    for i, name in enumerate(names):
        found |= {f"shared({name},{names[j]})": int(common[i, j]) for j in range(i + 1, len(names))}
    return {name: n for name, n in found.items() if n}


def quoted(name: str) -> str:
    """A name as it is written in the name of a set."""
    needs = not name or name != name.strip() or re.search(r'[,:()"]', name)
    return '"' + name.replace('"', '""') + '"' if needs else name


def _categories(inside: str, text: str) -> tuple[Category, ...]:
    found, at = [], 0
    while True:
        match = CATEGORY.match(inside, at)
        assert match is not None  # every part of the pattern may be empty
        task, label, name = (_unquoted(part or "") for part in match.groups())
        end = match.end()
        if not name or (end < len(inside) and inside[end] != ",") or bool(task) != bool(label):
            raise ValueError(f"{text!r} is not understood at {inside[at:].strip()[:40]!r}; expected {USAGE}")
        found.append(Category(task=task, label=label, name=name))
        if end == len(inside):
            return tuple(found)
        at = end + 1


def _unquoted(part: str) -> str:
    part = part.strip()
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _by_hand(text: str) -> tuple[tuple[int, int], ...]:
    rest = BY_HAND.sub("", text)
    if rest:
        raise ValueError(f"{text!r} is not understood at {rest.strip()[:40]!r}; expected (layer,neuron) ...")
    return tuple((int(layer), int(neuron)) for layer, neuron in BY_HAND.findall(text))
