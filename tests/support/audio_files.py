"""Audio files made by hand, where soundfile writes none of their kind: tags, streamed headers, chains, count headers.

Conventions: every function takes and gives whole files as bytes, and changes no sample.
"""

import struct
import zlib
from collections.abc import Iterator

MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def seven_bits(n: int) -> bytes:
    return bytes(n >> shift & 127 for shift in (21, 14, 7, 0))


def id3v2(n: int = 300, *, footer: bool = False, plain: bool = False) -> bytes:
    """A tag with n bytes of frames; plain: with its size in bytes of eight bits, as some writers have it."""
    size = n.to_bytes(4, "big") if plain else seven_bits(n)
    head = b"\4\0" + (b"\x10" if footer else b"\0") + size
    frame = b"PRIV" + seven_bits(n - 10) + b"\0\0" + bytes(i * 7 % 128 for i in range(n - 10))
    return b"ID3" + head + frame + (b"3DI" + head if footer else b"")


def ape(*, header: bool = True) -> bytes:
    item = struct.pack("<II", 5, 0) + b"Title\0Hello"
    size = len(item) + 32
    end = b"APETAGEX" + struct.pack("<IIII", 2000, size, 1, 0x80000000 if header else 0) + bytes(8)
    begin = b"APETAGEX" + struct.pack("<IIII", 2000, size, 1, 0xA0000000) + bytes(8)
    return (begin if header else b"") + item + end


def lyrics3() -> bytes:
    body = b"LYRICSBEGININD0000200LYR00005hello"
    return body + b"%06d" % len(body) + b"LYRICS200"


ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
FRONT = {
    "id3v2": id3v2(),
    "id3v2 of 20 kB": id3v2(20_000),
    "id3v2 with a footer": id3v2(footer=True),
    "two id3v2": id3v2(500) + id3v2(70),
    "id3v2 of a plain size": id3v2(20_000, plain=True),
    "id3v2 and zeros": id3v2() + bytes(2048),
}
BEHIND = {
    "id3v1": ID3V1,
    "enhanced id3v1": b"TAG+" + bytes(223) + ID3V1,
    "apev2": ape(),
    "apev2 without a header, id3v1": ape(header=False) + ID3V1,
    "lyrics3, id3v1": lyrics3() + ID3V1,
    "apev2, lyrics3, id3v1": ape() + lyrics3() + ID3V1,
    "id3v2 at the end": id3v2(footer=True),
}


def chunk(name: bytes, body: bytes, order: str = "<", *, pad: bool = True) -> bytes:
    return name + struct.pack(order + "I", len(body)) + body + (b"\0" if pad and len(body) % 2 else b"")


def riff_chunks(wav: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(wav):
        size = struct.unpack_from("<I", wav, at + 4)[0]
        yield wav[at : at + 4], wav[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def riff(*chunks_: bytes, size: int | None = None, name: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks_)
    return name + struct.pack("<I", len(body) if size is None else size) + body


def rewritten(
    wav: bytes, *, before: bytes = b"", behind: bytes = b"", fact: int | None = None, length: int | None = None,
    riff_size: int | None = None,
) -> bytes:  # fmt: skip
    """A WAV with chunks before and behind its data, another fact, another length of the data."""
    parts = []
    for name, body in riff_chunks(wav):
        if name == b"fact" and fact is not None:
            body = struct.pack("<I", fact)
        if name == b"data":
            parts.append(before)
            parts.append(
                name + struct.pack("<I", len(body) if length is None else length) + body + b"\0" * (len(body) % 2)
            )
            parts.append(behind)
        else:
            parts.append(chunk(name, body))
    return riff(*parts, size=riff_size)


def page(body: bytes, *, serial: int, number: int, granule: int, flags: int, lacing: bytes | None = None) -> bytes:
    """An Ogg page; by default all of it one packet."""
    if lacing is None:
        lacing = b"\xff" * (len(body) // 255) + bytes([len(body) % 255])
    head = b"OggS\0" + bytes([flags]) + struct.pack("<qII", granule, serial, number)
    checksum = ogg_checksum(head + bytes(4) + bytes([len(lacing)]) + lacing + body)
    return head + struct.pack("<I", checksum) + bytes([len(lacing)]) + lacing + body


def ogg_checksum(data: bytes) -> int:
    """Bit by bit, as RFC 3533 has it."""
    value = zlib.crc32(data.translate(MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


def pages(ogg: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(ogg):
        n = ogg[at + 26]
        end = at + 27 + n + sum(ogg[at + 27 : at + 27 + n])
        found.append(ogg[at:end])
        at = end
    return found


def repaged(old: bytes, *, serial: int | None = None, granule: int | None = None, flags: int | None = None) -> bytes:
    """A page with other fields, and the checksum for them."""
    n = old[26]
    was, number = struct.unpack_from("<II", old, 14)
    return page(
        old[27 + n :],
        serial=was if serial is None else serial,
        number=number,
        granule=struct.unpack_from("<q", old, 6)[0] if granule is None else granule,
        flags=old[5] if flags is None else flags,
        lacing=old[27 : 27 + n],
    )


def shifted(ogg: bytes, by: int) -> bytes:
    """The part of a longer stream: all granule positions of sound are higher."""
    granules = [struct.unpack_from("<q", p, 6)[0] for p in pages(ogg)]
    return b"".join(repaged(p, granule=g + by if g > 0 else g) for p, g in zip(pages(ogg), granules, strict=True))


def with_another_stream(ogg: bytes) -> bytes:
    """The pages of a stream that is no audio between those of one that is."""
    first, *rest = pages(ogg)
    other = [page(b"fishead\0" + bytes(56), serial=99, number=0, granule=0, flags=2)]
    other += [page(bytes(40), serial=99, number=1, granule=0, flags=4)]
    return other[0] + first + rest[0] + other[1] + b"".join(rest[1:])


def ogg_flac(flac: bytes, total: int) -> bytes:
    """A FLAC in Ogg: its metadata, and each frame, found by its number, in a page."""
    blocks, at = [], 4
    while True:
        last, size = flac[at] & 128, int.from_bytes(flac[at + 1 : at + 4], "big")
        blocks.append(flac[at : at + 4 + size])
        at += 4 + size
        if last:
            break
    first = b"\x7fFLAC\1\0" + struct.pack(">H", len(blocks) - 1) + b"fLaC" + blocks[0]
    result = page(first, serial=7, number=0, granule=0, flags=2)
    for i, block in enumerate(blocks[1:], 1):
        result += page(block, serial=7, number=i, granule=0, flags=0)
    frames = flac[at:]
    # One page takes 65,025 bytes; a packet may go on over pages.
    number, size = len(blocks), 255 * 200
    for i in range(0, len(frames), size):
        piece, ends = frames[i : i + size], i + size >= len(frames)
        lacing = b"\xff" * (len(piece) // 255) + (bytes([len(piece) % 255]) if ends else b"")
        granule, flags = (total, 4) if ends else (-1, 0)
        result += page(piece, serial=7, number=number, granule=granule, flags=flags, lacing=lacing)
        number += 1
    return result


def without_total(flac: bytes) -> bytes:
    """A FLAC as a writer leaves it that could not go back: a total of 0, no sizes of frames, no MD5."""
    return flac[:12] + bytes(6) + flac[18:21] + bytes([flac[21] & 0xF0]) + bytes(4) + bytes(16) + flac[42:]


def with_total(flac: bytes, total: int) -> bytes:
    return flac[:21] + bytes([flac[21] & 0xF0]) + struct.pack(">I", total) + flac[26:]


BITRATES = {(1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
BITRATES[2, 3] = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def mp3_frames(mp3: bytes) -> list[bytes]:
    """The frames of a layer III file without tags, the count header among them."""
    found, at = [], 0
    while at < len(mp3):
        version = {3: 1, 2: 2, 0: 4}[mp3[at + 1] >> 3 & 3]
        kbps = BITRATES[min(version, 2), 3][mp3[at + 2] >> 4]
        rate = (44_100, 48_000, 32_000)[mp3[at + 2] >> 2 & 3] // version
        n = (144 if version == 1 else 72) * 1000 * kbps // rate + (mp3[at + 2] >> 1 & 1)
        found.append(mp3[at : at + n])
        at += n
    return found


def vbri(mp3: bytes) -> bytes:
    """The count header of Fraunhofer's encoder in the place of LAME's."""
    first, *rest = mp3_frames(mp3)
    header = first[:4] + bytes(32) + b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(mp3), len(rest), 1, 1, 2, 1)
    return header.ljust(len(first), b"\0") + b"".join(rest)


def mpeg_layer(layer: int, n_frames: int, *, seed: int = 0) -> bytes:
    """Layer I or II at 48 kHz in mono, of noise: any bits are valid after the allocation."""
    state, result = seed or 1, b""
    for _ in range(n_frames):
        body = bytearray()
        n = 4 * (12 * 128_000 // 48_000) if layer == 1 else 144 * 128_000 // 48_000
        for _ in range(n - 4):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            body.append(state >> 16 & 0x77)
        bitrate = 4 if layer == 1 else 8
        result += bytes([0xFF, 0xF9 | (4 - layer) << 1, bitrate << 4 | 1 << 2, 0xC0]) + bytes(body)
    return result
