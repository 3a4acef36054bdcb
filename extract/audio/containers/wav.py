"""WAV: RIFF, RIFX, RF64 and BW64, and Sony's Wave64.

Goal: how many frames the data chunk holds, or `fact` says of its last block, whatever the decoder makes of it.
Conventions: a writer that cannot go back leaves a length of 0, or of STREAMED and more; then the data are the rest.
"""

from dataclasses import dataclass, replace

from .chunks import Chunk, Order, check_rest, chunks
from .mpeg import mpeg_streams
from .stream import MAX_PARTS, Stream, check_present
from .tags import check_end

STREAMED = 0x7FFFF000
LINEAR = (1, 3, 6, 7)  # PCM, floating point, A-law and mu-law: frames of fixed size
IMA, MS, GSM, G721, NMS, MP3, EXTENSIBLE = 0x11, 2, 0x31, 0x40, 0x38, 0x55, 0xFFFE
WAVE64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """A coding's block: its bytes, and its frames; of one that is cut, what its bytes begin with and how many more."""

    n_bytes: int
    n_frames: int
    head_bytes: int = 0
    head_frames: int = 0

    def frames(self, size: int) -> int:
        """Frames in so many bytes."""
        whole, rest = divmod(size, self.n_bytes)
        each, body = self.n_bytes - self.head_bytes, rest - self.head_bytes
        cut = self.head_frames + body * (self.n_frames - self.head_frames) // each if rest and body >= 0 else 0
        return whole * self.n_frames + cut


def coding_of(form: bytes, order: Order) -> tuple[int, Blocks | None]:
    """The coding's number and its blocks, from a format chunk; no blocks where nothing is known of them."""
    if len(form) < 16:
        return 0, None
    tag, channels, align, bits, extra, each = (int.from_bytes(form[i : i + 2], order) for i in (0, 2, 12, 14, 16, 18))
    if tag == EXTENSIBLE:
        tag = int.from_bytes(form[24:26], order)
    if not channels or not align:
        return tag, None
    if tag in LINEAR:
        return tag, Blocks(n_bytes=align, n_frames=1)
    known = {GSM: (65, 320), G721: (60, 120), NMS: (2 + 20 * bits, 160)}
    if tag in known:
        return tag, Blocks(n_bytes=known[tag][0], n_frames=known[tag][1])
    head = {IMA: 4 * channels, MS: 7 * channels}.get(tag, align)
    if align <= head:
        return tag, None
    first = 1 if tag == IMA else 2
    each = each if extra >= 2 and each else first + 2 * (align - head) // channels
    return tag, Blocks(n_bytes=align, n_frames=each, head_bytes=head, head_frames=first)


def wav_streams(data: bytes) -> list[Stream]:
    """The samples of a WAV. Raises ValueError where they are not all there, or more may be."""
    order: Order = "big" if data[:4] == b"RIFX" else "little"
    long_size, form, fact, at = None, b"", None, 12
    for chunk in chunks(data, 12, order):
        filled_up = chunk.start == at + 8
        at = chunk.start + chunk.size + chunk.size % 2 if filled_up else 0
        body = data[chunk.start : chunk.start + min(chunk.size, 64)]
        if chunk.name == b"fmt ":
            form = body
        elif chunk.name == b"fact":
            fact = int.from_bytes(body[:4], order)
        elif chunk.name == b"ds64":
            long_size = int.from_bytes(body[8:16], order)
        elif chunk.name == b"data":
            break
    else:
        return [Stream(data=data)]  # libsndfile says so
    chunk, streamed = _whole(chunk, len(data) - chunk.start, int.from_bytes(data[4:8], order), long_size)
    stream = samples_stream(data, chunk, form, fact, order, streamed)
    check_rest(data, chunk, order)
    plain = data[:4] == b"RIFF" and filled_up and not streamed and int.from_bytes(data[4:8], order) + 8 <= len(data)
    if coding_of(form, order)[0] == MP3:
        return mpeg_streams(data[chunk.start : chunk.start + chunk.size])
    return [stream if plain else replace(stream, data=plain_wav(data, chunk, form, order))]


def _whole(chunk: Chunk, here: int, riff: int, long_size: int | None) -> tuple[Chunk, bool]:
    """The data chunk with its size, and whether its writer could not know it: then it takes what is here, the rest.

    riff: the size that the file has by its first chunk. long_size: that of the data by a ds64 chunk.
    """
    size = long_size if long_size and chunk.size == 0xFFFFFFFF else chunk.size
    if 0 < size <= here:
        return chunk._replace(size=size), False
    known = long_size not in (None, 0, 0xFFFFFFFFFFFFFFFF)
    streamed = not known and (size >= STREAMED or (size == 0 < here and (riff >= STREAMED or riff < chunk.start)))
    return chunk._replace(size=here if streamed else size), streamed


def samples_stream(
    data: bytes, samples: Chunk, form: bytes, fact: int | None, order: Order, streamed: bool = False
) -> Stream:
    """The stream of a chunk of samples. fact: frames by the header, which alone knows how full the last block is."""
    tag, blocks = coding_of(form, order)
    if blocks is None:
        return Stream(data=data)
    held = blocks.frames(samples.size)
    check_present(held, blocks.frames(min(samples.size, len(data) - samples.start)))
    if tag in LINEAR:
        return Stream(data=data, n_frames=held)
    padding = 2 * blocks.n_frames
    if not fact or fact >= STREAMED or streamed:
        return Stream(data=data, n_frames=held, padding=padding)
    channels = int.from_bytes(form[2:4], order)
    # Some writers multiply or divide by the channels.
    n_frames = next((n for n in (fact, fact * channels, fact // channels) if held - padding < n <= held), None)
    if n_frames is None:
        check_present(fact, held)
        raise ValueError(f"damaged: the header says {fact} frames, and the data hold {held}")
    return Stream(data=data, n_frames=n_frames, padding=padding)


def plain_wav(data: bytes, samples: Chunk, form: bytes, order: Order) -> bytes:
    """The same samples in a RIFF or RIFX of nothing else, with its length."""
    size = min(samples.size, 0xFFFFFFFF - 100)
    parts = [(b"fmt ", form), (b"data", data[samples.start : samples.start + size])]
    body = b"".join(name + len(part).to_bytes(4, order) + part for name, part in parts)
    return (b"RIFX" if order == "big" else b"RIFF") + (4 + len(body)).to_bytes(4, order) + b"WAVE" + body


def wave64_streams(data: bytes) -> list[Stream]:
    """The samples of a Wave64: its chunks have names of 16 bytes, and sizes of 8 that count these 24. Raises as WAV."""
    at, form, fact, stream = 40, b"", None, None
    for _ in range(MAX_PARTS):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        body = data[at + 24 : at + min(size, 88)]
        if at + 24 > len(data) or (stream and (data[at : at + 16] == WAVE64 or at + size > len(data))):
            break
        if data[at : at + 4] == b"fmt ":
            form = body
        elif data[at : at + 4] == b"fact":
            fact = min(int.from_bytes(body[:8], "little"), STREAMED)
        elif data[at : at + 4] == b"data":
            stream = samples_stream(data, Chunk(b"data", at + 24, size - 24), form, fact, "little")
        at += max(24, size + -size % 8)
    if stream is None:
        return [Stream(data=data)]
    check_end(data, at, "a chunk")
    return [stream]
