"""A store whose states hold three categories along directions of their own, and SAEs whose latents are these, or not.

Conventions: state 1 is 0 along the planted directions but for 2 along a clip's own, and noise elsewhere; so no single
dimension holds a category, and the planted latents hold one each, exactly. State 0, and all neurons, are noise.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from otoscope.extract.models.dictionary import Dictionary
from otoscope.sae.encoding import encode

from .state_store import write_states

N_CLIPS, WIDTH, NEURONS, LATENTS, BLOCK = 120, 24, 30, 20, 32
CATEGORIES, PLANTED = "abc", slice(4, 7)


def directions() -> np.ndarray:
    """(category, width), at right angles."""
    drawn = np.random.default_rng(3).normal(size=(WIDTH, len(CATEGORIES)))
    return np.linalg.qr(drawn)[0].T


def write_planted(url: str | Path, *, order: Sequence[int] | None = None) -> None:
    """The store: task "t", its labels kind, singer (6 of them), one (of one value), alike (kind)."""
    rng = np.random.default_rng(0)
    kind, planted = np.arange(N_CLIPS) % len(CATEGORIES), directions()
    states = rng.normal(size=(2, N_CLIPS, WIDTH))
    states[1] -= states[1] @ planted.T @ planted
    states[1] += 2 * planted[kind]
    singer = [f"s{i // 3 % 6}" for i in range(N_CLIPS)]
    labels = {
        "kind": [CATEGORIES[i] for i in kind], "singer": singer, "one": ["x"] * N_CLIPS,
        "alike": [CATEGORIES[i] for i in kind],
    }  # fmt: skip
    means = rng.normal(size=(1, N_CLIPS, NEURONS))
    write_states(url, states.astype(np.float32), block=BLOCK, labels=labels, means=means, order=order)


def planted_sae(seed: int, *, planted: bool = True, latents: int = LATENTS) -> Dictionary:
    """An SAE of state 1 by thresholds of 0, most of whose latents are any directions."""
    rng = np.random.default_rng(seed)
    encoder, bias = rng.normal(size=(latents, WIDTH)) / WIDTH**0.5, np.full(latents, -0.3)
    if planted:
        encoder[PLANTED], bias[PLANTED] = directions(), -1

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return Dictionary(
        encoder=tensor(encoder), bias=tensor(bias), decoder=tensor(encoder), centre=torch.zeros(WIDTH), k=0,
        threshold=torch.zeros(latents), state=1, name=f"{'planted' if planted else 'drawn'}{seed}",
        about={"config": {"control": "none" if planted else "untrained", "seed": seed}},
    )  # fmt: skip


def write_all(folder: Path) -> None:
    """The store "s"; latents "l0" and "l1" of planted SAEs, "u" of one that is not."""
    write_planted(folder / "s")
    for name, sae in (("l0", planted_sae(0)), ("l1", planted_sae(1)), ("u", planted_sae(7, planted=False))):
        encode(str(folder / "s"), "t", [sae], str(folder / name))
