"""M2D checkpoint files: finding one, the geometry in its folder's name, and the encoder's tensors inside.

Goal: read every layout the authors publish, and refuse everything else with a message that names what is
wrong.
Conventions: a checkpoint is a state dict, bare or as the `model` entry of a dict, in a .pth or .safetensors
file.
Contents: `Geometry`, `parse_geometry`, `find_file`, `read_checkpoint`, `encoder_tensors`.
"""

import argparse
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the name only: torch raises it for what it will not unpack
from typing import Any

import safetensors
import torch
from torch import Tensor

_NAME = re.compile(r"([^-]+)-(\d+)x(\d+)p(\d+)x(\d+)(?:p(\d+)k)?((?:p[^-p]+)*)(?:-.*)?")
_NUMBERED = re.compile(r"checkpoint-(\d+)\.pth")
_SUFFIXES = (".pth", ".safetensors")
# What tells where the encoder sits: at the top; after "module.ar.runtime.backbone." in files saved by EVAR's
# fine-tuning, "backbone." in those of the authors' runtime, or whatever else wrapped it ("module.", "model.").
_MARK = "patch_embed.proj.weight"
# What stands beside an encoder in files of whole models: decoder, target and predictor of pre-training, heads, CLAP.
_BESIDE = re.compile(
    r"(mask_token|logit_scale|head|head_norm|decoder_\w+|target_\w+|offline_predictor|audio_proj|text_proj|text_encoder)"
    r"(\..+)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """What the name of an M2D model says: `m2d_vit_base-80x608p16x16p16k...`."""

    model: str
    """Model class, such as "m2d_vit_base"; recorded, not interpreted."""
    mels: int
    """Mel bands of the input."""
    frames: int
    """Frames of the longest input; longer audio is cut into chunks of this length."""
    patch: tuple[int, int]
    """Height in mel bands and width in frames of a patch."""
    sample_rate: int = 16_000
    """In Hz."""
    extras: tuple[str, ...] = ()
    """Further marks, such as the text encoder of M2D-CLAP; not interpreted."""


def parse_geometry(name: str) -> Geometry | None:
    """Geometry from `{model}-{mels}x{frames}p{height}x{width}[p{rate}k][p{extra}...][-{any}]`, else None.

    Without a sample rate it is 16 kHz.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    model, mels, frames, height, width, khz, extras = found.groups()
    return Geometry(
        model=model,
        mels=int(mels),
        frames=int(frames),
        patch=(int(height), int(width)),
        sample_rate=1000 * int(khz or 16),
        extras=tuple(extras.split("p")[1:]),
    )


def find_file(path: str) -> Path:
    """The checkpoint that `path` means: itself, or in a folder its only one, or its highest checkpoint-N.pth.

    Raises FileNotFoundError for nothing there, ValueError for a folder with several candidates.
    """
    # Made absolute, because the folder's name carries the geometry; links are kept, they may be what bears
    # the name.
    place = Path(os.path.abspath(path))
    if place.is_file():
        return place
    if not place.is_dir():
        raise FileNotFoundError(f"nothing at {path}; expected an M2D checkpoint or the folder that holds it")
    files = sorted(p for p in place.iterdir() if p.suffix in _SUFFIXES)
    if not files:
        raise FileNotFoundError(f"no .pth or .safetensors file in {path}; expected one M2D checkpoint")
    numbers = [_NUMBERED.fullmatch(p.name) for p in files]
    if len(files) > 1 and not all(numbers):
        raise ValueError(
            f"folder {path} holds {', '.join(p.name for p in files)}; expected one checkpoint, or only "
            "checkpoint-N.pth files: name the file"
        )
    return max(zip(numbers, files, strict=True), key=lambda pair: int(pair[0][1]) if pair[0] else 0)[1]


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and text metadata (safetensors only) of a checkpoint; nothing in the file is executed.

    Raises ValueError for a file that is damaged, that wants to unpack more than tensors and plain arguments,
    or that holds no state dict.
    """
    if file.suffix == ".safetensors":
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # of many kinds, depending on where in foreign bytes it stumbles
            reason = _reason(error)
            raise ValueError(f"{file.name} is not a whole safetensors file ({reason}); fetch it again") from error
    try:
        # Pre-training checkpoints keep their command line beside the weights; a Namespace holds data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, so that the optimiser's state beside the weights is never read.
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # of many kinds: foreign bytes are taken for a pickle until they make no sense
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, UnpicklingError) and wanted:
            raise ValueError(
                f"{file.name} holds {wanted[1]} besides tensors, not unpacked because it could run code; "
                "expected a state dict: if you trust the file, save its weights alone as .safetensors"
            ) from error
        raise ValueError(
            f"{file.name} is not a whole torch checkpoint ({_foreign(file) or _reason(error)}); fetch it again, or "
            "name the .pth or .safetensors file that holds the weights"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{file.name} holds a {type(content).__name__}; expected a state dict, bare or under 'model'")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}, {}


def _foreign(file: Path) -> str:
    """What the first bytes say against a checkpoint of torch, which is a zip archive or, of old, a pickle; or ""."""
    with file.open("rb") as opened:
        start = opened.read(2)
    if start == b"PK":
        return "" if zipfile.is_zipfile(file) else "it ends too early"
    return "" if start[:1] in (b"", b"\x80") else "its first bytes are those of no checkpoint"


def _reason(error: Exception) -> str:
    """The first sentence of a library's error that speaks of the file."""
    if isinstance(error, LookupError | TypeError | AttributeError | OSError):  # those speak of the library's own doings
        return "its content makes no sense as one"
    return re.split(r"[.\n]", str(error))[0] or "it ends too early"


def encoder_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's own tensors by their own names; decoder, target, heads and text encoder are dropped.

    Where it is part of a larger module, everything beside that part is dropped too. What is left and unknown stays, for
    `check_tensors` to name it.
    Raises ValueError for a file with several encoders.
    """
    prefixes = sorted({key.removesuffix(_MARK) for key in state if key == _MARK or key.endswith(f".{_MARK}")})
    if len(prefixes) > 1 and "" not in prefixes:
        raise ValueError(
            f"found encoders at {', '.join(prefixes)}; expected one: save the tensors of the one that is meant alone"
        )
    prefix = prefixes[0] if prefixes else ""
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in inside.items() if not _BESIDE.fullmatch(key)}


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Any], where: str) -> None:
    """Raise ValueError naming the tensors that are missing, misshapen or unknown, with their shapes."""
    faults = [f"{key} {tuple(expected[key].shape)} is missing" for key in expected if key not in found]
    faults += [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    faults += [f"{key} is not part of this encoder" for key in found if key not in expected]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(
            f"{where} does not fit the M2D encoder: {'; '.join(faults[:5])}{more}. The folder's name must "
            "state this checkpoint's input and patch size, and the file must be whole"
        )
