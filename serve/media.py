"""Media: the sound of a clip as the encoder took it, its picture, and what a neuron did in each of its frames.

Goal: whoever looks at a clip hears and sees the very samples that went into the encoder, or a sentence why not.
Conventions: samples float32 (sample,) in [-1, 1]; times in seconds, frequencies in Hz, levels in dB. Binary answers
are little-endian: a header, then the values.
"""

import math
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..extract.audio.audio_root import AudioRoot
from ..extract.audio.clip import Clip
from ..extract.audio.decoding import BadAudio, read_clip, wav_bytes
from ..extract.frame_trace import Trace
from ..extract.models.log_mel import LogMel

MAX_SECONDS = 60.0  # of a sound
MATCHED_DB = -23.0  # RMS below full scale of the matched level
MAX_GAIN_DB = 20.0
MAX_COLUMNS, N_BANDS = 1500, 64  # of a picture
RANGE_NATS = 60.0 / 10 * np.log(10)  # of power, 60 dB: what a picture shows
MIN_PEAK_NATS = -6.0  # what is softer everywhere is drawn soft
PICTURE = struct.Struct("<HHffffff")
TRACE = struct.Struct("<Iffff")


class NoSound(ValueError):
    """A clip cannot be played; the sentence says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """What the encoder took of a clip, at most MAX_SECONDS of it."""

    samples: NDArray[np.float32]
    rate: int
    cut: bool
    """Whether it goes on."""

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate

    @property
    def gain_db(self) -> float:
        """What brings it to the matched level, in dB: at most MAX_GAIN_DB, and never into clipping; 0 for silence."""
        peak, rms = (
            float(x) for x in (np.abs(self.samples).max(), np.sqrt(np.mean(np.square(self.samples, dtype="f8"))))
        )
        if not peak:
            return 0.0
        return min(MATCHED_DB - 20 * math.log10(rms), -20 * math.log10(peak), MAX_GAIN_DB)

    def wav(self, matched: bool = False) -> bytes:
        """As 16-bit WAV."""
        factor = 10 ** (self.gain_db / 20) if matched else 1.0
        return wav_bytes((self.samples * np.float32(factor)).astype(np.float32), self.rate)


def load_sound(root: AudioRoot, clip: Clip, rate: int | None, unit_sec: float | None, digest: int) -> Sound:
    """The sound of a clip. unit_sec: of the task's plan. digest: of the file that was extracted.

    Raises NoSound for a file that is absent, unreadable, not under the root, not the one that was extracted, or does
    not decode.
    """
    wanted = MAX_SECONDS if unit_sec is None else min(unit_sec, MAX_SECONDS)
    try:
        audio = read_clip(root, clip, rate, seconds=wanted + 0.1)
    except FileNotFoundError as error:
        raise NoSound("the file is not under the audio root; expected the one that was extracted") from error
    except BadAudio as error:
        if error.digest and error.digest != digest:
            raise NoSound(_changed(clip)) from error
        raise NoSound(f"the file cannot be played: {error}") from error
    except (OSError, ValueError) as error:
        raise NoSound(
            f"the file cannot be read now; expected it under the audio root ({type(error).__name__})"
        ) from error
    if audio.digest != digest:
        raise NoSound(_changed(clip))
    n = round(wanted * audio.sample_rate)
    cut = len(audio.samples) > n and wanted != unit_sec
    return Sound(samples=audio.samples[:n], rate=audio.sample_rate, cut=cut)


def _changed(clip: Clip) -> str:
    return "the file has changed since it was extracted: it is not played; expected the same bytes, by their digest"


@lru_cache(16)
def _log_mel(rate: int, hop: int) -> LogMel:
    n_fft = max(rate // 40, 128)
    return LogMel(rate, n_fft=n_fft, hop=hop, n_mels=N_BANDS)


def picture(sound: Sound) -> tuple[NDArray[np.uint8], float, LogMel]:
    """Log-mel picture (band, column), 0 to 255 over the loudest 60 dB; seconds from column to column; its front end."""
    hop = max(sound.rate // 100, -(-len(sound.samples) // (MAX_COLUMNS - 1)))
    mel = _log_mel(sound.rate, hop)
    nats = mel.of(sound.samples)
    top = max(float(nats.max()), MIN_PEAK_NATS)
    bottom = max(top - RANGE_NATS, float(np.log(mel.eps)))
    return np.rint(255 * np.clip((nats - bottom) / (top - bottom), 0, 1)).astype(np.uint8), hop / sound.rate, mel


def picture_bytes(sound: Sound, unit_sec: float | None) -> bytes:
    """Rows and columns (uint16); seconds per column, of the sound and of the encoder's input, lowest and highest Hz,
    gain in dB (float32); then uint8 from the lowest band up, row by row.
    """
    pixels, step, mel = picture(sound)
    whole = max(sound.seconds, min(unit_sec or 0.0, MAX_SECONDS))
    return PICTURE.pack(*pixels.shape, step, sound.seconds, whole, mel.fmin, mel.fmax, sound.gain_db) + pixels.tobytes()


def trace_bytes(trace: Trace, neuron: int, stored: float) -> bytes:
    """Frames (uint32), stored mean, mean of the counted frames, the clip's own length, that of the encoder's input
    (float32); then of each frame that has a time t0, t1, f0, f1, value (float32).
    """
    timed = ~np.isnan(trace.spans[:, 0])
    rows = np.column_stack([trace.spans[timed], trace.values[timed, neuron]]).astype("<f4")
    return TRACE.pack(len(rows), stored, trace.mean[neuron], trace.seconds, trace.input_seconds) + rows.tobytes()
