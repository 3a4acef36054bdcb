"""Latents as neurons: what an encoder's activations are once dictionaries are put behind its transformer layers.

Goal: a task of latents has the same identity whether it was made of stored states or by running the encoder.
Conventions: a layer per dictionary, in the order given; a neuron per latent.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...store.changes.staged import Origin
from ...store.provenance import Identity, digest_of
from .dictionary import Dictionary, check_together

FAMILY = "latents"


def site_names(dictionaries: Sequence[Dictionary]) -> list[str]:
    """Names of the sites of latents, one per dictionary: its number and the state that it is of."""
    return [f"saes.{i}_of_state_{dictionary.state}.codes" for i, dictionary in enumerate(dictionaries)]


def latents_origin(base: Origin, dictionaries: Sequence[Dictionary]) -> Origin:
    """What the latents of a task come from whose own numbers come from `base`.

    Of the fixed sound the embedding is kept, and nothing is said of the sites (NaN): stored states do not have it.
    Raises ValueError for dictionaries that do not fit together, or the states of `base`.
    """
    check_together(dictionaries)
    identity, digest = base.identity, digest_of(base.identity.to_json())
    n_states, width = identity.hidden
    for dictionary in dictionaries:
        if dictionary.base not in ("", digest):
            raise ValueError(
                f"{dictionary.label} was trained on states of another identity ({dictionary.base[:8]}, not "
                f"{digest[:8]}); expected states of the same encoder, frames rule, precision and kind of device"
            )
        if dictionary.width != width or dictionary.state >= n_states:
            raise ValueError(
                f"{dictionary.label} is of state {dictionary.state}, {dictionary.width} wide; expected one of the "
                f"{n_states} states of encoder {identity.encoder}, {width} wide"
            )
    digests = [dictionary.digest for dictionary in dictionaries]
    rows = dictionaries[0].rows
    sites = tuple((name, d.n_latents) for name, d in zip(site_names(dictionaries), dictionaries, strict=True))
    latents = Identity(
        encoder=FAMILY,
        weights=digest_of([digest, rows, digests]),
        front_end={**identity.front_end, "rows": rows, "family": identity.encoder},
        sites=sites,
        embedding=identity.embedding,
        hidden=identity.hidden,
        frames=identity.frames,
        precision=identity.precision,
        device=identity.device,
        derived_from={"identity": digest, "rows": rows, "dictionaries": digests},
    )
    check = np.full(latents.n_check, np.nan, np.float32)
    check[: identity.embedding] = base.check[: identity.embedding]
    return replace(base, identity=latents, check=check)
