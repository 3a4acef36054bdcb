"""M2D checkpoint files: finding one, the geometry in its folder's name, and the encoder's tensors inside.

Goal: read every layout the authors publish, and refuse everything else with a message that names what is wrong.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .checkpoint import shown

_NAME = re.compile(r"[^-]+-(\d{1,6})x(\d{1,6})p(\d{1,6})x(\d{1,6})(?:p(\d{1,6})k)?(?:p[^-p]+)*(?:-.*)?")
_NUMBERED = re.compile(r"checkpoint-(\d+)\.pth")
_SUFFIXES = (".pth", ".safetensors")
# Its name says where the encoder sits: at the top; after "module.ar.runtime.backbone." in files saved by EVAR's
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

    mels: int
    """Mel bands of the input."""
    frames: int
    """Frames of the longest input; longer audio is cut into chunks of this length."""
    patch: tuple[int, int]
    """Height in mel bands and width in frames of a patch."""
    sample_rate: int = 16_000
    """In Hz."""


def parse_geometry(name: str) -> Geometry | None:
    """Geometry from `{model}-{mels}x{frames}p{height}x{width}[p{rate}k][p{extra}...][-{any}]`, else None.

    Without a sample rate it is 16 kHz; model and extras, such as M2D-CLAP's text encoder, do not matter.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    mels, frames, height, width, khz = (int(number or 16) for number in found.groups())
    return Geometry(mels=mels, frames=frames, patch=(height, width), sample_rate=1000 * khz)


def find_file(path: str) -> Path:
    """The checkpoint that `path` means: itself, or in a folder its only one, or its highest checkpoint-N.pth.

    Raises FileNotFoundError for nothing there, ValueError for a folder with several candidates.
    """
    # Made absolute, because the folder's name carries the geometry; links are kept, they may be what bears
    # the name.
    file = Path(os.path.abspath(path))
    if file.is_file():
        return file
    if not file.is_dir():
        raise FileNotFoundError(f"nothing at {path}; expected an M2D checkpoint or the folder that holds it")
    files = sorted(p for p in file.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if not files:
        raise FileNotFoundError(f"no .pth or .safetensors file in {path}; expected one M2D checkpoint")
    numbers = [_NUMBERED.fullmatch(p.name) for p in files]
    if len(files) > 1 and not all(numbers):
        raise ValueError(
            f"folder {path} holds {', '.join(p.name for p in files)}; expected one checkpoint, or only "
            "checkpoint-N.pth files: name the file"
        )
    return max(zip(numbers, files, strict=True), key=lambda pair: int(pair[0][1]) if pair[0] else 0)[1]


def encoder_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's own tensors by their own names; decoder, target, heads and text encoder are dropped.

    Where it is part of a larger module, everything beside that part is dropped too. What is left and unknown stays, for
    `checkpoint.filled` to name it.
    Raises ValueError for a file with several encoders.
    """
    prefixes = sorted({key.removesuffix(_MARK) for key in state if key == _MARK or key.endswith(f".{_MARK}")})
    if len(prefixes) > 1 and "" not in prefixes:
        raise ValueError(
            f"found encoders at {', '.join(map(shown, prefixes[:5]))}; expected one: save the tensors of the one that "
            "is meant alone"
        )
    prefix = prefixes[0] if prefixes else ""
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in inside.items() if not _BESIDE.fullmatch(key)}
