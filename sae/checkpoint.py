"""Checkpoint: all that the rest of a training depends on, in one file that is there whole or not at all.

Goal: a training that was killed at any instant, and is begun again, ends in the bytes of one that never was; writing
goes on beside the next epoch.
Conventions: tensors and a JSON document in one file of safetensors. `belongs` says which training it is of; where it
differs in anything, the file is refused, naming what. A checksum of the tensors finds bytes that are not those written.
"""

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..documents import parse_json
from ..files import whole_file

ABOUT = "otoscope"


class Checkpoints:
    """Writes each checkpoint in the place of the one before, in a thread; a context that waits for the last one.

    What cannot be written is raised by the call after it, or at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: dict[str, Tensor] = {}  # from epoch to epoch: fresh memory costs as much as copying into it
        self._writer, self._writing = ThreadPoolExecutor(1, thread_name_prefix="checkpoint"), Future[None]()
        self._writing.set_result(None)

    def put(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write what tensors are now, whatever becomes of them. Raises OSError where the one before was not written."""
        self._writing.result()
        for name, value in tensors.items():
            self._held.setdefault(name, torch.empty_like(value, device="cpu")).copy_(value)
        held = {name: self._held[name] for name in tensors}
        self._writing = self._writer.submit(write_training, self.path, held, about)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._writer.shutdown()
        if kind is None:
            self._writing.result()


def write_training(path: Path, held: dict[str, Tensor], about: Mapping[str, Any]) -> None:
    """Put a checkpoint in the place of the one before. Raises OSError where it cannot be written.

    held: on the CPU, contiguous.
    """
    try:
        with whole_file(path) as partial:
            document = {**about, "checksum": _checksum(held)}
            safetensors.torch.save_file(held, partial, {ABOUT: json.dumps(document, sort_keys=True)})
    except safetensors.SafetensorError as error:  # what the library makes of a full disk
        raise OSError(f"{path.name} cannot be written: {error}") from error


def read_training(path: Path, belongs: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and document of a checkpoint. Raises ValueError where it is damaged, or of another training."""
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = parse_json((opened.metadata() or {}).get(ABOUT, "").encode())
        theirs = about["belongs"]
        if about["checksum"] != _checksum(tensors):
            raise ValueError("its tensors are not those that were written")
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint of a training; expected one: delete it to begin anew"
        ) from error
    if differing := [name for name, value in belongs.items() if theirs.get(name) != value]:
        raise ValueError(
            f"checkpoint {path} is of another training: {', '.join(differing)} differ; expected the same: go on with "
            "what it was begun with, or delete it to begin anew"
        )
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32C of all bytes, by name."""
    checksum = 0
    for name, value in sorted(tensors.items()):
        data = value.reshape(-1).view(torch.uint8).numpy()
        checksum = google_crc32c.extend(google_crc32c.extend(checksum, name.encode()), data)
    return checksum
