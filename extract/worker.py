"""Encoder + clips + summaries -> one block written. Composition only.

Goal: the unit of work, an ordinary function of a block that may be run again with the same result.
Conventions: what goes into a forward pass depends on the plan and the clips alone, never on time or threads, because
the last bits of a float32 result depend on the shape of its batch.
Contents: `Worker`, `BlockReport`, `UnreadableAudio`.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ..store.bits import pack
from ..store.blocks import Block
from ..store.group import one_line
from ..store.provenance import Identity, Plan
from ..store.schema import FAILED, OK, block_buffers
from ..store.writer import write_block
from .audio import BadAudio, fit, read_clip
from .corpus import Clip, Corpus
from .encoder import Encoder
from .summarise import Summaries, counted_tokens
from .tap import match_sites, tap

DECODERS = 2  # threads that read ahead; results do not depend on it
WAITING_BATCHES = 4  # most clips held back to find others of equal length, in batches
MOST_SAMPLES = 2**26  # decoded samples held at a time: 256 MB, 70 minutes at 16 kHz
MOST_FRAMES = np.iinfo(np.uint16).max


class UnreadableAudio(OSError):
    """Audio that is there could not be read, after retries: the block stays pending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockReport:
    """What became of a block's clips."""

    n_ok: int
    failures: tuple[tuple[str, str], ...]
    """(clip name, reason) of each clip that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A clip after decoding: samples at the encoder's rate, or the reason why there are none."""

    index: int
    """Position in the block."""
    samples: np.ndarray
    digest: int
    reason: str = ""


class Worker:
    """Extracts blocks of one task with one encoder: `worker(block)` writes and commits it."""

    def __init__(
        self, *, url: str, corpus: Corpus, encoder: Encoder, identity: Identity, plan: Plan, code: str,
        allow_missing: bool = False,
    ):  # fmt: skip
        self.url, self.corpus, self.identity, self.plan, self.code = url, corpus, identity, plan, code
        self.encoder, self.allow_missing = encoder, allow_missing
        self.anatomy = encoder.anatomy()
        self.blocks = match_sites(encoder.module, encoder.blocks) if "hidden" in plan.variables else ()
        self.unit = None if plan.unit_sec is None else round(plan.unit_sec * encoder.sample_rate)

    def __call__(self, block: Block) -> BlockReport:
        """Extract, write and commit a block.

        Raises UnreadableAudio or OSError where reading or writing fails, ValueError where the encoder does; the block
        is then still pending.
        """
        values = block_buffers(self.identity, self.plan, len(block))
        status = np.full(len(block), FAILED, dtype="uint8")
        with arithmetic(self.plan.threads), ThreadPoolExecutor(DECODERS) as pool:
            for batch in self.batches(self.decode(block, pool)):
                self.extract(batch, values, status)
        write_block(self.url, block, values, status, self.code)
        names = self.corpus.table["name"].iloc[block.clips]
        failed = np.flatnonzero(status == FAILED)
        failures = tuple((str(names.iloc[i]), str(values["reason"][i])) for i in failed)
        return BlockReport(n_ok=len(block) - len(failed), failures=failures)

    def decode(self, block: Block, pool: ThreadPoolExecutor) -> Iterator[Heard]:
        """The block's clips in order, read ahead by at most two batches and about `MOST_SAMPLES`."""
        ahead: deque[Future[Heard]] = deque()
        longest, depth = 1, DECODERS
        for index, number in enumerate(range(block.start, block.stop)):
            ahead.append(pool.submit(self.hear, index, self.corpus.clip(number)))
            while len(ahead) > depth:
                heard = ahead.popleft().result()
                longest = max(longest, len(heard.samples))
                depth = max(DECODERS, min(2 * self.plan.batch, MOST_SAMPLES // longest))
                yield heard
        while ahead:
            yield ahead.popleft().result()

    def hear(self, index: int, clip: Clip) -> Heard:
        """Decode one clip. Bytes that are there and are no usable audio give a reason, not an exception."""
        nothing, rate, least = (
            np.zeros(0, dtype=np.float32),
            self.encoder.sample_rate,
            self.encoder.min_samples,
        )
        try:
            audio = read_clip(self.corpus.root, clip, rate)
            if self.unit is None and len(audio.samples) < least:
                short = f"too short: {len(audio.samples)} samples at {rate} Hz, the encoder needs {least}"
                raise BadAudio(short, audio.digest)
        except BadAudio as bad:
            return Heard(index=index, samples=nothing, digest=bad.digest, reason=str(bad))
        except FileNotFoundError as absent:
            if not self.allow_missing:
                raise UnreadableAudio(f"{clip.path} has gone since the run began") from absent
            return Heard(index=index, samples=nothing, digest=0, reason="no such file")
        except OSError as error:
            raise UnreadableAudio(f"{clip.path} could not be read ({error})") from error
        return Heard(index=index, samples=audio.samples, digest=audio.digest)

    def batches(self, clips: Iterable[Heard]) -> Iterator[list[Heard]]:
        """Clips in batches of equal input length; which clips meet depends on their order and lengths only.

        At a fixed length a failed clip keeps its place, as zeros, so that its neighbours' results do not depend on it.
        """
        waiting: dict[int, list[Heard]] = {}
        n_waiting = n_samples = 0

        def take(length: int) -> list[Heard]:
            nonlocal n_waiting, n_samples
            batch = waiting.pop(length)
            n_waiting -= len(batch)
            n_samples -= sum(len(clip.samples) for clip in batch)
            return batch

        for clip in clips:
            if self.unit is not None:
                length = self.unit
            else:
                length = -1 if clip.reason else self.encoder.input_length(len(clip.samples))
            waiting.setdefault(length, []).append(clip)
            n_waiting, n_samples = n_waiting + 1, n_samples + len(clip.samples)
            if len(waiting[length]) == self.plan.batch:
                yield take(length)
            elif self.unit is None and (n_waiting >= WAITING_BATCHES * self.plan.batch or n_samples >= MOST_SAMPLES):
                yield take(max(waiting, key=lambda n: len(waiting[n])))
        for length in sorted(waiting):
            yield take(length)

    def extract(self, batch: list[Heard], values: dict[str, np.ndarray], status: np.ndarray) -> None:
        """Run one batch and put its summaries in their places."""
        if self.unit is None:
            batch = sorted(batch, key=lambda clip: len(clip.samples))  # clips of one length are prepared together
        at = np.array([clip.index for clip in batch])
        values["audio_digest"][at] = [clip.digest for clip in batch]
        reasons = np.array([clip.reason for clip in batch], dtype=object)
        if self.unit is not None or not any(reasons):
            embedding, summaries = self.forward(batch)
            means = [summaries.mean(layer).cpu().numpy() for layer in range(len(self.anatomy.sites))]
            hidden = summaries.hidden().cpu().numpy() if self.blocks else np.zeros((0, len(batch), 0), np.float32)
            finite = np.all([np.isfinite(x).all(axis=1) for x in (embedding, *means, *hidden)], axis=0)
            frames = summaries.count.cpu().numpy()
            reasons[~finite & (reasons == "")] = "the encoder gives activations that are not finite"
            reasons[(frames > MOST_FRAMES) & (reasons == "")] = (
                f"longer than {MOST_FRAMES} frames: cut it by start, stop"
            )
            good = np.flatnonzero(reasons == "")
            self.place(at[good], good, values, means, summaries, embedding, hidden, frames)
        values["reason"][at] = reasons
        status[at[reasons == ""]] = OK

    @torch.inference_mode()
    def forward(self, batch: list[Heard]) -> tuple[np.ndarray, Summaries]:
        """Embeddings (clip, embedding) and summaries of a batch."""
        device = self.encoder.silence(1).device
        sizes = np.array([len(clip.samples) for clip in batch])
        n_samples = self.unit or int(sizes.max())
        weights = counted_tokens(
            self.encoder.spans(n_samples),
            np.minimum(sizes, n_samples) / self.encoder.sample_rate,
            self.identity.frames,
        )
        summaries = Summaries(
            self.anatomy,
            torch.from_numpy(weights).to(device),
            neurons=self.encoder.neurons,
            blocks=self.blocks,
        )
        try:
            inputs = self.prepare(batch, device)
            with tap(self.encoder.module, summaries.sites, read=summaries.read, read_input=summaries.read_input):
                embedding = self.encoder.embed(self.encoder.module(inputs))
        except RuntimeError as error:  # what torch raises; ours are ValueError and LookupError
            raise ValueError(
                f"the encoder failed on {len(batch)} clips of {n_samples} samples ({one_line(error)}); expected a "
                "model that takes such batches: check its `prepare`, or choose a smaller --batch"
            ) from error
        summaries.refuse_incomplete()
        return embedding.float().cpu().numpy(), summaries

    def prepare(self, batch: list[Heard], device: torch.device) -> Tensor:
        """The module's input for a batch, of which clips of equal length stand together."""
        parts = []
        for size, clips in groupby(batch, key=lambda clip: self.unit or len(clip.samples)):
            waveforms = np.stack([fit(clip.samples, size) for clip in clips])
            parts.append(self.encoder.prepare(torch.from_numpy(waveforms).to(device)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def place(
        self, at: np.ndarray, rows: np.ndarray, values: dict[str, np.ndarray], means: list[np.ndarray],
        summaries: Summaries, embedding: np.ndarray, hidden: np.ndarray, frames: np.ndarray,
    ) -> None:  # fmt: skip
        """Put rows of a batch at their positions in the block. `active` is taken before `mean` is rounded."""
        values["frame_count"][at] = frames[rows]
        if "embedding" in values:
            values["embedding"][at] = embedding[rows]
        if "hidden" in values:
            values["hidden"][:, at] = hidden[:, rows]
        for layer, mean in enumerate(means):
            width = mean.shape[1]
            active = np.zeros((len(rows), self.identity.n_neurons), dtype=bool)
            active[:, :width] = mean[rows] > 0
            values["active_bits"][layer, at] = pack(active)
            if "mean" in values:
                if self.plan.mean_dtype == "float16" and np.abs(mean[rows]).max(initial=0) > np.finfo("float16").max:
                    raise ValueError(
                        f"layer {layer} has a mean activation of {np.abs(mean[rows]).max():g}; float16 holds up to "
                        "65504: use --mean-dtype float32, under another task name if blocks are already committed"
                    )
                values["mean"][layer, at, :width] = mean[rows]
            if "positive_frames" in values:
                values["positive_frames"][layer, at, :width] = summaries.positive_frames(layer).cpu().numpy()[rows]


@contextmanager
def arithmetic(threads: int) -> Iterator[None]:
    """Float32 that is float32, and the plan's number of threads: results depend on both, the latter in the last bits.

    cuDNN would round the inputs of convolutions to TF32, and choose among its algorithms by timing them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
