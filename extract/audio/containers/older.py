"""Containers that few use: how many samples each one's header counts, or leaves to the file's length.

Goal: whatever libsndfile opens beside the common kinds is counted too.
Conventions: each function takes a whole file and gives its one stream; big-endian unless a name or the file says so.
Source: the formats' own descriptions, as far as libsndfile writes them.
"""

import re
from collections.abc import Callable

from .chunks import Order
from .stream import MAX_PARTS, Stream, check_present
from .tags import behind_tags, check_end


def _all_from(begin: int) -> Callable[[bytes], Stream]:
    """A header of fixed length without a count."""
    return lambda data: Stream(data=data, n_bytes=max(0, len(data) - begin))


def _counted(at: int, begin: int, order: Order = "big") -> Callable[[bytes], Stream]:
    """A count of frames at a place of the header, and where that ends."""
    return lambda data: Stream(
        data=data, n_frames=int.from_bytes(data[at : at + 4], order), n_bytes=max(0, len(data) - begin)
    )


def _samples(data: bytes, begin: int, size: int, *, last: bool = True) -> Stream:
    """So many bytes of samples from a place on. last: only tags may follow."""
    check_present(size, max(0, len(data) - begin))
    if last and behind_tags(data, begin + size) < len(data):
        raise ValueError(
            f"damaged: {len(data) - begin - size} bytes follow the {size} of samples that its header tells of"
        )
    return Stream(data=data, n_bytes=size)


def _au(data: bytes) -> Stream:
    begin, size = (int.from_bytes(data[i : i + 4], "big" if data[:1] == b"." else "little") for i in (4, 8))
    return _samples(data, begin, size if size != 0xFFFFFFFF else max(0, len(data) - begin))


def _caf(data: bytes) -> Stream:
    at, frames, each, stream = 8, None, 0, Stream(data=data)
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            break
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 12], "big", signed=True)
        if name == b"desc":
            each = int.from_bytes(data[at + 32 : at + 36], "big")
        elif name == b"pakt":  # packets, frames of them that count, that come before them, and that are left
            packets, frames = (int.from_bytes(data[i : i + 8], "big") for i in (at + 12, at + 20))
            others = sum(int.from_bytes(data[i : i + 4], "big") for i in (at + 28, at + 32))
            if packets * each != frames + others:
                raise ValueError(
                    f"damaged: {frames} frames and {others} others are not the {packets} packets of {each}"
                )
        elif name == b"data":
            size = len(data) - at - 12 if size == -1 else size
            stream = _samples(data, at + 16, size - 4, last=False)
        if size < 0 or at + 12 + size > len(data):
            break
        at += 12 + size
    check_end(data, at, "a chunk")
    return Stream(data=data, n_frames=frames) if frames is not None else stream


def _nist(data: bytes) -> Stream:
    head = data[:1024].decode("ascii", "replace")
    count = re.search(r"sample_count -i (\d+)", head)
    size = re.match(r"NIST_1A\n *(\d+)\n", head)
    if not count or not size:
        return Stream(data=data)
    return Stream(data=data, n_frames=int(count[1]), n_bytes=max(0, len(data) - int(size[1])))


def _paf(data: bytes) -> Stream:
    order: Order = "little" if data[:1] == b"f" else "big"
    kind, channels = (int.from_bytes(data[i : i + 4], order) for i in (16, 20))
    size = max(0, len(data) - 2048)
    if kind == 1:  # ten samples of 24 bits, and two bytes
        return Stream(data=data, n_frames=size // (32 * max(1, channels)) * 10)
    return Stream(data=data, n_bytes=size)


def _pvf(data: bytes) -> Stream:
    head = re.match(rb"PVF1\n[^\n]*\n", data)
    return Stream(data=data, n_bytes=len(data) - head.end()) if head else Stream(data=data)


def _voc(data: bytes) -> Stream:
    at, sounds, stream = int.from_bytes(data[20:22], "little"), 0, Stream(data=data)
    for _ in range(MAX_PARTS):
        if at + 4 > len(data) or not data[at]:
            break
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        if kind in (1, 2, 9):
            head = {1: 2, 2: 0, 9: 12}[kind]
            sounds, stream = sounds + 1, _samples(data, at + 4 + head, size - head, last=False)
        at += 4 + size
    check_end(data, min(at + 1, len(data)), "a block")  # behind the byte that ends them
    if sounds > 1:
        raise ValueError("VOC of several blocks of sound, which is not read; convert it: ffmpeg -i IN OUT.flac")
    return stream


def _mat4(data: bytes) -> Stream:
    order: Order = "little" if data[:4] == bytes(4) else "big"
    at = 20 + int.from_bytes(data[16:20], order) + 8  # behind the matrix that holds the rate
    return _counted(at + 8, at + 20 + int.from_bytes(data[at + 16 : at + 20], order), order)(data)


def _mat5(data: bytes) -> Stream:
    order: Order = "little" if data[126:128] == b"IM" else "big"
    at = 136 + int.from_bytes(data[132:136], order)  # behind the matrix that holds the rate
    name = int.from_bytes(data[at + 44 : at + 48], order)
    return _counted(at + 36, at + 48 + name + -name % 8 + 8, order)(data)


def _sds(data: bytes) -> Stream:
    low, middle, high = data[10:13]
    frames, each = low | middle << 7 | high << 14, 120 // -(-data[6] // 7)
    held = (len(data) - 21) // 127 * each
    check_present(frames, held)
    if held - frames >= each:
        raise ValueError(f"damaged: the header says {frames} frames, and there are packets for {held}")
    return Stream(data=data, n_frames=frames)


def _wve(data: bytes) -> Stream:
    return _samples(data, 32, int.from_bytes(data[18:22], "big"))


def _xi(data: bytes) -> Stream:
    return _samples(data, 338, int.from_bytes(data[298:302], "little") or max(0, len(data) - 338))


OLDER: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Stream]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), function)
    for pattern, function in (
        (rb"\.snd|dns\.", _au),
        (rb"caff", _caf),
        (rb"NIST_1A", _nist),
        (rb" paf|fap ", _paf),
        (rb"PVF1", _pvf),
        (rb"Creative Voice File", _voc),
        (rb"ALawSoundFile", _wve),
        (rb"Extended Instrument", _xi),
        (rb"2BIT.{22}", _counted(26, 128)),
        (rb"\xf0\x7e.\x01.{9}", _sds),
        (rb"\x01\x04.{40}", _counted(30, 42, "little")),
        (rb"[\x00\x64]\xa3.{2}|.{2}\xa3[\x00\x64]", _all_from(1024)),
        (rb"MATLAB 5\.0.{130}", _mat5),
        (rb"\x00\x00.{2}\x00\x00\x00\x01\x00\x00\x00\x01\x00{4}|\x00{4}\x01\x00\x00\x00\x01\x00{7}", _mat4),
        (rb".{8}\x00\x02\x00\x00", _counted(0, 12)),
    )
)
