"""Selection: how class-specific neurons are chosen, in one record with one spelling everywhere.

Goal: the accessor, the commands, an ablation's request and the service use the same words; options and schemas are
made of these fields.
Conventions: `help` and `choices` of a field are in its metadata. Nothing heavy is imported here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

from ...store.provenance import Record

if TYPE_CHECKING:
    import xarray as xr

    Threshold = float | str | xr.DataArray | None
else:
    Threshold = float | str | None  # as options and schemas take it

READINGS = ("clip", "frame", "any")
RULES = ("lape", "paper", "contrast")
SIGNS = ("positive", "negative", "both")
CORRECTIONS = ("bh", "max")
CLIPS = ("auto", "all", "train")
PERCENTILE = 1.0  # of neurons, by the published rules
MAX_PERMUTATIONS = 1_000_000
CONTRAST_THRESHOLD = "q80"
CONDITION = re.compile(r'("(?:[^"]|"")+"|[^"=!][^=]*?)(!?=)(.+)', re.DOTALL)
BESIDE_NUMBERS = (
    ", or one per neuron of the data set as a DataArray (layer, neuron), for a command in a .csv or .parquet FILE, or "
    "one of its own by name: q80 for its 80th percentile, median, z1.5 for its mean plus 1.5 standard deviations"
)


def described(
    default: Any, help: str, choices: tuple[str, ...] = (), metavar: str | None = None, *, repeated: bool = False
) -> Any:
    """A dataclass field with its default, a line of help, and the values that it may have, if they are a list.

    metavar: what stands for another value in the help of an option. repeated: an option is given once for each value.
    """
    about = {"help": help, "choices": choices, "metavar": metavar, "repeated": repeated}
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Selection(Record):
    """How class-specific neurons are chosen.

        Selection(reading="frame", percentile=2)

    Without a rule it is lape where a percentile is given, and else contrast.
    Raises ValueError for values that are not known or do not fit together.
    """

    reading: str = described(
        "clip", "clip: mean above 0; frame: share of positive frames; any: one positive frame.", READINGS
    )
    threshold: Threshold = described(  # noqa: RUF009  of `field`
        None,
        "With the reading clip: on the mean; q80, median, z1.5: the neuron's own; FILE: a table of them [0; by rule "
        "contrast q80].",
        metavar="X|qN|median|zN|FILE",
    )  # fmt: skip
    """A number, a threshold of the neuron's own by name, or in Python one per neuron as a DataArray (layer, neuron);
    None is 0, before the mean was rounded, and by the rule contrast "q80"."""
    rule: str = described(
        "",
        "contrast: a rank test; lape: lowest AAPE of those above the 95th percentile of P; paper: by its words "
        "[lape with --percentile, and of probabilities made elsewhere; else contrast].",
        RULES,
    )
    percentile: float | None = described(
        None, "Of the rules lape and paper: share of neurons selected, in percent [1].", metavar="P"
    )
    """Of the rule contrast None."""
    level: float = described(0.05, "Chance or share of false findings that is allowed.", metavar="A")
    min_effect: float = described(0.7, "Of the rule contrast: least AUC of a category against the rest.", metavar="AUC")
    sign: str = described("positive", "Of the rule contrast: negative are neurons that fall silent.", SIGNS)
    correct: str = described(
        "bh", "Of the rule contrast: bh bounds the share of false findings, max the chance of any.", CORRECTIONS
    )
    group: str = described("", "Label column that clips share, as speaker: they move together.", metavar="COLUMN")
    within: tuple[str, ...] = described(
        (),
        "Label column such as split: labels are exchanged only within its values; of several, where all agree.",
        metavar="COLUMN",
        repeated=True,
    )
    permutations: int = described(1000, "Times that labels are shuffled.", metavar="N")
    seed: int = described(0, "Of what is shuffled.", metavar="N")
    where: tuple[str, ...] = described(
        (), "Only clips with this label, or by != another; values of one column are alternatives, columns combine.",
        metavar="COLUMN=VALUE", repeated=True,
    )  # fmt: skip
    """Conditions COLUMN=VALUE and COLUMN!=VALUE; see `analysis.clips_where`."""
    confirm: tuple[str, ...] = described(
        (),
        "Clips that select nothing, by which the selected neurons are tested.",
        metavar="COLUMN=VALUE",
        repeated=True,
    )
    """Conditions as of `where`; these clips count for nothing else."""
    clips: str = described(
        "auto", "Of an ablation: select by all clips, or train and valid alone [train where clips are split].", CLIPS
    )
    """For an ablation "auto" is "train" where its task has a split, not folds, else "all"; elsewhere all count."""

    @property
    def line(self) -> Threshold:
        """The threshold that counts: the one given, else by the rule contrast the neuron's own 80th percentile."""
        given = self.threshold is not None or self.rule != "contrast" or self.reading != "clip"
        return self.threshold if given else CONTRAST_THRESHOLD

    @property
    def columns(self) -> set[str]:
        """Label columns that it reads beside the labelling's own."""
        named = {condition_of(text)[0] for text in (*self.where, *self.confirm)}
        return named | {*self.within} | ({self.group} if self.group else set())

    def __post_init__(self) -> None:
        if not self.rule:
            object.__setattr__(self, "rule", "contrast" if self.percentile is None else "lape")
        known = {"reading": READINGS, "rule": RULES, "sign": SIGNS, "correct": CORRECTIONS, "clips": CLIPS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is not known; expected one of {', '.join(values)}")
        if self.rule != "contrast" and self.percentile is None:
            object.__setattr__(self, "percentile", PERCENTILE)
        for name in ("level", "min_effect", *(["percentile"] if self.percentile is not None else [])):
            # 5 and 5.0 are one selection
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("within", "where", "confirm"):
            object.__setattr__(self, name, _several(name, getattr(self, name)))
        if type(self.threshold).__name__ not in ("NoneType", "DataArray"):
            object.__setattr__(self, "threshold", threshold_of(self.threshold))
        if self.threshold is not None and self.reading != "clip":
            raise ValueError(f"a threshold was given with reading {self.reading!r}; expected reading 'clip' for it")
        if self.percentile is not None and self.rule == "contrast":
            raise ValueError(
                f"percentile {self.percentile:g} was given with the rule contrast, which selects by tests; expected it "
                "with the rules lape and paper: leave it out"
            )
        if self.rule != "contrast":
            for name in ("min_effect", "sign", "correct"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(
                        f"{name} {getattr(self, name)} was given with the rule {self.rule}, which has none; expected "
                        "it with the rule contrast: leave it out"
                    )
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile:g}; expected a number above 0 and up to 100, such as 1")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level:g}; expected a number above 0 and below 1, such as 0.05")
        if not 0.5 <= self.min_effect <= 1:
            raise ValueError(f"min_effect is {self.min_effect:g}; expected an AUC from 0.5 to 1, such as 0.7")
        if not 0 <= self.seed < 2**48 or not 1 <= self.permutations <= MAX_PERMUTATIONS:
            raise ValueError(
                f"found {self.permutations} permutations with seed {self.seed}; expected 1 to {MAX_PERMUTATIONS} of "
                "them, and a seed from 0 to 2^48 - 1"
            )
        for name in ("where", "confirm"):
            for text in getattr(self, name):
                condition_of(text)


def threshold_of(given: Any) -> float | str:
    """A threshold as a number, or as the name of one of the neuron's own: "q80", "z1.5"; the median is "q50".

    Raises ValueError for anything else.
    """
    if not isinstance(given, str):
        return _number("threshold", given)
    text = given.strip()
    text = "q50" if text == "median" else text
    try:
        number = float(text[1:]) if text[:1] in ("q", "z") and "_" not in text else float("nan")
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise ValueError(f"threshold is str {given[:40]!r}; expected a number{BESIDE_NUMBERS}")
    if text[0] == "q" and not 0 <= number <= 100:
        raise ValueError(f"threshold is {given[:40]!r}; expected a percentile from q0 to q100, such as q80")
    return f"{text[0]}{number:.15g}"


def threshold_text(threshold: Threshold) -> str:
    """A threshold in words: "0.5", "q80", "of each neuron"."""
    if isinstance(threshold, float):
        return f"{threshold:g}"
    return str(threshold) if isinstance(threshold, str | None) else "of each neuron"


def condition_of(text: str) -> tuple[str, bool, str]:
    """Column, whether it is to have the value, and the value, of "COLUMN=VALUE" or "COLUMN!=VALUE".

    The first "=" parts them, and a "!" right before it excludes; all that follows is the value, as it is: "url=a=b"
    asks for "a=b". Nothing is stripped, and letters are compared by code point. A column with "=" in its name, or "!"
    or a double quote at an end of it, stands between double quotes, and a double quote in it is doubled: '"a=b"=c'.
    Raises ValueError for another text, such as one without a value.
    """
    found = CONDITION.fullmatch(text)
    if found is None:
        raise ValueError(f"the condition is {text!r}; expected COLUMN=VALUE or COLUMN!=VALUE, such as split=train")
    column, sign, value = found.groups()
    return column[1:-1].replace('""', '"') if column[0] == '"' else column, sign == "=", value


def _several(name: str, value: Any) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, tuple | list) or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{name} is {value!r}; expected texts, such as {name}=('split',)")
    return tuple(values)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or (name == "threshold" and not isfinite(value)):
        more = BESIDE_NUMBERS if name == "threshold" else ""
        text = " ".join(str(value).split())[:40]
        raise ValueError(f"{name} is {type(value).__name__} {text!r}; expected a number{more}")
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
    return Selection(**changes) if selection is None else replace(selection, **changes)


def published_selection(selection: Selection | None = None, **changes: Any) -> Selection:
    """As `selection_of`, but the rule is one of those that need probabilities alone, by default lape.

    Raises ValueError for the rule contrast.
    """
    how = selection_of(Selection(rule="lape") if selection is None else selection, **changes)
    if how.rule == "contrast":
        raise ValueError(
            "the rule contrast was asked of probabilities; expected lape or paper: it needs clips, as of "
            "`ds.otoscope.class_specific`"
        )
    return how


@dataclass(frozen=True, kw_only=True)
class Selections:
    """A selection, whose percentile may be another one for some tasks."""

    selection: Selection = field(default_factory=Selection)
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """By task."""

    def of(self, task: str) -> Selection:
        """The selection for a task."""
        if not self.percentiles:
            return self.selection
        return replace(self.selection, percentile=self.percentiles.get(task, self.selection.percentile))
