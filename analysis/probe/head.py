"""A model's own head as probe: what it would answer, read off its embedding.

Goal: to ask an audio language model by the answers that it was trained to give, instead of a probe fitted to labels.
Conventions: one head, for all clips; no standardisation and no bias, so that logits are the model's own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .probe import Probe

HEAD = "the model's own"


def head_probe(weight: NDArray[np.float32], categories: Sequence[str], *, identity: str, labelling: str) -> Probe:
    """The probe of some rows of a model's head (category, embedding), as `Encoder.answers` gives them.

    identity: digest of the store's. labelling: as in "emotion:audio_class".
    Raises ValueError for other than one row of numbers per category, or fewer than two.
    """
    if weight.shape[0] != len(categories) or len(categories) < 2 or not np.isfinite(weight).all():
        raise ValueError(
            f"{weight.shape[0]} rows of a head for {len(categories)} categories; expected a row of numbers for each of "
            "two or more"
        )
    width = weight.shape[1]
    return Probe(
        identity=identity, labelling=labelling, categories=tuple(categories), heads=(HEAD,),
        mean=np.zeros((1, width), np.float32), scale=np.ones((1, width), np.float32),
        weight=np.asarray(weight, np.float32)[None], bias=np.zeros((1, len(categories)), np.float32),
        about={"kind": HEAD},
    )  # fmt: skip
