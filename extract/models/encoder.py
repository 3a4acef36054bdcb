"""Encoder: a model with its front end and its sites.

Goal: everything the extraction needs to know about a model in one small frozen object. Adapters build it; the
model itself is never subclassed.
Conventions: waveforms are float32 tensors (clip, sample) in [-1, 1]; site outputs are (clip, frame, neuron);
the embedding is (clip, embedding); times in seconds, frequencies and rates in Hz. A frame is a time step of the
encoder's output; where its input is cut into patches, a patch. CLS and its like are special frames, without a time.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ...store.changes.staged import Origin
from ...store.provenance import PRECISIONS
from ..audio.clip import AUDIO
from .edit import why_fixed
from .tap import match_sites, tap

MAX_SAMPLE_RATE = 1_000_000  # in Hz: bats are recorded at 500 kHz
MAX_SHORTEST_SECONDS = 600  # that a clip must have
FIXED_PROMPT = f"What is heard in {AUDIO} is"
"""What a prompted encoder is asked about sounds that are nobody's clips."""
LOWER = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A module of the encoder whose output is a vector of neurons per frame."""

    name: str
    """Dotted module name, as in `model.named_modules()`."""
    width: int
    """Number of neurons."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """Sizes that only a forward pass can tell."""

    sites: tuple[Site, ...]
    """Sites in order: they are the layers of the store."""
    embedding: int
    """Width of the embedding."""
    hidden: int
    """Width of the hidden states; 0 where the encoder names no transformer layers."""
    precision: str
    """Type of the numbers that the sites gave, as "float32"; several are joined by "+"."""
    check: np.ndarray
    """Of a fixed second of sound: its embedding, then the mean over frames of each site, float32 (check_value)."""
    frames: tuple[int, ...]
    """Of each site in that pass, over all its runs."""
    uneditable: Mapping[str, str] = field(default_factory=dict)
    """Sites whose outputs cannot be edited, and why."""


def as_frames(output: Any) -> Tensor:
    """Site output to (clip, frame, neuron): a plain (clip, neuron) output is one frame."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        raise ValueError(
            f"a site gave {_shape(output)}; expected a tensor (clip, frame, neuron) or (clip, neuron): "
            "give the encoder `neurons=`, a function that arranges it so"
        )
    return output if output.ndim == 3 else output[:, None]


def layer_frames(output: Any) -> Tensor:
    """Hidden state (clip, frame, width) in a transformer layer's output, a tuple or dict may begin with it."""
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else [output]
    return as_frames(next(iter(parts), None))


def mean_over_frames(output: Any) -> Tensor:
    """Module output (clip, frame, width) to its mean over frames (clip, width)."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        raise ValueError(
            f"the module gave {_shape(output)}; expected a tensor (clip, frame, width) or (clip, width): give the "
            "encoder `embed=`, a function that makes one vector per clip of it"
        )
    return as_frames(output).float().mean(dim=1)


def is_foreign(error: Exception) -> bool:
    """Whether an exception of a forward pass comes from the model's own code, and is none that we raise for users."""
    return not isinstance(error, ValueError) and type(error) is not LookupError


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The model inside of what torch.compile and data parallelism put around it.

    Compiled code goes past hooks that come later, and copies on several devices meet them in any order.
    """
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif (inside := dict(module.named_children()).get("_orig_mod")) is not None:
            module = inside
        else:
            return module


def _shape(output: Any) -> Any:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def same(waveforms: Tensor) -> Tensor:
    """Waveforms as they are: the front end of a model that takes samples."""
    return waveforms


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A torch module with all that is needed to run it on waveforms and to say where its neurons are.

        Encoder(module=model, sample_rate=16_000, sites=["layers.*.mlp.act"])

    A `module:` factory returns one of these; so does every adapter.
    """

    module: torch.nn.Module
    """The model, taken out of torch.compile or DataParallel. `module(prepare(waveforms))` must run it."""
    sample_rate: int
    """In Hz; clips are resampled to it."""
    sites: Sequence[str]
    """Module names or glob patterns; the modules that match, in the model's order, are the layers."""
    prepare: Callable[..., Any] = same
    """(clip, sample) -> what the module takes, clip first; no clip's preparation may depend on its batch."""
    prompted: bool = False
    """Whether each clip comes with a prompt, a text in which AUDIO stands where the sound is. Then `prepare` takes the
    prompts (clip) too, `frame_spans`, `input_length` and `counting` one as their last argument, and `prepare` runs in
    the encoder's precision. Frames are tokens; those of text have no time."""
    embed: Callable[[Any], Tensor] = mean_over_frames
    """Module output -> one embedding per clip (clip, embedding)."""
    neurons: Callable[[Any], Tensor] = as_frames
    """Site output -> (clip, frame, neuron)."""
    frame_spans: Callable[..., np.ndarray] | None = None
    """Samples -> float64 (frame, 4): t0, t1 in seconds, f0, f1 in Hz, in the order in which a site gives its
    frames (over all its calls in one forward pass). NaN times mark special frames such as CLS. By default
    frames divide the input evenly, their number found by a pass over silence."""
    input_length: Callable[..., Hashable] = int
    """Samples -> length of the module's input. Clips of equal length are batched together. Of a prompted encoder,
    anything that is equal where tokens are laid out alike."""
    transformer_layers: Sequence[str] = ()
    """Modules (or patterns) whose hidden states are offered: the first one's input and each one's output."""
    maps: Sequence[str] = ()
    """Modules (or patterns), one for each site in their order: the linear map that takes the site's output and nothing
    else takes. Reruns with edited neurons then start there; without them they are whole passes."""
    min_samples: int = 1
    """Shortest waveform that the front end takes."""
    max_samples: int | None = None
    """Longest one; None for any."""
    name: str = "module"
    """Family, recorded in the identity."""
    front_end: Mapping[str, Any] = field(default_factory=dict)
    """Whatever fixes the numbers between file and module, JSON values only; recorded in the identity."""
    source: str = ""
    """Digest of the file that it was made by, where that is a user's own; recorded beside the identity."""
    precision: str = "float32"
    """What torch's autocast has `module` and `embed` compute matrix products in: "bfloat16" or "float16"; "float32"
    leaves them to the types of their weights."""
    counting: Callable[..., AbstractContextManager[object]] | None = None
    """For a module that must know which frames of its clips count: what `counted` gives."""
    answers: Callable[[Mapping[str, str], Iterable[str]], np.ndarray] | None = None
    """Of a prompted encoder with a head of its own: (answers by category, prompts) -> its rows, float32 (answer,
    embedding), that score the answers' first tokens behind the prompts. ValueError where these do not tell."""
    base: "Encoder | None" = None
    """The encoder that this one was made from, where its identity follows from that one's; it shares its modules."""
    derive: Callable[[Origin], Origin] | None = None
    """Then, what the numbers come from, of what those of `base` come from."""

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be one."""
        for name, minimum in (("sample_rate", 1), ("min_samples", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < minimum:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least {minimum}")
        if self.sample_rate > MAX_SAMPLE_RATE:
            raise ValueError(f"sample_rate is {self.sample_rate} Hz; expected at most {MAX_SAMPLE_RATE}")
        if self.min_samples > MAX_SHORTEST_SECONDS * self.sample_rate:
            raise ValueError(
                f"min_samples is {self.min_samples} at {self.sample_rate} Hz; expected at most "
                f"{MAX_SHORTEST_SECONDS} s: no corpus has only clips of that length"
            )
        if self.max_samples is not None and self.max_samples < max(self.sample_rate, self.min_samples):
            raise ValueError(
                f"max_samples is {self.max_samples} at {self.sample_rate} Hz; expected a second at least, by which an "
                "encoder is looked at, and no less than min_samples"
            )
        if not isinstance(self.module, torch.nn.Module):
            raise ValueError(f"module is {type(self.module).__name__}; expected a torch.nn.Module")
        object.__setattr__(self, "module", unwrapped(self.module))
        for name in ("sites", "transformer_layers", "maps"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a list of names or patterns")

    def __call__(self, waveforms: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Embeddings (clip, embedding) of waveforms (clip, sample), all of whose samples are the clips' own.

        prompts: (clip) of a prompted encoder, of one layout; FIXED_PROMPT for all where there are none.
        """
        n_clips, n_samples = waveforms.shape
        seconds, prompt = np.full(n_clips, n_samples / self.sample_rate), prompts[0] if prompts else None
        with self.counted(n_samples, seconds, "published", prompt):
            return self.run(self.inputs(waveforms, prompts))

    def inputs(self, waveforms: Tensor, prompts: Sequence[str | None] | None = None) -> Any:
        """What the module takes, clip first, for waveforms (clip, sample) and prompts (clip), as of `__call__`."""
        if not self.prompted:
            return self.prepare(waveforms)
        with self.autocast():
            return self.prepare(waveforms, prompts or [FIXED_PROMPT] * len(waveforms))

    def layout(self, n_samples: int, prompt: str | None = None) -> Hashable:
        """What clips that meet in a batch have in common: see `input_length`."""
        return self.input_length(n_samples, *self._asked(prompt))

    def _asked(self, prompt: str | None) -> tuple[str, ...]:
        """What functions of a length are given beside it."""
        return (FIXED_PROMPT if prompt is None else prompt,) if self.prompted else ()

    @property
    def default_frames(self) -> str:
        """The rule by which frames count where none is asked for."""
        return "last" if self.prompted else "audio"

    def counted(
        self, n_samples: int, seconds: np.ndarray, frames: str, prompt: str | None = None
    ) -> AbstractContextManager[object]:
        """What passes are to run in over clips of `n_samples` samples, of which `seconds` (clip) are each one's own.

        frames: rule by which frames count, as of `summarise.counted_frames`. prompt: of a clip, see `prompted`.
        """
        if self.counting is None:
            return nullcontext()
        return self.counting(n_samples, seconds, frames, *self._asked(prompt))

    def run(self, inputs: Any) -> Tensor:
        """Embeddings (clip, embedding) of what `prepare` gave, in the encoder's precision."""
        with self.autocast():
            return self.embed(self.module(inputs))

    def autocast(self) -> AbstractContextManager[object]:
        """What the module is to run in. Inside another one, 16-bit copies of weights are kept until that ends."""
        lower = LOWER.get(self.precision)
        return torch.autocast(self.device.type, dtype=lower, enabled=lower is not None)

    def at(self, precision: str | None) -> "Encoder":
        """The same module in one of PRECISIONS; itself for any other, or where its weights have 16 bits already."""
        own = any(p.dtype in LOWER.values() for p in self.module.parameters())
        return self if own or precision not in PRECISIONS else replace(self, precision=precision)

    def to(self, device: str) -> "Encoder":
        """Itself, its module (and a front end that is one) moved to the device and in evaluation mode."""
        self.module.eval().to(device)
        if isinstance(self.prepare, torch.nn.Module):
            self.prepare.eval().to(device)
        return self

    @property
    def device(self) -> torch.device:
        """That of the module."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    def silence(self, n_samples: int) -> Tensor:
        """One clip of zeros (1, sample) on the module's device."""
        return torch.zeros(1, n_samples, device=self.device)

    def fixed_sound(self) -> Tensor:
        """A tone of a second, or of `min_samples`, that rises to 0.4 of the sample rate (1, sample) on the device."""
        silence = self.silence(max(self.sample_rate, self.min_samples))
        t = np.arange(silence.shape[1]) / self.sample_rate
        rate = 0.4 * self.sample_rate / t[-1]  # in Hz per second
        return silence + torch.from_numpy((0.5 * np.sin(np.pi * rate * t**2)).astype(np.float32)).to(self.device)

    @torch.inference_mode()
    def anatomy(self) -> Anatomy:
        """What a pass over a second of sound tells.

        Raises LookupError for a site pattern that matches nothing or a site that never fires, ValueError for
        a site whose output is not arranged as (clip, frame, neuron).
        """
        sites = match_sites(self.module, self.sites)
        layers = match_sites(self.module, self.transformer_layers) if self.transformer_layers else ()
        frames: dict[str, list[Tensor]] = {site: [] for site in sites}
        uneditable: dict[str, str] = {}
        hidden: list[int] = []

        def read(site: str, output: Any) -> None:
            if site in frames:
                frames[site].append(self._frames_of_one_clip(site, output))
                as_it_lies = self.neurons is as_frames and isinstance(output, Tensor) and output.is_contiguous()
                if not as_it_lies and (reason := why_fixed(output, self.neurons)):
                    uneditable[site] = reason
            if layers and site == layers[0]:
                hidden.append(layer_frames(output).shape[-1])

        with tap(self.module, list(dict.fromkeys([*sites, *layers])), read=read):
            embedding = self(self.fixed_sound())
        if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != 1:
            raise ValueError(
                f"`embed` gave {_shape(embedding)} for one clip; expected a tensor (1, width): "
                "reduce it to one vector per clip"
            )
        values = {site: torch.cat(parts, dim=1)[0] for site, parts in frames.items()}
        check = [embedding[0], *(of_site.float().mean(dim=0) for of_site in values.values())]
        return Anatomy(
            sites=tuple(Site(name=site, width=of_site.shape[1]) for site, of_site in values.items()),
            embedding=embedding.shape[1],
            hidden=hidden[0] if hidden else 0,
            precision="+".join(sorted({str(v.dtype).removeprefix("torch.") for v in values.values()})),
            check=torch.cat([part.float() for part in check]).cpu().numpy(),
            frames=tuple(map(len, values.values())),
            uneditable=uneditable,
        )

    @torch.inference_mode()
    def check_widths(self, anatomy: Anatomy) -> None:
        """Raise ValueError for a site that shows more neurons of a longer sound: it has its frames where they belong.

        Takes a pass, save where the sites show as many frames as `frame_spans` gives, and other numbers of neurons.
        """
        widths = {site.name: site.width for site in anatomy.sites}
        if self.frame_spans is not None:
            n_frames = len(self.spans(max(self.sample_rate, self.min_samples)))
            if n_frames not in widths.values() and set(anatomy.frames) == {n_frames}:
                return

        def read(site: str, output: Any) -> None:
            if (found := self.neurons(output).shape[-1]) != widths[site]:
                raise ValueError(
                    f"site {site} shows {widths[site]} neurons of a sound and {found} of one twice as long; expected "
                    "(clip, frame, neuron): give the encoder `neurons=`, for (clip, channel, frame) lambda y: "
                    "y.transpose(1, 2)"
                )

        n_samples = 2 * max(self.sample_rate, self.min_samples)
        try:
            with tap(self.module, list(widths), read=read):
                self(self.silence(min(n_samples, self.max_samples or n_samples)))
        except Exception as error:
            if not is_foreign(error):
                raise
            # A model of one length alone cannot be asked.

    def _frames_of_one_clip(self, site: str, output: Any) -> Tensor:
        """A copy of the neurons (1, frame, neuron) in a site's output. Raises ValueError where they are not that."""
        before = output.clone() if isinstance(output, Tensor) else None
        values = self.neurons(output)
        if not isinstance(values, Tensor) or values.ndim != 3 or len(values) != 1:
            raise ValueError(
                f"site {site} gives {_shape(values)} for one clip; expected a tensor (1, frame, neuron), the clip "
                "first: give the encoder `neurons=`, a function that arranges it so"
            )
        if (
            before is not None
            and not torch.equal(output, before)  # in a tenth of the time
            and not torch.allclose(output, before, rtol=0, atol=0, equal_nan=True)
        ):
            raise ValueError(
                f"the encoder's `neurons` changes the output of site {site}, with which the model goes on; expected a "
                "function that leaves it as it is: none that ends in _"
            )
        return values.clone()

    def ffn_maps(self, sites: Sequence[Site]) -> tuple[str, ...]:
        """Names of the linear maps that take the sites' outputs, in the sites' order; none where `maps` is empty.

        sites: as `anatomy` gives them.
        Raises LookupError for a pattern that matches nothing, ValueError for maps that do not fit the sites.
        """
        if not self.maps:
            return ()
        names = match_sites(self.module, self.maps)
        if len(names) != len(sites):
            raise ValueError(
                f"`maps` names {len(names)} modules for {len(sites)} sites; expected one for each: the linear map that "
                "takes the site's output"
            )
        for site, name in zip(sites, names, strict=True):
            part = self.module.get_submodule(name)
            if not isinstance(part, torch.nn.Linear) or part.in_features != site.width:
                what = f"{part.in_features} inputs" if isinstance(part, torch.nn.Linear) else type(part).__name__
                raise ValueError(
                    f"map {name} ({what}) cannot take the {site.width} neurons of site {site.name}; expected a "
                    "torch.nn.Linear with as many inputs: name the one behind that site, or leave `maps` out"
                )
        return names

    @torch.inference_mode()
    def hidden_widths(self) -> tuple[int, ...]:
        """Width of each hidden state, the first layer's input first, by a pass over silence.

        Raises LookupError and ValueError as `anatomy` does, and ValueError where a first input cannot be told.
        """
        layers = match_sites(self.module, self.transformer_layers)
        widths = dict.fromkeys(["", *layers], 0)  # "" is the input of the first layer

        def take(layer: str, value: Tensor) -> None:
            if len(value) != 1:
                raise ValueError(
                    f"the hidden state at {layer or layers[0]} is {tuple(value.shape)} for one clip; expected (1, "
                    "frame, width), the clip first: name other `transformer_layers=`, or leave hidden out of --keep"
                )
            widths[layer] = value.shape[-1]

        def read(layer: str, output: Any) -> None:
            take(layer, layer_frames(output))

        def read_input(value: Any) -> None:
            take("", as_frames(value))

        with tap(self.module, layers, read=read, read_inputs={layers[0]: read_input}):
            self(self.silence(max(self.sample_rate, self.min_samples)))
        return tuple(widths.values())

    @torch.inference_mode()
    def spans(self, n_samples: int, prompt: str | None = None) -> np.ndarray:
        """Where the frames of an input of `n_samples` lie: float64 (frame, 4) of t0, t1 (s), f0, f1 (Hz).

        NaN times mark special frames (CLS, text). Without `frame_spans` the frames divide the input evenly.
        prompt: of a prompted encoder, see there.
        """
        if self.frame_spans is not None:
            given = np.asarray(self.frame_spans(n_samples, *self._asked(prompt)), np.float64)
            if given.ndim != 2 or given.shape[1] != 4:
                raise ValueError(
                    f"`frame_spans` gave {given.shape} for {n_samples} samples; expected (frame, 4): t0, t1 in "
                    "seconds, f0, f1 in Hz"
                )
            return given
        if self.prompted:
            raise ValueError(
                f"encoder {self.name} is prompted and says nothing of its tokens; expected `frame_spans=`, which gives "
                "text NaN times"
            )
        site = match_sites(self.module, self.sites)[0]
        with tap(self.module, [site]) as seen:
            self(self.silence(n_samples))
        if len(seen[site]) > 1:
            raise ValueError(
                f"site {site} ran {len(seen[site])} times in one pass, so its frames have no known time; "
                "expected one run: give the encoder `frame_spans=`"
            )
        edges = np.linspace(0, n_samples / self.sample_rate, self.neurons(seen[site][0]).shape[1] + 1)
        return spans_of_all_bands(edges[:-1], edges[1:], self.sample_rate)


def spans_of_all_bands(t0: np.ndarray, t1: np.ndarray, sample_rate: int) -> np.ndarray:
    """Spans (frame, 4) of frames between times in s that see all frequencies, 0 Hz to half the rate."""
    return np.column_stack([t0, t1, np.zeros(len(t0)), np.full(len(t0), sample_rate / 2)])


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 over name, dtype, shape and values of all parameters and persistent buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
