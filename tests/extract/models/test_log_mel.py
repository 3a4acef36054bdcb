"""The log-mel front end against librosa's filters, a plain numpy transform, and published values."""

import librosa
import numpy as np
import pytest
import torch

from otoscope.extract.models.log_mel import LogMel, hz_to_mel, mel_edges, mel_filters, mel_to_hz

RATES = [16_000, 32_000]


def two_tones(seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * t) + 0.25 * np.sin(2 * np.pi * 2000 * t)


def plain_log_mel(wave: np.ndarray, rate: int) -> np.ndarray:
    """The formula, frame by frame in float64: (sample) -> (mel, frame)."""
    n_fft, hop = rate // 40, rate // 100
    half = n_fft // 2
    padded = np.concatenate([wave[1 : half + 1][::-1], wave, wave[-half - 1 : -1][::-1]])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = [padded[k * hop : k * hop + n_fft] * window for k in range(len(wave) // hop + 1)]
    power = np.abs(np.fft.rfft(np.stack(frames, axis=1), axis=0)) ** 2
    filters = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=80, fmin=50, fmax=rate / 2, htk=False, norm="slaney", dtype=np.float64
    )
    return np.log(filters @ power + np.finfo(np.float32).eps)


@pytest.mark.parametrize("rate", RATES)
def test_filters_are_those_of_librosa(rate: int) -> None:
    expected = librosa.filters.mel(
        sr=rate,
        n_fft=rate // 40,
        n_mels=80,
        fmin=50,
        fmax=rate / 2,
        htk=False,
        norm="slaney",
        dtype=np.float64,
    )
    np.testing.assert_allclose(mel_filters(rate, rate // 40, 80, 50, rate / 2), expected, atol=1e-12)
    np.testing.assert_allclose(LogMel(rate).filters, expected, atol=1e-8)


def test_the_scale_is_that_of_librosa_and_has_an_inverse() -> None:
    hz = np.array([0, 50, 999.9, 1000, 1000.1, 4000, 16_000])
    np.testing.assert_allclose(hz_to_mel(hz), librosa.hz_to_mel(hz, htk=False), rtol=1e-12)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12)
    edges = librosa.mel_frequencies(n_mels=82, fmin=50, fmax=8000, htk=False)
    np.testing.assert_allclose(mel_edges(80, 50, 8000), edges, rtol=1e-12)


def test_one_second_of_two_tones_has_the_published_values() -> None:
    log_mel = LogMel()(torch.tensor(two_tones(), dtype=torch.float32)[None])[0]
    assert log_mel.shape == (80, 101)
    assert log_mel.dtype == torch.float32
    assert log_mel.mean().item() == pytest.approx(-14.01808, abs=2e-5)
    assert log_mel.std().item() == pytest.approx(5.35994, abs=2e-5)
    assert log_mel[:, 50].argmax() == 10
    assert log_mel[10, 50].item() == pytest.approx(3.88647, abs=2e-5)
    assert log_mel[40, 50].item() == pytest.approx(-15.94238, abs=2e-5)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.02, 0.5037, 1.0])
def test_values_are_those_of_the_plain_formula(rate: int, seconds: float) -> None:
    wave = np.random.default_rng(0).normal(scale=0.2, size=int(seconds * rate))
    found = LogMel(rate)(torch.tensor(wave, dtype=torch.float32)[None])[0]
    np.testing.assert_allclose(found, plain_log_mel(wave, rate), atol=2e-4)


def test_silence_is_the_floor() -> None:
    assert torch.unique(LogMel()(torch.zeros(1, 16_000))).tolist() == [pytest.approx(-15.942385, abs=1e-6)]


def test_each_clip_is_prepared_independently_of_its_batch() -> None:
    waves = torch.randn(5, 4000, generator=torch.Generator().manual_seed(0))
    together = LogMel()(waves)
    for wave, log_mel in zip(waves, together, strict=True):
        assert torch.equal(LogMel()(wave[None])[0], log_mel)


@pytest.mark.parametrize("n_samples", [201, 319, 320, 16_000, 16_159, 16_160])
def test_frames_are_as_many_as_said(n_samples: int) -> None:
    front_end = LogMel()
    assert front_end(torch.zeros(1, n_samples)).shape[2] == front_end.n_frames(n_samples) == n_samples // 160 + 1


@pytest.mark.parametrize("rate", RATES)
def test_the_shortest_waveform_is_half_a_window_and_one_sample(rate: int) -> None:
    front_end = LogMel(rate)
    assert front_end.min_samples == rate // 80 + 1
    assert front_end(torch.zeros(2, front_end.min_samples)).shape == (2, 80, 2)
    with pytest.raises(ValueError, match=rf"\(2, {rate // 80}\); expected \(clip, sample\) with at least"):
        front_end(torch.zeros(2, front_end.min_samples - 1))


def test_constants_are_no_weights() -> None:
    assert LogMel().state_dict() == {}


@pytest.mark.parametrize(("fmin", "fmax"), [(50.0, 9000.0), (8000.0, 50.0), (-1.0, None)])
def test_bands_outside_the_spectrum_are_refused(fmin: float, fmax: float | None) -> None:
    with pytest.raises(ValueError, match="expected 0 <= fmin < fmax, at most 8000"):
        LogMel(fmin=fmin, fmax=fmax)
