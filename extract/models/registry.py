"""Encoders by name: which families there are, and where each is loaded.

Goal: one table; a new family is a module with a `load(path, family)` and a line here.
Conventions: a name is FAMILY:PATH, or the family alone for the bundled ones.
"""

import importlib
from collections.abc import Callable
from functools import cache

from . import module
from .encoder import Encoder

FAMILIES = {
    "m2d": ("m2d", "a folder or checkpoint file of M2D, named as its authors name them"),
    "ast": ("audio_spectrogram_transformer", "a folder of AST with config.json, as transformers lays it out"),
    "hubert": ("speech", "a folder of HuBERT, likewise"),
    "wavlm": ("speech", "a folder of WavLM, likewise"),
    "wav2vec2": ("speech", "a folder of wav2vec 2.0, likewise"),
    "data2vec": ("speech", "a folder of data2vec-audio, likewise"),
    "mert": ("speech", "a folder of MERT, likewise; the code in it is not run"),
    "whisper": ("whisper", "a folder of Whisper, likewise; its encoder"),
    "module": ("module", "FILE.py:factory or pkg.mod:factory, a function that returns an otoscope Encoder"),
    "tiny-ssl": ("tiny", "bundled, self-supervised, 4 layers of 384 neurons"),
    "tiny-sl": ("tiny", "bundled, supervised, 4 layers of 384 neurons"),
}
"""Family -> its module here, and what stands after the colon."""


def source_of(encoder: Encoder | str) -> str:
    """Digest of the file that an encoder of a user's own is made by, without running it; "" for all others.

    Raises as `load_encoder` for a name that is not known, or a file that is not there.
    """
    if not isinstance(encoder, str):
        return encoder.source
    family, _, path = encoder.partition(":")
    return module.source_of(path) if family == "module" and path else ""


@cache
def load_encoder(spec: str) -> Encoder:
    """Encoder by its name: "tiny-ssl", "tiny-sl", "m2d:PATH", "module:FILE.py:factory", "module:pkg:factory".

    Raises ValueError for a name that is not known, and what the adapter raises for files that do not fit.
    """
    family, _, path = spec.partition(":")
    if family not in FAMILIES or bool(path) == family.startswith("tiny-"):
        known = ", ".join(name if name.startswith("tiny-") else f"{name}:..." for name in FAMILIES)
        raise ValueError(f"no encoder {spec!r}; expected one of {known}")
    load: Callable[[str, str], Encoder] = importlib.import_module(f".{FAMILIES[family][0]}", __package__).load
    return load(path, family)
