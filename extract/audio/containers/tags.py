"""Tags that programs put before, between and behind audio: ID3, APE, Lyrics3, and zeros that fill up.

Goal: whatever lies there changes no sample.
Conventions: positions are in bytes.
"""

import re

MAX_ZEROS = 4096  # that fill up to the end of a disk's block; more may be audio that was never written
MAX_TAGS = 100  # one behind the other
_ZEROS = re.compile(rb"\0*")
_AUDIO = re.compile(rb"RIFF|RIFX|RF64|BW64|FORM|fLaC|OggS|ID3|TAG|APETAGEX|\xff[\xe2-\xff]|caff|\.snd|riff|\Z")


def behind_tags(data: bytes, at: int) -> int:
    """Where the tags end that begin at a position; the position itself where none does."""
    for _ in range(MAX_TAGS):
        if (end := _behind_tag(data, at)) == at:
            break
        at = end
    return at


def check_end(data: bytes, at: int, other: str) -> None:
    """Raise ValueError where something else than tags follows from a position on. other: what else it might be."""
    if behind_tags(data, at) < len(data):
        raise ValueError(f"damaged: neither {other} nor a tag at byte {at}")


def _behind_tag(data: bytes, at: int) -> int:
    begin = data[at : at + 11]
    if begin[:3] == b"ID3" and len(begin) > 9:
        return _behind_id3v2(data, at)
    if begin[:3] == b"TAG":
        end = at + (227 if begin[3:4] == b"+" else 128)
    elif begin[:8] == b"APETAGEX" and data[at + 23 : at + 24] > b"\x9f":  # a header, with its footer to come
        end = at + 32 + _little(data, at + 12)
    elif begin == b"LYRICSBEGIN" and (found := re.compile(rb"LYRICS200|LYRICSEND").search(data, at)):
        end = found.end()
    elif begin[:1] == b"\0":
        end = _behind_zeros(data, at)
        end = end if end - at <= MAX_ZEROS and _AUDIO.match(data, end) else at
    else:  # APE without a header: its footer says where it begins
        footer = data.find(b"APETAGEX", at, at + (1 << 20))
        end = footer + 32 if footer >= 0 and footer + 32 - _little(data, footer + 12) == at else at
    return end if end <= len(data) else at


def _behind_id3v2(data: bytes, at: int) -> int:
    """The end of a tag whose size some writers give in bytes of eight bits instead of seven."""
    sizes = data[at + 6 : at + 10]
    footer = 10 if data[at + 5] & 16 else 0
    seven = at + 10 + footer + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(sizes))
    eight = at + 10 + footer + int.from_bytes(sizes, "big")
    ends = [end for end in (seven, eight) if end <= len(data)]
    likely = [_behind_zeros(data, end) for end in ends]  # padding that the size does not count
    return next((end for end in likely if _AUDIO.match(data, end)), ends[0] if ends else len(data))


def _behind_zeros(data: bytes, at: int) -> int:
    found = _ZEROS.match(data, at)
    return found.end() if found else at


def _little(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
