"""A batch of clips through the encoder, reduced on the device, and its results back in memory.

Goal: one thread keeps the device busy: the next batch is put together, copied there and queued while the device is at
this one, results are copied back beside that, and a batch that does not fit into its memory is halved instead of ending
the run.
Conventions: results are (clip, neuron), float32; times in seconds.
"""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..messages import one_line
from ..store.block_values import Summary
from ..store.provenance import Identity, Plan
from .loader import LoadedClip
from .models.encoder import Encoder, Site, is_foreign
from .models.tap import match_sites, tap
from .pipeline import Stopped
from .summarise import Summaries, counted_frames, reduction_on

Result = TypeVar("Result")


class Results:
    """Results on their way from the device to memory: `fetch` waits for them."""

    def __init__(self, tensors: Sequence[Tensor], n_layers: int, began: Any, stream: "torch.cuda.Stream | None"):
        """tensors: embedding, frames, hidden, means and, if kept, positive frames. began: `now` before the pass."""
        self._n_layers, self._began, self._stream = n_layers, began, stream
        self._ended = now(tensors[0].device)
        if stream is None:
            self._host = [tensor.cpu() for tensor in tensors]
        else:
            self._device = tensors  # until the copies are over
            stream.wait_stream(torch.cuda.current_stream(stream.device))
            with torch.cuda.stream(stream):
                self._host = [
                    torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
                    for tensor in tensors
                ]
                self._copied = event(stream)

    def fetch(self) -> tuple[Summary, float, float]:
        """The batch's summary in memory, and the seconds that the forward pass and the copies took."""
        if self._stream is None:
            forward, copy = self._ended - self._began, 0.0
        else:
            self._copied.synchronize()
            del self._device
            forward = self._began.elapsed_time(self._ended) / 1000
            copy = self._ended.elapsed_time(self._copied) / 1000
        embedding, frames, hidden, *layers = [tensor.numpy() for tensor in self._host]
        means, positive = layers[: self._n_layers], layers[self._n_layers :]
        summary = Summary(embedding=embedding, frames=frames, hidden=hidden, means=means, positive=positive)
        return summary, forward, copy


class Forward:
    """Runs batches of clips through an encoder."""

    def __init__(self, encoder: Encoder, identity: Identity, plan: Plan):
        self.encoder, self.frames = encoder, identity.frames
        self.sites = tuple(Site(name=name, width=width) for name, width in identity.sites)
        self.hidden = identity.hidden[1]
        self.transformer_layers = (
            match_sites(encoder.module, encoder.transformer_layers) if "hidden" in plan.variables else ()
        )
        self.unit = None if plan.unit_sec is None else round(plan.unit_sec * encoder.sample_rate)
        self.counts_positive = "positive_frames" in plan.variables
        self.device = encoder.device
        cuda = self.device.type == "cuda"
        # One way each, so that neither waits for arithmetic that it does not need.
        self._back = torch.cuda.Stream(self.device) if cuda else None  # type: ignore[no-untyped-call]
        self._there = torch.cuda.Stream(self.device) if cuda else None  # type: ignore[no-untyped-call]
        self._spans = lru_cache(maxsize=64)(encoder.spans)  # which may take a pass

    @torch.no_grad()  # in inference mode 16-bit copies of weights would be made for every pass
    def results(self, batch: list[LoadedClip], max_clips: int) -> tuple[Results, int]:
        """The results of a batch, and how many clips at a time the device's memory had room for: `max_clips`, or less.

        Raises as `halving`.
        """

        def attempt(size: int) -> Results:
            began = now(self.device)
            parts = [self.run(batch[i : i + size]) for i in range(0, len(batch), size)]
            tensors = parts[0] if len(parts) == 1 else joined(parts)
            return self.copied(tensors, began)

        return halving(attempt, max_clips, len(batch), self.longest(batch))

    def copied(self, tensors: list[Tensor], began: Any) -> Results:
        """What `run` or `reduced` gave, on its way to memory. began: `now` before the pass."""
        return Results(tensors, len(self.sites), began, self._back)

    def run(self, batch: list[LoadedClip]) -> list[Tensor]:
        """What a batch gives, on the device: embedding, frames, hidden, the layers' means and positive frames."""
        sizes = np.array([len(clip.samples) for clip in batch])
        return self.reduced(self.prepare(batch), self.longest(batch), sizes, batch[0].prompt)

    def reduced(self, inputs: Any, n_samples: int, sizes: np.ndarray, prompt: str | None = None) -> list[Tensor]:
        """The same of the module's input for clips of `n_samples` samples, of which `sizes` (clip) are their own.

        prompt: of one of the clips, all of which have its layout.
        """
        seconds = np.minimum(sizes, n_samples) / self.encoder.sample_rate
        spans = self._spans(n_samples, prompt)
        weights = counted_frames(spans, seconds, self.frames, prompted=self.encoder.prompted)
        summaries = Summaries(
            self.sites,
            self.to_device(torch.from_numpy(weights)),
            hidden=self.hidden,
            neurons=self.encoder.neurons,
            transformer_layers=self.transformer_layers,
        )
        with (
            self.encoder.counted(n_samples, seconds, self.frames, prompt),
            tap(self.encoder.module, summaries.sites, read=summaries.read, read_inputs=summaries.read_inputs),
        ):
            embedding = self.encoder.run(inputs)
        summaries.check_complete()
        layers = range(len(self.sites))
        hidden = summaries.hidden() if self.transformer_layers else torch.zeros(0, len(sizes), 0, device=self.device)
        positive = [summaries.positive_frames(layer) for layer in layers] if self.counts_positive else []
        means = [summaries.mean(layer) for layer in layers]
        return [embedding.float(), summaries.count, hidden, *means, *positive]

    @torch.inference_mode()
    def prepared(self, batch: list[LoadedClip], run: Callable[[list[LoadedClip], Any, int], Result]) -> list[Result]:
        """What `run` makes of the module's input for a batch, or for parts of it where the device's memory lacks.

        run: (clips, their input, samples of each). Raises as `halving`.
        """

        def attempt(size: int) -> list[Result]:
            parts = [batch[i : i + size] for i in range(0, len(batch), size)]
            return [run(part, self.prepare(part), self.longest(part)) for part in parts]

        return halving(attempt, len(batch), len(batch), self.longest(batch))[0]

    def longest(self, batch: list[LoadedClip]) -> int:
        """Samples that the batch's clips are brought to."""
        return self.unit or max(len(clip.samples) for clip in batch)

    def seconds(self, batch: list[LoadedClip]) -> np.ndarray:
        """Each clip's own length (clip), without the zeros that it is brought to its samples with."""
        sizes = np.array([len(clip.samples) for clip in batch])
        seconds: np.ndarray = np.minimum(sizes, self.longest(batch)) / self.encoder.sample_rate
        return seconds

    def prepare(self, batch: list[LoadedClip]) -> Any:
        """The module's input for a batch, of which clips of equal length stand together."""
        parts = []
        for size, group in groupby(batch, key=lambda clip: self.unit or len(clip.samples)):
            clips = list(group)
            waveforms = self._stacked([clip.samples[:size] for clip in clips], size)
            parts.append(self.encoder.inputs(self.to_device(waveforms), [clip.prompt for clip in clips]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _stacked(self, waveforms: list[np.ndarray], size: int) -> Tensor:
        """Waveforms of at most `size` samples, with zeros up to that (clip, sample); pinned for CUDA."""
        stacked = torch.zeros(len(waveforms), size, pin_memory=self._there is not None)
        for row, samples in zip(stacked.numpy(), waveforms, strict=True):
            row[: len(samples)] = samples
        return stacked

    def to_device(self, values: Tensor) -> Tensor:
        """A tensor of this machine's memory on the device: on CUDA, copied beside the arithmetic queued so far."""
        if self._there is None:
            return values.to(self.device)
        with torch.cuda.stream(self._there):
            there = values.pin_memory().to(self.device, non_blocking=True)
        arithmetic = torch.cuda.current_stream(self.device)
        arithmetic.wait_stream(self._there)
        there.record_stream(arithmetic)  # its memory is that of another stream
        return there


def joined(parts: list[list[Tensor]]) -> list[Tensor]:
    """What the parts of a batch gave, as one; the third, hidden states, has the clips along its second dimension."""
    return [torch.cat(same, dim=1 if i == 2 else 0) for i, same in enumerate(zip(*parts, strict=True))]


def halving(attempt: Callable[[int], Result], max_clips: int, n_clips: int, n_samples: int) -> tuple[Result, int]:
    """What an attempt at a batch gives, and in parts of how many clips: `max_clips`, halved while memory lacks.

    attempt: runs a batch of `n_clips` clips of `n_samples` samples in parts of so many clips.
    Raises ValueError where a single clip does not fit, or where the encoder fails.
    """
    while True:
        n = min(max_clips, n_clips)
        try:
            return attempt(max_clips), max_clips
        except Exception as error:
            if not is_foreign(error) or isinstance(error, Stopped):
                raise
            reason = one_line(error)
            # The device's memory did not suffice, as torch or a library of CUDA says it.
            if not isinstance(error, torch.OutOfMemoryError) and "_STATUS_ALLOC_FAILED" not in str(error):
                raise ValueError(
                    f"the encoder failed on {n} clips of {n_samples} samples ({type(error).__name__}: "
                    f"{reason}); expected a model that takes such batches: check its `prepare`, or extract with a "
                    "smaller --batch (otoscope --debug shows where)"
                ) from error
        # Here the exception, whose frames hold tensors, is gone.
        if n == 1:
            raise ValueError(
                f"one clip of {n_samples} samples does not fit into the memory of the device ({reason}); "
                "expected room for one: extract shorter clips (start and stop in the manifest, or --unit-sec), or use "
                "a device, or a share of it, with more memory"
            )
        torch.cuda.empty_cache()
        max_clips = -(-n // 2)


def now(device: torch.device) -> Any:
    """The time, on CUDA as an event: there the processor is long past a line before the device comes to it."""
    if device.type != "cuda":
        return time.perf_counter()
    return event(torch.cuda.current_stream(device))


def event(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """A mark in what a stream is given to do: when it gets there."""
    mark: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    stream.record_event(mark)
    return mark


@contextmanager
def arithmetic(threads: int) -> Iterator[None]:
    """Float32 that is float32, and the plan's number of threads: results depend on both, the latter in the last bits.

    cuDNN would round the inputs of convolutions to TF32, and choose among its algorithms by timing them. The number of
    threads is one of the calling thread; the rest is the whole process's. Where gradients are off by no_grad, 16-bit
    copies of weights are made once.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.autocast("cpu", enabled=False),  # those inside, on any device, share their copies
        ):
            yield
    finally:
        torch.set_num_threads(before)


def hardware_of(encoder: Encoder) -> str:
    """The device's own name, and the kernel that reduces frames on it: what decides over the last bits."""
    device = encoder.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"{name}, frames by {reduction_on(device).name}"


def processor() -> str:
    """Name of this machine's processor."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
