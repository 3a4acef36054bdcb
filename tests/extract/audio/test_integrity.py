"""Files that are empty, damaged, truncated or no audio: each gets its reason, and none is refused wrongly."""

import pickle
import re

import numpy as np
import pytest

from otoscope.extract.audio.decoding import BadAudio

from ...support.audio_bytes import RNG, encoded, music, read, reason


@pytest.mark.parametrize("data", [bytes(1000), b"hello world " * 99, b"RIFF", b"OggS", b"fLaC", b"ID3"])
def test_bytes_that_are_no_audio(tmp_path, data):
    assert reason(tmp_path, data).startswith(("does not decode", "truncated"))


@pytest.mark.parametrize(
    ("kind", "keep", "message"),
    [
        ("FLAC", 0.5, "truncated or damaged FLAC: its last frame is not there or not complete, or something .*"),
        ("FLAC", 30, "truncated or damaged FLAC: its header is not complete"),
        ("MP3", 60, "truncated: the last MPEG frame is not complete"),
        ("WAV", 30, "truncated or damaged WAV, or one in a coding that cannot be read: .*'data' chunk marker"),
    ],
)
def test_known_formats_are_named(tmp_path, kind, keep, message):
    data = encoded(music(16_000, 6), 16_000, kind)
    assert re.fullmatch(message, reason(tmp_path, data[: keep if keep > 1 else int(keep * len(data))]))


def test_known_formats_with_something_else_inside(tmp_path):
    wav = bytearray(encoded(music(16_000, 1), 16_000, "WAV"))
    wav[20:22] = (0x11).to_bytes(2, "little")  # ADPCM of 16 bits, which there is not
    assert "or one in a coding that cannot be read: Error in ADPCM" in reason(tmp_path, bytes(wav))
    assert reason(tmp_path, b"ID3\4" + bytes(99)) == "truncated or damaged MP3"


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        (b"\0\0\0\x20ftypM4A ", "an M4A or MP4 file, which is not read; convert it: ffmpeg -i IN OUT.flac"),
        (b"\xff\xf1\x50\x80", "AAC, which is not read; convert it"),
        (b"#!AMR-WB\n", "AMR, which is not read; convert it"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMA or WMV (ASF), which is not read; convert it"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01", "WebM or Matroska, which is not read; convert it"),
        (b"RIFF\x10\0\0\0AVI ", "AVI, which is not read; convert it"),
        (b"wvpk", "WavPack, which is not read; convert it"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, which stands for a file; fetch it: git lfs pull",
        ),
        (b"\xef\xbb\xbf\r\n<!-- x --><!DOCTYPE html><html>", "an HTML page, which is not audio: a server's answer"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document, which is not audio: a server's answer"),
        (b'{"message": "Not Found"}', "a JSON document, which is not audio: a server's answer"),
        (b"\x1f\x8b\x08", "gzip, which is not audio; unpack it"),
        (b"PK\3\4", "zip, which is not audio; unpack it"),
        (b"\x89PNG\r\n", "an image, which is not audio"),
    ],
)
def test_other_files_are_named_by_their_first_bytes(tmp_path, begin, text):
    assert reason(tmp_path, begin + bytes(200)).startswith(text)
    assert reason(tmp_path, b"ID3\4\0\0\0\0\0\x05hello" + begin + bytes(200)).startswith(text)


def test_empty_and_zero_length(tmp_path):
    assert reason(tmp_path, b"") == "empty: 0 bytes"
    assert reason(tmp_path, encoded(np.zeros(0), 16_000, "WAV")) == "no samples: 0 frames"
    assert reason(tmp_path, encoded(np.zeros(0), 16_000, "OGG")) == "no samples: 0 frames"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path, bad):
    samples = music(44_100, 1)
    samples[[7, 99]] = bad
    assert reason(tmp_path, encoded(samples, 44_100, "WAV", "FLOAT")) == "2 of 44100 samples are NaN or infinite"
    opposite = np.column_stack([samples, -samples])  # inf - inf
    assert reason(tmp_path, encoded(opposite, 44_100, "WAV", "FLOAT")).startswith("2 of 44100 samples")
    assert "infinite" in reason(tmp_path, encoded(np.full(9, 1e300), 16_000, "WAV", "DOUBLE"))


def test_nothing_left_at_the_new_rate(tmp_path):
    data = encoded(np.zeros(10), 48_000, "WAV")
    assert reason(tmp_path, data, rate=1000) == "too short: 10 frames at 48000 Hz are none at 1000 Hz"


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, -3])
def test_truncated_files(tmp_path, kind, keep):
    data = encoded(music(16_000, 6), 16_000, kind)
    cut = data[: int(len(data) * keep)] if keep > 0 else data[:keep]
    assert reason(tmp_path, cut).startswith(("truncated", "does not decode"))


def test_how_much_is_missing(tmp_path):
    data = encoded(np.zeros((1000, 2)), 16_000, "WAV")
    assert reason(tmp_path, data[:-5]) == "truncated: 2 of 1000 frames are missing"


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_damage_in_the_middle(tmp_path, kind):
    data = bytearray(encoded(music(16_000, 6), 16_000, kind))
    data[len(data) // 2 : len(data) // 2 + 2000] = RNG.bytes(2000)
    assert reason(tmp_path, bytes(data)).startswith(("truncated", "damaged", "does not decode"))


def test_one_flipped_bit_in_an_ogg_page_is_seen_but_not_what_others_add_behind(tmp_path):
    data = encoded(music(16_000, 6), 16_000, "OGG")
    for at in range(40, len(data), len(data) // 50):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        assert reason(tmp_path, bytes(damaged)).startswith(("damaged", "truncated", "Ogg with no"))
    np.testing.assert_array_equal(read(tmp_path, data + b"TAG" + bytes(125)), read(tmp_path, data))


@pytest.mark.parametrize(
    ("riff", "length"),
    [(0, 0), (36, 0), (2**32 - 1, 0), (2**32 - 1, 2**32 - 1), (0x7FFFF024, 0x7FFFF000), (0, 2**32 - 1)],
)
def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, riff, length):
    samples = music(16_000, 1)
    plain = encoded(samples, 16_000, "WAV")
    for tags in (b"", b"LIST\x05\0\0\0INFO.\0"):  # an odd length is followed by a zero
        data = b"RIFF" + riff.to_bytes(4, "little") + plain[8:36] + tags + b"data" + length.to_bytes(4, "little")
        np.testing.assert_allclose(read(tmp_path, data + plain[44:]), samples, atol=1e-4)


def test_wav_without_samples_but_with_something_behind_them(tmp_path):
    data = encoded(np.zeros(0), 16_000, "WAV") + b"LIST\x06\0\0\0INFO\0\0"
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    assert reason(tmp_path, data) == "no samples: 0 frames"


def test_headers_that_lie(tmp_path):
    data = bytearray(encoded(music(16_000, 1), 16_000, "FLAC"))
    data[21] |= 0x0F  # the count of frames: 36 bits from the lower half of byte 21 on
    data[22:26] = b"\xff" * 4
    assert reason(tmp_path, bytes(data)) == "damaged: the header says 68719476735 frames, and the last ends at 16000"
    wav = bytearray(encoded(music(16_000, 1), 16_000, "WAV"))
    wav[24:28] = (1).to_bytes(4, "little")
    assert reason(tmp_path, bytes(wav)) == "the header says 1 Hz; expected 1,000 to 1,000,000"
    wav[32:34] = b"\0\0"  # bytes of a frame
    expected = "WAV of PCM_16, whose samples cannot be counted; convert it: ffmpeg -i IN OUT.flac"
    assert reason(tmp_path, bytes(wav)) == expected


def test_bad_audio_travels_between_processes():
    again = pickle.loads(pickle.dumps(BadAudio("truncated", 2**64 - 1)))
    assert (str(again), again.digest) == ("truncated", 2**64 - 1)
