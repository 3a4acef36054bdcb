"""Export of a Dictionary to a folder of another library, and import of such folders.

Goal: what was exported comes back as the same file; a folder is there whole or not at all.
Conventions: beside a library's own fields its configuration then holds `otoscope`, what the library has no word for:
state, rows, and the rest of `sae.json`. A file of somebody else's does not have it, and whoever imports says it.
"""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...documents import parse_json, read_document
from ...extract.models.checkpoint import digest_of_files, read_checkpoint
from ...extract.models.dictionary import ROWS, Dictionary, write_dictionary
from ...extract.models.latents import latents_origin
from ...files import whole_folder
from ...store.changes.staged import Origin
from ...store.provenance import digest_of
from ..recipe import MAX_LATENTS
from . import dictionary_learning, published, saelens, sparsify
from .foreign import Foreign, Given

MODULES: dict[str, ModuleType] = {
    "saelens": saelens, "sparsify": sparsify, "dictionary_learning": dictionary_learning, "published": published,
}  # fmt: skip
OURS = "otoscope"
LAYER = re.compile(r"layer_([1-9][0-9]{0,3})", re.ASCII)
MAX_BYTES = 2**31  # of a file of weights: ten times the largest that is published for an audio model, and its encoder


def export_dictionary(dictionary: Dictionary, library: str, folder: str | Path) -> None:
    """Write a dictionary as a library keeps one, into a folder that is not there yet.

    library: one of `LIBRARIES`.
    Raises ValueError for what the library cannot hold exactly, OSError where it cannot be written.
    """
    module = MODULES[library]
    try:
        tensors, config = module.exported(dictionary)
    except ValueError as error:
        raise ValueError(f"{dictionary.label} does not fit {library}: {error}") from error
    ours = {
        "state": dictionary.state, "rows": dictionary.rows, "base": dictionary.base, "digest": dictionary.digest,
        "about": dict(dictionary.about),
    }  # fmt: skip
    config.get("metadata", config)[OURS] = ours  # SAELens keeps free fields there
    if module.WEIGHTS.endswith(".safetensors"):
        data = safetensors.torch.save(tensors)
    else:
        torch.save(tensors, buffer := io.BytesIO())
        data = buffer.getvalue()
    with whole_folder(folder) as partial:
        (partial / module.WEIGHTS).write_bytes(data)
        (partial / module.CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def import_dictionaries(path: str | Path, library: str, given: Given, base: Origin | None = None) -> list[Dictionary]:
    """The dictionaries in a library's folder: one, or of dictionary_learning those of its folders `layer_N`, by N.

    path: of "published" also a file of weights. given: what the files do not say. base: what the states come from
    that they are to fit, whose identity they then name.
    Raises FileNotFoundError for files that are missing, ValueError for what is damaged, contradicts what is given, or
    is not a Dictionary exactly.
    """
    module, path = MODULES[library], Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {path}; expected a folder with {module.WEIGHTS} and {module.CONFIG}")
    for name, of in (("k", "published"), ("sae", "published"), ("per_row", "dictionary_learning")):
        if getattr(given, name) not in (None, False) and library != of:
            raise ValueError(f"--{name.replace('_', '-')} was given for files of {library}; expected it of {of} alone")
    layers: dict[int, Path] = {}
    if library == "dictionary_learning" and path.is_dir() and not (path / module.WEIGHTS).exists():
        layers = {int(found[1]): each for each in path.iterdir() if (found := LAYER.fullmatch(each.name))}
    if layers and given.state is not None:
        raise ValueError(f"--state was given for the {len(layers)} layers of {path}; expected none: their names say it")
    dictionaries = []
    for folder in [layers[n] for n in sorted(layers)] or [path]:
        try:
            dictionary = _read(folder, library, given)
        except ValueError as error:
            raise ValueError(f"{folder} is no SAE of {library} that fits here: {error}") from error
        if base is not None:
            latents_origin(base, [dictionary])
            dictionary = replace(dictionary, base=digest_of(base.identity.to_json()))
        dictionaries.append(dictionary)
    return dictionaries


def write_imported(dictionaries: list[Dictionary], folder: str | Path) -> list[Path]:
    """Write one dictionary as a folder, several as folders in it that are called as they are; their paths.

    Raises OSError where it cannot be written, or is there already.
    """
    names = [""] if len(dictionaries) == 1 else [dictionary.name for dictionary in dictionaries]
    with whole_folder(folder) as partial:
        for name, dictionary in zip(names, dictionaries, strict=True):
            write_dictionary(dictionary, partial / name)
    return [Path(folder) / name for name in names]


def _read(path: Path, library: str, given: Given) -> Dictionary:
    module = MODULES[library]
    alone = library == "published" and path.is_file()
    weights, config_file = (path, None) if alone else (path / module.WEIGHTS, path / module.CONFIG)
    for file in (weights, config_file):
        if file is not None and not file.is_file():
            raise FileNotFoundError(
                f"no file {file}; expected {module.WEIGHTS} and {module.CONFIG} as {library} writes them"
            )
    if (size := weights.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{weights.name} has {size} bytes; expected at most {MAX_BYTES}")
    config = _config(config_file) if config_file else {}
    ours = _ours(config)
    layer = LAYER.fullmatch(path.name) if library == "dictionary_learning" else None
    state = _agreed("state", given.state, ours.get("state", layer and int(layer[1])), "the number of its hidden state")
    rows = _agreed("rows", given.rows, ours.get("rows", layer and "frame"), " or ".join(ROWS))
    tensors: dict[str, Tensor] = read_checkpoint(weights)[0]
    found = module.imported(Foreign(tensors=tensors, config=config, given=given, layer=bool(layer)))
    if len(found.weights["bias"]) > MAX_LATENTS:
        raise ValueError(f"it has {len(found.weights['bias'])} latents; expected at most {MAX_LATENTS}")
    dictionary = Dictionary(**found.weights, k=found.k, state=state, rows=rows, name=path.name)
    if ours.get("digest") == dictionary.digest:
        return replace(dictionary, base=ours["base"], about=ours["about"])
    files = digest_of_files([weights, config_file] if config_file else [weights])
    return replace(dictionary, about={"imported": {"from": library, "files": files, **found.about}})


def _config(file: Path) -> dict[str, Any]:
    try:
        config = parse_json(read_document(file), finite=True)
    except ValueError as error:
        raise ValueError(
            f"{file.name} cannot be read ({error}); expected what the library wrote: fetch it again"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{file.name} holds a {type(config).__name__}; expected an object of fields: fetch it again")
    return config


def _ours(config: dict[str, Any]) -> Mapping[str, Any]:
    """What an export of ours says of itself, taken out of a configuration; empty where there is none."""
    metadata = config.get("metadata")
    ours = config.pop(OURS, metadata.get(OURS) if isinstance(metadata, dict) else None)
    kinds = {"state": int, "rows": str, "base": str, "digest": str, "about": dict}
    if ours is None:
        return {}
    if not isinstance(ours, dict) or any(type(ours.get(name)) is not kind for name, kind in kinds.items()):
        raise ValueError(f"{OURS} lacks one of {', '.join(kinds)}; expected it as an export wrote it: delete it")
    return ours


def _agreed(name: str, given: Any, found: Any, meaning: str) -> Any:
    """What is given or the files say; ValueError where neither does, or they differ."""
    if given is None and found is None:
        raise ValueError(f"{name} is not in the files; expected --{name}, {meaning}")
    if None not in (given, found) and given != found:
        raise ValueError(f"--{name} is {given}, and {name} is {found} by the files; expected one: leave --{name} out")
    return found if given is None else given
