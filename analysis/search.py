"""Neurons by a line of text: `category:dog layer:4-8 aape<1.2 p(dog)>0.3 rate<0.1 top:"rain, heavy"`.

Goal: one grammar for the page and the command `otoscope neurons --find`, on probabilities that are in memory.
Conventions: terms stand apart by blanks and all must hold.
    category:NAME       class-specific for it          top:NAME    its highest P is of this category
    layer:4  layer:4-8  layer:4,6,9-11                 neuron:17   in the same ways
    aape  normalised  rank  rate  categories           with < <= > >= = and a number; categories: how many it is
                                                       specific for
    p(NAME)  auc(NAME)                                 likewise; auc by the rule contrast alone
A name with a blank or one of , : ( ) " < > = in it stands between double quotes, and a double quote in it is doubled.
NaN satisfies nothing.
"""

import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..messages import quoted

if TYPE_CHECKING:
    from .cards.labelling import LabellingStatistics

COMPARE = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq,
}  # fmt: skip
OF_NEURON = ("aape", "normalised", "rank", "rate", "categories")
OF_CATEGORY = ("p", "auc")
EXAMPLE = 'category:dog, layer:4-8, aape<1.2, p(dog)>0.3 or top:"rain, heavy"'

NAME = r'"(?:[^"]|"")*"|[^\s,:()"<>=]*'
TERM = re.compile(rf"[a-z]+(?:\((?:{NAME})\))?(?:[<>]=?|=|:)(?:{NAME})(?:,[\d-]*)*")
NAMED = re.compile(r"(?P<field>category|top|layer|neuron):(?P<rest>.*)", re.DOTALL)
COMPARED = re.compile(
    rf"(?P<field>{'|'.join((*OF_NEURON, *OF_CATEGORY))})(?:\((?P<name>{NAME})\))?(?P<compare>[<>]=?|=)(?P<value>.*)",
    re.DOTALL,
)
RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


class SearchError(ValueError):
    """A term that is not understood: the message is one line, with the term and where it is.

    text: what was asked; position: where the term begins in it, from 0; term: the term itself.
    """

    def __init__(self, message: str, *, text: str, position: int, term: str):
        super().__init__(message)
        self.text, self.position, self.term = text, position, term

    @property
    def caret(self) -> str:
        """The text, and below it a caret under the first letter of the term."""
        return f"{self.text}\n{' ' * self.position}^"


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One condition on a neuron."""

    field: str
    name: str = ""
    """A category, of `category`, `top`, `p` and `auc`."""
    compare: str = ""
    """One of < <= > >= =."""
    value: float = 0.0
    ranges: tuple[tuple[int, int], ...] = ()
    """Of `layer` and `neuron`: from, to, both included."""
    text: str = ""
    position: int = 0


def parse_search(text: str) -> tuple[Term, ...]:
    """The terms of a search; none of a blank text. Raises SearchError for a term that is not understood."""
    found, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        whole = TERM.match(text, at)
        end = whole.end() if whole else at
        term = text[at:end] or text[at:]
        if whole is None or (end < len(text) and not text[end].isspace()):
            rest = re.match(r"\S*", text[end:])
            raise _wrong(text, at, text[at : end + (rest.end() if rest else 0)], f"expected a term such as {EXAMPLE}")
        found.append(_term(text, at, term))
        at = end
    return tuple(found)


def matching(statistics: "LabellingStatistics", text: str) -> NDArray[np.bool_]:
    """Which neurons satisfy all terms: bool (layer, neuron); of a blank text those that exist.

    Raises SearchError, also for a category that does not exist and for an auc where no tests are at hand.
    """
    found = statistics.exists.copy()
    for term in parse_search(text):
        found &= _satisfied(statistics, term, text)
    return found


def find_neurons(statistics: "LabellingStatistics", text: str) -> NDArray[np.int64]:
    """The neurons that satisfy all terms, rows of (layer number, neuron) by AAPE, lowest first, NaN last, then by
    (layer, neuron). Raises as `matching`.
    """
    which = matching(statistics, text)
    return statistics.pairs(which)[np.argsort(statistics.aape[which], kind="stable")]


def written(name: str) -> str:
    """A category as it is written in a search: between double quotes where it must be."""
    return name if re.fullmatch(r'[^\s,:()"<>=]+', name) else '"' + name.replace('"', '""') + '"'


def _term(text: str, at: int, term: str) -> Term:
    """One term, understood. Raises SearchError."""
    if match := NAMED.fullmatch(term):
        field, rest = match["field"], match["rest"]
        if field in ("category", "top"):
            name = _name(rest)
            if name is None:
                raise _wrong(text, at, term, f'expected a name, as in {field}:dog or {field}:"rain, heavy"')
            return Term(field=field, name=name, text=term, position=at)
        ranges = [RANGE.fullmatch(part) for part in rest.split(",")]
        if not all(ranges):
            raise _wrong(text, at, term, f"expected whole numbers, as in {field}:4, {field}:4-8 or {field}:4,6,9-11")
        pairs = tuple((int(each[1]), int(each[2] or each[1])) for each in ranges if each)
        if backwards := [pair for pair in pairs if pair[0] > pair[1]]:
            a, b = backwards[0]
            raise _wrong(text, at, term, f"found {a}-{b}, of which the first is the larger; expected {b}-{a}")
        return Term(field=field, ranges=pairs, text=term, position=at)
    match = COMPARED.fullmatch(term)
    if match is None:
        raise _wrong(text, at, term, f"expected a term such as {EXAMPLE}")
    field, name, value = match["field"], match["name"], _number(match["value"])
    if (field in OF_CATEGORY) != (name is not None):
        raise _wrong(text, at, term, f"expected a category for {', '.join(OF_CATEGORY)} alone, as in p(dog)>0.3")
    inside = "" if name is None else _name(name)
    if inside is None:
        raise _wrong(text, at, term, 'expected a name, as in p(dog)>0.3 or p("rain, heavy")>0.3')
    if value is None:
        raise _wrong(text, at, term, f"expected a finite number after {match['compare']}")
    return Term(field=field, name=inside, compare=match["compare"], value=value, text=term, position=at)


def _satisfied(statistics: "LabellingStatistics", term: Term, text: str) -> NDArray[np.bool_]:
    """Which neurons (layer, neuron) satisfy a term."""
    if term.ranges:
        numbers = statistics.layers[:, None] if term.field == "layer" else statistics.neurons[None]
        found = np.zeros(statistics.exists.shape, bool)
        for low, high in term.ranges:
            found |= (numbers >= low) & (numbers <= high)
        return found
    values: NDArray[np.float64]
    if term.field in ("category", "top", *OF_CATEGORY):
        try:
            category = statistics.category_at(term.name)
        except LookupError as error:
            raise _wrong(text, term.position, term.text, str(error)) from error
        if term.field == "category":
            return np.asarray(statistics.member[:, :, category])
        if term.field == "top":
            p = np.nan_to_num(statistics.p, nan=-1)
            return np.asarray((p[:, :, category] >= p.max(axis=2)) & (p[:, :, category] > 0))
        if term.field == "auc" and "auc" not in statistics.tests:
            raise _wrong(text, term.position, term.text, "expected the rule contrast, whose tests alone give AUC")
        values = (statistics.p if term.field == "p" else statistics.tests["auc"])[:, :, category]
    elif term.field == "categories":
        values = np.count_nonzero(statistics.member, axis=2)
    elif term.field == "rank":
        values = np.where(statistics.rank > 0, statistics.rank, np.nan)
    else:
        values = getattr(statistics, term.field)
    with np.errstate(invalid="ignore"):
        return np.asarray(COMPARE[term.compare](values, term.value))


def _name(text: str) -> str | None:
    """A name as it is written, unquoted; None where it is none."""
    if not re.fullmatch(NAME, text):
        return None
    if text.startswith('"'):
        return text[1:-1].replace('""', '"') or None
    return text or None


def _number(text: str) -> float | None:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _wrong(text: str, at: int, term: str, expected: str) -> SearchError:
    message = f"{quoted(term)} at character {at + 1} of the search is not understood; {expected}"
    return SearchError(message, text=text, position=at, term=term)
