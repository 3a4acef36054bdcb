"""Latents as neurons: what an encoder's activations are once dictionaries are put behind its transformer layers.

Goal: a task of latents has the same identity whether it was made of stored states or by running the encoder, and
whatever can be asked of neurons, or done to them, can be of latents.
Conventions: a layer per dictionary, in the order given; a neuron per latent.
"""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ...messages import one_line
from ...store.changes.staged import Origin
from ...store.provenance import Identity, digest_of
from .dictionary import Dictionary, check_together
from .encoder import Encoder, as_frames, spans_of_all_bands
from .splice import Splice

FAMILY = "latents"


def site_names(dictionaries: Sequence[Dictionary]) -> list[str]:
    """Names of the sites of latents, one per dictionary: its number and the state that it is of."""
    return [f"saes.{i}_of_state_{dictionary.state}.codes" for i, dictionary in enumerate(dictionaries)]


def state_of_site(name: str) -> int:
    """The state that the latents of a site are of. Raises ValueError for the name of another site."""
    found = re.fullmatch(r"saes\.\d+_of_state_(\d+)\.codes", name)
    if found is None:
        raise ValueError(f"site {name!r} is not one of latents; expected such as saes.0_of_state_1.codes")
    return int(found[1])


def spliced(encoder: Encoder, dictionaries: Sequence[Dictionary]) -> Encoder:
    """A copy of an encoder whose neurons are latents: see `splice` for what happens inside of it.

    Its embedding is the encoder's to the last bit while nothing is edited; its identity is `latents_origin` of the
    encoder's. With dictionaries of clip rows each clip is one frame, and there are no hidden states to keep.
    Raises ValueError for an encoder that names no transformer layers, is one of latents already or cannot be copied,
    and for dictionaries that do not fit together, or its states.
    """
    check_together(dictionaries)
    if encoder.derive is not None:
        raise ValueError(f"encoder {encoder.name} is one of latents already; expected the one that its SAEs are for")
    if not encoder.transformer_layers:
        raise ValueError(
            f"encoder {encoder.name} names no transformer layers, so it has no states that SAEs could be of; expected "
            "`transformer_layers=` on the encoder"
        )
    try:
        base = deepcopy(encoder)  # other names may share the module, and what the encoder holds may share its parts
    except Exception as error:  # a module's own, or torch's
        raise ValueError(
            f"encoder {encoder.name} cannot be copied ({type(error).__name__}: {one_line(error)}); expected a module "
            "that copy.deepcopy takes, so that SAEs can be put into a copy"
        ) from error
    widths = base.hidden_widths()
    for dictionary in dictionaries:
        if dictionary.state >= len(widths) or widths[dictionary.state] != dictionary.width:
            found = f"{widths[dictionary.state]} wide" if dictionary.state < len(widths) else "not there"
            raise ValueError(
                f"{dictionary.label} is of state {dictionary.state}, {dictionary.width} wide, which in encoder "
                f"{encoder.name} is {found}; expected one of its {len(widths)} states: use the encoder that the SAE "
                "was trained on"
            )
    sites, of_clips = site_names(dictionaries), dictionaries[0].rows == "clip"
    modules = [site.split(".")[1] for site in sites]
    module = Splice(base, dict(zip(modules, dictionaries, strict=True)))
    return replace(
        base,
        module=module,
        sites=sites,
        maps=[f"saes.{name}.decoder" for name in modules],
        neurons=as_frames,
        frame_spans=partial(_whole_clip, sample_rate=base.sample_rate) if of_clips else base.spans,
        transformer_layers=() if of_clips else [f"base.{name}" for name in base.transformer_layers],
        counting=module.counting if of_clips else None,
        name=FAMILY,
        base=base,
        derive=partial(latents_origin, dictionaries=tuple(dictionaries)),
        source=digest_of([base.source, [dictionary.digest for dictionary in dictionaries]]),
    )


def check_lengths(encoder: Encoder, unit: int | None, lengths: Iterable[int]) -> None:
    """Raise ValueError where latents of clip rows meet a clip over which the model runs its layers several times.

    unit: samples of every clip; None where each has its own length, then one of `lengths`. These are gone through only
    where the model is known to cut clips: of any other one a pass tells, over silence of `unit` samples.
    """
    base = encoder.base
    if base is None or encoder.counting is None:
        return
    if base.longest is None:
        if unit is not None:
            with torch.inference_mode():
                encoder(encoder.silence(unit))
        return
    found, rate = next((n for n in ([unit] if unit else lengths) if n > base.longest), None), base.sample_rate
    if found is not None:
        raise ValueError(
            f"encoder {base.name} runs its layers several times in a pass over clips as long as {found / rate:.3g} s, "
            f"which it cuts into pieces of {base.longest / rate:.3g} s; expected one run for SAEs of clip rows, whose "
            "codes are of the mean over a clip: take shorter clips (extract with a --unit-sec within that), or SAEs of "
            "frame rows"
        )


def _whole_clip(n_samples: int, *_prompt: str, sample_rate: int) -> np.ndarray:
    """Spans (frame, 4) of the one frame that a clip of so many samples is."""
    return spans_of_all_bands(np.zeros(1), np.array([n_samples / sample_rate]), sample_rate)


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
