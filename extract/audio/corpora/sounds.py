"""How the synthetic sounds are made: notes by two methods, everyday events, rooms and background noise.

Goal: pure functions from names and a random generator to samples; `synth` decides what is asked of them.
Conventions: a sound is a 1 s waveform at 16 kHz, (sample); times in s, frequencies in Hz, levels in dB.
`rng` is drawn from in a fixed order: the same generator state, the same sound.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Samples = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator

SAMPLE_RATE = 16_000
SECONDS = 1.0
N_SAMPLES = int(SAMPLE_RATE * SECONDS)
NYQUIST = SAMPLE_RATE / 2

TIMBRES = ("organ", "string", "brass", "reed", "mallet")
ARTICULATIONS = ("pluck", "pad", "swell", "staccato")
MODULATIONS = ("none", "vibrato", "tremolo")
ROOMS = ("dry", "room", "hall")
NOISES = ("white", "pink", "hum")
N_PARTIALS = 48
OPERATORS = {  # of FM, per timbre: carrier ratio, modulator ratio, modulation index at C4 from, to
    "organ": (2.0, 1.0, 0.4, 1.2),
    "string": (1.0, 1.0, 1.5, 3.0),
    "brass": (3.0, 1.0, 2.5, 5.0),
    "reed": (3.0, 2.0, 1.0, 2.5),
    "mallet": (1.0, 3.5, 1.5, 4.0),
}
BREATH = {  # noise of the playing: from and to Hz, level against the tone, decay rate in 1/s after the onset
    "organ": (3000.0, 6000.0, 0.02, 0.0),
    "string": (2500.0, 7000.0, 0.12, 0.0),
    "brass": (300.0, 1200.0, 0.12, 12.0),
    "reed": (1000.0, 3000.0, 0.25, 0.0),
    "mallet": (1500.0, 8000.0, 0.6, 60.0),
}


def seconds(oversampling: int = 1) -> Samples:
    """Times of the samples, float64 (sample), in s."""
    return np.arange(N_SAMPLES * oversampling) / (SAMPLE_RATE * oversampling)


def hertz(midi: float) -> float:
    """Frequency in Hz of a MIDI pitch in equal temperament: 440 * 2^((midi - 69) / 12)."""
    return float(440.0 * 2.0 ** ((midi - 69.0) / 12.0))


def sine(turns: Samples) -> Samples:
    """Sine of a phase given in turns."""
    return np.sin(2 * np.pi * turns)


def mix(gains: Samples, waves: Samples) -> Samples:
    """Sum of waves (partial, sample) with gains (partial), always added in the same order: (sample)."""
    return np.asarray(np.einsum("p,ps->s", gains, waves), np.float64)  # BLAS may add otherwise on more cores


def jitter(rng: Rng, n: int) -> Samples:
    """Random gains (n), log-normal with a standard deviation of 3 dB."""
    return 10.0 ** (rng.normal(0.0, 3.0, n) / 20.0)


def envelope(articulation: str, rng: Rng, t: Samples) -> Samples:
    """Amplitude over time, (sample) in [0, 1]; begins within the first 0.12 s, silent again at the end."""
    x = np.maximum(t - rng.uniform(0.0, 0.12), 0.0)
    if articulation == "pluck":
        shape = np.minimum(x / 0.004, 1.0) * np.exp(-x / rng.uniform(0.08, 0.35))
    elif articulation == "pad":
        shape = np.minimum(x / rng.uniform(0.06, 0.25), 1.0)
    elif articulation == "swell":
        length = rng.uniform(0.55, 0.8)
        rise = np.minimum(x / length, 1.0) ** rng.uniform(1.5, 3.0)
        shape = rise * np.clip((length + 0.06 - x) / 0.06, 0.0, 1.0)
    else:
        shape = np.minimum(x / 0.01, 1.0) * np.clip((rng.uniform(0.1, 0.3) - x) / 0.05, 0.0, 1.0)
    return shape * np.clip((SECONDS - t) / 0.05, 0.0, 1.0)


def partials(timbre: str, f0: float, rng: Rng) -> tuple[Samples, Samples, Samples]:
    """Partials of an additive tone: ratio to f0, amplitude, decay rate in 1/s; three arrays (partial)."""
    if timbre == "mallet":  # transverse modes of a free bar, the upper ones dying first
        ratio = np.array([1.0, 2.756, 5.404, 8.933, 13.34])
        return ratio, np.array([1.0, 0.6, 0.4, 0.25, 0.15]) * jitter(rng, 5), rng.uniform(1.0, 2.5) * ratio
    k = np.arange(1.0, N_PARTIALS + 1)
    if timbre == "organ":
        loud = np.where(k == 1, 1.0, np.isin(k, [2, 3, 4, 6, 8]) * rng.uniform(0.2, 1.0, N_PARTIALS))
    elif timbre == "string":
        loud = k ** -rng.uniform(0.8, 1.3)
    elif timbre == "brass":  # a formant that stays in Hz whatever the pitch
        octaves_away = np.log2(k * f0 / rng.uniform(900.0, 1800.0))
        loud = np.exp(-0.5 * (octaves_away / 0.9) ** 2) / np.sqrt(k) + 0.05 / k
    else:
        loud = np.where(k % 2 == 1, 1.0, rng.uniform(0.02, 0.2)) / k
    return k, loud * jitter(rng, N_PARTIALS), np.zeros(N_PARTIALS)


def tone(
    method: str,
    midi: float,
    timbre: str,
    rng: Rng,
    *,
    articulation: str = "pad",
    modulation: str = "none",
    breath: float = 0.0,
) -> Samples:
    """A dry note, float64 (sample), without any partial or sideband above the Nyquist frequency.

    breath: how loud the noise of bow, reed, lips or stick is beside it, 1 being usual.
    method "additive": the sum of `partials`, those that would reach 8 kHz left out.
    method "fm": sin(2 pi fc t + index(t) sin(2 pi fm t)) (Chowning 1973), made at 32 or 128 kHz with
    an index small enough for that (sidebands beyond index + 3 are negligible), then cut off at 8 kHz.
    """
    f0, rate = hertz(midi), rng.uniform(4.0, 7.5)
    t = seconds(1 if method == "additive" else 2 if f0 < 250.0 else 8)
    depth = 2.0 ** (rng.uniform(20.0, 70.0) / 1200.0) - 1.0 if modulation == "vibrato" else 0.0
    dip = rng.uniform(0.4, 0.9) if modulation == "tremolo" else 0.0
    # the integral of f0 * (1 + depth * sin(2 pi rate t))
    turns = f0 * (t + depth / (2 * np.pi * rate) * (1.0 - np.cos(2 * np.pi * rate * t)))
    loudness = envelope(articulation, rng, t) * (1.0 - dip * (0.5 + 0.5 * sine(rate * t)))
    make = additive if method == "additive" else fm
    wave = make(timbre, f0, f0 * (1.0 + depth), turns, t, loudness, rng)
    low, high, level, decay = BREATH[timbre]
    level_now = loudness[:: len(t) // N_SAMPLES]  # at the sample rate
    fade = np.exp(-decay * np.maximum(seconds() - seconds()[np.argmax(level_now > 0)], 0.0))
    return np.asarray(wave + breath * level * np.abs(wave).max() * level_now * fade * band_noise(rng, low, high))


def fm(timbre: str, f0: float, highest: float, turns: Samples, t: Samples, loudness: Samples, rng: Rng) -> Samples:
    """An FM tone, made at the times `t`, a multiple of the sample rate, then cut off: float64 (sample)."""
    multiple = len(t) // N_SAMPLES
    carrier, modulator, low, high = OPERATORS[timbre]
    carrier = carrier if carrier * highest < NYQUIST else 1.0
    bound = (NYQUIST * multiple - carrier * highest) / (modulator * highest) - 3.0
    # lower notes get more, as players of FM instruments set them, or all of them would be dull
    index = np.full(len(t), min(rng.uniform(low, high) * np.sqrt(hertz(60) / f0), max(bound, 0.0)))
    if timbre == "brass":  # louder is brighter
        index *= loudness / loudness.max()
    elif timbre == "mallet":
        index *= np.exp(-t / rng.uniform(0.1, 0.4))
    wave = sine(carrier * turns + rng.random() + index / (2 * np.pi) * sine(modulator * turns))
    if timbre == "organ":
        wave += sine(turns)
    lines = np.fft.rfft(loudness * wave)[: N_SAMPLES // 2 + 1]
    lines[-1] = 0.0
    lines[: int(20 * SECONDS)] = 0.0  # a sideband may fall on 0 Hz, which no ear and no loudspeaker knows
    return np.fft.irfft(lines, N_SAMPLES) / multiple


def additive(
    timbre: str, f0: float, highest: float, turns: Samples, t: Samples, loudness: Samples, rng: Rng
) -> Samples:
    """Sum of the partials of a tone whose pitch never exceeds `highest` Hz: float64 (sample)."""
    ratio, loud, decay = partials(timbre, f0, rng)
    start, keep = rng.random(len(ratio)), ratio * highest < NYQUIST
    cycles = ratio[keep, None] * turns + start[keep, None]  # (partial, sample)
    cycles -= np.rint(cycles)  # float32 sines are fast, and exact enough within half a turn of zero
    waves = np.sin(cycles.astype(np.float32) * np.float32(2 * np.pi))
    if timbre == "mallet":
        waves = waves * np.exp(-decay[keep, None] * t)
    return loudness * mix(loud[keep], waves)


def band_noise(rng: Rng, low: float, high: float, tilt: float = 0.0) -> Samples:
    """Noise between two frequencies in Hz, amplitude falling as f^-tilt, peak 1: (sample)."""
    f = np.fft.rfftfreq(N_SAMPLES, 1 / SAMPLE_RATE)
    lines = rng.normal(size=len(f)) + 1j * rng.normal(size=len(f))
    wave = np.fft.irfft(lines * ((f >= low) & (f <= high)) * np.maximum(f, 20.0) ** -tilt, N_SAMPLES)
    return np.asarray(wave / np.abs(wave).max())


def bursts(starts: Samples, burst: Samples, rng: Rng) -> Samples:
    """The same burst begun at each of the start times in s, with gains of `jitter`: (sample)."""
    wave = np.zeros(N_SAMPLES + len(burst))
    for start, gain in zip(starts, jitter(rng, len(starts)), strict=True):
        first = min(int(start * SAMPLE_RATE), N_SAMPLES)
        wave[first : first + len(burst)] += gain * burst
    return wave[:N_SAMPLES]


def beating(rng: Rng, low: float, high: float) -> Samples:
    """Start times in s of something that repeats, not quite evenly, `low` to `high` times per second."""
    even = np.arange(rng.uniform(0.0, 0.2), 0.95, 1.0 / rng.uniform(low, high))
    return np.maximum(even + rng.normal(0.0, 0.015, len(even)), 0.0)


def alarm(rng: Rng, t: Samples) -> Samples:
    """Beeps of one pitch."""
    pitch, gate = rng.uniform(800.0, 3200.0), (t * rng.uniform(2.5, 7.0) + rng.random()) % 1.0 < 0.5
    return gate * (sine(pitch * t) + rng.uniform(0.0, 0.4) * sine(2 * pitch * t))


def bird(rng: Rng, t: Samples) -> Samples:
    """Short chirps, rising or falling, between 2 and 6 kHz."""
    x = t[: int(rng.uniform(0.05, 0.12) * SAMPLE_RATE)]
    low, sweep = rng.uniform(2500.0, 4500.0), rng.uniform(-8000.0, 12000.0)
    return bursts(beating(rng, 3.0, 8.0), sine(low * x + sweep * x**2) * np.hanning(len(x)), rng)


def clicks(rng: Rng, t: Samples) -> Samples:
    """A train of clicks of a few ms."""
    return bursts(beating(rng, 6.0, 30.0), rng.normal(size=40) * np.exp(-t[:40] * 2000.0), rng)


def engine(rng: Rng, t: Samples) -> Samples:
    """A low hum with harmonics that speeds up or slows down, and noise that pulses with it."""
    turns = rng.uniform(18.0, 70.0) * (t + rng.uniform(-0.2, 0.2) * t**2)
    k = np.arange(1, 25)
    hum = mix(jitter(rng, 24) / k, sine(k[:, None] * turns))
    pulse = rng.uniform(0.1, 0.5) * (1.0 + sine(turns))
    return np.asarray(hum / np.abs(hum).max() + pulse * band_noise(rng, 50.0, 3000.0, 0.5))


def footsteps(rng: Rng, t: Samples) -> Samples:
    """Dull thuds, two to four in a second."""
    thud = band_noise(rng, 60.0, rng.uniform(400.0, 2500.0), 0.7)[:2400] * np.exp(-t[:2400] * 45.0)
    return bursts(beating(rng, 2.2, 3.6), thud, rng)


def glass(rng: Rng, t: Samples) -> Samples:
    """One to three bursts of high, ringing, unrelated partials."""
    loud, fade = jitter(rng, 12) / 4.0, np.exp(-rng.uniform(6.0, 30.0, (12, 1)) * t)
    ring = mix(loud, fade * sine(rng.uniform(1800.0, 7600.0, (12, 1)) * t))
    ring += band_noise(rng, 2500.0, NYQUIST) * np.exp(-t * rng.uniform(20.0, 60.0))
    return bursts(rng.uniform(0.0, 0.4, rng.integers(1, 4)), ring, rng)


def knock(rng: Rng, t: Samples) -> Samples:
    """Two to four hollow blows in quick succession."""
    x, pitch = t[:1600], rng.uniform(120.0, 450.0)
    blow = np.exp(-x * 60.0) * sine(pitch * x) + 0.3 * rng.normal(size=1600) * np.exp(-x * 300.0)
    return bursts(rng.uniform(0.0, 0.2) + np.arange(rng.integers(2, 5)) * rng.uniform(0.12, 0.22), blow, rng)


def rain(rng: Rng, t: Samples) -> Samples:
    """Many small drops over a hiss."""
    drops = 4.0 * rng.normal(size=N_SAMPLES) * (rng.random(N_SAMPLES) < rng.uniform(0.002, 0.02))
    hiss = rng.uniform(0.3, 1.0) * band_noise(rng, 800.0, NYQUIST)
    return np.convolve(drops, np.exp(-t[:24] * 3200.0), "same") + hiss


def siren(rng: Rng, t: Samples) -> Samples:
    """A tone that wails up and down between about 0.5 and 1.5 kHz."""
    low, high = rng.uniform(400.0, 800.0), rng.uniform(1000.0, 1800.0)
    sweep = 0.5 + 0.5 * sine(rng.uniform(0.5, 4.0) * t + rng.random())
    turns = np.cumsum(low + (high - low) * sweep) / SAMPLE_RATE
    return sine(turns) + 0.3 * sine(3.0 * turns)


def wind(rng: Rng, t: Samples) -> Samples:
    """Low noise in slow gusts."""
    gusts = 1.0 + 0.7 * sine(rng.uniform(0.4, 2.0) * t + rng.random())
    low, high, tilt = rng.uniform(50.0, 300.0), rng.uniform(700.0, 2500.0), rng.uniform(0.3, 1.0)
    return gusts * band_noise(rng, low, high, tilt)


MAKERS = (alarm, bird, clicks, engine, footsteps, glass, knock, rain, siren, wind)
EVENTS: dict[str, Callable[[Rng, Samples], Samples]] = {maker.__name__: maker for maker in MAKERS}


def event(kind: str, rng: Rng) -> Samples:
    """A dry everyday sound of the kind named, float64 (sample)."""
    return EVENTS[kind](rng, seconds())


def background(noise: str, rng: Rng) -> Samples:
    """Background noise over the whole clip, at any level: (sample)."""
    if noise != "hum":
        return band_noise(rng, 20.0, NYQUIST, 1.0 if noise == "pink" else 0.0)
    k = np.arange(1, 9)
    loud, mains = jitter(rng, 8) / k, k[:, None] * rng.choice([50.0, 60.0])
    hum = mix(loud, sine(mains * seconds() + rng.random((8, 1))))
    return hum + 0.2 * band_noise(rng, 20.0, NYQUIST)


def in_room(dry: Samples, rng: Rng, *, room: str, noise: str, snr_db: float, level_db: float) -> Samples:
    """The sound in a room with background noise: float32 (sample), peak at `level_db` of full scale.

    The room answers with noise that decays exponentially; `snr_db` compares the energies of the sound, room
    included, and of the noise over the whole clip.
    """
    wet = dry
    if room != "dry":
        fall = rng.uniform(0.15, 0.4) if room == "room" else rng.uniform(0.7, 1.8)  # s until -60 dB
        answer = rng.normal(size=N_SAMPLES) * 10.0 ** (-3.0 * seconds() / fall)
        answer *= rng.uniform(0.3, 0.9) / np.sqrt((answer**2).sum())
        answer[0] += 1.0
        n = 2 * N_SAMPLES
        wet = np.fft.irfft(np.fft.rfft(dry, n) * np.fft.rfft(answer, n), n)[:N_SAMPLES]
    back = background(noise, rng)
    both = wet + back * np.sqrt((wet**2).mean() / (back**2).mean()) * 10.0 ** (-snr_db / 20.0)
    return np.asarray(both * (10.0 ** (level_db / 20.0) / np.abs(both).max()), np.float32)
