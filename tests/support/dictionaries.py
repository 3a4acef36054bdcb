"""Dictionaries drawn at random, and what they do inside an encoder, in plain torch: one whole pass with hooks.

Conventions: states (clip, frame, width), codes (clip, frame, latent), of clip rows (clip, 1, latent).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from otoscope.extract.models.dictionary import Dictionary
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.tap import match_sites

Change = Callable[[Tensor], Tensor]
"""Codes -> what takes their place."""


def drawn(width: int, state: int, *, latents: int = 24, k: int = 5, seed: int = 0, **more: object) -> Dictionary:
    """A dictionary whose encoder is near its decoder's transpose."""
    rng = np.random.default_rng([seed, state])

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    encoder = normal(latents, width) / width**0.5
    given: dict = {"k": k, "rows": "frame", "name": f"of state {state}", **more}
    return Dictionary(
        encoder=encoder, bias=0.1 * normal(latents), decoder=encoder + 0.1 * normal(latents, width),
        centre=0.1 * normal(width), state=state, **given,
    )  # fmt: skip


def codes_of(dictionary: Dictionary, states: np.ndarray) -> np.ndarray:
    """The k largest of max((x - c) W^T + b, 0) in each row of states (..., width), the others 0; in float64."""
    x = states.astype(np.float64) - dictionary.centre.numpy()
    above = np.maximum(x @ dictionary.encoder.numpy().T.astype(np.float64) + dictionary.bias.numpy(), 0)
    kept = np.argsort(-above, axis=-1)[..., : dictionary.k]
    codes = np.zeros_like(above)
    np.put_along_axis(codes, kept, np.take_along_axis(above, kept, -1), -1)
    return codes


@torch.inference_mode()
def by_hooks(
    encoder: Encoder, inputs: Tensor, dictionaries: Sequence[Dictionary], changes: Mapping[int, Change],
    weights: np.ndarray | None = None, seen: dict[int, list[np.ndarray]] | None = None,
) -> np.ndarray:  # fmt: skip
    """Embeddings (clip, embedding) with some dictionaries' codes changed: x + (z' - z) D in place of x.

    encoder: the one without dictionaries. changes: by number of the dictionary. weights: (clip, frame), of clip rows.
    seen: is given the codes of each run, by number of the dictionary.
    """
    layers = match_sites(encoder.module, encoder.transformer_layers)

    def changed(state: int, x: Tensor) -> Tensor:
        total = np.zeros(x.shape)
        for i, dictionary in enumerate(dictionaries):
            if dictionary.state != state:
                continue
            values = x.float().numpy()
            if weights is not None:
                values = np.einsum("cf,cfw->cw", weights, values)[:, None] / weights.sum(1)[:, None, None]
            codes = codes_of(dictionary, values)
            if seen is not None:
                seen.setdefault(i, []).append(codes)
            new = changes[i](torch.from_numpy(codes)).numpy() if i in changes else codes
            change = (new - codes) @ dictionary.decoder.numpy().astype(np.float64)
            total += change if weights is None else change * weights[..., None]
        return (x + torch.from_numpy(total)).to(x.dtype)

    def behind(state: int) -> Callable:
        def hook(_module: object, _inputs: object, output: object) -> object:
            if isinstance(output, Tensor):
                return changed(state, output)
            return (changed(state, output[0]), *output[1:])

        return hook

    parts = [encoder.module.get_submodule(name) for name in layers]
    hooks = [part.register_forward_hook(behind(state)) for state, part in enumerate(parts, 1)]
    hooks.append(parts[0].register_forward_pre_hook(lambda _m, given: (changed(0, given[0]), *given[1:])))
    try:
        embedding = encoder.run(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return embedding.float().numpy()
