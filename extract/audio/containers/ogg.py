"""Ogg: pages with checksums and numbers, the streams they belong to, and how many samples these end with.

Goal: all links of a chain are read, each by its one audio stream, and no page is missing, the last included.
Conventions: a granule position is the number of the first sample behind a page's last packet, in samples of the
stream's own rate (Opus: 48 kHz); -1 where no packet ends.
Source: RFC 3533; Vorbis I specification, 4.2.4 and A.2; RFC 7845, section 4.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from .flac import flac_streams
from .stream import MAX_PARTS, Stream
from .tags import behind_tags, check_end

MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed
BEGINS, ENDS = 2, 4  # flags of a page
KINDS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex", b"PCM     ": "PCM"}
READ = ("Vorbis", "Opus", "FLAC")
OPUS_RATE = 48_000  # Hz, of granule positions
OPUS_SAMPLES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4  # by a packet's first five bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Where a page is, and what its header says."""

    start: int
    body: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int


@dataclass(kw_only=True, slots=True)
class Logical:
    """The pages of one stream within a link."""

    kind: str
    pages: list[Page] = field(default_factory=list)


def ogg_streams(data: bytes) -> list[Stream]:
    """The audio stream of each link. Raises ValueError where pages are cut, damaged or missing, and for others."""
    links: list[dict[int, Logical]] = []
    begun = True
    for page in _pages(data):
        if page.flags & BEGINS:
            if begun:
                links.append({})
            begun = False
            first = data[page.body : page.body + 8]
            kind = next((name for mark, name in KINDS.items() if first.startswith(mark)), "")
            links[-1][page.serial] = Logical(kind=kind)
        else:
            begun = True
        logical = links[-1].get(page.serial) if links else None
        if logical is None or page.number != (logical.pages[-1].number + 1 if logical.pages else page.number):
            raise ValueError(f"damaged: the Ogg page before byte {page.start} is missing")
        logical.pages.append(page)
    only = len(links) == 1 and len(links[0]) == 1
    return [stream for link in links for stream in _streams(data, link, only)]


def _pages(data: bytes) -> Iterator[Page]:
    """Pages from one to the next, each complete and in agreement with its checksum; behind the last may be tags.

    A page: "OggS", 18 bytes, its checksum, how many lengths, these lengths, as many bytes as they add up to.
    """
    at = 0
    for _ in range(4 * MAX_PARTS):
        if data[at : at + 4] != b"OggS":
            break
        body = at + 27 + (data[at + 26] if at + 26 < len(data) else 255)
        end = body + sum(data[at + 27 : body])
        if end > len(data):
            raise ValueError("truncated: the last Ogg page is not complete")
        page = data[at:end]
        if page != _signed(page):
            raise ValueError(f"damaged: the Ogg page at byte {at} does not agree with its checksum")
        granule, serial, number = (int.from_bytes(page[a:b], "little") for a, b in ((6, 14), (14, 18), (18, 22)))
        granule -= (granule >> 63) << 64
        yield Page(start=at, body=body, end=end, flags=page[5], granule=granule, serial=serial, number=number)
        at = end if data[end : end + 4] == b"OggS" else behind_tags(data, end)
    check_end(data, at, "an Ogg page")


def _signed(page: bytes) -> bytes:
    """A page with its checksum: CRC-32 of polynomial 0x04C11DB7, from 0, highest bit first, as if the checksum were 0.

    It is zlib's with all bits reversed.
    """
    mirrored = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return page[:22] + int(f"{mirrored:032b}"[::-1], 2).to_bytes(4, "little") + page[26:]


def _streams(data: bytes, link: dict[int, Logical], only: bool) -> list[Stream]:
    """The audio of a link. only: whether nothing else is in the file."""
    audio = [logical for logical in link.values() if logical.kind]
    if len(audio) != 1 or audio[0].kind not in READ:
        held = " and ".join(logical.kind for logical in audio) or "no audio that is known"
        raise ValueError(
            f"Ogg with {held}; expected one stream of {', '.join(READ)}: convert it: ffmpeg -i IN OUT.flac"
        )
    (logical,) = audio
    pages = logical.pages
    if not pages[-1].flags & ENDS:
        raise ValueError("truncated: the page that ends the Ogg stream is missing")
    if logical.kind == "FLAC":  # packets one behind the other are a FLAC, but for nine bytes
        return flac_streams(b"".join(data[page.body : page.end] for page in pages)[9:])
    last, start = max(page.granule for page in pages), _first_sample(data, logical)
    if start:  # the decoder loses Opus' samples then
        bytes_of_it = b"".join(_earlier(data, page, start) for page in pages)
    else:
        whole = only and pages[-1].end == len(data)
        bytes_of_it = data if whole else b"".join(data[page.start : page.end] for page in pages)
    if logical.kind == "Vorbis":
        return [Stream(data=bytes_of_it, n_frames=max(0, last - start))]
    head = pages[0].body - pages[0].start
    begin = pages[0].start if bytes_of_it is data else 0
    if bytes_of_it[begin + head + 12 : begin + head + 16] == bytes(4):  # no rate: the decoder would take its lowest
        first = bytes_of_it[begin : begin + pages[0].end - pages[0].start]
        first = _signed(first[: head + 12] + OPUS_RATE.to_bytes(4, "little") + first[head + 16 :])
        bytes_of_it = bytes_of_it[:begin] + first + bytes_of_it[begin + len(first) :]
    skipped = int.from_bytes(data[pages[0].body + 10 : pages[0].body + 12], "little")
    return [Stream(data=bytes_of_it, n_frames=max(0, last - start - skipped), rate=OPUS_RATE)]


def _earlier(data: bytes, page: Page, by: int) -> bytes:
    """A page of which the granule position is less, unless it has none."""
    granule = page.granule - by if page.granule > 0 else page.granule
    head = data[page.start : page.start + 6] + granule.to_bytes(8, "little", signed=True)
    return _signed(head + data[page.start + 14 : page.end])


def _first_sample(data: bytes, logical: Logical) -> int:
    """The number of the first sample: above 0 in a part of a longer stream. The first page with a count tells it."""
    packets = _packets(data, logical.pages)
    n_headers, before = (3 if logical.kind == "Vorbis" else 2), 0
    headers = [next(packets, (b"", -1, 0))[0] for _ in range(n_headers)]
    seconds = _vorbis_samples(headers) if logical.kind == "Vorbis" else _opus_samples
    for packet, granule, flags in packets:
        before += seconds(packet)
        if granule >= 0:
            # On the last page fewer samples than its packets hold are those cut at the end.
            return 0 if flags & ENDS else max(0, granule - before)
    return 0


def _packets(data: bytes, pages: list[Page]) -> Iterator[tuple[bytes, int, int]]:
    """Each packet, with the granule position and flags of its page if it is the last that ends there; else -1, 0."""
    packet = b""
    for page in pages:
        lacing, at = data[page.start + 27 : page.body], page.body
        last = max((i for i, n in enumerate(lacing) if n < 255), default=-1)
        for i, n in enumerate(lacing):
            packet += data[at : at + n]
            at += n
            if n < 255:
                yield (packet, page.granule, page.flags) if i == last else (packet, -1, 0)
                packet = b""


def _opus_samples(packet: bytes) -> int:
    """Samples of a packet at 48 kHz."""
    if not packet:
        return 0
    n_frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    return n_frames * OPUS_SAMPLES[packet[0] >> 3]


class _vorbis_samples:
    """Samples that each packet completes, one after the other: a quarter of its block's and the one's before."""

    def __init__(self, headers: list[bytes]) -> None:
        sizes = headers[0][28] if len(headers[0]) > 28 else 0
        self.sizes, self.before = (1 << (sizes & 15), 1 << (sizes >> 4)), 0
        self.long = _long_blocks(headers[2])

    def __call__(self, packet: bytes) -> int:
        number = packet[0] >> 1 & ((1 << (len(self.long) - 1).bit_length()) - 1) if packet else 0
        block = self.sizes[self.long[number] if number < len(self.long) else 0]
        samples, self.before = (self.before + block) // 4 if self.before else 0, block
        return samples


def _long_blocks(setup: bytes) -> list[int]:
    """Per mode of a Vorbis stream whether its blocks are long. Modes are the last of the setup, so read from its end:

    six bits for their number less one, 41 for each mode (long, two zeros of 16 bits, a mapping of 8), one bit set.
    """
    bits, found, modes = int.from_bytes(setup, "little"), list[int](), list[int]()
    at = bits.bit_length() - 1
    while at >= 47:
        at -= 41
        mode = bits >> at & (1 << 41) - 1
        if mode >> 1 & 0xFFFFFFFF or mode >> 33 & 0xFF > 63:
            break
        modes.insert(0, mode & 1)
        if (bits >> (at - 6) & 63) + 1 == len(modes):
            found = list(modes)
    return found or [0]
