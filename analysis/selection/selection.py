"""Selection: how class-specific neurons are chosen, in one record with one spelling everywhere.

Goal: the accessor, the commands, an ablation's request and the service use the same words; options and schemas are
made of these fields.
Conventions: `help` and `choices` of a field are in its metadata. Nothing heavy is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

from ...store.provenance import Record

if TYPE_CHECKING:
    import xarray as xr

    Threshold = float | xr.DataArray | None
else:
    Threshold = float | None  # as options and schemas take it

READINGS = ("clip", "frame", "any")
RULES = ("lape", "paper")
CLIPS = ("all", "train")


def described(default: Any, help: str, choices: tuple[str, ...] = (), metavar: str | None = None) -> Any:
    """A dataclass field with its default, a line of help, and the values that it may have, if they are a list.

    metavar: what stands for another value in the help of an option.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class Selection(Record):
    """How class-specific neurons are chosen.

        Selection(reading="frame", percentile=2)

    Raises ValueError for values that are not known or do not fit together.
    """

    reading: str = described(
        "clip", "clip: mean above 0; frame: share of positive frames; any: one positive frame.", READINGS
    )
    threshold: Threshold = described(  # noqa: RUF009  of `field`
        None, "With the reading clip: on the mean, instead of 0.", metavar="X"
    )
    """A number, or in Python one per neuron as a DataArray (layer, neuron); None is 0, before the mean was rounded."""
    rule: str = described("lape", "Selection rule.", RULES)
    percentile: float = described(1.0, "Share of neurons selected, in percent.", metavar="P")
    clips: str = described(
        "all", "Clips that the selection is made from; train leaves out those that are tested.", CLIPS
    )

    def __post_init__(self) -> None:
        for name, known in (("reading", READINGS), ("rule", RULES), ("clips", CLIPS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not known; expected one of {', '.join(known)}")
        object.__setattr__(self, "percentile", _number("percentile", self.percentile))  # 5 and 5.0 are one selection
        if type(self.threshold).__name__ not in ("NoneType", "DataArray"):
            object.__setattr__(self, "threshold", _number("threshold", self.threshold))
        if self.threshold is not None and self.reading != "clip":
            raise ValueError(f"a threshold was given with reading {self.reading!r}; expected reading 'clip' for it")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile:g}; expected a number above 0 and up to 100, such as 1")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or (name == "threshold" and not isfinite(value)):
        more = ", or one per neuron of the data set as a DataArray (layer, neuron)" if name == "threshold" else ""
        raise ValueError(f"{name} is {type(value).__name__} {str(value)[:40]!r}; expected a number{more}")
    return float(value)


def selection_of(selection: Selection | None = None, **changes: Any) -> Selection:
    """A selection, by default `Selection()`, with other values of the fields named.

    Raises TypeError for what is not a field, or not a selection.
    """
    if not isinstance(selection, Selection | None):
        raise TypeError(f"selection is {selection!r}; expected a Selection, or its fields by name, as reading='frame'")
    known = Selection.__dataclass_fields__
    for name in changes:
        if name not in known:
            raise TypeError(f"{name!r} is not a field of a selection; expected some of {', '.join(known)}")
    return replace(selection or Selection(), **changes)


@dataclass(frozen=True, kw_only=True)
class Selections:
    """A selection, whose percentile may be another one for some tasks."""

    selection: Selection = field(default_factory=Selection)
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """By task."""

    def of(self, task: str) -> Selection:
        """The selection for a task."""
        return replace(self.selection, percentile=self.percentiles.get(task, self.selection.percentile))
