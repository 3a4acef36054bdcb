"""Encoders by name: which families there are, and where each is loaded.

Goal: one table; a new family is a module with a `load(path, family)` and a line here.
Conventions: a name is FAMILY:PATH, or the family alone for the bundled ones.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from . import module
from .checkpoint import digest_of_files
from .encoder import Encoder
from .m2d_files import find_file
from .transformers_files import files_in

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
    """Digest of the files that an encoder is made of, none of which is run; "" for the bundled ones.

    Raises as `load_encoder` for a name that is not known, or a file that is not there.
    """
    if not isinstance(encoder, str):
        return encoder.source
    family, path = _checked(encoder)
    if not path:
        return ""
    if family == "module":
        return module.source_of(path)
    files = _files(family, path)
    return digest_of_files(files, beside=files[0].parent.name if family == "m2d" else "")


def load_encoder(spec: str) -> Encoder:
    """Encoder by its name: "tiny-ssl", "tiny-sl", "m2d:PATH", "module:FILE.py:factory", "module:pkg:factory".

    It is loaded once, and again where its files have changed.
    Raises ValueError for a name that is not known, and what the adapter raises for files that do not fit.
    """
    family, path = _checked(spec)
    if family == "module":
        return _loaded(spec, module.source_of(path))
    stats = [(file.name, file.stat()) for file in _files(family, path)]
    return _loaded(spec, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


@cache
def _loaded(spec: str, state: object) -> Encoder:
    """state: of its files."""
    family, path = _checked(spec)
    load: Callable[[str, str], Encoder] = importlib.import_module(f".{FAMILIES[family][0]}", __package__).load
    return replace(load(path, family), source=source_of(spec))


def _files(family: str, path: str) -> list[Path]:
    """The files that an encoder of one of our families is made of, as far as they are there."""
    if not path:
        return []
    return [find_file(path)] if family == "m2d" else files_in(path)


def _checked(spec: str) -> tuple[str, str]:
    """Family and path of an encoder's name."""
    family, _, path = spec.partition(":")
    if family not in FAMILIES or bool(path) == family.startswith("tiny-"):
        known = ", ".join(name if name.startswith("tiny-") else f"{name}:..." for name in FAMILIES)
        raise ValueError(f"no encoder {spec!r}; expected one of {known}")
    return family, path
