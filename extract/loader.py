"""Clips to batches: each clip decoded, or the reason why it is not, and which clips meet in a forward pass.

Goal: damaged audio is a reason and never an exception; what goes into a forward pass depends on the plan and the clips
alone, never on time or threads, because the last bits of a float32 result depend on the shape of its batch.
Conventions: samples float32 (sample,) at the encoder's rate; lengths in samples.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..store.provenance import Plan
from .audio.clip import Clip
from .audio.corpus import Clips
from .audio.decoding import ABSENT, DEFAULT_LIMITS, BadAudio, Limits, read_clip
from .models.encoder import Encoder

DECODERS = 2  # threads that read ahead; results do not depend on it
FAILED = "failed"  # instead of a layout
MAX_WAITING_BATCHES = 4  # clips held back to find others of equal length, in batches
MAX_SAMPLES = 2**26  # decoded samples held back at a time: 256 MB, 70 minutes at 16 kHz
MAX_SAMPLES_AHEAD = MAX_SAMPLES // 2  # of one block that no batch has asked for yet; two blocks are under way


class UnreadableAudio(OSError):
    """Audio that is there could not be read, after retries: the block stays pending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedClip:
    """A clip after decoding: samples at the encoder's rate, or the reason why there are none."""

    index: int
    """Position in the block."""
    samples: np.ndarray
    digest: int
    reason: str = ""
    prompt: str | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it was decoded and every sample is zero."""
        return not self.reason and not self.samples.any()


class Loader:
    """Decodes clips for an encoder, as much of them as the plan asks for, and arranges them in batches."""

    def __init__(
        self,
        clips: Clips,
        encoder: Encoder,
        plan: Plan,
        *,
        allow_missing: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ):
        self.clips, self.encoder, self.batch, self.allow_missing = clips, encoder, plan.batch, allow_missing
        self.limits, self.seconds = limits, plan.unit_sec
        self.unit = None if plan.unit_sec is None else round(plan.unit_sec * encoder.sample_rate)
        self._longest = 0  # samples, of the clips loaded so far

    def load(self, index: int, clip: Clip) -> LoadedClip:
        """Decode one clip. Bytes that are there and are not usable audio give a reason, not an exception.

        Raises UnreadableAudio for files that are gone, unless missing ones are allowed, or cannot be read.
        """
        rate, min_samples, max_samples = (
            self.encoder.sample_rate, self.encoder.min_samples, self.encoder.max_samples,
        )  # fmt: skip
        try:
            audio = read_clip(self.clips.root, clip, rate, seconds=self.seconds, limits=self.limits)
            if self.unit is None and len(audio.samples) < min_samples:
                short = f"too short: {len(audio.samples)} samples at {rate} Hz, the encoder needs {min_samples}"
                raise BadAudio(short, audio.digest)
            if self.unit is None and max_samples is not None and len(audio.samples) > max_samples:
                long = f"too long: {len(audio.samples)} samples at {rate} Hz, the encoder takes at most {max_samples}"
                raise BadAudio(long, audio.digest)
        except BadAudio as bad:
            return failed_clip(index, str(bad), bad.digest, clip.prompt)
        except FileNotFoundError as absent:
            if not self.allow_missing:
                raise UnreadableAudio(f"{clip.path} has gone since the run began") from absent
            return failed_clip(index, ABSENT, prompt=clip.prompt)
        except OSError as error:
            raise UnreadableAudio(f"{clip.path} could not be read ({error})") from error
        self._longest = max(self._longest, len(audio.samples))
        return LoadedClip(index=index, samples=audio.samples, digest=audio.digest, prompt=clip.prompt)

    def depth(self) -> int:
        """How many clips to decode ahead: two batches, or as many as `MAX_SAMPLES_AHEAD` allows; at first, two."""
        if not self._longest:
            return DECODERS
        return max(DECODERS, min(2 * self.batch, MAX_SAMPLES_AHEAD // self._longest))

    def batches(self, clips: Iterable[LoadedClip]) -> Iterator[list[LoadedClip]]:
        """Clips in batches of equal input length; which clips meet depends on their order and lengths only.

        At a fixed length a failed clip keeps its place, as zeros, so that its neighbours' results do not depend on it:
        not even through how many samples wait.
        Otherwise failed clips come in batches of their own, and clips of one length stand together.
        """
        waiting: dict[Hashable, list[LoadedClip]] = {}
        n_waiting = n_samples = 0

        def take(layout: Hashable) -> list[LoadedClip]:
            nonlocal n_waiting, n_samples
            batch = waiting.pop(layout)
            n_waiting -= len(batch)
            n_samples -= sum(len(clip.samples) for clip in batch)
            # Stable, so that clips of one length, which are prepared together, keep their order.
            return batch if self.unit is not None else sorted(batch, key=lambda clip: len(clip.samples))

        for clip in clips:
            layout = self.layout(clip)
            waiting.setdefault(layout, []).append(clip)
            n_waiting, n_samples = n_waiting + 1, n_samples + len(clip.samples)
            if len(waiting[layout]) == self.batch:
                yield take(layout)
            elif n_waiting >= MAX_WAITING_BATCHES * self.batch or (self.unit is None and n_samples >= MAX_SAMPLES):
                yield take(max(waiting, key=lambda n: len(waiting[n])))
        for layout in list(waiting):
            yield take(layout)

    def layout(self, clip: LoadedClip) -> Hashable:
        """What the clips of a batch have in common."""
        if self.unit is None and clip.reason:
            return FAILED
        if self.unit is not None and not self.encoder.prompted:
            return self.unit
        return self.encoder.layout(self.unit or len(clip.samples), clip.prompt)


def failed_clip(index: int, reason: str, digest: int = 0, prompt: str | None = None) -> LoadedClip:
    """A clip without samples; digest 0 where its file was not read."""
    samples = np.zeros(0, dtype=np.float32)
    return LoadedClip(index=index, samples=samples, digest=digest, reason=reason, prompt=prompt)
