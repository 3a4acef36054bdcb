"""Addresses: all of a view in its URL, so that a link that is opened again shows the same.

Goal: one way to write links, in which only what differs from the default appears, in one order.
Conventions: paths begin with /t/TASK/LABEL; `store` is the first digits of the identity of the task, by which a link
knows whether it is on the store that it was made for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

SHOWS = ("grid", "maximum", "mean")
LEVELS = ("heard", "matched")
KEPT_DEFAULTS = {"show": SHOWS[0], "loudness": LEVELS[0]}
"""Choices of how rows are drawn and played: they stay from page to page."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A labelling, the selection asked for, and how rows are shown: what the links of a page have in common."""

    task: str
    label: str
    store: str
    """The first digits of the identity."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the selection that were asked for."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Of KEPT_DEFAULTS those that differ."""

    @property
    def root(self) -> str:
        """The path of the labelling."""
        return f"/t/{segment(self.task)}/{segment(self.label)}"

    def url(self, *parts: object, **query: Any) -> str:
        """A page of this labelling; a query's values that are None are left out."""
        path = "/".join([self.root, *(segment(str(part)) for part in parts)])
        return address(path, {**self.selection, **self.kept, **query, "store": self.store})

    def fields(self, *left_out: str) -> list[tuple[str, str]]:
        """What a form of this labelling sends beside its own fields, some of them left out."""
        query = {**self.selection, **self.kept, "store": self.store}
        return [
            (name, _text(each))
            for name, value in query.items()
            if name not in left_out
            for each in (value if isinstance(value, list | tuple) else [value])
        ]

    def other(self, task: str, label: str) -> "Scope":
        """The same of another labelling, of the same task or of one of the same encoder."""
        return Scope(task=task, label=label, store=self.store, selection=self.selection, kept=self.kept)

    @property
    def name(self) -> str:
        """As in "cremad:gender"."""
        return f"{self.task}:{self.label}"

    def neuron(self, layer: int, neuron: int, **query: Any) -> str:
        """The card of a neuron."""
        return self.url("n", layer, neuron, **query)

    def clip(self, number: int, **query: Any) -> str:
        """The page of a clip."""
        return self.url("c", number, **query)


def segment(text: str) -> str:
    """A name as a part of a path. A name of dots alone, which browsers resolve, is written with a ~ in front."""
    return f"~{text}" if text.strip(".") == "" or text.startswith("~") else quote(text, safe="")


def name_in(part: str) -> str:
    """The name that `segment` wrote, from the decoded part of a path."""
    return part.removeprefix("~") if part.startswith("~") else part


def address(path: str, query: Mapping[str, Any]) -> str:
    """A path with a query in the order given; values that are None are left out, tuples are repeated."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        values: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, _text(each)) for each in values if each is not None]
    return path + ("?" + urlencode(pairs) if pairs else "")


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def media(task: str, number: int, *parts: object) -> str:
    """What is heard or drawn of a clip."""
    return "/".join(["/m", segment(task), str(number), *map(str, parts)])
