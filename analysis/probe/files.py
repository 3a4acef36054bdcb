"""Probes as files: the tensors as safetensors, and what they are as JSON beside it.

Goal: a probe is fitted once and used by every ablation of its store.
Conventions: a probe lies at PATH as PATH.safetensors and PATH.json; the JSON holds the digest of the other.
Contents: `save_probe`, `load_probe`.
"""

import hashlib
import json
import os
from pathlib import Path

from safetensors.numpy import load as load_tensors

from .probe import Probe

FORMAT = 1


def save_probe(probe: Probe, path: str | os.PathLike[str]) -> None:
    """Write PATH.safetensors, then PATH.json; each appears whole or not at all.

    Raises FileNotFoundError for a folder that does not exist.
    """
    place = Path(path)
    if not place.parent.is_dir():
        raise FileNotFoundError(f"no folder {place.parent}; expected it for {place.name}: create it")
    tensors = probe.tensors()
    about = {
        "format": FORMAT, "identity": probe.identity, "labelling": probe.labelling, "heads": probe.heads,
        "categories": probe.categories, "tensors": hashlib.sha256(tensors).hexdigest(), "about": probe.about,
    }  # fmt: skip
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    for ending, content in ((".safetensors", tensors), (".json", text.encode())):
        partial = place.with_name(f".{place.name}{ending}.{os.getpid()}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(place.with_name(place.name + ending))
        finally:
            partial.unlink(missing_ok=True)


def load_probe(path: str | os.PathLike[str]) -> Probe:
    """The probe that `save_probe` wrote to PATH.

    Raises FileNotFoundError where there is none, ValueError for files that are damaged or do not belong together.
    """
    place = Path(path)
    try:
        tensors = place.with_name(place.name + ".safetensors").read_bytes()
        text = place.with_name(place.name + ".json").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no probe at {place}; expected {place.name}.safetensors and {place.name}.json, as a probe is saved"
        ) from error
    try:
        about = json.loads(text)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, not {FORMAT}")
        if hashlib.sha256(tensors).hexdigest() != about["tensors"]:
            raise ValueError("the tensors are not those that the JSON describes")
        return Probe(
            identity=about["identity"], labelling=about["labelling"], categories=tuple(about["categories"]),
            heads=tuple(about["heads"]), about=about["about"], **load_tensors(tensors),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the probe at {place} is damaged or of another version ({str(error).splitlines()[0]}); expected both "
            "files as they were saved: fit it again"
        ) from error
