"""Stream: bytes that the decoder reads as one piece, and how many samples they hold by the container's own count."""

import io
from dataclasses import dataclass
from typing import Any

from .tags import behind_tags


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One piece of audio of a file; a concatenation or a chain has several, in their order.

    A container has one of the counts or both. Without any, nothing says that the decoder gave all.
    """

    data: bytes
    """What the decoder is given: without tags, and with a header that says what there is."""
    n_frames: int | None = None
    """Samples per channel."""
    n_bytes: int | None = None
    """Bytes of samples of fixed size, where the header counts those; with `n_frames`, all that is behind the header."""
    rate: int | None = None
    """The rate in Hz that `n_frames` counts at, if that may not be the decoder's."""
    padding: int = 0
    """Frames beyond `n_frames` that the decoder may find: the coding fills its last block, or it estimates them."""
    unwritten: int = 0
    """Zeros behind the data, where the decoder estimates by its length how many frames to give at most."""

    def file(self) -> "_File":
        """A file for the decoder."""
        return _File(self.data, self.unwritten)


class _File(io.BytesIO):
    """A file with zeros behind it that are nowhere in memory, in which one may ask for what lies before its begin."""

    def __init__(self, data: bytes, n_zeros: int) -> None:
        super().__init__(data)
        self.n_zeros, self.length = n_zeros, len(data) + n_zeros

    def seek(self, offset: int, whence: int = 0) -> int:
        origin = (0, self.tell(), self.length)[whence]
        return super().seek(max(0, origin + offset))  # a damaged header leads to places below 0

    def readinto(self, buffer: Any) -> int:
        n = super().readinto(buffer)
        if self.n_zeros and n < len(buffer):
            zeros = bytes(min(len(buffer) - n, max(0, self.length - self.tell())))
            memoryview(buffer)[n : n + len(zeros)] = zeros
            self.seek(len(zeros), io.SEEK_CUR)
            n += len(zeros)
        return n


MAX_PARTS = 1 << 16
"""Chunks, blocks or marks of one file that are looked at: no audio has more, and a file that has is left there."""

BITS = {
    "PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64, "ULAW": 8,
    "ALAW": 8, "DPCM_8": 8, "DPCM_16": 16, "G721_32": 4, "G723_24": 3, "G723_40": 5,
}  # fmt: skip
"""Of a sample, by libsndfile's name of its coding."""


def expected_frames(stream: Stream, rate: int, channels: int, coding: str) -> int | None:
    """Samples per channel at the decoder's rate, None where the container does not count them.

    Raises ValueError where the header counts others than there are bytes for.
    """
    frames, size = stream.n_frames, stream.n_bytes
    if size is not None and coding in BITS:
        held = size * 8 // (BITS[coding] * channels)
        if frames is None:
            return held
        check_present(frames, held)
        end = len(stream.data) - size + frames * channels * BITS[coding] // 8
        if behind_tags(stream.data, end) < len(stream.data):
            raise ValueError(f"damaged: the header says {frames} frames, and there are bytes for {held}")
    if frames is None or stream.rate is None:
        return frames
    return frames * rate // stream.rate


def check_present(expected: int, found: int) -> None:
    """Raise ValueError where fewer frames are in a file than its header says."""
    if found < expected:
        raise ValueError(f"truncated: {expected - found} of {expected} frames are missing")
