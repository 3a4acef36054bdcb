"""Training: sparse autoencoders of one state, side by side on the same batches.

Goal: rows are read once for all of them, and each ends in the bytes that it would end in alone, however often the
training was killed and begun again.
Conventions: rows are raw states, float32 (row, width). They are prepared, x' = (x - mean) scale, as a recipe has it;
that is folded into the weights at the end, so that what comes out takes raw states. Errors are per value of raw states.
Numbers are those of one device class and number of threads.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..extract.forward import arithmetic
from ..extract.models.dictionary import Dictionary
from .checkpoint import Checkpoints, read_training
from .measures import Measures, measure
from .model import WEIGHTS, Model
from .recipe import Recipe
from .rows import BATCH, Moments, Rows, moments


class NoNumbers(ValueError):
    """A training that came to its end, and to no numbers: no repetition of it would."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What a recipe came to: the weights of its best epoch, which take raw states, and their measures."""

    recipe: Recipe
    encoder: Tensor
    """Float32 (latent, width)."""
    bias: Tensor
    """Float32 (latent)."""
    decoder: Tensor
    """Float32 (latent, width)."""
    centre: Tensor
    """Float32 (width)."""
    k: int
    """Codes of a row; 0 where `threshold` decides."""
    threshold: Tensor | None
    """Float32 (latent), of BatchTopK."""
    epoch: int
    """The best one, from 1; 0 where none was needed."""
    history: tuple[float, ...]
    """Mean squared error per value on all rows held out, after each epoch."""
    about: Mapping[str, Any]
    """Threads and device class, on which the last bits depend."""
    measures: Mapping[str, Measures] = field(default_factory=dict)
    """Under "train" and "held_out"."""


def to_dictionary(
    trained: Trained, *, state: int, base: str = "", rows: str = "clip", name: str = "",
    about: Mapping[str, Any] | None = None,
) -> Dictionary:  # fmt: skip
    """A dictionary, with config, measures, in how many training rows latents fire and `about` in its document.

    state, base, rows, name: as Dictionary has them. Raises ValueError for weights that are not numbers.
    """
    document = {
        "config": {**trained.recipe.to_json(), **trained.about},
        "epoch": trained.epoch, "history": list(trained.history),
        "measures": {side: measures.to_json() for side, measures in trained.measures.items()},
        **({"fired": trained.measures["train"].fired} if "train" in trained.measures else {}),
        **(about or {}),
    }  # fmt: skip
    return Dictionary(
        encoder=trained.encoder, bias=trained.bias, decoder=trained.decoder, centre=trained.centre, k=trained.k,
        threshold=trained.threshold, state=state, rows=rows, base=base, name=name, about=document,
    )  # fmt: skip


class Run:
    """A recipe under way."""

    def __init__(self, recipe: Recipe, of: Moments, device: torch.device) -> None:
        self.recipe = recipe
        self.model = Model(recipe, len(of.mean), device)
        self.centre = (of.mean if recipe.centre else torch.zeros_like(of.mean)).float().to(device)
        self.scale = of.scale if recipe.scale else 1.0
        self.best: dict[str, Tensor] = {}
        self.epoch = 0
        self.history: list[float] = []
        if not recipe.passes:
            self._keep()

    def prepared(self, x: Tensor) -> Tensor:
        """Rows as the recipe wants them; always a copy, for the last bits of sums depend on where a tensor lies."""
        return (x - self.centre).mul_(self.scale)

    def note(self, error: float) -> None:
        """Take the error of the epoch that ends; of equal ones the later is the best."""
        self.history.append(error)
        if math.isfinite(error) and error <= min(filter(math.isfinite, self.history)):
            self.epoch = len(self.history)
            self._keep()

    def _keep(self) -> None:
        """Take the present weights for the best."""
        self.best = {name: getattr(self.model, name).clone() for name in WEIGHTS}
        if (threshold := self.model.threshold) is not None:
            self.best["threshold"] = torch.tensor([threshold], dtype=torch.float64)

    def tensors(self) -> dict[str, Tensor]:
        """All that is left to know after an epoch; the best weights only where they are not the present ones."""
        held = self.model.state()
        if self.epoch < len(self.history):
            held |= {f"best.{name}": value for name, value in self.best.items()}
        return held

    def restore(self, held: dict[str, Tensor], epoch: int, history: list[float]) -> None:
        """Take them back."""
        self.model.restore(held)
        self.history, self.epoch = history, epoch
        kept = {name.removeprefix("best."): value for name, value in held.items() if name.startswith("best.")}
        device = self.model.encoder.device
        self.best = {name: value.to(device, copy=True) for name, value in kept.items()}
        if epoch == len(history):
            self._keep()

    def trained(self, about: Mapping[str, Any]) -> Trained:
        """The best weights, with centre and scale folded in. Raises NoNumbers where there are none."""
        if not self.best:
            raise NoNumbers(
                f"training with learning rate {self.recipe.lr:g} gave no numbers in any epoch; expected errors that "
                "fall: lower the learning rate, or scale the rows"
            )
        threshold = self.best.get("threshold")
        return Trained(
            recipe=self.recipe, encoder=(self.best["encoder"] * self.scale).cpu(), bias=self.best["bias"].cpu(),
            decoder=(self.best["decoder"] / self.scale).cpu(), centre=self.centre.cpu(),
            k=0 if threshold is not None else self.recipe.k,
            threshold=None if threshold is None else threshold.cpu().float().repeat(self.recipe.latents),
            epoch=self.epoch, history=tuple(self.history), about=about,
        )  # fmt: skip


def train(
    train_rows: Rows,
    held_out_rows: Rows,
    recipes: Sequence[Recipe],
    *,
    checkpoint: Path | None = None,
    threads: int = 1,
    device: str | None = None,
    each: Callable[[int, list[float]], None] | None = None,
) -> list[Trained]:
    """Train all recipes, which share batch size and epochs, on the same batches; in their order.

    checkpoint: file that is written after each epoch, and that a training goes on from where it is there; whoever asked
    for it deletes it, once what came out is kept.
    threads: of torch; part of what decides over the last bits.
    device: as torch names it; a GPU where there is one.
    each: is called after each epoch, with its number from 1 and, of each recipe that needed it, the error per value on
    the rows held out.
    Raises ValueError for recipes that cannot share batches, fewer rows than a batch, rows that are constant or hold
    NaN, training that gives no numbers, and a checkpoint of another training; OSError where that cannot be written.
    """
    batch, epochs = _check(train_rows, held_out_rows, recipes)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with arithmetic(threads), torch.no_grad():
        of, held_out = moments(train_rows), moments(held_out_rows, "held-out")
        if not of.variance:
            raise ValueError(
                f"the state is the same in all {of.n} training rows; expected rows that differ: choose another state"
            )
        runs = [Run(recipe, of, chosen) for recipe in recipes]
        about = {"threads": threads, "device": chosen.type}
        belongs = about | {
            "recipes": [recipe.to_json() for recipe in recipes], "torch": torch.__version__, "numpy": np.__version__,
            "rows": _digest(of), "held-out rows": _digest(held_out), "order": train_rows.order,
        }  # fmt: skip
        done = _restore(checkpoint, belongs, runs) if checkpoint is not None and checkpoint.exists() else 0
        steps = epochs * math.ceil(train_rows.n / batch)
        with nullcontext() if checkpoint is None else Checkpoints(checkpoint) as writer:
            for epoch in range(done, max(recipe.passes for recipe in recipes)):
                under_way = [run for run in runs if epoch < run.recipe.passes]
                _one_epoch(train_rows, under_way, epoch, batch, steps, chosen)
                errors = _errors(held_out_rows, under_way, chosen)
                for run, error in zip(under_way, errors, strict=True):
                    run.note(error)
                if writer is not None:
                    writer.put(*_state(belongs, runs, epoch + 1))
                if each is not None:
                    each(epoch + 1, errors)
        trained = [run.trained(about) for run in runs]
        sides = {"train": train_rows, "held_out": held_out_rows}
        dictionaries = [to_dictionary(one, state=0).to(chosen) for one in trained]
        measured = {side: measure(dictionaries, rows, of.mean) for side, rows in sides.items()}
    return [replace(one, measures={side: measured[side][i] for side in sides}) for i, one in enumerate(trained)]


def _check(train_rows: Rows, held_out_rows: Rows, recipes: Sequence[Recipe]) -> tuple[int, int]:
    """Rows of a batch, and epochs."""
    shared = {(recipe.batch, recipe.epochs) for recipe in recipes}
    if len(shared) != 1:
        listed = "; ".join(f"batch {batch}, epochs {epochs}" for batch, epochs in sorted(shared))
        raise ValueError(f"recipes to train side by side have {listed or 'no member'}; expected one batch and epochs")
    (batch, epochs), n = shared.pop(), train_rows.n
    if n < batch:
        raise ValueError(f"{n} training rows are fewer than a batch of {batch}; expected as many: choose --batch {n}")
    if held_out_rows.width != train_rows.width:
        raise ValueError(f"rows held out are {held_out_rows.width} wide; expected {train_rows.width}, as in training")
    return batch, epochs


def _one_epoch(rows: Rows, runs: list[Run], epoch: int, batch: int, steps: int, device: torch.device) -> None:
    for run in runs:
        run.model.begin_epoch()
    for step, x in enumerate(rows.epoch(epoch, batch), epoch * math.ceil(rows.n / batch)):
        moved = x.to(device, non_blocking=True)
        for run in runs:
            run.model.step(run.prepared(moved), run.recipe.lr_at(step, steps))
    for run in runs:
        run.model.end_epoch()


def _errors(rows: Rows, runs: list[Run], device: torch.device) -> list[float]:
    """Mean squared error per value of raw states, by run."""
    totals = torch.zeros(len(runs), dtype=torch.float64, device=device)
    for x in rows.plain(BATCH):
        moved = x.to(device, non_blocking=True)
        for i, run in enumerate(runs):
            prepared = run.prepared(moved)
            totals[i] += run.model.reconstruct(prepared).sub_(prepared).double().square_().sum()
    values = zip(totals.tolist(), runs, strict=True)
    return [total / (rows.n * rows.width * run.scale**2) for total, run in values]


def _digest(of: Moments) -> str:
    text = f"{of.n} {of.variance!r} {of.mean.tolist()!r}"
    return hashlib.sha256(text.encode()).hexdigest()


def _state(belongs: Mapping[str, Any], runs: list[Run], epochs: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and document of a checkpoint after so many epochs."""
    tensors = {f"{i}.{name}": value for i, run in enumerate(runs) for name, value in run.tensors().items()}
    kept = [{"epoch": run.epoch, "history": list(run.history)} for run in runs]
    return tensors, {"belongs": belongs, "epochs": epochs, "runs": kept}


def _restore(path: Path, belongs: Mapping[str, Any], runs: list[Run]) -> int:
    """How many epochs are done."""
    tensors, about = read_training(path, belongs)
    for i, (run, kept) in enumerate(zip(runs, about["runs"], strict=True)):
        own = {name.removeprefix(f"{i}."): value for name, value in tensors.items() if name.startswith(f"{i}.")}
        try:
            run.restore(own, kept["epoch"], kept["history"])
        except ValueError as error:
            raise ValueError(f"checkpoint {path} is damaged ({error}); expected a whole one: delete it") from error
    return int(about["epochs"])
