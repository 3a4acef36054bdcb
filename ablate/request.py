"""Request: all that is asked of an ablation, as plain values.

Goal: one small object for the command line, a service and a notebook, that can be written down and compared.
Conventions: JSON values only; categories and sets by name, as in `analysis.sets`. No path but `@FILE` in a set's name.
Contents: `Request`, `MODES`.
"""

import math
from dataclasses import dataclass, field

from ..analysis.selection.selection import CLIPS, READINGS, RULES, described
from ..store.provenance import Record

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
PROBES = ("logistic", "published")
MATCHES = ("rate", "mean")
SIDES = ("harm", "help", "either")
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
    set: str = field(metadata={"help": "Listed below.", "choices": ()})
    """Name of a neuron set, as `shared(A,B)`."""
    mode: str = described(
        "remove",
        "What is done to the set; keep: all other neurons are removed; transplant: as in a clip of --category.",
        tuple(MODES),
    )
    gain: float = described(0.0, "With --mode gain: factor of the activations.")
    category: str = described("", "With --mode category-mean and transplant.")
    """Clips are then also scored by whether they became it."""
    controls: int = described(200, "Random sets matched in number per layer.")
    control: str = described("matched", "published: the one set of the neurons with indices one higher.", CONTROLS)
    match: tuple[str, ...] = described((), "Match the controls in these too [nothing].", MATCHES)
    seed: int = described(0, "Of controls, donors, and tests that draw.")
    side: str = described("", "Evidence [harm; help for the keep modes].", ("", *SIDES))
    percentile: float = described(1.0, "Share of neurons selected, in percent.")
    """Of the selection that named sets come from."""
    rule: str = described("lape", "Selection rule.", RULES)
    reading: str = described("clip", "Reading that the selection goes by.", READINGS)
    selected_on: str = described(
        "all", "Clips that the selection is made from; train leaves out those that are tested.", CLIPS
    )
    probe: str = described("logistic", "Fitted to the store's embeddings.", PROBES)
    probe_seed: int = described(42, "Of the probe.")
    division: str = described("", "Label column of splits or folds [split, else fold].")

    def __post_init__(self) -> None:
        for name, known in (
            ("mode", tuple(MODES)),
            ("control", CONTROLS),
            ("side", ("", *SIDES)),
            ("selected_on", CLIPS),
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


def labelling_parts(name: str) -> tuple[str, str]:
    """Task and label of "task:label". Raises ValueError for another name."""
    task, colon, label = name.partition(":")
    if not colon or not label:
        raise ValueError(
            f"the labelling is {name!r}; expected TASK:LABEL, since a probe tells the categories of a label"
        )
    return task, label
