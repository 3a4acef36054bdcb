"""Request: all that is asked of an ablation, as plain values.

Goal: one small object for the command line, the service and a notebook, that can be written down and compared; options
and the service's schema are made of its fields.
Conventions: JSON values only; categories and sets by name, as in `analysis.selection.sets`. No path but `@FILE` in a
set's name. `help` and `choices` of a field are in its metadata. Nothing heavy is imported here.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from ..analysis.selection.selection import Selection, described
from ..store.provenance import Record

if TYPE_CHECKING:
    from ..analysis.selection.sets import NamedSet

MODES = ("remove", "gain", "mean", "category-mean", "transplant", "keep", "keep-mean")
TARGETED_MODES = ("category-mean", "transplant")
SIDES = ("harm", "help", "either")
CONTROLS = ("matched", "published")
PROBES = ("logistic", "published")
OWN_HEAD = "own head"  # of the model, as of `own_head`; no kind that is fitted
FEATURES = ("rate", "mean")
MAX_CONTROLS = 100_000


@dataclass(frozen=True, kw_only=True)
class Request(Record):
    """An ablation: which neurons, what is done to them, compared with what.

        Request(task="fm", label="octave", set="shared(4,5)", selection=Selection(percentile=5))

    Raises ValueError for values that are not known or do not fit together.
    """

    task: str = described(MISSING, "Task of the store.")
    label: str = described(MISSING, "Label column whose categories the probe tells apart.")
    set: str = described(
        MISSING, "Neurons: shared(A,B), only(A), all(A) of the selection, (layer,neuron) ..., or @FILE.", metavar="SET"
    )
    selection: Selection = field(default_factory=Selection)
    """Of the neurons that categories stand for in the name of the set."""
    mode: str = described(
        "remove",
        "What is done to the set; keep: all other neurons are removed; transplant: as in a clip of the category.",
        MODES,
    )
    """The set's neurons are switched off ("remove"), multiplied by `gain`, held at their mean over the task's frames or
    over those of `category`, or as in a clip of `category`, another one for each clip ("transplant"); or all other
    neurons are switched off ("keep"), or held at their mean over the task's frames.
    """
    gain: float = described(0.0, "Factor of the activations in the mode gain.", metavar="G")
    category: str = described("", "Category of the modes category-mean and transplant.", metavar="B")
    """Clips are then also scored by whether they are predicted to be of it."""
    controls: int = described(200, "Random sets to compare with, matched in number per layer.", metavar="N")
    control: str = described("matched", "published: the one set of the neurons with indices one higher.", CONTROLS)
    match: tuple[str, ...] = described((), "Match the controls in these too.", FEATURES)
    seed: int = described(0, "Of controls, donors, and tests that draw.", metavar="N")
    side: str = described(
        "", "Change that counts as evidence [help for the modes that keep the set, else harm].", SIDES
    )
    probe: str = described("logistic", "Kind of the probe that is fitted to the store's embeddings.", PROBES)
    probe_seed: int = described(42, "Of the probe, and of its validation clips where none are marked.", metavar="N")
    splits: str = described("", "Label column of splits or folds [split, else fold].", metavar="COLUMN")

    def __post_init__(self) -> None:
        for each in fields(self):
            value, choices = getattr(self, each.name), each.metadata.get("choices")
            values = (value,) if isinstance(value, str) else value
            if each.name == "probe" and value == OWN_HEAD:
                continue
            if choices and value != each.default and not all(one in choices for one in values):
                raise ValueError(f"{each.name} is {value!r}; expected one of {', '.join(choices)}")
        if not isinstance(self.selection, Selection):
            raise ValueError(f"selection is {self.selection!r}; expected a Selection")
        if not isinstance(self.selection.threshold, float | str | None):
            raise ValueError(
                "the selection has thresholds of a file, or one per neuron; expected a number or a name such as q80, "
                "which a request can hold: or select with `otoscope neurons --threshold FILE -o set.csv` and name the "
                "set @set.csv"
            )
        if (self.mode in TARGETED_MODES) != bool(self.category):
            raise ValueError(
                f"mode {self.mode!r} with category {self.category!r}; expected a category for "
                f"{' and '.join(TARGETED_MODES)}, and for no other mode"
            )
        if not math.isfinite(self.gain):
            raise ValueError(f"gain {self.gain}; expected a finite number, 0 to switch off")
        if self.gain != 0 and self.mode != "gain":
            raise ValueError(f"gain {self.gain} with mode {self.mode!r}; expected it with mode 'gain' only")
        if not 0 <= self.controls <= MAX_CONTROLS or not all(0 <= s < 2**48 for s in (self.seed, self.probe_seed)):
            raise ValueError(
                f"found {self.controls} controls, seeds {self.seed} and {self.probe_seed}; expected 0 to "
                f"{MAX_CONTROLS} controls and seeds from 0 to 2^48 - 1"
            )
        if self.control == "published" and self.match:
            raise ValueError("the published control is matched in nothing but its layers; expected no `match` with it")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Request of a JSON object. Raises ValueError where fields are missing or unknown."""
        return super().from_json({**value, "selection": Selection.from_json(value.get("selection", {}))})

    @property
    def evidence(self) -> str:
        """The side that counts, the default resolved."""
        return self.side or ("help" if self.mode.startswith("keep") else "harm")

    @property
    def labelling(self) -> str:
        """As in "fm:octave"."""
        return f"{self.task}:{self.label}"

    @cached_property
    def named_set(self) -> "NamedSet":
        """What the set's name says. Raises ValueError with the ways to write one."""
        from ..analysis.selection.sets import parse_set  # heavy, and not needed for `--help`

        return parse_set(self.set)


def labelling_parts(name: str) -> tuple[str, str]:
    """Task and label of "task:label". Raises ValueError for another name."""
    task, colon, label = name.partition(":")
    if not colon or not label:
        raise ValueError(
            f"the labelling is {name!r}; expected TASK:LABEL, since a probe tells the categories of a label"
        )
    return task, label
