"""What is heard and drawn: the samples that the encoder took, and a sentence where they cannot be had."""

import io
import os
import struct
import threading
import wave
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from fastapi.testclient import TestClient

import otoscope
from otoscope.cli.options import executor_of
from otoscope.extract.audio.audio_root import root_at
from otoscope.extract.audio.clip import Clip
from otoscope.extract.audio.decoding import content_digest, wav_bytes
from otoscope.extract.models.log_mel import hz_to_mel
from otoscope.serve.caches import ByteCache
from otoscope.serve.catalogue import Catalogue
from otoscope.serve.explorer import MAX_WORK, Explorer, Working
from otoscope.serve.media import MAX_SECONDS, NoSound, Sound, load_sound, picture
from otoscope.serve.settings import Settings

from ..support.explored import exploring
from ..support.marking_workers import wait_for
from ..support.patch_encoder import RATE
from ..support.tones import N_CLIPS, Tones, burst, pitch, sound
from ..support.wav_corpora import write_wav_file


@pytest.fixture(scope="module")
def client(tones: Tones, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with exploring(tones, tmp_path_factory.mktemp("state") / "s") as client:
        yield client


def samples_of(content: bytes) -> tuple[np.ndarray, int]:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768, file.getframerate()


def test_a_clip_is_played_as_the_encoder_took_it(client: TestClient, tones: Tones) -> None:
    for number in (0, 7, N_CLIPS - 1):
        samples, rate = samples_of(client.get(f"/m/tones/{number}/sound.wav").content)
        assert rate == RATE
        np.testing.assert_allclose(samples, sound(number), atol=2 / 32768)
        assert abs(tones.pitch_of(samples, rate) - pitch(number)) < 1
        matched, _ = samples_of(client.get(f"/m/tones/{number}/matched.wav").content)
        decibels = 20 * np.log10(np.sqrt(np.mean(matched**2)))
        assert abs(decibels + 23) < 0.05 or np.abs(matched).max() > 0.999
        assert np.abs(matched).max() <= 1.0


def test_single_ranges_are_served(client: TestClient) -> None:
    url = "/m/tones/3/sound.wav"
    whole = client.get(url).content
    n = len(whole)
    for asked, start, stop in (("0-99", 0, 100), ("100-", 100, n), ("-50", n - 50, n), ("5-999999", 5, n)):
        answer = client.get(url, headers={"Range": f"bytes={asked}"})
        assert answer.status_code == 206
        assert answer.content == whole[start:stop]
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{n}"
    for asked in (f"{n}-", f"{n}-{n + 5}", "-0"):
        answer = client.get(url, headers={"Range": f"bytes={asked}"})
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{n}"
    for asked in ("bytes=0-1,3-4", "bytes=x", "lines=1-2", "bytes=-", f"bytes={'9' * 5000}-"):
        assert client.get(url, headers={"Range": asked}).content == whole


def test_the_mean_of_a_trace_is_the_stored_mean(client: TestClient, tones: Tones) -> None:
    """Within the rounding of float16; frames are where the encoder's spans are."""
    stored = otoscope.open(tones.url)["tones"].ds["mean"].values[0]
    for number in range(0, N_CLIPS, 5):
        for neuron in range(4):
            content = client.get(f"/m/tones/{number}/trace/0/{neuron}").content
            n, kept, mean, seconds, whole = struct.unpack("<Iffff", content[:20])
            frames = np.frombuffer(content[20:], "<f4").reshape(n, 5)
            assert (n, seconds, whole) == (14, 1.0, 1.0)
            assert kept == stored[neuron, number]
            assert abs(mean - kept) <= 2**-11 * max(abs(kept), 2**-14)
            assert abs(frames[:, 4].mean() - mean) < 1e-6
            np.testing.assert_allclose(frames[:7, 0], 0.16 * np.arange(7), atol=1e-6)
            if neuron == 0:
                highest = frames[7 + np.argmax(frames[7:, 4])]
                assert highest[0] <= burst(number) < highest[1]
                assert tuple(highest[2:4]) == (2000.0, 8000.0)


def test_a_picture_has_tone_and_burst_where_they_are(client: TestClient) -> None:
    for number in (1, 2, 20):
        content = client.get(f"/m/tones/{number}/picture").content
        rows, columns, step, seconds, whole, low, high, _ = struct.unpack("<HHffffff", content[:28])
        pixels = np.frombuffer(content[28:], np.uint8).reshape(rows, columns)
        assert (seconds, whole) == (1.0, 1.0)
        edges = np.linspace(float(hz_to_mel(low)), float(hz_to_mel(high)), rows + 2)
        beside = np.abs(np.arange(columns) * step - burst(number)) > 0.05
        tone = edges[1 + np.argmax(pixels[:, beside].astype(float).mean(axis=1))]
        assert abs(tone - float(hz_to_mel(pitch(number)))) <= edges[1] - edges[0]
        band = np.argmin(np.abs(edges[1:-1] - float(hz_to_mel(5000.0))))
        loud = np.flatnonzero(pixels[band] > 0.9 * pixels[band].max()) * step
        assert abs(loud.mean() - burst(number)) < 0.02


@pytest.mark.parametrize("seconds", [0.02, 0.5])
@pytest.mark.parametrize("rate", [1000, 8000, 96_000])
def test_any_rate_and_length_has_a_picture(rate: int, seconds: float) -> None:
    samples = np.sin(np.arange(round(rate * seconds))).astype(np.float32)
    pixels, step, _ = picture(Sound(samples=samples, rate=rate, cut=False))
    assert pixels.max() == 255
    assert pixels.shape[1] * step >= seconds


def write(folder: Path, name: str, samples: np.ndarray, rate: int) -> tuple[Clip, int]:
    sf.write(folder / name, samples, rate)
    clip = Clip(name=name, path=name)
    return clip, content_digest(root_at(folder), clip)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    """MP3, 8 kHz, 96 kHz in stereo, 0.02 s, and 30 minutes, of which a minute is played."""
    root, t = root_at(tmp_path), np.arange(96_000) / 96_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    for name, samples, rate in (
        ("a.mp3", tone[::2], 48_000), ("b.wav", tone[::12], 8_000), ("c.wav", np.stack([tone, tone], 1), 96_000),
    ):  # fmt: skip
        clip, digest = write(tmp_path, name, samples, rate)
        found = load_sound(root, clip, 16_000, None, digest)
        assert (found.rate, found.cut) == (16_000, False)
        spectrum = np.abs(np.fft.rfft(found.samples[:16_000]))
        assert abs(np.argmax(spectrum) - 440) <= 1
        assert abs(found.seconds - 1) < 0.1
    clip, digest = write(tmp_path, "d.wav", tone[:1920], 96_000)
    assert len(load_sound(root, clip, 16_000, None, digest).samples) == 320
    clip, digest = write(tmp_path, "e.flac", np.zeros(1800 * 1000), 1000)
    long = load_sound(root, clip, 1000, None, digest)
    assert (long.seconds, long.cut) == (MAX_SECONDS, True)
    assert not load_sound(root, clip, 1000, 2.0, digest).cut
    assert long.gain_db == 0  # silence
    assert picture(long)[0].shape[1] <= 1500


def test_what_is_not_the_file_that_was_extracted_is_named(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    root = root_at(tmp_path / "root")
    clip, digest = write(tmp_path / "root", "a.wav", np.zeros(1000), 1000)
    assert load_sound(root, clip, 1000, None, digest).samples.size == 1000
    with pytest.raises(NoSound, match="has changed since it was extracted"):
        load_sound(root, clip, 1000, None, digest + 1)
    with pytest.raises(NoSound, match="not under the audio root"):
        load_sound(root, Clip(name="x", path="gone.wav"), 1000, None, digest)
    secret = tmp_path / "secret.wav"
    write_wav_file(secret, np.zeros(100), 1000)
    os.symlink(secret, tmp_path / "root" / "link.wav")
    for path in ("link.wav", "../secret.wav", str(secret)):
        with pytest.raises(NoSound, match="outside the audio root"):
            load_sound(root, Clip(name="x", path=path), 1000, None, digest)
    (tmp_path / "root" / "text.wav").write_text("root:x:0:0:secret")
    text = Clip(name="x", path="text.wav")
    digest = content_digest(root, text)
    with pytest.raises(NoSound) as caught:
        load_sound(root, text, 1000, None, digest)
    assert "cannot be played" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "0%2f..%2f1", "999", "-1", "x"])
def test_no_path_in_a_request_is_opened(client: TestClient, path: str) -> None:
    for ending in ("sound.wav", "picture", "trace/0/0"):
        answer = client.get(f"/m/tones/{path}/{ending}")
        assert answer.status_code == 404
        assert b"root:" not in answer.content
    assert client.get(f"/static/{path}").status_code == 404


def test_without_audio_or_encoder_the_page_names_the_option(tones: Tones, tmp_path: Path) -> None:
    with exploring(tones, tmp_path / "a", audio_roots={}, encoder="") as client:
        assert "--audio-root DIR" in client.get("/").text
        answer = client.get("/m/tones/0/sound.wav")
        assert answer.status_code == 409
        assert "--audio-root" in answer.json()["error"]
    with exploring(tones, tmp_path / "b", encoder="") as client:
        assert client.get("/m/tones/0/sound.wav").status_code == 200
        answer = client.get("/m/tones/0/trace/0/0")
        assert answer.status_code == 409
        assert "expected --encoder SPEC" in answer.json()["error"]
    with exploring(tones, tmp_path / "c", sound=False) as client:
        for ending in ("sound.wav", "matched.wav", "picture", "trace/0/0"):
            answer = client.get(f"/m/tones/0/{ending}")
            assert answer.status_code == 409
            assert "--no-audio" in answer.json()["error"]


def test_the_encoder_of_another_store_is_a_sentence(tones: Tones, tmp_path: Path) -> None:
    with exploring(tones, tmp_path / "s", encoder="tiny-sl") as client:
        for _ in range(2):
            answer = client.get("/m/tones/0/trace/0/0")
            assert answer.status_code == 409
            assert "the encoder is not the store's" in answer.json()["error"]
        assert client.get("/m/tones/0/sound.wav").status_code == 200


def test_a_cache_keeps_within_its_bytes() -> None:
    cache, made = ByteCache[bytes](1000), []

    def make(key: int) -> bytes:
        made.append(key)
        return bytes(300)

    for key in (1, 2, 3, 1, 4):  # 4 drives out 2, which was not used for longest
        cache.made(key, partial(make, key))
        assert cache.n_bytes <= 1000
    for key in (1, 3, 4):
        cache.made(key, partial(make, key))
    assert made == [1, 2, 3, 4]
    assert cache.get(2) is None
    with pytest.raises(ZeroDivisionError):
        cache.made(9, lambda: bytes(1 // 0))
    assert cache.get(9) is None
    cache.clear()
    assert cache.n_bytes == 0


def test_wav_bytes_round_and_refuse() -> None:
    samples, rate = samples_of(wav_bytes(np.array([0, 0.5, -1, 2], np.float32), 8000))
    assert (samples.tolist(), rate) == ([0, 0.5, -1, 32767 / 32768], 8000)
    with pytest.raises(ValueError, match="NaN or infinite"):
        wav_bytes(np.array([np.nan], np.float32), 8000)


def test_what_is_computed_for_nobody_is_bounded(tones: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(stores=(tones.url,), state=tmp_path, workers=partial(executor_of, "serial"))
    explorer, go = Explorer(settings, Catalogue(settings)), threading.Event()
    monkeypatch.setattr("otoscope.serve.explorer.WAIT_SECONDS", 0.01)

    def slow(progress: Callable[[str], None], fails: bool) -> list[int]:
        go.wait(60)
        if fails:
            raise ValueError("nobody sees this")
        return [1]

    for key in range(2 * MAX_WORK):
        with pytest.raises(Working):
            explorer._awaited("cards", key, partial(slow, fails=key % 2 == 0))
    assert len(explorer._work) == MAX_WORK
    go.set()
    wait_for(lambda: all(work.ended.is_set() for work in list(explorer._work.values())))
    monkeypatch.setattr("otoscope.serve.explorer.WAIT_SECONDS", 60)
    assert explorer._awaited("cards", "another", partial(slow, fails=False)) == [1]
    assert all(work.error for work in explorer._work.values())
    with pytest.raises(ValueError, match="nobody sees this"):
        explorer._awaited("cards", "wrong", partial(slow, fails=True))
    assert "wrong" not in explorer._work
