"""The paper's own files (sae_audio_ssl): TopK without a centre, one SAE or several in one file.

Formulas: codes are the k largest of ReLU(x W^T + b); reconstruction z W_d^T. Keys are those of one SAE, or those of the
training's wrapper, `saes.0.` and so on, beside the weights of the encoder that it was trained on. The file does not
hold k.
"""

from typing import Any

import torch
from torch import Tensor

from ...extract.models.dictionary import Dictionary
from .foreign import Foreign, Imported, Layout, check_known, whole

WEIGHTS, CONFIG = "sae.pt", "config.json"
LAYOUT = Layout(
    keys={"encoder": "encoder.0.weight", "bias": "encoder.0.bias", "decoder": "decoder.weight"},
    transposed=frozenset({"decoder"}),
)
WRAPPER = "saes."


def exported(dictionary: Dictionary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights as the paper's code loads them into one SAE, and k.

    Raises ValueError for one with a threshold or a centre.
    """
    if dictionary.threshold is not None:
        raise ValueError(
            "threshold decides over its codes; expected k, since published ones have TopK alone: export it to saelens"
        )
    if bool(dictionary.centre.cpu().view(torch.int32).any()):  # -0 would not come back
        raise ValueError(
            "centre is not 0; expected 0, since published ones have none, and the decoder no bias to hold it: export "
            "it to saelens, sparsify or dictionary_learning, or train with --recipe published"
        )
    return LAYOUT.theirs(dictionary), {"k": dictionary.k}


def imported(foreign: Foreign) -> Imported:
    """What a published file holds, given k and, of several, which. Raises ValueError for what is not there."""
    check_known(foreign.config, ("k",))
    k, found = foreign.given.k, foreign.config.get("k")
    if k is None and found is None:
        raise ValueError(
            "k is not in published files; expected --k, floor((1 - sparsity) latents) of its training, such as 102 of "
            "2048 at 0.95"
        )
    if None not in (k, found) and k != found:
        raise ValueError(f"--k is {k}, and k is {found} in {CONFIG}; expected one: leave --k out")
    weights = LAYOUT.ours(_one(foreign))
    weights["centre"] = torch.zeros(weights["encoder"].shape[1])
    return Imported(weights=weights, k=whole({"k": found if k is None else k}, "k"), about={})


def _one(foreign: Foreign) -> dict[str, Tensor]:
    """The tensors of the SAE that is meant."""
    tensors, wanted = foreign.tensors, foreign.given.sae
    found = sorted({int(n) for key in tensors if key.startswith(WRAPPER) and (n := key.split(".")[1]).isdecimal()})
    if not found:
        if wanted:
            raise ValueError(f"--sae is {wanted}, and there is one SAE; expected 0, or no --sae")
        return dict(tensors)
    if wanted is None and len(found) == 1:
        wanted = found[0]
    if wanted not in found:
        asked = "no --sae was given" if wanted is None else f"--sae is {wanted}"
        raise ValueError(f"{asked}; expected one of {', '.join(map(str, found))}, the SAEs that there are")
    start = f"{WRAPPER}{wanted}."
    return {key.removeprefix(start): values for key, values in tensors.items() if key.startswith(start)}
