"""Audio files to mono waveforms at the encoder's sample rate, and back: the only door to soundfile and soxr.

Goal: the same samples for the same bytes, and a reason instead of samples for bytes that are damaged.
Conventions: samples are float32 (sample,), full scale [-1, 1]; rates in Hz; times in seconds; a digest is
BLAKE2b of 8 bytes over the whole file, as a little-endian unsigned integer.
"""

import hashlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from ...store.location import Unreachable
from .audio_root import AudioRoot, root_at
from .clip import Clip
from .integrity import counts_its_frames, undecodable, whole

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]

RETRY_SECONDS = (0.5, 2.0)  # before the second and the third attempt at a read
PIECE_SAMPLES = 1 << 20  # per channel, decoded at a time, so that many channels are never all in memory as floats


class BadAudio(ValueError):
    """Bytes that were read and are no usable audio. Its text is the reason, without a path.

    digest: of the bytes, as in `Audio`.
    """

    def __init__(self, reason: str, digest: int = 0):
        super().__init__(reason)
        self.digest = digest


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Audio:
    """A clip's waveform and the digest of the file that it came from."""

    samples: Samples
    """(sample,), float32."""
    digest: int
    """BLAKE2b-64 of the file's bytes."""


@dataclass(kw_only=True, eq=False, slots=True)
class _File:
    """The bytes of a file, or its samples and rate where decoding cannot start in the middle."""

    key: tuple[Any, ...]
    data: bytes
    digest: int
    checked: bool = False
    decoded: tuple[Samples, int] | None = None


_last = threading.local()


def read_clip(
    root: AudioRoot | Path, clip: Clip, sample_rate: int, *, sleep: Callable[[float], object] = time.sleep
) -> Audio:
    """The clip as a mono waveform (sample,) at `sample_rate`.

    The part from `start` to `stop` is cut at the file's own rate (the nearest frames), channels are averaged,
    then soxr HQ resamples n frames to floor(n * sample_rate / file rate + 1/2) samples. A stop may lie beyond
    the end by one frame. A file that is asked for in parts stays in memory until the thread asks for another.
    Read errors of local files are tried again twice, after `sleep` of 0.5 and 2 s; those of an object store by the
    store's own retries.
    Raises BadAudio for bytes that do not decode, are truncated or empty, hold NaN or infinite samples, end
    before the clip does, or give no sample; FileNotFoundError; OSError for a file that cannot be read.
    Truncation is noticed in WAV, FLAC, OGG and MP3 (where it has a Xing header); other formats of libsndfile
    are read as they are.
    """
    file = _load(root_at(root), clip.path, keep=clip.start is not None or clip.stop is not None, sleep=sleep)
    try:
        mono, rate = _decode(file, clip)
        if not np.isfinite(mono).all():
            raise BadAudio(f"{np.count_nonzero(~np.isfinite(mono))} of {mono.size} samples are NaN or infinite")
        samples = mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate, quality="HQ")
        if not len(samples):
            raise BadAudio(f"too short: {mono.size} frames at {rate} Hz are none at {sample_rate} Hz")
    except BadAudio as bad:
        bad.digest = file.digest
        raise
    return Audio(samples=samples, digest=file.digest)


def content_digest(root: AudioRoot | Path, clip: Clip) -> int:
    """BLAKE2b-64 of the clip's file, read anew; raises FileNotFoundError and OSError as `read_clip`."""
    located = root_at(root)
    return _digest(_with_retries(located, clip.path, located.read, time.sleep))


def fit(samples: Samples, n_samples: int) -> Samples:
    """The waveform cropped at its end, or padded there with zeros, to (n_samples,)."""
    return np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))


def write_wav(path: str | Path, samples: Samples, sample_rate: int) -> None:
    """Write a waveform (sample,) as 16-bit mono WAV or, by the path's ending, FLAC; same samples, same bytes.

    A sample x is stored as round(32768 x), limited to 16 bits. Raises ValueError for NaN or infinite samples
    and for another ending.
    """
    formats = {".wav": "WAV", ".flac": "FLAC"}
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path}: expected a name ending in .wav or .flac; rename it")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: found NaN or infinite samples; expected [-1, 1]; see what made them")
    integers = np.clip(np.rint(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    sf.write(file, integers, sample_rate, subtype="PCM_16", format=formats[path.suffix.lower()])
    path.write_bytes(file.getvalue())


def _load(root: AudioRoot, path: str, *, keep: bool, sleep: Callable[[float], object]) -> _File:
    """The file's bytes, from this thread's slot if that holds this file."""
    key = _with_retries(root, path, root.stamp, sleep) if keep else ()
    file: _File | None = getattr(_last, "file", None)
    if file is None or not keep or file.key != key:
        _last.file = file = None  # before the next is read, so that two never lie in memory
        data: bytes = _with_retries(root, path, root.read, sleep)
        file = _File(key=key, data=data, digest=_digest(data))
        _last.file = file if keep else None
    return file


def _with_retries(root: AudioRoot, path: str, read: Callable[[str], Any], sleep: Callable[[float], object]) -> Any:
    """What `read` returns for the path, tried again after each of RETRY_SECONDS."""
    waits = iter(RETRY_SECONDS)
    while True:
        try:
            return read(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(
                f"no audio file {root}/{path}; expected one there; see that the audio root is right"
            ) from error
        except Unreachable:  # was tried again as often as is of use
            raise
        except OSError as error:
            wait = next(waits, None)
            if wait is None:
                raise OSError(
                    f"{root}/{path} could not be read in {len(RETRY_SECONDS) + 1} attempts: {error.strerror or error}; "
                    "see that the disk is there and permits it, then run again"
                ) from error
            sleep(wait)


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _decode(file: _File, clip: Clip) -> tuple[Samples, int]:
    """Mono samples of the clip at the file's own rate, and that rate."""
    if file.decoded is None:
        if not file.checked:
            try:
                file.data, file.checked = whole(file.data), True
            except ValueError as error:
                raise BadAudio(str(error)) from error
        try:
            with sf.SoundFile(io.BytesIO(file.data)) as sound:
                rate = int(sound.samplerate)
                if sound.frames > 1 << 62:
                    raise BadAudio("the header does not say how long it is; write the file again, not through a pipe")
                if not 1000 <= rate <= 1_000_000:
                    raise BadAudio(f"the header says {rate} Hz; expected 1,000 to 1,000,000")
                if sound.seekable() and sound.format != "MP3":
                    start, stop = _bounds(clip, sound.frames, rate)
                    sound.seek(start)
                    return _read(sound, stop - start), rate
                # An MP3 that is entered in the middle decodes to other samples than one read from its start,
                # and so it is decoded whole. The other files that come here cannot be entered at all.
                mp3 = sound.format == "MP3"
                file.decoded = _read_mp3(sound, file.data) if mp3 else _read(sound, sound.frames), rate
                file.data = b""
        except sf.SoundFileError as error:
            message = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
            raise BadAudio(undecodable(file.data, message)) from error
    samples, rate = file.decoded
    start, stop = _bounds(clip, len(samples), rate)
    return samples[start:stop].copy(), rate


def _bounds(clip: Clip, frames: int, rate: int) -> tuple[int, int]:
    """First frame of the clip and the one after its last, within a file of so many frames."""
    if frames < 1:
        raise BadAudio("no samples: 0 frames")
    start = 0 if clip.start is None else round(clip.start * rate)
    stop = frames if clip.stop is None else round(clip.stop * rate)
    if start >= frames or stop > frames + 1 or stop <= start:
        asked = f"{clip.start or 0:g} s to {'its end' if clip.stop is None else f'{clip.stop:g} s'}"
        raise BadAudio(f"no audio from {asked}: the file has {frames / rate:g} s at {rate} Hz")
    return start, min(stop, frames)


def _read(sound: sf.SoundFile, frames: int) -> Samples:
    """The next so many frames as mono, decoded piece by piece."""
    pieces: list[Samples] = []
    done = 0
    while done < frames:
        piece = _mono(sound.read(min(PIECE_SAMPLES, frames - done), dtype="float32", always_2d=True))
        if not len(piece):
            raise BadAudio(f"truncated: {frames - done} of {frames} frames are missing")
        pieces.append(piece)
        done += len(piece)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _read_mp3(sound: sf.SoundFile, data: bytes) -> Samples:
    """A whole MP3 in one read: soundfile seeks after each, which changes what the decoder gives next."""
    frames = min(sound.frames, 64 * len(data))  # no bit rate holds more: a header that lies costs no memory
    samples = _mono(sound.read(frames, dtype="float32", always_2d=True))
    if counts_its_frames(data) and len(samples) < sound.frames:
        raise BadAudio(f"truncated: {sound.frames - len(samples)} of {sound.frames} frames are missing")
    return samples


def _mono(frames: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Samples:
    """Mean over channels, (frame, channel) -> (frame,), added in their order in float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite raises later
        total = frames[:, 0].copy()
        for channel in range(1, frames.shape[1]):
            total += frames[:, channel]
        total /= np.float32(frames.shape[1])
    return total
