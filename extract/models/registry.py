"""Encoders by name: which families there are, and where each is loaded.

Goal: one table; a new family is a module with a `load(path, family)` and a line here.
Conventions: a name is FAMILY:PATH, or the family alone for the bundled ones; latents are named by the folders of SAEs
and, after the first @, the encoder that they are put into.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from ...store.provenance import digest_of
from . import latents, module
from .checkpoint import digest_of_files
from .dictionary import ABOUT, WEIGHTS, read_dictionary
from .encoder import Encoder
from .m2d_files import find_file
from .transformers_files import TOKENIZER, files_in

FAMILIES = {
    "m2d": ("m2d", "a folder or checkpoint file of M2D, named as its authors name them"),
    "ast": ("audio_spectrogram_transformer", "a folder of AST with config.json, as transformers lays it out"),
    "hubert": ("speech", "a folder of HuBERT, likewise"),
    "wavlm": ("speech", "a folder of WavLM, likewise"),
    "wav2vec2": ("speech", "a folder of wav2vec 2.0, likewise"),
    "data2vec": ("speech", "a folder of data2vec-audio, likewise"),
    "mert": ("speech", "a folder of MERT, likewise; the code in it is not run"),
    "whisper": ("whisper", "a folder of Whisper, likewise; its encoder"),
    "qwen2audio": ("qwen2audio", "a folder of Qwen2-Audio, as it is published; clips need prompts"),
    "qwen2audio-gate": ("qwen2audio", "the same; neurons are the gates' activations, not their products"),
    "module": ("module", "FILE.py:factory or pkg.mod:factory, a function that returns an otoscope Encoder"),
    "tiny-ssl": ("tiny", "bundled, self-supervised, 4 layers of 384 neurons"),
    "tiny-sl": ("tiny", "bundled, supervised, 4 layers of 384 neurons"),
    "latents": ("latents", "SAE,SAE@ENCODER, folders of trained SAEs and an encoder by its name"),
}
"""Family -> its module here, and what stands after the colon."""
FORM_OF_LATENTS = (
    "latents:SAE,SAE@ENCODER, where the first @ ends the folders of trained SAEs: rename those with a comma or @ in "
    "their paths"
)


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
    if family == latents.FAMILY:
        folders, base = _parts_of_latents(path)
        return digest_of([source_of(base), *(digest_of_files(_files(family, folder)) for folder in folders)])
    files = _files(family, path)
    return digest_of_files(files, beside=files[0].parent.name if family == "m2d" else "")


def load_encoder(spec: str) -> Encoder:
    """Encoder by its name: "tiny-ssl", "m2d:PATH", "module:FILE.py:factory", "module:pkg:factory", "latents:DIR@NAME".

    It is loaded once, and again where its files have changed.
    Raises ValueError for a name that is not known, and what the adapter raises for files that do not fit.
    """
    return _loaded(spec, _state(spec))


def _state(spec: str) -> object:
    """What tells whether the files that an encoder is made of are as they were."""
    family, path = _checked(spec)
    if family == "module":
        return module.source_of(path)
    if family == latents.FAMILY:
        folders, base = _parts_of_latents(path)
        return _state(base), *(_stats(_files(family, folder)) for folder in folders)
    return _stats(_files(family, path))


def _stats(files: list[Path]) -> object:
    stats = [(file.name, file.stat()) for file in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@cache
def _loaded(spec: str, state: object) -> Encoder:
    """state: of its files."""
    family, path = _checked(spec)
    if family == latents.FAMILY:
        folders, base = _parts_of_latents(path)
        return replace(latents.spliced(load_encoder(base), list(map(read_dictionary, folders))), source=source_of(spec))
    load: Callable[[str, str], Encoder] = importlib.import_module(f".{FAMILIES[family][0]}", __package__).load
    return replace(load(path, family), source=source_of(spec))


def _files(family: str, path: str) -> list[Path]:
    """The files that an encoder of one of our families is made of, as far as they are there."""
    if not path:
        return []
    if family == latents.FAMILY:
        return [Path(path) / WEIGHTS, Path(path) / ABOUT]
    if family.startswith("qwen2audio"):
        return files_in(path, also=[TOKENIZER])
    return [find_file(path)] if family == "m2d" else files_in(path)


def _parts_of_latents(path: str) -> tuple[list[str], str]:
    """The folders of SAEs, and the name of the encoder that they are put into."""
    listed, _, base = path.partition("@")
    folders = listed.split(",")
    if not base or not all(folders):
        raise ValueError(f"no SAEs and encoder in {path!r}; expected {FORM_OF_LATENTS}")
    absent = [folder for folder in folders if not all(file.is_file() for file in _files(latents.FAMILY, folder))]
    if absent:
        raise FileNotFoundError(f"no {ABOUT} and {WEIGHTS} in {absent[0]}; expected {FORM_OF_LATENTS}")
    if base.partition(":")[0] not in {*FAMILIES} - {latents.FAMILY}:
        raise ValueError(f"no encoder {base!r} for SAEs; expected {FORM_OF_LATENTS}")
    return folders, base


def _checked(spec: str) -> tuple[str, str]:
    """Family and path of an encoder's name."""
    family, _, path = spec.partition(":")
    if family not in FAMILIES or bool(path) == family.startswith("tiny-"):
        known = ", ".join(name if name.startswith("tiny-") else f"{name}:..." for name in FAMILIES)
        raise ValueError(f"no encoder {spec!r}; expected one of {known}")
    return family, path
