"""sparsify: TopK alone.

Formulas: codes are the k largest of ReLU((x - b_dec) W^T + b); reconstruction z W_dec + b_dec.
"""

from typing import Any

from torch import Tensor

from ...extract.models.dictionary import Dictionary
from .foreign import Foreign, Imported, Layout, check_known, choice, whole

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
LAYOUT = Layout(
    keys={"encoder": "encoder.weight", "bias": "encoder.bias", "decoder": "W_dec", "centre": "b_dec"},
    transposed=frozenset(),
)
PLAIN = {"activation": "topk", "skip_connection": False, "transcode": False}
"""Fields that are to be so, and are so where they are not given."""
OF_TRAINING = {"normalize_decoder": False, "multi_topk": False}
"""Fields that change no code of a trained one, as we write them."""


def exported(dictionary: Dictionary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and configuration of a dictionary as sparsify keeps them. Raises ValueError for one with a threshold."""
    if dictionary.threshold is not None:
        raise ValueError(
            "threshold decides over its codes; expected k, since sparsify has TopK alone: export it to saelens"
        )
    config = {**PLAIN, **OF_TRAINING, "num_latents": dictionary.n_latents, "k": dictionary.k, "d_in": dictionary.width}
    return LAYOUT.theirs(dictionary), config


def imported(foreign: Foreign) -> Imported:
    """What a folder of sparsify holds. Raises ValueError for a transcoder, a skip connection, and groups."""
    config = foreign.config
    for name, value in PLAIN.items():
        choice(config, name, (value,), value)
    check_known(config, ("num_latents", "expansion_factor", "k", "d_in", *PLAIN, *OF_TRAINING))
    width = whole(config, "d_in")
    latents = whole(config, "num_latents") if config.get("num_latents") else width * whole(config, "expansion_factor")
    return Imported(weights=LAYOUT.ours(foreign.tensors, latents, width), k=whole(config, "k"), about={})
