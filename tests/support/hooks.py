"""Interventions in plain torch: masks, constants and transplants put in by forward hooks, one whole pass each."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from otoscope.extract.models.encoder import Encoder

Change = Callable[[Tensor, int], Tensor]
"""(site output, number of the run) -> what takes its place."""


@torch.inference_mode()
def whole(encoder: Encoder, inputs: Tensor, changes: Mapping[str, Change]) -> np.ndarray:
    """Embeddings (clip, embedding) with the outputs of the modules named replaced."""
    runs = dict.fromkeys(changes, 0)

    def hook_for(name: str) -> Callable[..., Tensor]:
        def hook(_module: object, _inputs: object, output: Tensor) -> Tensor:
            runs[name] += 1
            return changes[name](output, runs[name] - 1)

        return hook

    parts = dict(encoder.module.named_modules())
    hooks = [parts[name].register_forward_hook(hook_for(name)) for name in changes]
    try:
        embedding = encoder.embed(encoder.module(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return embedding.numpy()


def activations(encoder: Encoder, inputs: Tensor, names: list[str]) -> dict[str, list[Tensor]]:
    """Outputs of the modules named, run by run."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Change:
        def see(output: Tensor, _run: int) -> Tensor:
            seen[name].append(output.clone())
            return output

        return see

    whole(encoder, inputs, {name: keep(name) for name in names})
    return seen


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """max |a - b| <= 1e-5 max |b|, the tolerance promised."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
