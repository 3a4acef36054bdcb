"""FLAC: the frames that STREAMINFO counts, against the number that its last frame bears.

Goal: a FLAC whose count is 0, because it was written to a pipe, gets the count; one whose frames say otherwise is
refused; several behind one another are all read.
Conventions: `frame` here is FLAC's own, a header and a block of samples; what others call frames are samples.
Source: RFC 9639, sections 8.2 and 9.1.
"""

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from .stream import MAX_PARTS, Stream
from .tags import behind_tags

MARK = re.compile(rb"fLaC[\x00\x80]\0\0\x22")
MAX_TRIED = 16  # places that look like a frame's header, from the end
MAX_LAST_BYTES = 1 << 21  # from the end, in which the last frame begins
MAX_ENDS = 1000  # places where a frame's checksum fits; by chance one in 65,536 bytes does


def _crc_table(polynomial: int, bits: int) -> list[int]:
    table = list[int]()
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return table


CRC8, CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)


class Frame(NamedTuple):
    """A frame's place in the file, and the numbers of its first sample and of the first behind it."""

    start: int
    first_sample: int
    end_sample: int


def flac_streams(data: bytes) -> list[Stream]:
    """The streams of a FLAC. Raises ValueError where one's count and frames disagree."""
    if len(data) < 42:
        raise ValueError("truncated or damaged FLAC: its header is not complete")
    streams, at = list[Stream](), 0
    while at < len(data):
        begin = _behind_metadata(data, at)
        following = MARK.search(data, begin)
        end = following.start() if following else len(data)
        streams.append(_stream(data[at:end], begin - at))
        at = end
    return streams


def _behind_metadata(data: bytes, at: int) -> int:
    """Where the first frame begins."""
    at += 4
    for _ in range(MAX_PARTS):
        last, size = data[at] & 0x80, int.from_bytes(data[at + 1 : at + 4], "big")
        at += 4 + size
        if last:
            break
    return at


def _stream(data: bytes, begin: int) -> Stream:
    """One stream with its count. begin: where its first frame does."""
    total = int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF
    # Where all frames but the last are of one size, the first tells it.
    head = _frame(data, begin, 0)
    block = head.end_sample if head else 0
    for frame in islice(_frames_from_the_end(data, begin, block), MAX_TRIED):
        if _is_last(data, frame.start):
            _check_between(data, begin, block, frame)
            if frame.end_sample == total:
                return Stream(data=data, n_frames=total)
            if total:
                raise ValueError(f"damaged: the header says {total} frames, and the last ends at {frame.end_sample}")
            count = (data[21] & 0xF0) << 32 | frame.end_sample
            return Stream(data=data[:21] + count.to_bytes(5, "big") + data[26:], n_frames=frame.end_sample)
    if begin >= len(data) and not total:
        raise ValueError("no samples: 0 frames")
    raise ValueError(
        "truncated or damaged FLAC: its last frame is not there or not complete, or something follows that is no tag"
    )


def _frames_from_the_end(data: bytes, begin: int, block: int) -> Iterator[Frame]:
    """What looks like a frame, the last first. block: samples of each but the last, where all are alike."""
    sync, at = data[begin : begin + 2], len(data)
    begin = max(begin, len(data) - MAX_LAST_BYTES)
    while sync in (b"\xff\xf8", b"\xff\xf9") and (at := data.rfind(sync, begin, at + 1)) >= 0:
        if (frame := _frame(data, at, block)) is not None:
            yield frame


def _check_between(data: bytes, begin: int, block: int, last: Frame) -> None:
    """Raise ValueError where frames before the last are missing, there twice or out of order."""
    sync, at = data[begin : begin + 2], begin
    ends = deque([0], maxlen=16)  # not one alone, since what looks like a frame may be none
    heads = deque[bytes](maxlen=16)
    while (at := data.find(sync, at, last.start)) >= 0:
        frame = _frame(data, at, block)
        if frame is not None and frame.first_sample in ends:
            ends.append(frame.end_sample)
            heads.append(data[at : at + 16])
            if heads.count(heads[-1]) > 1:
                raise ValueError(f"damaged: the FLAC frame that begins at sample {frame.first_sample} is there twice")
        at += 1
    if last.first_sample not in ends:
        raise ValueError(f"damaged: the FLAC frame that begins at sample {ends[-1]} is missing")


def _frame(data: bytes, start: int, block: int) -> Frame | None:
    """The frame that begins at a position, None where none does. block: as in `_frames_from_the_end`."""
    head = data[start : start + 16]
    if len(head) < 6:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if not size_code or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    # The number is coded as UTF-8 codes characters, in up to 7 bytes.
    n = 8 - (head[4] ^ 0xFF).bit_length()
    number, at = head[4] & (0x7F >> n), 5
    if n == 1 or n == 8:
        return None
    for byte in head[5 : 4 + max(n, 1)]:
        if byte >> 6 != 2:
            return None
        number, at = number << 6 | byte & 63, at + 1
    wide = {6: 1, 7: 2}.get(size_code, 0)
    if wide:
        size = int.from_bytes(head[at : at + wide], "big") + 1
    else:
        size = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
    at += wide + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc = 0
    for byte in head[: at + 1]:
        crc = CRC8[crc ^ byte]
    if crc or at >= len(head):
        return None
    first = number if head[1] & 1 else number * block
    return Frame(start, first, first + size)


def _is_last(data: bytes, at: int) -> bool:
    """Whether a frame that begins at a position ends, by its checksum, where the stream does or its tags begin."""
    crc, ends = 0, 0
    for i in range(at, min(len(data), at + MAX_LAST_BYTES)):
        before, crc = crc, (crc << 8 & 0xFFFF) ^ CRC16[crc >> 8 ^ data[i]]
        if crc or not before:  # zeros behind the frame leave it at 0
            continue
        if behind_tags(data, i + 1) == len(data) or not data[i + 1 :].strip(b"\0"):
            return True
        if (ends := ends + 1) == MAX_ENDS:
            break
    return False
