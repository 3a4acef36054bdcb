"""WAV, Ogg and MP3 files before they are decoded: libsndfile reads some damaged ones without an error.

Goal: say what is missing, and let files through that were written to a pipe and could not know their length.
Conventions: pure functions on the bytes of whole files; other formats pass.
"""

import zlib

STREAMED = 0x7FFFF000  # writers that cannot go back put this or more as the length of the data
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed


def whole(data: bytes) -> bytes:
    """The bytes as libsndfile should see them. Raises ValueError with the reason if empty or damaged.

    Not seen: the truncation of a WAV of 2 GB or more (its length may mean "unknown") and of an Ogg file cut
    exactly between two pages.
    """
    if not data:
        raise ValueError("empty: 0 bytes")
    if data[:4] == b"OggS":
        _check_ogg_pages(data)
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _whole_wav(data)
    return data


def counts_its_frames(mp3: bytes) -> bool:
    """Whether an MP3 says by a Xing, Info or VBRI header how many frames it has; else that is an estimate."""
    tags = 0
    if mp3[:3] == b"ID3":  # ten bytes, then as many as four bytes of seven bits say
        tags = 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(mp3[6:10]))
    return any(mark in mp3[tags : tags + 2048] for mark in (b"Xing", b"Info", b"VBRI"))


def undecodable(data: bytes, message: str) -> str:
    """Why bytes do not decode; libsndfile's own message is kept where it says more than the format does."""
    if data[:4] == b"fLaC":
        return "truncated or damaged FLAC"
    layered = data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE0 == 0xE0 and data[1] & 6  # no layer: it is AAC
    if data[:3] == b"ID3" or layered:
        return "truncated or damaged MP3"
    wave = data[:4] in (b"RIFF", b"RIFX", b"RF64") and (len(data) < 12 or data[8:12] == b"WAVE")
    if wave or data[:4] == b"OggS":
        kind = "WAV" if wave else "Ogg"  # both can hold codings that libsndfile does not know
        return f"truncated or damaged {kind}, or one in a coding that cannot be read: {message}"
    return f"does not decode: {message}"


def _check_ogg_pages(data: bytes) -> None:
    """Walk an Ogg file from page to page; what follows the last (tags of other programs) is not looked at.

    A page: "OggS", 18 bytes, its checksum, how many lengths, these lengths, as many bytes as they add up to.
    """
    at = 0
    while (found := data.find(b"OggS", at)) >= 0:
        body = at + 27 + (data[at + 26] if at + 26 < len(data) else 255)
        end = body + sum(data[at + 27 : body])
        if found == at and end > len(data):
            raise ValueError("truncated: the last Ogg page is not complete")
        page = data[at : at + 22] + bytes(4) + data[at + 26 : end]
        if found > at or _ogg_checksum(page) != int.from_bytes(data[at + 22 : at + 26], "little"):
            raise ValueError(f"damaged: the Ogg page at byte {at} does not agree with its checksum")
        at = end


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of polynomial 0x04C11DB7, from 0, highest bit first: zlib's with all bits reversed."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _whole_wav(data: bytes) -> bytes:
    """A WAV whose data is all there; a length of 0 from a pipe becomes the one that means "unknown"."""
    at, frame_bytes, long_size = 12, 1, None
    while at + 8 <= len(data) and data[at : at + 4] != b"data":
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"fmt ":
            frame_bytes = max(1, int.from_bytes(data[at + 20 : at + 22], "little"))
        elif data[at : at + 4] == b"ds64":
            long_size = int.from_bytes(data[at + 16 : at + 24], "little")
        at += 8 + size + size % 2
    if at + 8 > len(data):
        return data  # no data chunk: libsndfile says so
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    here = len(data) - at - 8
    whole_file = int.from_bytes(data[4:8], "little")
    if size == 0 and here and (whole_file >= STREAMED or whole_file <= at):
        return data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :]
    if long_size is not None and size == 0xFFFFFFFF:
        size = long_size
    elif size >= STREAMED:
        return data
    if here // frame_bytes < size // frame_bytes:
        missing = size // frame_bytes - here // frame_bytes
        raise ValueError(f"truncated: {missing} of {size // frame_bytes} frames are missing")
    return data
