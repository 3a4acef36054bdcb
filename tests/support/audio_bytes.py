"""Audio in memory, and what reading it gives: shared by the tests of good and of bad files."""

import io
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import BadAudio, read_clip

RNG = np.random.default_rng(0)


def music(rate: int, seconds: float) -> np.ndarray:
    """Something that changes all the time, so that samples from another place are noticed."""
    drift = np.cumsum(RNG.standard_normal(round(rate * seconds)))
    return 0.4 * np.sin(drift / 20)


def encoded(samples: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def read(folder: Path, data: bytes, rate: int = 16_000, **times: float) -> np.ndarray:
    (folder / "clip").write_bytes(data)
    return read_clip(folder, Clip(name="clip", path="clip", **times), rate).samples


def reason(folder: Path, data: bytes, rate: int = 16_000, **times: float) -> str:
    with pytest.raises(BadAudio) as error:
        read(folder, data, rate, **times)
    message = str(error.value)
    assert error.value.digest == int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
    assert "\n" not in message
    assert str(folder) not in message
    assert " at 0x" not in message  # reasons are stored: the same bytes give the same text
    return message
