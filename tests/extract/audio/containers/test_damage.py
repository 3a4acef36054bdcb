"""Files cut short and files with flipped bits: each fails with a reason, or gives as many samples as the whole one."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from otoscope.extract.audio.decoding import BadAudio

from ....support import audio_files as made
from ....support.amounts import quick_sample
from ....support.audio_bytes import encoded, read, reason
from .test_whole_files import RATE, SIGNAL, STEREO, N, mp3

RNG = np.random.default_rng(5)


def files() -> dict[str, bytes]:
    """One of each kind whose headers say how much there is."""
    kinds = [
        ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"),
        ("WAV", "IMA_ADPCM"), ("WAV", "G721_32"), ("WAV", "NMS_ADPCM_24"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"),
        ("W64", "PCM_16"), ("W64", "GSM610"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AIFF", "IMA_ADPCM"),
        ("AIFF", "GSM610"), ("AU", "PCM_16"), ("AU", "G721_32"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"),
        ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("NIST", "PCM_16"), ("VOC", "PCM_16"),
        ("AVR", "PCM_16"),
        ("HTK", "PCM_16"), ("SVX", "PCM_16"), ("MPC2K", "PCM_16"), ("MAT4", "PCM_16"), ("MAT5", "PCM_16"),
        ("WVE", "ALAW"), ("SDS", "PCM_16"),
    ]  # fmt: skip
    found = {f"{kind} {coding}": encoded(SIGNAL, RATE, kind, coding) for kind, coding in kinds}
    found |= {f"{kind} stereo": encoded(STEREO, RATE, kind) for kind in ("WAV", "AIFF", "FLAC", "OGG")}
    found["MP3"] = mp3(rate=RATE)
    found["FLAC of unknown length"] = made.without_total(found["FLAC PCM_16"])
    found["FLAC in Ogg"] = made.ogg_flac(found["FLAC PCM_16"], N)
    found["OGG chained"] = found["OGG VORBIS"] * 2
    found["WAV with tags"] = made.id3v2(20_000) + made.rewritten(
        found["WAV PCM_16"], behind=made.chunk(b"LIST", bytes(77))
    )
    return found


FILES = files()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_anywhere_fails_or_lacks_no_sample(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    whole = read(tmp_path, data, RATE)
    ends = {*range(1, 60, 7), len(data) - 1, len(data) - 2, *RNG.integers(1, len(data), 12).tolist()}
    if name.startswith("OGG"):
        ends |= set(np.cumsum([len(page) for page in made.pages(data)])[:-1].tolist())
    if name == "OGG chained":
        ends -= {len(data) // 2}  # a file that ends with a whole link is whole
    for end in sorted(ends):
        try:
            samples = read(tmp_path, data[:end], RATE)
        except BadAudio:
            continue
        assert np.array_equal(samples, whole), f"{end} of {len(data)} bytes give {len(samples)} of {len(whole)} samples"


@pytest.mark.parametrize("name", quick_sample(FILES, 12))
def test_a_flipped_bit_loses_no_sample_without_a_reason(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    whole = read(tmp_path, data, RATE)
    offsets = [*range(120), *RNG.integers(0, len(data), 40).tolist()]
    for offset in offsets:
        damaged = bytearray(data)
        damaged[offset] ^= 1 << int(RNG.integers(8))
        try:
            samples = read(tmp_path, bytes(damaged), RATE)
        except BadAudio:
            continue
        if offset in range(*COUNTS.get(name, (0, 0))):
            continue
        n = expected_length(bytes(damaged), len(whole))
        assert len(samples) >= n, f"bit of byte {offset} of {len(data)}: {len(samples)} of {n} samples"


@pytest.mark.parametrize("name", FILES)
def test_another_file_behind_is_read_too_or_refused(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    whole = read(tmp_path, data, RATE)
    others = ["WAV PCM_16", "AIFF PCM_16", "FLAC PCM_16", "OGG VORBIS", "MP3", "AU PCM_16", "CAF PCM_16", "W64 PCM_16"]
    for other in dict.fromkeys([name, *others]):
        try:
            samples = read(tmp_path, data + FILES[other], RATE)
        except BadAudio:
            continue
        n = len(read(tmp_path, FILES[other], RATE))
        assert len(samples) == len(whole) + n, f"{other}, {n} samples behind {len(whole)}: {len(samples)}"


def test_two_waves_are_not_one_however_the_first_is_written(tmp_path: Path) -> None:
    wav = FILES["WAV PCM_16"]
    file = io.BytesIO()
    sf.write(file, SIGNAL, RATE, format="WAV", endian="BIG")
    for first in (
        file.getvalue(),
        FILES["RF64 PCM_16"],
        made.rewritten(wav, riff_size=2**32 - 1),
        made.rewritten(wav, before=made.chunk(b"junk", b"odd", pad=False)),
    ):
        assert len(read(tmp_path, first, RATE)) == N
        for second in (wav, file.getvalue(), FILES["AIFF PCM_16"]):
            assert reason(tmp_path, first + second).startswith(("damaged", "truncated or damaged"))


def test_zeros_behind_a_flac_change_nothing_and_take_no_time(tmp_path: Path) -> None:
    for flac in (FILES["FLAC PCM_16"], FILES["FLAC of unknown length"]):
        np.testing.assert_array_equal(read(tmp_path, flac + bytes(300_000), RATE), read(tmp_path, flac, RATE))
        began = time.process_time()
        assert "something follows" in reason(tmp_path, flac + bytes(300_000) + b"junk")
        assert time.process_time() - began < 10


def test_a_flac_frame_that_is_missing_is_noticed(tmp_path: Path) -> None:
    flac = FILES["FLAC PCM_16"]
    second, third = (re.search(rb"\xff\xf8..%c" % i, flac, re.DOTALL) for i in (1, 2))
    assert second
    assert third
    without = flac[: second.start()] + flac[third.start() :]
    for data in (without, made.without_total(without)):
        assert reason(tmp_path, data) == "damaged: the FLAC frame that begins at sample 4096 is missing"
    twice = flac[: third.start()] + flac[second.start() :]
    for data in (twice, made.without_total(twice)):
        assert reason(tmp_path, data) == "damaged: the FLAC frame that begins at sample 4096 is there twice"


COUNTS = {
    "WAV GSM610": (48, 52), "WAV IMA_ADPCM": (48, 52), "WAV MS_ADPCM": (78, 82), "WAV G721_32": (46, 52),
    "WAV NMS_ADPCM_24": (44, 52), "W64 GSM610": (80, 120), "AIFF GSM610": (0, 60), "AIFF IMA_ADPCM": (0, 60),
    "MP3": (0, 200), "VOC PCM_16": (35, 36), "AU PCM_16": (20, 24), "SDS PCM_16": (10, 11),
}  # fmt: skip
"""Bytes that say how full the last block is, or of how many channels a frame is: they alone know it."""


def expected_length(damaged: bytes, n: int) -> int:
    """As many as before, at the rate that the header says now."""
    try:
        rate = sf.info(io.BytesIO(damaged[damaged.find(b"RIFF") :] if damaged[:3] == b"ID3" else damaged)).samplerate
    except sf.SoundFileError:
        rate = RATE
    return n * RATE // rate


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    wav, flac, ogg, mpeg = FILES["WAV PCM_16"], FILES["FLAC PCM_16"], FILES["OGG VORBIS"], mp3()
    assert reason(tmp_path, wav[:-200]) == f"truncated: 100 of {N} frames are missing"
    later = made.rewritten(wav, length=2 * (N - 4000), riff_size=len(wav) - 8)
    assert reason(tmp_path, later).startswith("damaged: 8000 bytes follow the 24274 bytes of samples")
    assert (
        reason(tmp_path, made.with_total(flac, N + 1))
        == f"damaged: the header says {N + 1} frames, and the last ends at {N}"
    )
    assert "the header says 4096 frames" in reason(tmp_path, made.with_total(flac, 4096))
    last = len(made.pages(ogg)[-1])
    assert reason(tmp_path, ogg[:-last]) == "truncated: the page that ends the Ogg stream is missing"
    without = b"".join(page for i, page in enumerate(made.pages(ogg)) if i != 2)
    assert "is missing" in reason(tmp_path, without)
    frames = made.mp3_frames(mpeg)
    assert reason(tmp_path, b"".join(frames[:-5])) == f"truncated: 5 of {len(frames) - 1} frames are missing"
    assert reason(tmp_path, b"".join(frames[:-1])) == f"truncated: 1 of {len(frames) - 1} frames are missing"
    assert reason(tmp_path, mpeg[:-1]) == "truncated: the last MPEG frame is not complete"
    assert "neither an MPEG frame nor a tag" in reason(
        tmp_path, frames[0] + frames[1] + bytes(5000) + b"".join(frames[2:])
    )
    assert "differ in rate" in reason(tmp_path, mpeg + mp3(rate=44_100))
    assert "change at byte" in reason(tmp_path, mpeg + b"".join(made.mp3_frames(mp3(STEREO))[1:]))
    assert "differ in rate" in reason(tmp_path, flac + encoded(STEREO, RATE, "FLAC"))
    assert "says 100 frames" in reason(tmp_path, made.rewritten(FILES["WAV GSM610"], fact=100))
    assert "are missing" in reason(tmp_path, made.rewritten(FILES["WAV GSM610"], fact=90_000))
