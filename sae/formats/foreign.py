"""What the libraries have in common: layouts of weights, fields of a configuration, what a file does not say.

Goal: a conversion renames and transposes, and changes no number; what would change one is refused by its field.
Conventions: weights by our names, as `Dictionary` has them. ValueErrors say field, found, expected, remedy; `files`
puts the folder before them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...extract.models.checkpoint import is_plain, shown
from ...extract.models.dictionary import Dictionary

REMEDY = "no other one fits, train one here"
MAX_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Given:
    """What whoever imports says of a file that does not say it; None: nothing."""

    state: int | None = None
    """Number of the hidden state."""
    rows: str | None = None
    """"clip" or "frame"."""
    k: int | None = None
    """Codes of a row; of published files alone."""
    sae: int | None = None
    """Which of the several of a published file, from 0."""
    per_row: bool = False
    """Whether a BatchTopK keeps the k largest of each row, as with a batch of one row, instead of a threshold."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An SAE of another library as it was read."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    given: Given
    layer: bool = False
    """Whether it lies in a folder `layer_N`, as AudioSAE publishes them."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an SAE of another library is to us."""

    weights: Mapping[str, Tensor]
    """encoder, bias, decoder, centre and, where it decides, threshold."""
    k: int
    about: Mapping[str, Any]
    """What is to be kept of it beside the weights."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a library lays the weights out."""

    keys: Mapping[str, str]
    """Our name -> its key."""
    transposed: frozenset[str]
    """Ours of which it keeps the transpose."""

    def theirs(self, dictionary: Dictionary) -> dict[str, Tensor]:
        """The weights of a dictionary by the library's keys, those that it has keys for."""
        return {
            self.keys[name]: values.T.contiguous() if name in self.transposed else values
            for name, values in dictionary.weights.items()
            if name in self.keys
        }

    def ours(
        self,
        tensors: Mapping[str, Tensor],
        latents: int | None = None,
        width: int | None = None,
        beside: Collection[str] = (),
    ) -> dict[str, Tensor]:
        """The weights by our names, float32, copied.

        latents, width: how many [as the encoder has]. beside: keys that need not be there, and are not taken.
        Raises ValueError for tensors that are missing, unknown, of another shape, or not exactly float32's.
        """
        if faults := [f"{key} is missing" for key in self.keys.values() if key not in tensors]:
            raise ValueError(f"{'; '.join(faults)}; expected {', '.join(self.keys.values())}: fetch the files again")
        if unknown := sorted(set(tensors) - set(self.keys.values()) - set(beside)):
            more = f" and {len(unknown) - MAX_LISTED} more" if len(unknown) > MAX_LISTED else ""
            raise ValueError(
                f"{', '.join(map(shown, unknown[:MAX_LISTED]))}{more} found; expected {', '.join(self.keys.values())} "
                f"alone: {REMEDY}"
            )
        encoder = tuple(tensors[self.keys["encoder"]].shape)
        rows, columns = (*encoder, 0, 0)[1::-1] if "encoder" in self.transposed else (*encoder, 0, 0)[:2]
        latents, width = rows if latents is None else latents, columns if width is None else width
        shapes = {"encoder": (latents, width), "bias": (latents,), "decoder": (latents, width), "centre": (width,)}
        found = {}
        for name, key in self.keys.items():
            shape = shapes.get(name, (latents,))
            expected = shape[::-1] if name in self.transposed else shape
            if tuple(tensors[key].shape) != expected:
                raise ValueError(
                    f"{key} is {tuple(tensors[key].shape)}; expected {expected}, of {latents} latents and states "
                    f"{width} wide: fetch the files again"
                )
            values = tensors[key].T if name in self.transposed else tensors[key]
            found[name] = exact(key, values)
        return found


def exact(key: str, values: Tensor) -> Tensor:
    """A copy in float32. Raises ValueError where that would change a value, and for no floating-point values."""
    if not is_plain(values):
        raise ValueError(
            f"{key} holds {values.dtype} ({values.layout}); expected dense floating-point values: {REMEDY}"
        )
    copied = values.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if values.dtype.itemsize > 4 and not torch.equal(copied.to(values.dtype).nan_to_num(), values.nan_to_num()):
        raise ValueError(
            f"{key} holds {values.dtype} that float32 does not hold exactly; expected float32: round the weights "
            "yourself, and measure what that changes"
        )
    return copied


def integer(values: Tensor, key: str) -> int:
    """The value of a tensor of one whole number. Raises ValueError for anything else."""
    if values.numel() != 1 or values.is_floating_point() or values.is_complex() or values.device.type != "cpu":
        raise ValueError(f"{key} is {values.dtype} {tuple(values.shape)}; expected one whole number: fetch it again")
    return int(values.item())


def check_known(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ValueError for fields of a configuration that we do not know, since they may change numbers."""
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(
            f"{', '.join(map(shown, unknown[:MAX_LISTED]))} may change the codes, in a way not known here; expected "
            f"{', '.join(sorted(known))}: delete it from the configuration if it has no part in them"
        )


def choice(config: Mapping[str, Any], name: str, options: tuple[Any, ...], default: Any = None) -> Any:
    """A field of a configuration that must be one of these. Raises ValueError for another value."""
    found = config.get(name, default)
    if not any(found == option and type(found) is type(option) for option in options):
        raise ValueError(f"{name} is {shown(repr(found))}; expected {' or '.join(map(repr, options))}: {REMEDY}")
    return found


def whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A field of a configuration that must be a whole number from 1. Raises ValueError for anything else."""
    found = config.get(name, default)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(
            f"{name} is {shown(repr(found)) if name in config else 'missing'}; expected a whole number from 1: fetch "
            "the files again"
        )
    return found
