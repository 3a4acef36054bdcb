"""A dictionary for the encoder of `planted` of which one latent, PLANTED_LATENT, is all that its neurons write."""

import numpy as np
import torch

from otoscope.extract.models.dictionary import Dictionary

from .planted_encoder import LAYERS, WIDTH

LATENTS = 40
PLANTED_LATENT = (0, 7)
"""(layer, neuron) of a task of its latents."""


def planted_dictionary(rows: str, base: str = "") -> Dictionary:
    """It is of the last state. All other latents write into what the other neurons write into, and fire now and then.

    base: digest of the identity of the states.
    """
    rng = np.random.default_rng(5)
    encoder, decoder = np.zeros((LATENTS, WIDTH)), np.zeros((LATENTS, WIDTH))
    encoder[:, 16:-2] = rng.normal(0, 1, (LATENTS, WIDTH - 18))
    decoder[:, 16:-2] = 0.01 * encoder[:, 16:-2]
    bias = rng.uniform(-0.8, 0.2, LATENTS)
    at = PLANTED_LATENT[1]
    encoder[at], bias[at] = 0, 0
    encoder[at, -2:] = decoder[at, -2:] = np.array([1, -1]) / 2**0.5  # the planted neurons write along (0.5, -0.5)
    decoder[at, 16:-2] = 0
    tensors = {"encoder": encoder, "bias": bias, "decoder": decoder, "centre": np.zeros(WIDTH)}
    weights = {name: torch.tensor(values, dtype=torch.float32) for name, values in tensors.items()}
    return Dictionary(**weights, k=LATENTS - 1, state=LAYERS, rows=rows, base=base, name="planted")
