"""An encoder file for runs that are to go wrong: that of closed_form.py, beside which this one is copied.

Conventions: what it does is told by files beside it, so that workers in other processes can be told while they run:
`seconds` that a batch takes, also one that is under way; `workers`, how many must have begun a batch before any of them
goes on; `room`, the bytes that a file may have as on a disk that is full; `unreadable/NAME`, how often the audio file
NAME cannot be read; `short_timeouts`, where requests are to fail soon. It notes each batch in `batches.log`: CRC-32 of
its waveforms, process. The first process there only looks at the encoder, or is alone; it waits for nobody.
"""

import ctypes
import errno
import importlib.util
import os
import resource
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

FOLDER = Path(__file__).parent
CRASH = 0.5  # a clip that begins with this sample kills the process


@cache
def copied() -> Any:
    """The copy of closed_form.py."""
    spec = importlib.util.spec_from_file_location("copied_closed_form", FOLDER / "closed_form.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(waveforms: Tensor) -> Tensor:
    """(clip, sample) -> (clip, frame, HOP)"""
    limit_files(None)
    with (FOLDER / "batches.log").open("a") as file:
        file.write(f"{zlib.crc32(waveforms.contiguous().numpy().tobytes())} {os.getpid()}\n")
    if (waveforms[:, 0] == CRASH).any():
        ctypes.string_at(0)
    while os.getpid() != (begun := processes())[0] and len(set(begun)) <= number_in("workers"):
        time.sleep(0.02)
    began = time.monotonic()
    while time.monotonic() - began < number_in("seconds"):
        time.sleep(0.02)
    limit_files(FOLDER / "room")
    frames: Tensor = copied().in_frames(waveforms)
    return frames


def number_in(name: str) -> float:
    """The number in a file, or 0 where it is not there."""
    path = FOLDER / name
    return float(path.read_text()) if path.exists() else 0.0


def processes() -> list[int]:
    """The process of each batch so far."""
    return [int(line.split()[1]) for line in (FOLDER / "batches.log").read_text().splitlines()]


def limit_files(room: Path | None) -> None:
    """Let no file of this process grow beyond the bytes written in `room`, if it is there."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    soft = int(room.read_text()) if room is not None and room.exists() else hard
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail_to_read() -> None:
    """Let audio files of this process' folders be unreadable as told."""
    from otoscope.extract.audio.audio_root import Folder

    whole = Folder.read

    def read(self: Folder, path: str, max_bytes: int | None = None) -> bytes:
        failures = FOLDER / "unreadable" / Path(path).name
        if failures.exists() and (left := int(failures.read_text())):
            failures.write_text(str(left - 1))
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, path, max_bytes)

    Folder.read = read  # type: ignore[method-assign]


def shorten_timeouts() -> None:
    """Give requests up soon, so that a failure that lasts does not last for the tests."""
    from otoscope.store import location

    location.CLIENT_OPTIONS["read_timeout"], location.RETRY_CONFIG["max_retries"] = "1s", 3
    location._connect.cache_clear()


def slow() -> Any:
    """The encoder."""
    if (FOLDER / "unreadable").exists():
        fail_to_read()
    if (FOLDER / "short_timeouts").exists():
        shorten_timeouts()
    return copied().closed_form(prepare=prepare)
