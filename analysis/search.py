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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cards.statistics import LabellingStatistics


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
    raise NotImplementedError


def matching(statistics: LabellingStatistics, text: str) -> NDArray[np.bool_]:
    """Which neurons satisfy all terms: bool (layer, neuron); of a blank text those that exist.

    Raises SearchError, also for a category that does not exist and for an auc where no tests are at hand.
    """
    raise NotImplementedError


def find_neurons(statistics: LabellingStatistics, text: str) -> NDArray[np.int64]:
    """The neurons that satisfy all terms, rows of (layer number, neuron) by AAPE, lowest first, NaN last, then by
    (layer, neuron). Raises as `matching`.
    """
    raise NotImplementedError
