"""Audio files to mono waveforms at an encoder's rate or their own, and back: the only door to soundfile and soxr.

Goal: the same samples for the same bytes, and a reason instead of samples for bytes that are damaged.
Conventions: samples are float32 (sample,), full scale [-1, 1]; rates in Hz; times in seconds; a digest is
BLAKE2b of 8 bytes over the whole file, as a little-endian unsigned integer.
"""

import hashlib
import io
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from ...store.location import Unreachable
from ...store.remote import UnfitFile
from .audio_root import AudioRoot, root_at
from .clip import Clip
from .containers.count import streams_of
from .containers.foreign import INTO_FLAC, undecodable
from .containers.stream import Stream, check_present, expected_frames

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]

RETRY_SECONDS = (0.5, 2.0)  # before the second and the third attempt at a read
PIECE_SAMPLES = 1 << 20  # of all channels, decoded at a time, so that many channels are never all in memory as floats
MAX_STREAMS = 1000  # of one file
ABSENT = "no such file"  # the reason of a clip without one
MARGIN = 4096  # samples at the lower of two rates that are decoded beyond what is wanted: the resampler looks ahead


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
    sample_rate: int
    """Of the samples, in Hz."""
    digest: int
    """BLAKE2b-64 of the file's bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What is read and decoded at most; a clip that wants more fails alone."""

    file_bytes: int = 512_000_000
    clip_bytes: int = 256_000_000
    """Of a clip once decoded: 4 for each sample at the file's rate, of those that have to be decoded for it."""

    @classmethod
    def of_megabytes(cls, file: float, clip: float) -> "Limits":
        """Limits of so many MB. Raises ValueError for others than numbers above 0."""
        for name, megabytes in (("max_file_mb", file), ("max_clip_mb", clip)):
            if not 0 < megabytes < math.inf:
                raise ValueError(f"{name} is {megabytes}; expected megabytes above 0")
        return cls(file_bytes=round(file * 1e6), clip_bytes=round(clip * 1e6))


DEFAULT_LIMITS = Limits()
NO_LIMITS = Limits(file_bytes=1 << 62, clip_bytes=1 << 62)


@dataclass(kw_only=True, eq=False, slots=True)
class _File:
    """A file in memory: its bytes, and what was found out about them once."""

    key: tuple[Any, ...]
    data: bytes
    digest: int
    streams: list[Stream] | None = None
    """With `n_frames` at `rate`; None until it was checked."""
    rate: int = 0
    decoded: dict[int, Samples] = field(default_factory=dict)
    """Whole streams, by number, that cannot be entered in the middle."""


_last = threading.local()


def read_clip(
    root: AudioRoot | Path,
    clip: Clip,
    sample_rate: int | None,
    *,
    seconds: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    sleep: Callable[[float], object] = time.sleep,
) -> Audio:
    """The clip as a mono waveform (sample,) at `sample_rate`, None for the file's own, or the first `seconds` of it.

    The part from `start` to `stop` is cut at the file's own rate (the nearest frames), channels are averaged,
    then soxr HQ resamples n frames to floor(n * sample_rate / file rate + 1/2) samples. A stop may lie beyond
    the end by one frame. What `seconds` leave out is not decoded; those samples are the ones that the whole clip has.
    A file that is asked for in parts stays in memory until the thread asks for another.
    Read errors of local files are tried again twice, after `sleep` of 0.5 and 2 s; those of an object store by the
    store's own retries.
    Raises BadAudio for bytes that do not decode, are truncated or empty, hold NaN or infinite samples, end
    before the clip does, give no sample, or exceed the limits; FileNotFoundError; OSError for a file that cannot be
    read. A file whose samples are not as many as its own headers count is bad, however well it decodes.
    """
    keep = clip.start is not None or clip.stop is not None
    file = _load(root_at(root), clip.path, keep=keep, limits=limits, sleep=sleep)
    try:
        mono, rate = _decode(file, clip, sample_rate, seconds, limits)
        sample_rate = sample_rate or rate
        if not np.isfinite(mono).all():
            raise BadAudio(f"{np.count_nonzero(~np.isfinite(mono))} of {mono.size} samples are NaN or infinite")
        samples = mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate, quality="HQ")
        if not len(samples):
            raise BadAudio(f"too short: {mono.size} frames at {rate} Hz are none at {sample_rate} Hz")
    except BadAudio as bad:
        bad.digest = file.digest
        raise
    if seconds is not None and len(samples) > (n_samples := round(seconds * sample_rate)):
        samples = samples[:n_samples].copy()
    return Audio(samples=samples, sample_rate=sample_rate, digest=file.digest)


def content_digest(root: AudioRoot | Path, clip: Clip) -> int:
    """BLAKE2b-64 of the clip's file, read anew; raises FileNotFoundError and OSError as `read_clip`."""
    located = root_at(root)
    return _digest(_with_retries(located, clip.path, located.read, time.sleep))


def wav_bytes(samples: Samples, sample_rate: int, format: str = "WAV") -> bytes:
    """A waveform (sample,) as 16-bit mono WAV, or "FLAC"; same samples, same bytes.

    A sample x is stored as round(32768 x), limited to 16 bits. Raises ValueError for NaN or infinite samples.
    """
    if not np.isfinite(samples).all():
        raise ValueError("found NaN or infinite samples; expected [-1, 1]; see what made them")
    integers = np.clip(np.rint(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    sf.write(file, integers, sample_rate, subtype="PCM_16", format=format)
    return file.getvalue()


def write_wav(path: str | Path, samples: Samples, sample_rate: int) -> None:
    """Write what `wav_bytes` gives or, by the path's ending, FLAC.

    Raises ValueError for NaN or infinite samples and for another ending.
    """
    formats = {".wav": "WAV", ".flac": "FLAC"}
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path}: expected a name ending in .wav or .flac; rename it")
    try:
        path.write_bytes(wav_bytes(samples, sample_rate, formats[path.suffix.lower()]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _load(root: AudioRoot, path: str, *, keep: bool, limits: Limits, sleep: Callable[[float], object]) -> _File:
    """The file's bytes, from this thread's slot if that holds this file."""
    key = _with_retries(root, path, root.stamp, sleep) if keep else ()
    file: _File | None = getattr(_last, "file", None)
    if file is None or not keep or file.key != key:
        _last.file = file = None  # before the next is read, so that two never lie in memory
        try:
            data: bytes = _with_retries(root, path, lambda path: root.read(path, limits.file_bytes), sleep)
        except UnfitFile as unfit:
            raise BadAudio(str(unfit)) from unfit
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


def _decode(
    file: _File, clip: Clip, sample_rate: int | None, seconds: float | None, limits: Limits
) -> tuple[Samples, int]:
    """Mono samples of the clip at the file's own rate, and that rate."""
    try:
        with ExitStack() as opened:
            if file.streams is None:
                file.streams, file.rate, sound = _counted(streams_of(file.data), opened)
            else:
                sound = None
            counts = [stream.n_frames or 0 for stream in file.streams]
            start, stop = _bounds(clip, sum(counts), file.rate)
            if seconds is not None:
                margin = 0.0 if sample_rate in (None, file.rate) else MARGIN / min(file.rate, sample_rate)
                stop = min(stop, start + math.ceil((seconds + margin) * file.rate) + 1)
            _check_length(stop - start, file.rate, limits)
            pieces, begin = list[Samples](), 0
            for i, count in enumerate(counts):
                first, last = max(start - begin, 0), min(stop - begin, count)
                if first < last:
                    pieces.append(_part(file, i, first, last, limits, sound))
                begin += count
    except sf.SoundFileError as error:
        raise BadAudio(undecodable(file.data, _message(error))) from error
    except BadAudio:
        raise
    except ValueError as error:
        raise BadAudio(str(error)) from error
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces), file.rate


def _counted(streams: list[Stream], opened: ExitStack) -> tuple[list[Stream], int, "_Sequential | None"]:
    """The streams with their frames at the one rate that all have; and an only stream as the decoder opened it.

    Raises ValueError for a stream without a count, or where the decoder has another.
    """
    if len(streams) > MAX_STREAMS:
        raise ValueError(f"{len(streams)} pieces of audio in one file; expected at most {MAX_STREAMS}")
    counted, found, sound = list[Stream](), set[tuple[int, int]](), None
    for stream in streams:
        if sound is not None:
            sound.close()
        sound = opened.enter_context(_Sequential(stream.file()))
        rate, channels = int(sound.samplerate), sound.channels
        expected = expected_frames(stream, rate, channels, sound.subtype)
        if expected is None:
            raise ValueError(f"{sound.format} of {sound.subtype}, whose samples cannot be counted; {INTO_FLAC}")
        if not 1000 <= rate <= 1_000_000:
            raise ValueError(f"the header says {rate} Hz; expected 1,000 to 1,000,000")
        check_present(expected, sound.frames)
        if sound.frames > expected + stream.padding:
            raise ValueError(f"damaged: the header counts {expected} frames, and {sound.frames} are found")
        counted.append(replace(stream, n_frames=expected))
        found.add((rate, channels))
    if len(found) > 1:
        raise ValueError("its parts differ in rate or channels; expected one of each: convert it to FLAC")
    return counted, found.pop()[0], sound if len(streams) == 1 else None


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


def _part(file: _File, i: int, first: int, last: int, limits: Limits, opened: "_Sequential | None") -> Samples:
    """Frames of stream number `i` of a file, as mono. opened: the stream, if it just was."""
    assert file.streams is not None
    if i in file.decoded:
        return file.decoded[i][first:last].copy()
    stream = file.streams[i]
    with nullcontext(opened) if opened is not None else _Sequential(stream.file()) as sound:
        if sound.enters():
            if first:
                sound.seek(first)
            return _read(sound, last - first)
        keep = first > 0 and 4 * sum(each.n_frames or 0 for each in file.streams) <= limits.clip_bytes
        end = stream.n_frames or 0 if keep else last
        _check_length(end, file.rate, limits)
        samples = _read(sound, end)
    if keep:
        file.decoded[i] = samples
    return samples[first:last].copy() if first else samples


def _check_length(frames: int, rate: int, limits: Limits) -> None:
    """Raise BadAudio for more frames than may be decoded for one clip."""
    if 4 * frames > limits.clip_bytes:
        raise BadAudio(
            f"too long: to decode {frames / rate:.0f} s at {rate} Hz takes {4 * frames / 1e6:.0f} MB; expected at most "
            f"{limits.clip_bytes / 1e6:.0f}: take less of it by start and stop or --unit-sec, or raise --max-clip-mb"
        )


class _Sequential(sf.SoundFile):  # type: ignore[misc]
    """A file that is read onwards: soundfile seeks after each read where a file says that it can.

    In MP3 that gives other samples than reading on does, and DWVW cannot.
    """

    def enters(self) -> bool:
        """Whether reading may begin in the middle, and gives the samples that the whole has there."""
        return bool(super().seekable()) and not self.subtype.startswith(("MPEG", "DWVW"))

    def seekable(self) -> bool:
        return False


def _read(sound: sf.SoundFile, frames: int) -> Samples:
    """The next so many frames as mono, decoded piece by piece."""
    size = max(1, PIECE_SAMPLES // sound.channels)
    samples, done = np.empty(frames, np.float32), 0
    while done < frames:
        piece = _mono(sound.read(min(size, frames - done), dtype="float32", always_2d=True))
        if not len(piece):
            raise BadAudio(f"truncated: {frames - done} of {frames} frames are missing")
        samples[done : done + len(piece)] = piece
        done += len(piece)
    return samples


def _message(error: sf.SoundFileError) -> str:
    return str(getattr(error, "error_string", str(error))).removeprefix("Error : ").strip().rstrip(".")


def _mono(frames: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Samples:
    """Mean over channels, (frame, channel) -> (frame,), added in their order in float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite raises later
        total = frames[:, 0].copy()
        for channel in range(1, frames.shape[1]):
            total += frames[:, channel]
        total /= np.float32(frames.shape[1])
    return total
