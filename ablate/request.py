"""Request: all that is asked of an ablation, as plain values.

Goal: one small object for the command line, a service and a notebook, that can be written down and compared.
Conventions: JSON values only; categories and sets by name, as in `analysis.sets`. No path but `@FILE` in a set's name.
Contents: `Request`, `MODES`.
"""

import math
from dataclasses import dataclass

from ..store.provenance import Record
from .effects import SIDES

MODES = {
    "remove": "the set's neurons are switched off",
    "gain": "they are multiplied by `gain`",
    "mean": "they are held at their mean over the task's frames",
    "category-mean": "they are held at their mean over the frames of `category`",
    "transplant": "they are as in a clip of `category`, another one for each clip",
    "keep": "all other neurons are switched off",
    "keep-mean": "all other neurons are held at their mean over the task's frames",
}
OF_CATEGORY = ("category-mean", "transplant")
CONTROLS = ("matched", "published")
SELECTED_ON = ("all", "train")
PROBES = ("logistic", "published")
MATCHES = ("rate", "mean")
MOST_CONTROLS = 100_000


@dataclass(frozen=True, kw_only=True)
class Request(Record):
    """An ablation: which neurons, what is done to them, compared with what.

        Request(task="fm", label="octave", set="shared(4,5)")

    Raises ValueError for values that are not known or do not fit together.
    """

    task: str
    label: str
    """Label column whose categories the probe tells apart."""
    set: str
    """Name of a neuron set, as `shared(A,B)`."""
    mode: str = "remove"
    """One of `MODES`."""
    gain: float = 0.0
    """Factor of the mode "gain"."""
    category: str = ""
    """Category of the modes "category-mean" and "transplant"; clips are then also scored by whether they became it."""
    controls: int = 200
    """Matched random sets to compare with."""
    control: str = "matched"
    """"matched" draws, or "published": the one set of the neurons with indices one higher."""
    match: tuple[str, ...] = ()
    """Features that controls are matched in beside the number per layer: "rate", "mean"."""
    seed: int = 0
    """Of controls, donors, and of the tests that draw."""
    side: str = ""
    """What counts as evidence: "harm", "help" or "either"; "" is "help" for modes that keep the set, else "harm"."""
    percentile: float = 1.0
    """Of the selection that named sets come from, in percent."""
    selected_on: str = "all"
    """Clips of the task that the selection is made from: "all", as published, or "train": not those that are tested."""
    rule: str = "lape"
    reading: str = "clip"
    probe: str = "logistic"
    """"logistic" or "published"."""
    probe_seed: int = 42
    division: str = ""
    """Label column that divides the clips; "" is split, else fold."""

    def __post_init__(self) -> None:
        for name, known in (
            ("mode", tuple(MODES)),
            ("control", CONTROLS),
            ("side", ("", *SIDES)),
            ("selected_on", SELECTED_ON),
            ("probe", PROBES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(filter(None, known))}")
        if (self.mode in OF_CATEGORY) != bool(self.category):
            raise ValueError(
                f"mode {self.mode!r} with category {self.category!r}; expected a category for "
                f"{' and '.join(OF_CATEGORY)}, and for no other mode"
            )
        if not math.isfinite(self.gain):
            raise ValueError(f"gain {self.gain}; expected a finite number, 0 to switch off")
        if self.gain != 0 and self.mode != "gain":
            raise ValueError(f"gain {self.gain} with mode {self.mode!r}; expected it with mode 'gain' only")
        if not 0 <= self.controls <= MOST_CONTROLS or self.seed < 0 or self.probe_seed < 0:
            raise ValueError(
                f"found {self.controls} controls, seeds {self.seed} and {self.probe_seed}; expected 0 to "
                f"{MOST_CONTROLS} controls and seeds from 0 on"
            )
        for name in self.match:
            if name not in MATCHES:
                raise ValueError(f"match names {name!r}; expected some of {', '.join(MATCHES)}")
        if self.control == "published" and self.match:
            raise ValueError("the published control is matched in nothing but its layers; expected no `match` with it")

    @property
    def evidence(self) -> str:
        """The side that counts, the default resolved."""
        return self.side or ("help" if self.mode.startswith("keep") else "harm")

    @property
    def labelling(self) -> str:
        """As in "fm:octave"."""
        return f"{self.task}:{self.label}"
