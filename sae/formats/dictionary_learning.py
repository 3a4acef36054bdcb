"""dictionary_learning: TopK and BatchTopK, and the folders `layer_N` in which AudioSAE publishes the latter.

Formulas: r = ReLU((x - b_dec) W^T + b); codes are the k largest of r, or, of BatchTopK, r where r > threshold, one
number for all latents; reconstruction z W_d^T + b_dec. The threshold that a file of TopK has takes no part. That of a
BatchTopK is below 0 until it is learnt.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...extract.models.dictionary import Dictionary
from ..recipe import recipe_named
from .foreign import Foreign, Imported, Layout, choice, exact, integer, whole

WEIGHTS, CONFIG = "ae.pt", "config.json"
LAYOUT = Layout(
    keys={"encoder": "encoder.weight", "bias": "encoder.bias", "decoder": "decoder.weight", "centre": "b_dec"},
    transposed=frozenset({"decoder"}),
)
TOPK, BATCH_TOPK = "AutoEncoderTopK", "BatchTopKSAE"
NOT_LEARNT = -1.0
"""The threshold of a file that has none, as the library begins with it."""


def exported(dictionary: Dictionary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and configuration of a dictionary as the library keeps them.

    Raises ValueError for thresholds that differ between latents, and for a BatchTopK of which k is not known.
    """
    if dictionary.threshold is None:
        kind, k, threshold = TOPK, dictionary.k, torch.tensor(NOT_LEARNT)
    else:
        kind, k, threshold = BATCH_TOPK, _batch_k(dictionary), dictionary.threshold[0].detach().cpu().clone()
        if bool((dictionary.threshold != dictionary.threshold[0]).any()):
            raise ValueError(
                "threshold differs between latents; expected one number, as dictionary_learning has: export it to "
                "saelens"
            )
    trainer = {
        "trainer_class": kind.replace("AutoEncoder", "").replace("SAE", "") + "Trainer", "dict_class": kind,
        "activation_dim": dictionary.width, "dict_size": dictionary.n_latents, "k": k,
    }  # fmt: skip
    tensors = {**LAYOUT.theirs(dictionary), "k": torch.tensor(k, dtype=torch.int32), "threshold": threshold}
    return tensors, {"trainer": trainer, "buffer": {}}


def imported(foreign: Foreign) -> Imported:
    """What a folder of dictionary_learning holds; fields that describe the training are not looked at.

    Raises ValueError for other kinds, and for a BatchTopK that never learnt its threshold, unless each row is to keep
    its k largest.
    """
    trainer = foreign.config.get("trainer", foreign.config)  # AudioSAE's card does not say which
    if not isinstance(trainer, Mapping):
        raise ValueError(f"trainer is {type(trainer).__name__}; expected an object of fields: fetch the files again")
    kind = choice(trainer, "dict_class", (TOPK, BATCH_TOPK), BATCH_TOPK if foreign.layer else None)
    tensors = foreign.tensors
    latents, width = (whole(trainer, name) if name in trainer else None for name in ("dict_size", "activation_dim"))
    weights = LAYOUT.ours(tensors, latents, width, beside=("k", "threshold"))
    k = integer(tensors["k"], "k") if "k" in tensors else whole(trainer, "k")
    if whole(trainer, "k", k) != k:
        raise ValueError(f"k is {k} in {WEIGHTS} and {trainer['k']} in {CONFIG}; expected one: fetch the files again")
    if kind == TOPK or foreign.given.per_row:
        return Imported(weights=weights, k=k, about={} if kind == TOPK else {"rule": "the k largest of each row"})
    remedy = "with --per-row the k largest of each row are taken, as by BatchTopK of one row"
    if "threshold" not in tensors:
        raise ValueError(f"threshold is missing from {WEIGHTS}; expected a number from 0: {remedy}")
    threshold = exact("threshold", tensors["threshold"]).flatten()
    if len(threshold) != 1 or not bool(threshold >= 0):
        found = f"{float(threshold):g}, as before it is learnt" if len(threshold) == 1 else f"{len(threshold)} numbers"
        raise ValueError(f"threshold is {found}; expected a number from 0: {remedy}")
    weights["threshold"] = threshold.repeat(len(weights["bias"]))
    return Imported(weights=weights, k=0, about={"k": k})


def _batch_k(dictionary: Dictionary) -> int:
    """k of a BatchTopK, by what `sae.json` says of its training here, or of the file that it was imported from."""
    config, origin = dictionary.about.get("config"), dictionary.about.get("imported")
    if isinstance(config, Mapping) and isinstance(config.get("sparsity"), str):
        return recipe_named(latents=dictionary.n_latents, sparsity=config["sparsity"]).k
    if isinstance(origin, Mapping) and "k" in origin:
        return whole(origin, "k")
    raise ValueError(
        "k of its training is not known; expected it, since dictionary_learning keeps it beside the threshold: export "
        "it to saelens"
    )
