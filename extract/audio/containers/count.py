"""A file's streams, by what its first bytes say it is."""

import struct

from .aiff import aiff_streams, svx_streams
from .flac import flac_streams
from .foreign import named
from .mpeg import begins_mpeg, mpeg_streams
from .ogg import ogg_streams
from .older import OLDER
from .stream import Stream
from .tags import behind_tags
from .wav import WAVE64, wav_streams, wave64_streams


def streams_of(data: bytes) -> list[Stream]:
    """What the decoder is to be given, and how many frames each piece holds by the container's own count.

    Raises ValueError with the reason where a file is empty, damaged, not all there or of a kind that is not read.
    A stream without a count is of no kind that is known.
    """
    if not data:
        raise ValueError("empty: 0 bytes")
    try:
        return _streams_of(data)
    except (IndexError, struct.error, ArithmeticError) as error:
        raise ValueError("truncated or damaged: its headers cannot be read") from error


def _streams_of(data: bytes) -> list[Stream]:
    at = behind_tags(data, 0) if data[:3] in (b"ID3", b"TAG", b"APE", b"\0\0\0") else 0
    if at and (data[:1] != b"\0" or begins_mpeg(data, at)):
        data = data[at:]
    begin, form = data[:4], data[8:12]
    if begin in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return wav_streams(data)
    if begin == b"FORM" and form in (b"AIFF", b"AIFC"):
        return aiff_streams(data)
    if begin == b"FORM" and form in (b"8SVX", b"16SV"):
        return svx_streams(data)
    if begin == b"fLaC":
        return flac_streams(data)
    if begin == b"OggS":
        return ogg_streams(data)
    if data[:16] == WAVE64:
        return wave64_streams(data)
    if begins_mpeg(data, 0):
        return mpeg_streams(data)
    if (name := named(data)) is not None:
        raise ValueError(name)
    return next(([function(data)] for pattern, function in OLDER if pattern.match(data)), [Stream(data=data)])
