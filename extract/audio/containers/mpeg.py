"""MP3 and its older layers: frames are walked and counted, since a header that counts them is there or not.

Goal: as many samples as frames hold, less the encoder's delay and padding where a LAME tag tells them.
Conventions: a count header is a frame without sound that begins a stream: Xing, Info or VBRI.
Source: ISO/IEC 11172-3, 2.4.2.3, and 13818-3.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

from .stream import MAX_PARTS, Stream, check_present
from .tags import behind_tags

KBPS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by (MPEG-1, layer)."""
HERTZ = (44_100, 48_000, 32_000)
DECODER_DELAY = 529  # samples, of any layer III decoder: what LAME's padding and delay do not count
COUNTS = (b"Xing", b"Info", b"VBRI")
MAX_FREE_BYTES = 4096
MAX_FRAMES = 1 << 22  # of one file, 30 hours at 44.1 kHz: walking them takes seconds
_word = struct.Struct(">I").unpack_from


class Header(NamedTuple):
    """What four bytes say of their frame."""

    kind: int
    """The bits that are alike in all frames of a stream, and whether there is one channel."""
    n_bytes: int
    """Of the whole frame; 0 where the bit rate is free."""
    padding: int
    """Bytes of them that fill up."""
    n_samples: int
    layer: int
    is_mpeg1: bool


@lru_cache(1 << 12)
def header(word: int) -> Header | None:
    """The header that a word of 32 bits is, or None."""
    version, layer, bitrate, rate = word >> 19 & 3, 4 - (word >> 17 & 3), word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or bitrate == 15 or rate == 3:
        return None
    mpeg1, padding = version == 3, (word >> 9 & 1) * (4 if layer == 1 else 1)
    hertz, bits = HERTZ[rate] >> (0, 0, 1, 2)[(3, 1, 2, 0).index(version)], 1000 * KBPS[mpeg1, layer][bitrate]
    n_samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    n_bytes = padding + (12 * bits // hertz * 4 if layer == 1 else n_samples // 8 * bits // hertz)
    kind = word & 0xFFFE0C00 | (word >> 6 & 3 == 3)
    return Header(kind, n_bytes if bits else 0, padding, n_samples, layer, mpeg1)


class Run:
    """Frames of one stream: where they lie, how many there are, and the count header before them."""

    def __init__(self, data: bytes, at: int, first: Header, counter: int | None):
        """counter: where the mark of the count header at `at` is, None without one."""
        self.data, self.first, self.counter, self.n_frames = data, first, counter, 0
        self.pieces: list[tuple[int, int]] = []

    def stream(self) -> Stream:
        """The frames as the decoder should see them. Raises ValueError where the count header knows of more."""
        data, n, each, mark = self.data, self.n_frames, self.first.n_samples, self.counter
        claimed, n_bytes, trimmed = (0, 0, 0) if mark is None else _counted(data, mark)
        frames = b"".join(data[a:b] for a, b in self.pieces)
        # Some count the header itself: then the bytes that it counts are here.
        if claimed > n + 1 or (claimed > n and n_bytes > len(frames)):
            check_present(claimed, n)
        if mark is not None and claimed >= n and trimmed:  # without a LAME tag the decoder trims what nobody added
            if claimed > n:
                at = mark - self.pieces[0][0] + 8
                frames = frames[:at] + n.to_bytes(4, "big") + frames[at + 4 :]
            return Stream(data=frames, n_frames=n * each - trimmed)
        if mark is not None:
            frames = frames[self.first.n_bytes :]
        return Stream(data=frames, n_frames=n * each, padding=1 << 62, unwritten=self._unwritten(frames))

    def _unwritten(self, frames: bytes) -> int:
        """By how much a file without a count header is too short for the decoder to expect all frames.

        It divides the length by the first frame's, and gives no more than that.
        """
        if not frames:
            return 0
        first = header(_word(frames, 0)[0])
        assert first is not None
        size = first.n_bytes or _free_bytes(frames, 0, first)
        return max(0, (self.n_frames + 2) * (size + first.padding + 4) - len(frames))


def begins_mpeg(data: bytes, at: int) -> bool:
    """Whether a frame begins at a position, and another behind it or the file ends there."""
    if at + 4 > len(data) or (first := header(_word(data, at)[0])) is None:
        return False
    behind = at + (first.n_bytes or _free_bytes(data, at, first) + first.padding)
    if behind + 4 > len(data):
        return behind > at
    second = header(_word(data, behind)[0])
    return (second is not None and second.kind == first.kind) or behind_tags(data, behind) > behind


def mpeg_streams(data: bytes, at: int = 0) -> list[Stream]:
    """The streams of an MP3: one, or for each count header one.

    Raises ValueError where a frame is cut, where a header counts more of them, where there is something between them
    that is no tag, and where rate or channels change.
    """
    counters = _counters(data)
    runs: list[Run] = []
    begin, free, length = at, 0, len(data)
    for _ in range(MAX_FRAMES):
        frame = header(_word(data, at)[0]) if at + 4 <= length else None
        if frame is None or (runs and frame.kind != runs[-1].first.kind and at not in counters):
            if runs and begin < at:
                runs[-1].pieces.append((begin, at))
            if at == length:
                break
            begin = behind_tags(data, at)
            if begin == at:
                raise ValueError(_fault(data, at, bool(frame), bool(runs)))
            at = begin
            continue
        if not runs or at in counters:
            if runs and begin < at:
                runs[-1].pieces.append((begin, at))
            runs.append(Run(data, at, frame, counters.get(at)))
            begin, free = at, 0
            runs[-1].n_frames -= at in counters
        runs[-1].n_frames += 1
        size = frame.n_bytes
        if not size:
            free, padding = free or _free_bytes(data, at, frame), frame.padding
            size = free and free + padding
        at += size
        if at > length or not size:
            raise ValueError("truncated: the last MPEG frame is not complete")
    else:
        raise ValueError(f"too long: more than {MAX_FRAMES} MPEG frames; expected fewer: cut the file")
    if len({run.first.kind for run in runs}) > 1:
        raise ValueError("its parts differ in rate, channels or layer; expected one of each: convert it to FLAC")
    return [run.stream() for run in runs]


def _counters(data: bytes) -> dict[int, int]:
    """Where count headers begin, and where their marks are."""
    found = {}
    for name in COUNTS:
        mark = -1
        for _ in range(MAX_PARTS):
            if (mark := data.find(name, mark + 1)) < 0:
                break
            for side in (36,) if name == b"VBRI" else (36, 21, 13):
                at = mark - side
                frame = header(_word(data, at)[0]) if at >= 0 else None
                if frame and frame.layer == 3 and (name == b"VBRI" or side == _side_bytes(frame)):
                    found[at] = mark
        else:
            raise ValueError("damaged: more count headers than audio")
    return found


def _side_bytes(frame: Header) -> int:
    """Where a count header's mark is: behind the header and the side information."""
    return 4 + ((17 if frame.kind & 1 else 32) if frame.is_mpeg1 else (9 if frame.kind & 1 else 17))


def _counted(data: bytes, mark: int) -> tuple[int, int, int]:
    """What a count header says, 0 for nothing: frames, their bytes, and samples that do not count, by a LAME tag."""
    flags, frames, n_bytes = (int.from_bytes(data[mark + i : mark + i + 4], "big") for i in (4, 8, 12))
    if data[mark : mark + 4] == b"VBRI":
        return int.from_bytes(data[mark + 14 : mark + 18], "big"), 0, 0
    if not flags & 1:
        return 0, 0, 0
    lame = mark + 12 + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    both = int.from_bytes(data[lame + 21 : lame + 24], "big")
    trimmed = (both >> 12) + DECODER_DELAY + max(0, (both & 4095) - DECODER_DELAY)
    return frames, n_bytes if flags & 2 else 0, trimmed if any(data[lame : lame + 1]) else 0


def _free_bytes(data: bytes, at: int, first: Header) -> int:
    """Bytes of a frame of a free bit rate, less what fills it up: as far as the next such header; 0 where is none."""
    behind = at + 20
    while (behind := data.find(data[at : at + 2], behind + 1, at + MAX_FREE_BYTES)) >= 0 and behind + 4 <= len(data):
        frame = header(_word(data, behind)[0])
        if frame and frame.kind == first.kind and not frame.n_bytes:
            return behind - at - first.padding
    return 0


def _fault(data: bytes, at: int, is_frame: bool, begun: bool) -> str:
    if not begun:
        return "truncated or damaged MP3"
    if is_frame:
        return f"damaged: rate, channels or layer change at byte {at}; expected one of each: convert it to FLAC"
    return f"damaged: neither an MPEG frame nor a tag at byte {at}"
