"""Interventions: what is done to which neurons while the encoder runs. Pure.

Goal: switching off, weakening, amplifying, replacing and transplanting neurons in one small noun, to the set itself
(is it necessary?) or to everything else (is it sufficient?).
Conventions: an edit acts on the output of a site, on every frame, CLS and padding included, and in every run of the
site (chunks of long audio), as the published ablation does; or on the last token alone, of encoders that read clips
token by token. Layers and neurons are counted from 0.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ..extract.models.edit import writable
from ..store.neurons import NeuronSet

MODES = ("gain", "mean", "patch")
ALL, LAST = "all", "last"
TOKENS = (LAST, ALL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """What happens to some neurons of one layer. Two edits with equal `key` do the same."""

    neurons: Tensor
    """int64 (edited), sorted, each once; on the encoder's device."""
    mode: str
    """"gain": new = gain * old; "mean": new = constants; "patch": new = what a donor clip has there."""
    gain: float = 0.0
    constants: Tensor | None = None
    """float32 (edited) for "mean"."""
    tokens: str = ALL
    """"all", or "last": the last token of every clip alone, from a donor that of its own."""

    @cached_property
    def key(self) -> bytes:
        """Digest of all that the edit does."""
        digest = hashlib.sha256(f"{self.mode} {self.gain} {self.tokens}".encode())
        for values in (self.neurons, self.constants):
            digest.update(b"" if values is None else values.cpu().numpy().tobytes())
        return digest.digest()

    def to_device(self, device: torch.device | str) -> "Edit":
        """The same edit with its tensors on a device."""
        constants = None if self.constants is None else self.constants.to(device)
        return replace(self, neurons=self.neurons.to(device), constants=constants)

    def new(self, old: Tensor, donated: Tensor | None = None) -> Tensor:
        """The edited neurons' new values (..., edited), from their old ones and what the donor has there.

        Raises ValueError for a patch without donors, and for the last token where clips and tokens are in one row.
        """
        if self.tokens == LAST:
            if old.ndim < 3:
                raise ValueError(
                    f"a site's output has {old.ndim} dimensions; expected (clip, token, neuron), of which the last "
                    "token is edited: edit all tokens"
                )
            return torch.cat([old[..., :-1, :], self._new(old[..., -1:, :], donated)], dim=-2)
        return self._new(old, donated)

    def _new(self, old: Tensor, donated: Tensor | None) -> Tensor:
        if self.mode == "gain":
            return self.gain * old
        source = self.constants if self.mode == "mean" else donated
        if source is None:
            raise ValueError("a patch needs donors; expected donor clips beside the batch")
        if source.ndim > old.ndim:  # a model that lays out clips and frames in one row
            source = source.flatten(0, 1)
        return source.to(old.dtype).expand_as(old)


def edited(activation: Tensor, edit: Edit, donated: Tensor | None = None) -> Tensor:
    """A copy of the activation (..., neuron) in which the edit's neurons have their new values."""
    if edit.mode == "patch" or edit.tokens == LAST:
        old = activation.index_select(-1, edit.neurons)
        return activation.index_copy(-1, edit.neurons, edit.new(old, donated))
    # Otherwise new = factor * old + offset, a tenth of the time of copying columns where most neurons are edited.
    width, dtype = activation.shape[-1], wider(activation.dtype)
    changed = activation * activation.new_ones(width, dtype=dtype).index_fill(0, edit.neurons, edit.gain)
    if edit.constants is not None:
        changed += activation.new_zeros(width, dtype=dtype).index_copy(0, edit.neurons, edit.constants.to(dtype))
    return changed.to(activation.dtype)


def wider(dtype: torch.dtype) -> torch.dtype:
    """What numbers of a type are added up in: float32, or what is wider."""
    return torch.promote_types(dtype, torch.float32)


def edit_output(output: Any, neurons: Callable[[Any], Tensor], edit: Edit, donated: Tensor | None = None) -> Tensor:
    """A copy of a site's output, however it arranges its neurons, in which the edit's neurons have their new values.

    neurons: the encoder's function, site output -> (clip, frame, neuron), which may turn and reshape, but not compute.
    Raises ValueError where it computes, or the output is not one tensor.
    """
    copy, view = writable(output, neurons)
    view.index_copy_(-1, edit.neurons, edit.new(view.index_select(-1, edit.neurons), donated))
    return copy


@dataclass(frozen=True, kw_only=True, eq=False)
class Intervention:
    """A set of neurons and what is done to it, or to all others.

        Intervention(neurons=found)                                    # switched off
        Intervention(neurons=found, gain=0.5)                          # weakened; above 1 amplified; 1 does nothing
        Intervention(neurons=found, mode="mean", means=frame_mean(...))    # held at the mean over a task or category
        Intervention(neurons=found, mode="patch")                      # as in another clip: the set is transplanted
        Intervention(neurons=found, keep=True)                         # all other neurons switched off

    Without `keep` this asks whether the set is necessary, or, with "patch", whether it suffices to make a clip of one
    category look like its donor's. With `keep` the same is done to all neurons of all layers but the set: it alone
    keeps its own values. In the published lists `int_neurons` is the set and `int_gain` the gain.
    Patches go frame by frame where clip and donor have equally many frames, else every frame gets the donor's mean over
    its frames (special ones, such as CLS, left out); the donor runs unedited.
    Raises ValueError for a mode that is not known, a gain that is not finite, or means that are missing.
    """

    neurons: NeuronSet
    mode: str = "gain"
    """"gain", "mean" or "patch"."""
    gain: float = 0.0
    """Factor for "gain": 0 removes, 1 changes nothing."""
    means: NDArray[np.float32] | None = None
    """Constants (layer, neuron) for "mean", of which those of edited neurons are used; `frame_mean` makes them."""
    keep: bool = False
    """Edit every neuron outside of the set in place of those in it."""
    name: str = ""
    """How a person calls it."""
    tokens: str = ALL
    """"all" tokens (frames), or the "last" of every clip alone, as of `Edit`."""

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise ValueError(f"tokens are {self.tokens!r}; expected one of {', '.join(TOKENS)}")
        if self.mode not in MODES:
            raise ValueError(f"no intervention {self.mode!r}; expected one of {', '.join(MODES)}")
        if not np.isfinite(self.gain) or (self.mode != "gain" and self.gain != 0):
            raise ValueError(
                f"gain {self.gain} with mode {self.mode!r}; expected a finite number, and one other than 0 with "
                "mode 'gain' only"
            )
        if (self.means is None) == (self.mode == "mean"):
            found = "no means" if self.means is None else "means"
            raise ValueError(f"mode {self.mode!r} with {found}; expected means (layer, neuron) for mode 'mean' alone")

    def edits(self, widths: Sequence[int]) -> tuple[Edit | None, ...]:
        """What happens in each layer of an encoder with these numbers of neurons; None where nothing does.

        Raises LookupError for neurons that are not there, ValueError for means of another shape or not finite.
        """
        self.neurons.check(widths)
        if self.mode == "gain" and self.gain == 1:
            return (None,) * len(widths)
        ours = self.neurons.by_layer
        none = np.zeros(0, np.int64)
        picked = (ours.get(layer, none) for layer in range(len(widths)))
        if self.keep:
            picked = (np.setdiff1d(np.arange(width), its) for width, its in zip(widths, picked, strict=True))
        return tuple(self._edit(layer, its, widths) if len(its) else None for layer, its in enumerate(picked))

    def _edit(self, layer: int, neurons: NDArray[np.int64], widths: Sequence[int]) -> Edit:
        constants = None
        if self.means is not None:
            if self.means.shape != (len(widths), max(widths)):
                raise ValueError(
                    f"means have shape {self.means.shape}; expected (layer, neuron) = {(len(widths), max(widths))}: "
                    "take them from a store of this encoder"
                )
            values = np.asarray(self.means[layer, neurons], np.float32)
            if not np.isfinite(values).all():
                raise ValueError(
                    f"the mean of neuron {(layer, int(neurons[~np.isfinite(values)][0]))} is not finite; expected "
                    "means over at least one clip"
                )
            constants = torch.from_numpy(values)
        return Edit(
            neurons=torch.from_numpy(neurons), mode=self.mode, gain=self.gain, constants=constants, tokens=self.tokens
        )


def frame_mean(mean: xr.DataArray, frame_count: xr.DataArray, clips: xr.DataArray | None = None) -> NDArray[np.float32]:
    """Mean activation over all counted frames of some clips: (layer, neuron, clip) -> float32 (layer, neuron).

        sum over clips of frame_count * mean / sum over clips of frame_count

    mean, frame_count: variables of a store. clips: bool (clip), those of one category, for example; default all. Clips
    without counted frames, as those that failed, do not enter; NaN where no clip is left, and beyond a layer's width.
    Sums are in float64.
    """
    frames = frame_count if clips is None else frame_count.where(clips, 0)
    counted = mean.where(frames > 0, 0).astype(np.float64)
    total = (counted * frames).sum("clip", skipna=False) / frames.sum("clip").where(lambda n: n > 0)
    result: NDArray[np.float32] = total.transpose("layer", "neuron").values.astype(np.float32)
    return result
