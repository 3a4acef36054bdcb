"""What does silencing neurons cost, when passes start where they first differ?

An encoder of M2D's geometry (ViT-Base, 12 layers of 3,072 neurons) with random weights, on prepared spectrograms, with
two threads. One mask is held against a whole pass without any; many masks, pass by pass, each against a whole pass
with hooks that multiply the activations of its layers by it, as the published ablation does.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otoscope.ablate.controls import matched_controls
from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.extract.forward import arithmetic
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.store.neurons import NeuronSet

from . import harness
from .harness import Figure, Measured, interleaved, median_ratio

THREADS = 2
LAYERS, NEURONS = 12, 3072
FIRST = (0, 3, 6, 9, 11)
SPARE = 0.08
"""Of a whole pass, what a mask may cost beside the layers after its first one."""
# Number of neurons by layer: those of the two published sets, and one confined to the last layers.
PROFILES: Mapping[str, Mapping[int, int]] = {
    "published, CREMA-D": {0: 3, 3: 6, 5: 2, 6: 1, 7: 3, 8: 2, 9: 1, 10: 4},
    "published, GTZAN": {3: 1, 4: 2, 5: 2, 6: 3, 7: 4, 8: 6, 9: 4, 10: 3, 11: 1},
    "layers 8 to 11": {8: 5, 9: 5, 10: 5, 11: 5},
}
OF_THE_LIMIT = 0.9
AGREEMENT = 1e-5


@dataclass(frozen=True, kw_only=True)
class Size:
    width: int
    heads: int
    frames: int
    clips_of_one: int
    """In a batch, for the cost of one mask."""
    clips_of_many: int
    """The same, for many masks."""
    repetitions: int
    controls: int


FULL = Size(width=768, heads=12, frames=608, clips_of_one=4, clips_of_many=2, repetitions=15, controls=200)
SMALL = Size(width=48, heads=4, frames=64, clips_of_one=1, clips_of_many=1, repetitions=1, controls=1)


def make_encoder(size: Size) -> Encoder:
    torch.manual_seed(0)
    model = M2D(input_size=(80, size.frames), width=size.width, heads=size.heads, hidden=NEURONS)
    return as_encoder(model.requires_grad_(False)).to("cpu")


def batch_of(encoder: Encoder, size: Size, clips: int) -> Batch:
    inputs = torch.randn(clips, 80, size.frames, generator=torch.Generator().manual_seed(1)) * 4 - 7
    return Batch(inputs=inputs, n_samples=(size.frames - 1) * 160)


def drawn(profile: Mapping[int, int], seed: int) -> NeuronSet:
    """So many random neurons in each layer."""
    rng = np.random.default_rng(seed)
    return NeuronSet(
        pairs=[(layer, int(n)) for layer, count in profile.items() for n in rng.choice(NEURONS, count, replace=False)]
    )


def naive_pass(encoder: Encoder, inputs: Tensor, neurons: NeuronSet) -> Tensor:
    """A whole pass with a mask at every touched layer."""
    parts = dict(encoder.module.named_modules())
    with ExitStack() as hooks, torch.inference_mode():
        for layer, its in neurons.by_layer.items():
            mask = torch.ones(NEURONS)
            mask[its] = 0.0
            hook = parts[f"blocks.{layer}.mlp.act"].register_forward_hook(
                lambda _m, _i, output, mask=mask: output * mask
            )
            hooks.callback(hook.remove)
        return encoder.embed(encoder.module(inputs))


def cost_by_first_layer(encoder: Encoder, size: Size) -> dict[str, list[float]]:
    """Seconds of a whole pass without mask, and of passes with four neurons silenced in each layer from one on."""
    batch = batch_of(encoder, size, size.clips_of_one)
    sets = [drawn(dict.fromkeys(range(first, LAYERS), 4), seed=first) for first in FIRST]
    rerunner = Rerunner(encoder, [Intervention(neurons=neurons) for neurons in sets])
    rerunner(batch)
    replayer = rerunner.replayer
    assert replayer is not None
    assert rerunner.method == "replay"
    with torch.inference_mode():
        _, records = replayer.run(batch.inputs, rerunner.edits[0], keep=dict.fromkeys(FIRST))
        nothing = NeuronSet(pairs=())
        cases: dict[str, Any] = {"whole": lambda: naive_pass(encoder, batch.inputs, nothing)}
        for number, first in enumerate(FIRST, 1):
            cases[f"from {first}"] = lambda number=number, first=first: replayer.run(
                batch.inputs, rerunner.edits[number], start=records[first]
            )
        return interleaved(cases, size.repetitions)


def many_masks(encoder: Encoder, size: Size, profile: Mapping[int, int]) -> tuple[float, float, float]:
    """Seconds of whole passes and of reruns for a set and its controls, and their largest difference.

    The reruns' seconds hold the pass without mask and all records; the check of the first clips, once per run whatever
    the number of clips, is done before.
    """
    batch = batch_of(encoder, size, size.clips_of_many)
    target = drawn(profile, seed=7)
    sets = [target, *matched_controls(target, [NEURONS] * LAYERS, size.controls)]
    rerunner = Rerunner(encoder, [Intervention(neurons=neurons) for neurons in sets])
    rerunner.check(batch)
    assert rerunner.method == "replay"
    naive: list[Tensor] = []
    in_naive = 0.0

    def each(done: int) -> None:
        nonlocal in_naive
        began = time.perf_counter()
        naive.extend(naive_pass(encoder, batch.inputs, neurons) for neurons in sets[len(naive) : done])
        in_naive += time.perf_counter() - began

    began = time.perf_counter()
    found = rerunner(batch, each)[1:]
    took = time.perf_counter() - began - in_naive
    expected = torch.stack(naive).numpy()
    return in_naive, took, float(np.abs(found - expected).max() / np.abs(expected).max())


def measure(scratch: Path, size: Size) -> Measured:
    encoder = make_encoder(size)
    with arithmetic(THREADS):
        by_layer = cost_by_first_layer(encoder, size)
        many = {name: many_masks(encoder, size, profile) for name, profile in PROFILES.items()}
    model = f"ViT-Base, {LAYERS} layers, 80 x {size.frames}, {THREADS} threads"
    figures = [
        Figure(
            name=f"one mask whose first layer is {first}",
            value=median_ratio(by_layer[f"from {first}"], by_layer["whole"]),
            unit="of a whole pass", bound=(LAYERS - 1 - first) / LAYERS + SPARE, at_least=False,
            how=f"{model}, batch of {size.clips_of_one} clips; median of {size.repetitions} ratios",
        )
        for first in FIRST
    ]  # fmt: skip
    for name, (whole, rerun, _) in many.items():
        limit = LAYERS / (LAYERS - 1 - min(PROFILES[name]))
        figures.append(
            Figure(
                name=f"one set and {size.controls} controls, {name}, times faster than whole passes",
                value=whole / rerun, unit="times", bound=OF_THE_LIMIT * limit, at_least=True,
                how=f"{model}, batch of {size.clips_of_many} clips; the limit is {limit:.3g}",
            )
        )  # fmt: skip
    figures.append(
        Figure(
            name="the same, largest difference of an embedding from that of whole passes",
            value=max(difference for *_, difference in many.values()), unit="of the largest value", bound=AGREEMENT,
            at_least=False, how="all masks of the three",
        )
    )  # fmt: skip
    raw = {name: {"whole_seconds": whole, "rerun_seconds": rerun} for name, (whole, rerun, _) in many.items()}
    return Measured(figures=figures, raw={"seconds": by_layer, "many": raw})


def main() -> None:
    harness.main("ablation")


if __name__ == "__main__":
    main()
