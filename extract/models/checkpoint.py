"""Checkpoint files of torch and safetensors: tensors out of a file, and into a model.

Goal: nothing in a file is executed, and a file that is damaged or does not fit the model is refused by name.
Conventions: a checkpoint is a state dict, bare or as the `model` entry of a dict, in a .pth, .bin or .safetensors file.
"""

import argparse
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # the name only: torch raises it for what it will not unpack
from typing import TypeVar

import safetensors
import torch
from torch import Tensor, nn

from ...messages import one_line

Model = TypeVar("Model", bound=nn.Module)
MAX_FAULTS = 5  # that a message names


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and text metadata (safetensors only) of a checkpoint.

    Raises ValueError for a file that is damaged, that wants to unpack more than tensors and plain arguments,
    or that holds no state dict.
    """
    try:
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
        # Pre-training checkpoints keep their command line beside the weights; a Namespace holds data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, so that the optimiser's state beside the weights is never read.
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # of many kinds: foreign bytes are taken for a checkpoint until they make no sense
        raise ValueError(_damage(file, error)) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{file.name} holds a {type(content).__name__}; expected a state dict, bare or under 'model'")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}, {}


def filled(make: Callable[[], Model], tensors: Mapping[str, Tensor], where: str, remedy: str) -> Model:
    """The model that `make` builds, with these tensors in float32, in evaluation mode and without gradients.

    Raises ValueError naming the tensors that are missing, misshapen or unknown, with their shapes.
    """
    with torch.device("meta"):  # shapes only: every value comes from the tensors
        model = make()
    expected = model.state_dict()
    faults = [f"{key} {tuple(expected[key].shape)} is missing" for key in expected if key not in tensors]
    faults += [
        f"{key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    faults += [f"{key} is not part of this encoder" for key in tensors if key not in expected]
    if faults:
        more = f" and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise ValueError(
            f"the weights in {where} do not fit {type(model).__name__}: {'; '.join(faults[:MAX_FAULTS])}{more}; "
            f"expected {remedy}"
        )
    # Copied: a mapped file may change or vanish under a tensor that still points into it.
    model.load_state_dict({k: value.to(torch.float32, copy=True) for k, value in tensors.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _damage(file: Path, error: Exception) -> str:
    """What is wrong with a file at which a library raised `error`."""
    if file.suffix == ".safetensors":
        return f"{file.name} is not a whole safetensors file ({_reason(error)}); fetch it again"
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, UnpicklingError) and wanted:
        return (
            f"{file.name} holds {wanted[1]} besides tensors, not unpacked because it could run code; "
            "expected a state dict: if you trust the file, save its weights alone as .safetensors"
        )
    reason = _reason(error)
    with file.open("rb") as opened:  # a checkpoint of torch is a zip archive or, of old, a pickle
        start = opened.read(2)
    if start == b"PK" and not zipfile.is_zipfile(file):
        reason = "it ends too early"
    elif start != b"PK" and start[:1] not in (b"", b"\x80"):
        reason = "its first bytes are not those of a checkpoint"
    return (
        f"{file.name} is not a whole torch checkpoint ({reason}); fetch it again, or name the .pth or .safetensors "
        "file that holds the weights"
    )


def _reason(error: Exception) -> str:
    """The first sentence of a library's error that speaks of the file."""
    if isinstance(error, LookupError | TypeError | AttributeError | OSError):  # those speak of the library's own doings
        return "its content makes no sense as one"
    return one_line(error).partition(".")[0] if str(error) else "it ends too early"
