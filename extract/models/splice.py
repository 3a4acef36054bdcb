"""Splice: dictionaries put behind transformer layers of a model, so that its latents are read and edited like neurons.

Goal: editing latents changes what the model goes on with by what they decode to, and by nothing else.
Conventions: a state x is (clip, frame, width), number 0 the first transformer layer's input, number s the output of
layer s. Of each dictionary the codes z are an Identity, a site, and the decoder D a linear map without bias, the map
behind it. With z' what comes out of the site, the model goes on with x - (D z - D z'): the error of the reconstruction
stays, and without an edit that is x to the last bit. Several dictionaries of one state all encode x itself. Arithmetic
is float32, whatever the model's type and autocast say; the change is rounded to the type of x.
Of a dictionary of frame rows codes are (clip, frame, latent). Of one of clip rows they are those of the mean over the
frames that count, (clip, 1, latent), and their change is added to each of those frames.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..summarise import counted_frames
from .dictionary import Dictionary
from .encoder import Encoder, as_frames, layer_frames
from .tap import match_sites

Change = Callable[[Tensor], Tensor]
"""State (clip, frame, width) -> what is taken from it, of the same shape."""


class Codes(nn.Module):
    """States (..., width) to codes (..., latent). A module, so that replays need not compute them again."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.dictionary = dictionary

    def forward(self, states: Tensor) -> Tensor:
        """The dictionary's own arithmetic, where the states are."""
        if self.dictionary.encoder.device != states.device:
            with torch.inference_mode(False):  # they stay when this pass is over
                self.dictionary = self.dictionary.to(states.device)
        return self.dictionary.encode(states)


class Latents(nn.Module):
    """One dictionary: states (..., width) to what their edited latents no longer decode to, D z - D z'."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.encoder, self.codes = Codes(dictionary), nn.Identity()
        # Two modules of one weight: what the codes decode to unedited, and the map that edits act on.
        self.unedited, self.decoder = (
            nn.Linear(dictionary.n_latents, dictionary.width, bias=False, device="meta") for _ in range(2)
        )
        self.unedited.weight = self.decoder.weight = nn.Parameter(
            dictionary.decoder.T.clone(memory_format=torch.contiguous_format), requires_grad=False
        )

    def forward(self, states: Tensor) -> Tensor:
        """float32 (..., width)."""
        codes = self.encoder(states)
        change: Tensor = self.unedited(codes) - self.decoder(self.codes(codes))
        return change


class Splice(nn.Module):
    """A model with dictionaries behind its layers: it takes what the model takes, and gives what it gives.

    base: the encoder whose module is run, which nobody else runs meanwhile.
    dictionaries: by the names that they get as modules inside `saes`, of one kind of rows.
    """

    weights: Tensor | None = None
    """float32 (clip, frame), 1 where a frame counts, of the clips of the present pass; see `counting`."""

    def __init__(self, base: Encoder, dictionaries: Mapping[str, Dictionary]) -> None:
        super().__init__()
        self.base, self.saes = base.module, nn.ModuleDict({name: Latents(d) for name, d in dictionaries.items()})
        self.of_clips = {dictionary.rows for dictionary in dictionaries.values()} == {"clip"}
        self.names: dict[int, list[str]] = {}
        for name, dictionary in dictionaries.items():
            self.names.setdefault(dictionary.state, []).append(name)
        self.layers = match_sites(base.module, base.transformer_layers)
        self._encoder = base
        self._spans: dict[tuple[Any, ...], np.ndarray] = {}

    @contextmanager
    def counting(self, n_samples: int, seconds: np.ndarray, frames: str, *prompt: str) -> Iterator[None]:
        """What passes over clips are to run in: see `Encoder.counting`."""
        if (n_samples, *prompt) not in self._spans:
            self._spans[n_samples, *prompt] = self._encoder.spans(n_samples, *prompt)
        spans = self._spans[n_samples, *prompt]
        counted = counted_frames(spans, seconds, frames, prompted=self._encoder.prompted)
        with torch.inference_mode(False):  # a pass with gradients may use it
            weights = torch.from_numpy(counted).to(self._encoder.device)
        before, self.weights = self.weights, weights
        try:
            yield
        finally:
            self.weights = before

    def forward(self, inputs: Any) -> Any:
        """A pass of the model. Raises ValueError where dictionaries of clip rows cannot know a clip's frames."""
        with ExitStack() as hooks:
            for state, names in self.names.items():
                layer = self.layers[max(state - 1, 0)]
                part, change = self.base.get_submodule(layer), self._change(names, layer)
                hooks.callback(
                    part.register_forward_hook(partial(_behind, change)).remove
                    if state
                    else part.register_forward_pre_hook(partial(_before, change), with_kwargs=True).remove
                )
            return self.base(inputs)

    def _change(self, names: Sequence[str], layer: str) -> Change:
        """What the dictionaries of one state take from it, for one pass."""
        saes = [self.saes[name] for name in names]
        n_runs = 0

        def total(states: Tensor) -> Tensor:
            change: Tensor = reduce(torch.add, [sae(states) for sae in saes])
            return change

        def by_frame(states: Tensor) -> Tensor:
            with torch.autocast(states.device.type, enabled=False):
                return total(states).to(states.dtype)

        def by_clip(states: Tensor) -> Tensor:
            nonlocal n_runs
            n_runs += 1
            weights = self._weights(states, layer, n_runs)
            with torch.autocast(states.device.type, enabled=False):
                means = torch.bmm(weights[:, None], states.float()) / weights.sum(dim=1)[:, None, None]
                return torch.where(weights[..., None] > 0, total(means), 0).to(states.dtype)

        return by_clip if self.of_clips else by_frame

    def _weights(self, states: Tensor, layer: str, n_runs: int) -> Tensor:
        """The weights of a layer's frames, where it shows all of them at once."""
        name = self._encoder.name
        if self.weights is None:
            raise ValueError(
                f"encoder {name} was run without its clips' lengths, and SAEs of clip rows are of the mean over the "
                "frames that count; expected a pass inside of `encoder.counted(...)`, or encoder(waveforms)"
            )
        if n_runs > 1 or states.shape[:2] != self.weights.shape:
            raise ValueError(
                f"encoder {name} runs {layer} several times in a pass, or on other frames than its spans: on "
                f"{' x '.join(map(str, states.shape[:2]))} (clip, frame) where clips of this length have "
                f"{' x '.join(map(str, self.weights.shape))}; expected one run for SAEs of clip rows, whose codes are "
                "of the mean over a clip: take shorter clips (--unit-sec), or SAEs of frame rows"
            )
        return self.weights


def _behind(change: Change, _layer: nn.Module, _inputs: Any, output: Any) -> Any:
    """A transformer layer's output, whose first leaf, as `layer_frames` reads it, is changed."""
    states = layer_frames(output)
    changed = states - change(states)
    if isinstance(output, Tensor):
        return changed.reshape(output.shape)
    if isinstance(output, Mapping):
        name, first = next(iter(output.items()))
        other: Any = copy(output)
        other[name] = changed.reshape(first.shape)
        return other
    parts = changed.reshape(output[0].shape), *output[1:]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def _before(change: Change, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A transformer layer's arguments, the first of which is changed, whether given by position or by name."""
    name = "" if args else next(iter(inspect.signature(layer.forward).parameters), "")
    given = args[0] if args else kwargs.get(name)
    states = as_frames(given)
    changed = (states - change(states)).reshape(given.shape)  # type: ignore[union-attr]
    return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, name: changed})
