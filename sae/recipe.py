"""Recipe: all that decides over a sparse autoencoder's weights beside the rows it is trained on.

Goal: one record with one spelling, on the command line, in a file of options and in `sae.json`; the published training
exactly as it is printed, and ours, of which every remedy can be had by itself.
Conventions: sparsity and decay are decimal fractions as text, so that k = floor((1 - sparsity) latents) is exact.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ..store.provenance import Record

INITS = ("transposed", "independent")
CONTROLS = ("none", "untrained", "random-decoder")
MAX_LATENTS = 2**20


@dataclass(frozen=True, kw_only=True)
class Recipe(Record):
    """How one sparse autoencoder is trained. `recipe_named` makes one."""

    recipe: str
    """The name of the recipe that it was taken from: "centred" or "published"; other fields may differ from that."""
    latents: int = 2048
    """Number of latents, N."""
    sparsity: str = "0.95"
    """Share of latents that are 0 for any row, above 0 and below 1."""
    centre: bool = True
    """Whether the mean of the training rows is taken from every row."""
    scale: bool = True
    """Whether rows are divided by one number, so that their mean squared norm about the mean is their width."""
    init: str = "transposed"
    """"transposed": the encoder begins as the decoder's transpose, with biases 0; "independent": as torch.nn.Linear."""
    unit_norm: bool = True
    """Whether the decoder's latents are kept at norm 1."""
    auxk: bool = False
    """Whether dead latents are trained on what the reconstruction leaves."""
    batch_topk: bool = False
    """Whether the k codes per row are those largest in the whole batch, and a threshold is learnt for single rows."""
    lr: float = 3e-3
    """Learning rate of Adam (0.9, 0.999)."""
    decay: str = "0.2"
    """Share of the steps, the last ones, over which the learning rate falls in a line to 0; from 0 to 1."""
    batch: int = 256
    """Rows per step."""
    epochs: int = 60
    """Passes over the training rows; the weights kept are those of the epoch with the least error on held-out rows."""
    seed: int = 0
    """Draws the first weights, and nothing else."""
    control: str = "none"
    """Which weights stay as they were drawn, so that trained ones can be compared with them: "none"; all of an
    "untrained" one, but centre, scale and BatchTopK's threshold; the decoder of "random-decoder"."""

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be trained."""
        if self.recipe not in RECIPES:
            raise ValueError(f"no recipe {self.recipe!r}; expected one of {', '.join(RECIPES)}")
        if self.init not in INITS:
            raise ValueError(f"no init {self.init!r}; expected one of {', '.join(INITS)}")
        if self.control not in CONTROLS:
            raise ValueError(f"no control {self.control!r}; expected one of {', '.join(CONTROLS)}")
        if not 2 <= self.latents <= MAX_LATENTS:
            raise ValueError(f"{self.latents} latents; expected 2 to {MAX_LATENTS}")
        if not 1 <= self.k < self.latents:
            raise ValueError(
                f"sparsity {self.sparsity} of {self.latents} latents leaves {self.k} of them for a row; expected 1 to "
                f"{self.latents - 1}: choose another sparsity, or more latents"
            )
        for name in ("batch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.seed < 2**32:  # torch's generator takes no more of it
            raise ValueError(f"seed is {self.seed}; expected 0 to {2**32 - 1}")
        if not 0 <= _fraction("decay", self.decay) <= 1:
            raise ValueError(f"decay is {self.decay}; expected 0 to 1")
        if not 0 < self.lr < 1:
            raise ValueError(f"lr is {self.lr:g}; expected more than 0 and less than 1")

    @property
    def k(self) -> int:
        """Codes of a row that may be above 0: floor((1 - sparsity) latents), in exact arithmetic."""
        return int((1 - _fraction("sparsity", self.sparsity)) * self.latents // 1)

    @property
    def passes(self) -> int:
        """Epochs that are needed: of an untrained one none, or one where there is a threshold to learn."""
        return int(self.batch_topk) if self.control == "untrained" else self.epochs

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, from 0, of so many."""
        decaying = float(Fraction(self.decay) * steps)
        return self.lr * min(1.0, (steps - step) / decaying) if decaying else self.lr


def _fraction(name: str, text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a valid {name}; expected a decimal such as 0.95") from None


RECIPES: dict[str, dict[str, Any]] = {
    "centred": {},
    "published": {
        "centre": False, "scale": False, "init": "independent", "unit_norm": False, "lr": 1e-3, "decay": "0",
        "batch": 32, "epochs": 100,
    },
}  # fmt: skip
"""By name: where it differs from the defaults."""


def recipe_named(name: str = "centred", **changes: Any) -> Recipe:
    """A recipe by its name, with fields changed; fields that are None stay as they are. Raises ValueError as Recipe."""
    given = {field: value for field, value in changes.items() if value is not None}
    return replace(Recipe(recipe=name), **{**RECIPES.get(name, {}), **given})
