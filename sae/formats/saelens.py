"""SAELens: TopK, and thresholds as its JumpReLU, which is also how it keeps a BatchTopK.

Formulas: pre = (x - b_dec) W_enc + b_enc, without b_dec where `apply_b_dec_to_input` is false; codes are the k largest,
then ReLU, or ReLU(pre) where pre > threshold; reconstruction z W_dec + b_dec.
"""

from typing import Any

from torch import Tensor

from ...extract.models.dictionary import Dictionary
from .foreign import REMEDY, Foreign, Imported, Layout, check_known, choice, whole

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
LAYOUT = Layout(
    keys={"encoder": "W_enc", "bias": "b_enc", "decoder": "W_dec", "centre": "b_dec"},
    transposed=frozenset({"encoder"}),
)
JUMPRELU = Layout(keys={**LAYOUT.keys, "threshold": "threshold"}, transposed=LAYOUT.transposed)
PLAIN = {"normalize_activations": "none", "reshape_activations": "none", "rescale_acts_by_decoder_norm": False}
"""Fields that are to be so, and are so where they are not given."""
WITHOUT_EFFECT = ("device", "dtype", "metadata")
"""The weights' own type is what counts."""
SIZES = ("d_sae", "d_in")


def exported(dictionary: Dictionary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and configuration of a dictionary as SAELens keeps them."""
    config: dict[str, Any] = {
        "architecture": "topk" if dictionary.threshold is None else "jumprelu", "d_in": dictionary.width,
        "d_sae": dictionary.n_latents, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "metadata": {}, **PLAIN,
    }  # fmt: skip
    if dictionary.threshold is None:
        return LAYOUT.theirs(dictionary), config | {"k": dictionary.k}
    del config["rescale_acts_by_decoder_norm"]  # which JumpReLU does not have
    return JUMPRELU.theirs(dictionary), config


def imported(foreign: Foreign) -> Imported:
    """What a folder of SAELens holds. Raises ValueError for what is not a TopK or JumpReLU of raw states."""
    config = foreign.config
    jumprelu = choice(config, "architecture", ("topk", "jumprelu")) == "jumprelu"
    for name, value in PLAIN.items():
        choice(config, name, (value,), value)
    centred = choice(config, "apply_b_dec_to_input", (True, False), True)
    check_known(config, ("architecture", "k", "apply_b_dec_to_input", *SIZES, *PLAIN, *WITHOUT_EFFECT))
    layout = JUMPRELU if jumprelu else LAYOUT
    weights = layout.ours(foreign.tensors, whole(config, "d_sae"), whole(config, "d_in"))
    if not centred and bool(weights["centre"].any()):
        raise ValueError(
            "apply_b_dec_to_input is False and b_dec is not 0; expected True, or a b_dec of 0: taken from what is "
            f"encoded too, it would have to be made up for in b_enc, which float32 does not hold exactly: {REMEDY}"
        )
    return Imported(weights=weights, k=0 if jumprelu else whole(config, "k"), about={})
