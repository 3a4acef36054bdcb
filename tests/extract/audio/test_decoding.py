"""Audio: files made here by soundfile, compared with the formula that filled them."""

import os
import threading
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from otoscope.extract.audio import decoding as audio
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import content_digest, read_clip, write_wav

from ...support.audio_bytes import RNG, encoded, music, read, reason


def sine(hertz: float, rate: int, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 1 / 64),
        ("WAV", "PCM_16", 1 / 32768),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("WAVEX", "PCM_16", 1 / 32768),
        ("RF64", "PCM_16", 1 / 32768),
        ("FLAC", "PCM_16", 1 / 32768),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.07),
    ],
)
def test_a_sine_is_the_same_sine_at_another_rate(tmp_path, rate, kind, subtype, error):
    samples = read(tmp_path, encoded(sine(440, rate), rate, kind, subtype))
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    inner = slice(1600, -1600)  # the resampler's filter sees silence beyond the ends
    np.testing.assert_allclose(samples[inner], sine(440, 16_000)[inner], atol=error + 2e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_mono_is_the_mean_of_the_channels(tmp_path, channels):
    frames = RNG.uniform(-1, 1, (5000, channels)).astype(np.float32)
    expected = frames.astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(read(tmp_path, encoded(frames, 16_000, "WAV", "FLOAT")), expected, atol=2e-7)


def test_float_files_keep_what_exceeds_full_scale(tmp_path):
    samples = read(tmp_path, encoded(np.array([2.5, -3.0]), 16_000, "WAV", "FLOAT"))
    assert samples.tolist() == [2.5, -3.0]


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_length_after_resampling(tmp_path, rate):
    for n in (7, 100, 1001, 4410, 44_101):
        samples = read(tmp_path, encoded(np.zeros(n), rate, "WAV"))
        assert len(samples) == (2 * n * 16_000 + rate) // (2 * rate)


def test_what_lies_above_the_new_nyquist_is_gone(tmp_path):
    samples = read(tmp_path, encoded(sine(10_000, 44_100), 44_100, "WAV", "FLOAT"))
    assert np.abs(samples[1600:-1600]).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("MP3", None), ("WAV", "GSM610")]
)
@pytest.mark.filterwarnings("error")
def test_a_part_is_a_slice_of_the_whole(tmp_path, kind, subtype):
    rate = 8000 if subtype == "GSM610" else 16_000
    data = encoded(music(rate, 8), rate, kind, subtype)
    whole = read(tmp_path, data, rate)
    for start, stop in [(0.0, 0.5), (3.3, 4.1), (3.2, 4.0), (0.01, 7.9), (6.5, None)]:
        times = {"start": start} | ({} if stop is None else {"stop": stop})
        part = read(tmp_path, data, rate, **times)
        end = len(whole) if stop is None else round(stop * rate)
        np.testing.assert_array_equal(part, whole[round(start * rate) : end])


def test_parts_are_cut_before_they_are_resampled(tmp_path):
    data = encoded(np.concatenate([np.ones(44_100), np.zeros(44_100)]), 44_100, "WAV")
    assert np.abs(read(tmp_path, data, start=1.0, stop=2.0)).max() == 0  # the step does not ring into it
    assert len(read(tmp_path, data, start=0.25, stop=1.0)) == 12_000


def test_where_a_part_may_end(tmp_path):
    data = encoded(np.zeros(16_000), 16_000, "WAV")
    assert len(read(tmp_path, data, start=0.5, stop=1.0)) == 8000
    assert len(read(tmp_path, data, start=0.5, stop=16_001 / 16_000)) == 8000
    assert (
        reason(tmp_path, data, stop=16_002 / 16_000) == "no audio from 0 s to 1.00012 s: the file has 1 s at 16000 Hz"
    )
    assert reason(tmp_path, data, start=1.0) == "no audio from 1 s to its end: the file has 1 s at 16000 Hz"
    assert "no audio from" in reason(tmp_path, data, start=0.5, stop=0.50001)


def test_the_digest_is_of_the_files_bytes(tmp_path):
    data = encoded(np.zeros(500), 16_000, "WAV")
    (tmp_path / "a.wav").write_bytes(data)
    expected = int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
    for clip in (Clip(name="a", path="a.wav"), Clip(name="b", path="a.wav", start=0.01)):
        assert read_clip(tmp_path, clip, 16_000).digest == expected
        assert content_digest(tmp_path, clip) == expected


def test_parts_of_one_file_read_it_once_and_a_changed_file_again(tmp_path, monkeypatch):
    reads: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))
    for name in ("a.mp3", "b.wav"):
        path = tmp_path / name
        path.write_bytes(encoded(music(16_000, 4), 16_000, name[2:].upper()))
        clips = [Clip(name=str(i), path=name, start=i / 2, stop=i / 2 + 0.5) for i in range(8)]
        parts = [read_clip(tmp_path, clip, 16_000) for clip in clips]
        assert reads == [path]
        assert len({part.digest for part in parts}) == 1
        path.write_bytes(encoded(music(16_000, 4.5), 16_000, name[2:].upper()))
        assert read_clip(tmp_path, clips[0], 16_000).digest != parts[0].digest
        assert len(reads) == 2
        reads.clear()
    read_clip(tmp_path, Clip(name="a", path="a.mp3"), 16_000)
    read_clip(tmp_path, Clip(name="a", path="a.mp3"), 16_000)
    assert len(reads) == 2  # whole files are not kept: nobody asks for them twice


def test_what_was_read_may_be_written_to(tmp_path):
    (tmp_path / "a.mp3").write_bytes(encoded(music(16_000, 1), 16_000, "MP3"))
    clip = Clip(name="a", path="a.mp3", stop=0.5)
    first = read_clip(tmp_path, clip, 16_000).samples
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(read_clip(tmp_path, clip, 16_000).samples, kept)


def test_threads_do_not_disturb_each_other(tmp_path):
    whole = {}
    for i, kind in enumerate(["WAV", "FLAC", "OGG", "MP3"] * 2):
        (tmp_path / f"{i}").write_bytes(encoded(music(22_050, 3), 22_050, kind))
        whole[i] = read_clip(tmp_path, Clip(name="", path=f"{i}"), 22_050).samples
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            i, start = int(rng.integers(8)), float(rng.integers(5)) / 2
            part = read_clip(tmp_path, Clip(name="", path=f"{i}", start=start, stop=start + 0.5), 22_050).samples
            if not np.array_equal(part, whole[i][int(start * 22_050) : round((start + 0.5) * 22_050)]):
                wrong.append((i, start))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- files that cannot be read


def test_absent_files_are_not_waited_for(tmp_path):
    waits: list[float] = []
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.wav").touch()
    for path in ("gone.wav", "folder", "a.wav/b.wav"):
        for start in (None, 0.5):
            with pytest.raises(FileNotFoundError, match=r"no audio file .*audio root"):
                read_clip(tmp_path, Clip(name="a", path=path, start=start), 16_000, sleep=waits.append)
    assert waits == []


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_reads_that_fail_are_tried_three_times(tmp_path, monkeypatch, failures):
    write_wav(tmp_path / "a.wav", np.zeros(400), 16_000)
    waits: list[float] = []
    read_bytes = Path.read_bytes
    left = [OSError(5, "Input/output error")] * failures

    def flaky(path: Path) -> bytes:
        if left:
            raise left.pop()
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", flaky)
    clip = Clip(name="a", path="a.wav")
    if failures < 3:
        assert len(read_clip(tmp_path, clip, 16_000, sleep=waits.append).samples) == 400
        assert len(waits) == failures
    else:
        with pytest.raises(OSError, match=r"a\.wav could not be read in 3 attempts: Input/output error"):
            read_clip(tmp_path, clip, 16_000, sleep=waits.append)
        assert waits == [0.5, 2.0]


# --- writing and fitting


@pytest.mark.parametrize("ending", ["wav", "flac", "WAV"])
def test_written_samples_come_back_to_sixteen_bits(tmp_path, ending):
    samples = np.array([0.0, 0.5, -1.0, 1.0, 2.0, 1 / 32768, 0.4 / 32768, -0.6 / 32768], np.float32)
    write_wav(tmp_path / f"a.{ending}", samples, 16_000)
    back = read_clip(tmp_path, Clip(name="a", path=f"a.{ending}"), 16_000).samples
    assert (back * 32768).tolist() == [0, 16384, -32768, 32767, 32767, 1, 0, -1]
    write_wav(tmp_path / f"b.{ending}", samples, 16_000)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert sf.info(str(tmp_path / f"a.{ending}")).subtype == "PCM_16"


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="NaN or infinite"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan]), 16_000)
    with pytest.raises(ValueError, match=r"ending in \.wav or \.flac"):
        write_wav(tmp_path / "a.mp3", np.zeros(9), 16_000)
    with pytest.raises(FileNotFoundError):
        write_wav(tmp_path / "none" / "a.wav", np.zeros(9), 16_000)
    assert os.listdir(tmp_path) == []


def test_decoding_in_pieces_changes_nothing(tmp_path, monkeypatch):
    data = encoded(np.column_stack([music(16_000, 2)] * 2), 16_000, "FLAC")
    whole = read(tmp_path, data)
    monkeypatch.setattr(audio, "PIECE_SAMPLES", 777)
    np.testing.assert_array_equal(read(tmp_path, data), whole)
