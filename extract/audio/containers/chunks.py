"""Files of chunks, each a name, a size and as many bytes: RIFF (WAV) and IFF (AIFF, 8SVX).

Goal: where each chunk is, also where a writer forgot the byte that fills up an odd size.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from .stream import MAX_PARTS
from .tags import behind_tags

Order = Literal["little", "big"]
FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"OggS", b"fLaC")
"""What looks like a chunk behind the samples, and begins another file."""


class Chunk(NamedTuple):
    """Where a chunk is; its bytes may end beyond the file's."""

    name: bytes
    start: int
    size: int


def chunks(data: bytes, at: int, order: Order) -> Iterator[Chunk]:
    """The chunks from a position on, up to the first that is none or that ends beyond the file, included."""
    for _ in range(MAX_PARTS):
        if not is_name(data, at):
            break
        chunk = Chunk(data[at : at + 4], at + 8, int.from_bytes(data[at + 4 : at + 8], order))
        yield chunk
        at = behind(data, chunk)


def behind(data: bytes, chunk: Chunk) -> int:
    """Where the next chunk would begin: behind a zero where the size is odd, if the writer did not forget it."""
    end = chunk.start + chunk.size
    return end if chunk.size % 2 == 0 or is_name(data, end) else end + 1


def is_name(data: bytes, at: int) -> bool:
    """Whether a chunk can begin at a position: four characters of ASCII, and a size."""
    return at + 8 <= len(data) and data[at : at + 4].isascii() and data[at : at + 4].decode().isprintable()


def check_rest(data: bytes, samples: Chunk, order: Order) -> None:
    """Raise ValueError where what follows the samples is neither chunks nor tags: it may be samples too."""
    at = behind(data, samples)
    if at >= len(data):
        return
    for chunk in chunks(data, at, order):
        if chunk.name in (samples.name, *FILES) or chunk.start + chunk.size > len(data):
            break
        at = behind(data, chunk)
    if behind_tags(data, at) < len(data):
        raise ValueError(
            f"damaged: {len(data) - at} bytes follow the {samples.size} bytes of samples that its header tells of, and "
            "are no chunks or tags: more samples, or another file's"
        )
