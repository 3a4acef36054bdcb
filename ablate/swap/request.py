"""Swap: all that is asked of swaps, as plain values. Nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields

from ...analysis.selection.selection import Selection, described
from ...store.provenance import Record
from ..request import FEATURES, MAX_CONTROLS, Request

AT = ("last", "all")
FEWEST_CONTROLS = 39  # by which a p can be as low as 0.025


@dataclass(frozen=True, kw_only=True)
class Swap(Record):
    """Swaps in a crossed corpus: which neurons, whose answers are read, compared with what.

        Swap(task="emotion", set="all(emotion:audio_class:ANG)", answers={"ANG": "angry", "SAD": "sad"})

    Raises ValueError for values that are not known or do not fit together.
    """

    task: str = described(MISSING, "Task of a crossed corpus: every sound with every text.", metavar="TASK")
    set: str = described(
        MISSING, "Neurons: all(TASK:LABEL:A), shared, only, (layer,neuron) ..., or @FILE.", metavar="SET"
    )
    answers: Mapping[str, str]
    """By category, the text whose first token scores it."""
    selection: Selection = field(default_factory=Selection)
    """Of the neurons that categories stand for in the name of the set."""
    at: str = described("last", "Tokens whose neurons are swapped; all: where all prompts have one layout.", AT)
    keep: bool = False
    """Swap all other neurons in place of the set's."""
    controls: int = described(200, "Random sets to compare with, matched in number per layer.", metavar="N")
    match: tuple[str, ...] = described((), "Match the controls in these too.", FEATURES)
    seed: int = described(0, "Of controls and of intervals.", metavar="N")
    splits: str = described(
        "", "Label column whose test clips are swapped [split, where it is there].", metavar="COLUMN"
    )
    audio_class: str = described("audio_class", "Label column of the sound's category.", metavar="COLUMN")
    text_class: str = described("text_class", "Label column of the text's category.", metavar="COLUMN")
    audio: str = described("audio", "Label column of which sound it is.", metavar="COLUMN")
    wording: str = described("wording", "Label column of which text it is.", metavar="COLUMN")
    replicate: str = described("replicate", "Label column that says which clips are partners.", metavar="COLUMN")

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", dict(self.answers))
        if self.at not in AT:
            raise ValueError(f"at is {self.at!r}; expected one of {', '.join(AT)}")
        if not 0 <= self.controls <= MAX_CONTROLS or 0 < self.controls < FEWEST_CONTROLS:
            raise ValueError(
                f"found {self.controls} controls; expected {FEWEST_CONTROLS} to {MAX_CONTROLS}, fewer of which make no "
                "p as low as 0.025, or 0 for none"
            )
        self.of_set()  # which checks the others

    def of_set(self) -> Request:
        """The request of an ablation that names the same neurons."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        shared = {name: own[name] for name in ("task", "set", "selection", "match", "seed", "splits")}
        return Request(label=self.audio_class, **shared)
