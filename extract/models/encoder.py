"""Encoder: a model with its front end and its sites, and the registry that finds one by name.

Goal: everything the extraction needs to know about a model in one small frozen object. Adapters build it; the
model itself is never subclassed.
Conventions: waveforms are float32 tensors (clip, sample) in [-1, 1]; site outputs are (clip, token, neuron);
the embedding is (clip, embedding); times in seconds, frequencies and rates in Hz.
Contents: `Encoder`, `Site`, `Anatomy`, `load_encoder`, `weights_digest`, `is_foreign`.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .tap import match_sites, tap


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A module of the encoder whose output is a vector of neurons per token."""

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
    """Width of the hidden states; 0 where the encoder names no blocks."""


def as_tokens(output: Any) -> Tensor:
    """Site output to (clip, token, neuron): a plain (clip, neuron) output is one token."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        raise ValueError(
            f"a site gave {_shape(output)}; expected a tensor (clip, token, neuron) or (clip, neuron): "
            "give the encoder `neurons=`, a function that arranges it so"
        )
    return output if output.ndim == 3 else output[:, None]


def block_tokens(output: Any) -> Tensor:
    """Hidden state (clip, token, width) in a block's output, which may be a tuple that begins with it."""
    return as_tokens(output[0] if isinstance(output, tuple) else output)


def mean_over_tokens(output: Any) -> Tensor:
    """Module output (clip, token, width) to its mean over tokens (clip, width)."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        raise ValueError(
            f"the module gave {_shape(output)}; expected a tensor (clip, token, width) or (clip, width): give the "
            "encoder `embed=`, a function that makes one vector per clip of it"
        )
    return as_tokens(output).mean(dim=1)


def is_foreign(error: Exception) -> bool:
    """Whether an exception of a forward pass comes from the model's own code, and is none that we raise for users."""
    return not isinstance(error, ValueError) and type(error) is not LookupError


def _shape(output: Any) -> Any:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def same(waveforms: Tensor) -> Tensor:
    """Waveforms as they are: the front end of a model that listens to samples."""
    return waveforms


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A torch module with all that is needed to run it on waveforms and to say where its neurons are.

        Encoder(module=model, sample_rate=16_000, sites=["blocks.*.mlp.act"])

    A `module:` factory returns one of these; so does every adapter.
    """

    module: torch.nn.Module
    """The model. `module(prepare(waveforms))` must run it."""
    sample_rate: int
    """In Hz; clips are resampled to it."""
    sites: Sequence[str]
    """Module names or glob patterns; the modules that match, in the model's order, are the layers."""
    prepare: Callable[[Tensor], Any] = same
    """(clip, sample) -> what the module takes, clip first; no clip's preparation may depend on its batch."""
    embed: Callable[[Any], Tensor] = mean_over_tokens
    """Module output -> one embedding per clip (clip, embedding)."""
    neurons: Callable[[Any], Tensor] = as_tokens
    """Site output -> (clip, token, neuron)."""
    token_spans: Callable[[int], np.ndarray] | None = None
    """Samples -> float64 (token, 4): t0, t1 in seconds, f0, f1 in Hz, in the order in which a site shows its
    tokens (over all its calls in one forward pass). NaN times mark special tokens such as CLS. By default
    tokens divide the input evenly, their number found by a pass over silence."""
    input_length: Callable[[int], int] = int
    """Samples -> length of the module's input. Clips of equal length are batched together."""
    blocks: Sequence[str] = ()
    """Modules (or patterns) whose hidden states are offered: the first one's input and each one's output."""
    maps: Sequence[str] = ()
    """Modules (or patterns), one for each site in their order: the linear map that takes the site's output and nothing
    else takes. Reruns with edited neurons then start there; without them they are whole passes."""
    min_samples: int = 1
    """Shortest waveform that the front end takes."""
    name: str = "module"
    """Family, recorded in the identity."""
    front_end: Mapping[str, Any] = field(default_factory=dict)
    """Whatever fixes the numbers between file and module, JSON values only; recorded in the identity."""

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be one."""
        for name, least in (("sample_rate", 1), ("min_samples", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}")
        if not isinstance(self.module, torch.nn.Module):
            raise ValueError(f"module is {type(self.module).__name__}; expected a torch.nn.Module")
        for name in ("sites", "blocks", "maps"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a list of names or patterns")

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embeddings (clip, embedding) of waveforms (clip, sample)."""
        return self.embed(self.module(self.prepare(waveforms)))

    def to(self, device: str) -> "Encoder":
        """Itself, its module (and a front end that is one) moved to the device and in evaluation mode."""
        self.module.eval().to(device)
        if isinstance(self.prepare, torch.nn.Module):
            self.prepare.eval().to(device)
        return self

    def silence(self, n_samples: int) -> Tensor:
        """One clip of zeros (1, sample) on the module's device."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return torch.zeros(1, n_samples, device=tensors[0].device if tensors else "cpu")

    @torch.inference_mode()
    def anatomy(self) -> Anatomy:
        """Sites with their widths, and the widths of embedding and hidden states, by a pass over silence.

        Raises LookupError for a site pattern that matches nothing or a site that never fires, ValueError for
        a site whose output is not arranged as (clip, token, neuron).
        """
        sites = match_sites(self.module, self.sites)
        blocks = match_sites(self.module, self.blocks) if self.blocks else ()
        with tap(self.module, [*sites, *(b for b in blocks if b not in sites)]) as seen:
            embedding = self(self.silence(max(self.sample_rate, self.min_samples)))
        if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != 1:
            raise ValueError(
                f"`embed` gave {_shape(embedding)} for one clip; expected a tensor (1, width): "
                "reduce it to one vector per clip"
            )
        return Anatomy(
            sites=tuple(Site(name=s, width=self.neurons(seen[s][0]).shape[-1]) for s in sites),
            embedding=embedding.shape[-1],
            hidden=block_tokens(seen[blocks[0]][0]).shape[-1] if blocks else 0,
        )

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
        """Width of each hidden state, the first block's input first, by a pass over silence.

        Raises LookupError and ValueError as `anatomy` does, and ValueError for an input that is passed by name.
        """
        blocks = match_sites(self.module, self.blocks)
        widths = dict.fromkeys(["", *blocks], 0)  # "" is the input of the first block

        def read_input(block: str, value: Any) -> None:
            if block == blocks[0]:
                widths[""] = as_tokens(value).shape[-1]

        def read(block: str, output: Any) -> None:
            widths[block] = block_tokens(output).shape[-1]

        try:
            with tap(self.module, blocks, read=read, read_input=read_input):
                self(self.silence(max(self.sample_rate, self.min_samples)))
        except IndexError as error:
            raise ValueError(
                f"block {blocks[0]} takes nothing by position; expected its input there: pass it so, or leave hidden "
                "out of --keep"
            ) from error
        return tuple(widths.values())

    @torch.inference_mode()
    def spans(self, n_samples: int) -> np.ndarray:
        """Where the tokens of an input of `n_samples` lie: float64 (token, 4) of t0, t1 (s), f0, f1 (Hz).

        NaN times mark special tokens (CLS). Without `token_spans` the tokens divide the input evenly.
        """
        if self.token_spans is not None:
            given = np.asarray(self.token_spans(n_samples), np.float64)
            if given.ndim != 2 or given.shape[1] != 4:
                raise ValueError(
                    f"`token_spans` gave {given.shape} for {n_samples} samples; expected (token, 4): t0, t1 in "
                    "seconds, f0, f1 in Hz"
                )
            return given
        site = match_sites(self.module, self.sites)[0]
        with tap(self.module, [site]) as seen:
            self(self.silence(n_samples))
        if len(seen[site]) > 1:
            raise ValueError(
                f"site {site} ran {len(seen[site])} times in one pass, so its tokens have no place in time; "
                "expected one run: give the encoder `token_spans=`"
            )
        n_tokens = self.neurons(seen[site][0]).shape[1]
        edges = np.linspace(0, n_samples / self.sample_rate, n_tokens + 1)
        band = np.broadcast_to([0.0, self.sample_rate / 2], (n_tokens, 2))
        return np.column_stack([edges[:-1], edges[1:], band])


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 over name, dtype, shape and values of all parameters and persistent buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


FAMILIES = {
    "m2d": "a folder or checkpoint file of M2D, named as its authors name them",
    "ast": "a folder of AST: config.json, preprocessor_config.json, weights, as transformers lays them out",
    "hubert": "a folder of HuBERT, likewise",
    "wavlm": "a folder of WavLM, likewise",
    "wav2vec2": "a folder of wav2vec 2.0, likewise",
    "data2vec": "a folder of data2vec-audio, likewise",
    "mert": "a folder of MERT, likewise; the code in it is not run",
    "whisper": "a folder of Whisper, likewise; its encoder",
    "module": "FILE.py:factory or pkg.mod:factory, a function that returns an otoscope Encoder",
    "tiny-ssl": "bundled, self-supervised, 4 layers of 384 neurons",
    "tiny-sl": "bundled, supervised, 4 layers of 384 neurons",
}

MODULES = {"ast": "audio_spectrogram_transformer", "tiny-ssl": "tiny", "tiny-sl": "tiny"}
"""Where a family is not in a module of its own name."""


@cache
def load_encoder(spec: str) -> Encoder:
    """Encoder by its name: "tiny-ssl", "tiny-sl", "m2d:PATH", "module:FILE.py:factory", "module:pkg:factory".

    Raises ValueError for a name that is not known, and what the adapter raises for files that do not fit.
    """
    family, _, rest = spec.partition(":")
    if family not in FAMILIES or bool(rest) == family.startswith("tiny-"):
        known = ", ".join(name if name.startswith("tiny-") else f"{name}:..." for name in FAMILIES)
        raise ValueError(f"no encoder {spec!r}; expected one of {known}")
    adapter = importlib.import_module(f".{MODULES.get(family, family)}", __package__)
    load: Callable[[str], Encoder] = adapter.load
    return load(rest or family)
