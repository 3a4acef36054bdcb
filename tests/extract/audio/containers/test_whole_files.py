"""Whole files of every container and coding, as plain as soundfile writes them and as others do, are read whole.

The samples of each are those of the plain file: tags, streamed headers, chains and concatenations change none.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import read_clip

from ....support import audio_files as made
from ....support.audio_bytes import encoded, read

RATE = 8000
N = 2 * RATE + 137
SIGNAL = 0.4 * np.sin(np.cumsum(np.random.default_rng(3).standard_normal(N)) / 20)
STEREO = np.column_stack([SIGNAL, -0.3 * SIGNAL[::-1]])

Case = tuple[str, bytes, np.ndarray]
"""A name, a file, and the samples it has."""


class Onward(sf.SoundFile):  # type: ignore[misc]
    """soundfile seeks after it has read, which some kinds refuse."""

    def seekable(self) -> bool:
        return False


def mp3(samples: np.ndarray = SIGNAL, mode: str = "VARIABLE", rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, rate, format="MP3", bitrate_mode=mode)
    return file.getvalue()


def decoded(data: bytes, n: int | None = None) -> np.ndarray:
    """What soundfile makes of a file, (sample,), and only its first n samples."""
    with Onward(io.BytesIO(data)) as sound:
        frames = sound.read(sound.frames, dtype="float32", always_2d=True)[:n]
    return frames[:, 0] if frames.shape[1] == 1 else (frames[:, 0] + frames[:, 1]) / np.float32(2)


def plain() -> Iterator[Case]:
    """Every container and coding that soundfile writes; what a coding's last block is filled up with is none of it."""
    for kind in sorted({*sf.available_formats()} - {"RAW", "SD2"}):  # which have no header, or another file for it
        for coding in sf.available_subtypes(kind):
            for signal in (SIGNAL, STEREO):
                try:
                    data = encoded(signal, RATE, kind, coding)
                except (sf.SoundFileError, ValueError):
                    continue  # in so many channels, or not at all
                counted = kind not in ("AIFF", "AU", "PAF", "VOC") and coding != "IMA_ADPCM"
                counted &= (kind, coding) != ("W64", "MS_ADPCM")
                yield f"{kind} {coding} {signal.ndim}", data, decoded(data, N if counted else None)


def tagged() -> Iterator[Case]:
    """Common kinds with each tag before or behind them, and with tags on both sides."""
    codings = [
        ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ALAW"), ("WAV", "MS_ADPCM"), ("WAV", "IMA_ADPCM"),
        ("WAV", "GSM610"), ("WAV", "G721_32"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"),
        ("AIFF", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
    ]  # fmt: skip
    files = [(f"{kind} {coding}", encoded(SIGNAL, RATE, kind, coding)) for kind, coding in codings]
    vbr = mp3()
    bare = b"".join(made.mp3_frames(vbr)[1:])
    expected = {name: decoded(data, None if "IMA" in name else N) for name, data in files}
    expected["MP3 without a count"] = decoded_frames(bare)
    for name, data in [*files, ("MP3 without a count", bare)]:
        for tag, front in made.FRONT.items():
            yield f"{tag}, {name}", front + data, expected[name]
        for tag, behind in made.BEHIND.items():
            yield f"{name}, {tag}", data + behind, expected[name]
        yield f"id3v2, {name}, id3v1", made.id3v2(20_000) + data + made.ID3V1, expected[name]


def decoded_frames(bare: bytes) -> np.ndarray:
    """All samples of MP3 frames without a count header: decoded behind one that promises more than there are."""
    first = made.mp3_frames(bare)[0]
    n = len(made.mp3_frames(bare))
    # Frames of silence behind them make the decoder's estimate large enough, and are cut off.
    longest = max(made.mp3_frames(bare), key=len)
    more = bare + longest * (n * len(first) // len(longest) + n)
    return decoded(more)[: n * (1152 if bare[1] & 8 else 576)]


def waves() -> Iterator[Case]:
    """WAV as other writers have it."""
    pcm, stereo = encoded(SIGNAL, RATE, "WAV"), encoded(STEREO, RATE, "WAV")
    text = made.chunk(b"LIST", b"INFOISFT\5\0\0\0Lavf\0")
    odd = made.chunk(b"junk", b"odd")
    for name, data in (("mono", pcm), ("stereo", stereo)):
        expected = decoded(data)
        for where, options in (
            ("a list before", {"before": text}), ("a list behind", {"behind": text}),
            ("odd chunks", {"before": odd, "behind": odd}),
            ("an odd chunk not filled up", {"before": made.chunk(b"junk", b"odd", pad=False)}),
            ("chunks behind", {"behind": text + odd + made.chunk(b"id3 ", made.id3v2())}),
            ("zeros behind", {"behind": bytes(700)}), ("a length of the file of 0", {"riff_size": 0}),
        ):  # fmt: skip
            yield f"WAV {name} with {where}", made.rewritten(data, **options), expected  # type: ignore[arg-type]
        for riff_size, length in (
            (0, 0), (36, 0), (2**32 - 1, 0), (2**32 - 1, 2**32 - 1), (0x7FFFF024, 0x7FFFF000), (0, 2**32 - 1)
        ):  # fmt: skip
            for before in (b"", text):
                streamed = made.rewritten(data, before=before, length=length, riff_size=riff_size)
                yield f"WAV {name} streamed {riff_size} {length} {len(before)}", streamed, expected
        rf64 = encoded(SIGNAL if name == "mono" else STEREO, RATE, "RF64")
        yield f"BW64 {name}", b"BW64" + rf64[4:], expected
        file = io.BytesIO()
        sf.write(file, SIGNAL if name == "mono" else STEREO, RATE, format="WAV", endian="BIG")
        yield f"RIFX {name}", file.getvalue(), expected
        yield f"RIFX {name} with a tag", made.id3v2(999) + file.getvalue() + made.ape(), expected
    for coding in ("MS_ADPCM", "IMA_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"):
        for n in (N, N - 1, 5000):
            data = encoded(SIGNAL[:n], RATE, "WAV", coding)
            yield f"WAV {coding} of {n} frames", made.rewritten(data, fact=n), decoded(data)[:n]
        yield f"WAV {coding} streamed", made.rewritten(data, fact=0, length=2**32 - 1), decoded(data)
    data = encoded(STEREO, RATE, "WAV", "MS_ADPCM")
    yield "WAV MS_ADPCM stereo", made.rewritten(data, fact=N), decoded(data)[:N]
    yield "WAV MS_ADPCM stereo, samples of both counted", made.rewritten(data, fact=2 * N), decoded(data)[:N]


def flacs() -> Iterator[Case]:
    """FLAC that was streamed, in Ogg, and one behind the other."""
    a, b = encoded(SIGNAL, RATE, "FLAC"), encoded(STEREO[:N, 0] * 0.5, RATE, "FLAC")
    c = encoded(SIGNAL[:5000], RATE, "FLAC")
    x, y, z = decoded(a), decoded(b), decoded(c)
    streamed = made.without_total(a)
    yield "FLAC of unknown length", streamed, x
    yield "FLAC of unknown length with tags", made.id3v2(20_000) + streamed + made.ape() + made.ID3V1, x
    yield "FLAC of one short frame, unknown", made.without_total(encoded(SIGNAL[:99], RATE, "FLAC")), x[:99]
    yield "FLAC twice", a + a, np.concatenate([x, x])
    yield "FLAC and another", a + c, np.concatenate([x, z])
    yield "FLAC of equal lengths", a + b, np.concatenate([x, y])
    yield "FLAC streamed, and others", streamed + made.without_total(b) + c, np.concatenate([x, y, z])
    yield "FLAC with tags between", a + made.ID3V1 + made.id3v2() + c, np.concatenate([x, z])
    yield "FLAC in Ogg", made.ogg_flac(a, N), x
    yield "FLAC in Ogg of unknown length", made.ogg_flac(streamed, N), x
    yield "FLAC in Ogg, chained", made.ogg_flac(a, N) + made.ogg_flac(c, 5000), np.concatenate([x, z])
    deep = encoded(SIGNAL, RATE, "FLAC", "PCM_24")
    yield "FLAC of 24 bits", made.without_total(deep), decoded(deep)


def oggs() -> Iterator[Case]:
    """Ogg of several links, with other streams, and out of the middle of a longer one."""
    for coding in ("VORBIS", "OPUS"):
        a, b = (encoded(part, RATE, "OGG", coding) for part in (SIGNAL, SIGNAL[:5000]))
        x, y = decoded(a), decoded(b)
        assert (len(x), len(y)) == (N, 5000)
        yield f"OGG {coding}, chained", a + b, np.concatenate([x, y])
        yield f"OGG {coding}, three links", b + a + b, np.concatenate([y, x, y])
        yield f"OGG {coding}, links of one number", b + b, np.concatenate([y, y])
        yield f"OGG {coding}, with another stream", made.with_another_stream(a), x
        yield f"OGG {coding}, out of the middle", made.shifted(a, 48_000 * 600), x


def mp3s() -> Iterator[Case]:
    """MP3 of either bit rate with and without count headers, one behind the other, and older layers."""
    for signal in (SIGNAL, STEREO):
        for rate in (16_000, 44_100):
            for mode in ("VARIABLE", "CONSTANT", "AVERAGE"):
                data = mp3(np.concatenate([signal, signal * 1e-3, signal]), mode, rate)
                name = f"MP3 {mode} {rate} {signal.ndim}"
                yield name, data, decoded(data)
                bare = b"".join(made.mp3_frames(data)[1:])
                yield f"{name} without a count", bare, decoded_frames(bare)
                yield f"{name}, Fraunhofer's count", made.vbri(data), decoded_frames(bare)
                yield f"{name} twice", data + data, np.concatenate([decoded(data)] * 2)
                between = data + made.ape() + made.ID3V1 + made.id3v2(3000) + data
                yield f"{name} twice, with tags", between, np.concatenate([decoded(data)] * 2)
    data = mp3()
    at = data.index(b"Xing") + 8
    more = data[:at] + (int.from_bytes(data[at : at + 4], "big") + 1).to_bytes(4, "big") + data[at + 4 :]
    yield "MP3 that counts its header", more, decoded(data)
    header, *sounding = made.mp3_frames(data)
    for name, rest in (("a LAME tag", bytes(36)), ("anything but the count", b"")):
        begin = header[: at + 112 if rest else at + 4]
        if not rest:
            begin = begin[: at - 4] + b"\0\0\0\1" + begin[at:]
        untagged = begin.ljust(len(header), b"\0") + b"".join(sounding)
        yield f"MP3 with a count header without {name}", untagged, decoded_frames(b"".join(sounding))
    bare = b"".join(made.mp3_frames(data)[1:])
    yield "MP3, and frames without a count", bare + bare, decoded_frames(bare + bare)
    frames = made.mpeg_layer(1, 60)
    free = b"".join(
        frames[i : i + 2] + bytes([frames[i + 2] & 15]) + frames[i + 3 : i + 128] for i in range(0, len(frames), 128)
    )
    yield "MPEG layer 1 of a free bit rate", free, decoded(frames + frames)[: 60 * 384]
    for layer, samples in ((1, 384), (2, 1152)):
        data = made.mpeg_layer(layer, 60)
        yield f"MPEG layer {layer}", data, decoded(data + data)[: 60 * samples]


def every_case() -> list[Case]:
    return [case for make in (plain, tagged, waves, flacs, oggs, mp3s) for case in make()]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return every_case()


def test_every_whole_file_gives_all_its_samples(cases: list[Case], tmp_path: Path) -> None:
    wrong = []
    for name, data, expected in cases:
        try:
            samples = read(tmp_path, data, sf_rate(name, data))
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            continue
        if not np.array_equal(samples, expected):
            wrong.append(f"{name}: {len(samples)} samples, not {len(expected)}, or others")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)
    assert len(cases) >= 450
    assert len({name for name, _, _ in cases}) == len(cases)


def sf_rate(name: str, data: bytes) -> int:
    """The file's own rate, so that nothing is resampled."""
    for rate in (48_000, 44_100, 16_000):
        if f" {rate}" in name:
            return rate
    if name.startswith("XI"):
        return 44_100
    return 48_000 if "free" in name or "layer" in name else 16_000 if "MP3" in name and "MPEG_" not in name else RATE


def test_parts_are_slices_of_the_whole(cases: list[Case], tmp_path: Path) -> None:
    wrong = []
    for name, data, expected in cases:
        if len(expected) < 6000 or "id3v" in name:
            continue
        rate = sf_rate(name, data)
        (tmp_path / "clip").write_bytes(data)
        for first, last in ((0, 1000), (3001, 5003), (len(expected) - 999, len(expected))):
            clip = Clip(name="", path="clip", start=first / rate, stop=last / rate)
            try:
                part = read_clip(tmp_path, clip, rate).samples
                if not np.array_equal(part, expected[first:last]):
                    wrong.append(f"{name} {first} {last}: {np.abs(part - expected[first:last]).max()}")
            except ValueError as error:
                wrong.append(f"{name} {first} {last}: {error}")
    assert not wrong, "\n".join(wrong)


def test_opus_that_names_no_rate_keeps_all_of_its_band(tmp_path: Path) -> None:
    opus = encoded(np.tile(SIGNAL, 6), 48_000, "OGG", "OPUS")
    head, *rest = made.pages(opus)
    body = bytearray(head[28:])
    assert body[12:16] == (48_000).to_bytes(4, "little")
    body[12:16] = bytes(4)
    without = made.page(bytes(body), serial=int.from_bytes(head[14:18], "little"), number=0, granule=0, flags=2)
    for tag in (b"", made.id3v2()):
        np.testing.assert_array_equal(
            read(tmp_path, tag + b"".join([without, *rest]), 48_000), read(tmp_path, opus, 48_000)
        )
