"""AIFF, AIFF-C and 8SVX: the frames that COMM counts, and whether the samples are as many."""

from .chunks import check_rest, chunks
from .stream import Stream, check_present

WIDTHS = {
    b"NONE": 0, b"twos": 0, b"sowt": 0, b"raw ": 1, b"in24": 3, b"in32": 4, b"42ni": 3, b"23ni": 4, b"fl32": 4,
    b"FL32": 4, b"fl64": 8, b"FL64": 8, b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1,
}  # fmt: skip
"""Bytes of a sample by compression; 0 where its bits are told."""
BLOCKS = {b"ima4": (34, 64), b"GSM ": (33, 160)}
"""Bytes of a block per channel, and its frames, by compression."""


def aiff_streams(data: bytes) -> list[Stream]:
    """The samples of an AIFF. Raises ValueError where they are not as many as it says."""
    common, samples = b"", None
    for chunk in chunks(data, 12, "big"):
        if chunk.name == b"COMM":
            common = data[chunk.start : chunk.start + min(chunk.size, 64)]
        elif chunk.name == b"SSND":
            samples = chunk
    if len(common) < 18 or samples is None:
        return [Stream(data=data)]
    channels, frames, bits = (int.from_bytes(common[a:b], "big") for a, b in ((0, 2), (2, 6), (6, 8)))
    kind = common[18:22] if data[8:12] == b"AIFC" else b"NONE"
    check_rest(data, samples, "big")
    offset = int.from_bytes(data[samples.start : samples.start + 4], "big")
    size = samples.size - 8 - offset
    here = len(data) - samples.start - 8 - offset
    if kind in WIDTHS:
        width = WIDTHS[kind] or (bits + 7) // 8
        held, present = (n // max(1, channels * width) for n in (size, here))
        check_present(frames, min(held, present))
        if held > frames + 1:  # some count the byte that fills up
            raise ValueError(f"damaged: the header says {frames} frames, and the data hold {held}")
        return [Stream(data=data, n_frames=frames)]
    if kind in BLOCKS:
        n_bytes, each = BLOCKS[kind]
        blocks, present = (n // (n_bytes * channels) for n in (size, here))
        check_present(blocks, present)
        n_frames = blocks * each if frames in (blocks, blocks // channels) else frames  # some count IMA's blocks
        check_present(n_frames, blocks * each)
        if blocks * each - n_frames >= each:
            raise ValueError(f"damaged: the header says {frames} frames, and the data hold {blocks * each}")
        return [Stream(data=data, n_frames=n_frames, padding=each)]
    check_present(samples.size, len(data) - samples.start)
    return [Stream(data=data, n_frames=frames)]


def svx_streams(data: bytes) -> list[Stream]:
    """The samples of an 8SVX or 16SV. Raises ValueError where they are not all there."""
    body = next((chunk for chunk in chunks(data, 12, "big") if chunk.name == b"BODY"), None)
    if body is None:
        return [Stream(data=data)]
    check_present(body.size, len(data) - body.start)
    check_rest(data, body, "big")
    return [Stream(data=data, n_bytes=body.size)]
