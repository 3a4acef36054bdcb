"""What is not read, by its first bytes: other audio formats, and what came instead of audio."""

import re

INTO_FLAC = "convert it: ffmpeg -i IN OUT.flac"
CONVERT = f"which is not read; {INTO_FLAC}"
UNPACK = "which is not audio; unpack it"
FETCH = "which is not audio: a server's answer in its stead; download it again"

FORMATS = (
    (rb".{4}ftyp", "an M4A or MP4 file", CONVERT),
    (rb"\xff[\xf0\xf1\xf8\xf9](?=.{2})(?!\xff)|ADIF|\x56[\xe0-\xff]", "AAC", CONVERT),
    (rb"#!AMR", "AMR", CONVERT),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or WMV (ASF)", CONVERT),
    (rb"\x1a\x45\xdf\xa3", "WebM or Matroska", CONVERT),
    (rb"wvpk", "WavPack", CONVERT),
    (rb"MAC ", "Monkey's Audio", CONVERT),
    (rb"TTA[12]", "True Audio", CONVERT),
    (rb"MPCK|MP\+", "Musepack", CONVERT),
    (rb"DSD |FRM8", "DSD", CONVERT),
    (rb"tBaK", "TAK", CONVERT),
    (rb"\.RMF|\.ra\xfd", "RealAudio", CONVERT),
    (rb"FLV\x01", "Flash video", CONVERT),
    (rb"RIFF.{4}AVI ", "AVI", CONVERT),
    (rb"\x0b\x77", "AC-3", CONVERT),
    (rb"\x7f\xfe\x80\x01", "DTS", CONVERT),
    (rb"\x00\x00\x01\xba|G.{187}G", "MPEG video", CONVERT),
    (rb"MThd", "MIDI", "which holds no sound; render it with a synthesiser"),
    (rb"version https://git-lfs", "a Git LFS pointer", "which stands for a file; fetch it: git lfs pull"),
    (rb"(?i)\s*(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)", "an HTML page", FETCH),
    (rb"\s*<\?xml|\s*<Error", "an XML document", FETCH),
    (rb"\s*[{\[]\s*[\"{}\]]", "a JSON document", FETCH),
    (rb"\x1f\x8b", "gzip", UNPACK),
    (rb"PK\x03\x04|PK\x05\x06", "zip", UNPACK),
    (rb"BZh[1-9]", "bzip2", UNPACK),
    (rb"\xfd7zXZ\x00", "xz", UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "7z", UNPACK),
    (rb"Rar!", "RAR", UNPACK),
    (rb"\x28\xb5\x2f\xfd", "Zstandard", UNPACK),
    (rb".{257}ustar", "tar", UNPACK),
    (rb"%PDF", "PDF", "which is not audio; see what the path names"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image", "which is not audio; see what the path names"),
)
_KNOWN = [(re.compile(pattern, re.DOTALL), name, remedy) for pattern, name, remedy in FORMATS]


def named(data: bytes) -> str | None:
    """What bytes are that cannot be read, and what to do about it; None where that is not known."""
    head = data[:512].removeprefix(b"\xef\xbb\xbf")
    return next((f"{name}, {remedy}" for pattern, name, remedy in _KNOWN if pattern.match(head)), None)


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
