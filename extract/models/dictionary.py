"""Dictionary: a sparse autoencoder (SAE) that was trained, its file, and its arithmetic.

Goal: codes are the same numbers wherever they are computed: from stored states, inside an encoder, or by the library
that the weights came from.
Conventions: states are raw, (..., width); codes (..., latent), never negative. Whatever centring and scaling training
used is folded into the weights. With pre = (x - centre) W^T + b and r = max(pre, 0), a code is r where r is among the k
largest of its row (TopK), or where pre exceeds the latent's threshold; else 0. The reconstruction is z D + centre.
Arithmetic is float32, whatever the state's type and autocast say.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...documents import parse_json, read_document
from ...files import whole_file
from .checkpoint import read_checkpoint

FORMAT = "1.0"
WEIGHTS, ABOUT = "sae.safetensors", "sae.json"
ROWS = ("clip", "frame")
KEYS = ("format", "digest", "latents", "width", "k", "state", "rows", "base")
"""Fields of `sae.json` that the numbers depend on; what else it holds is for people and for `otoscope sae`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dictionary:
    """A trained sparse autoencoder."""

    encoder: Tensor
    """W, float32 (latent, width)."""
    bias: Tensor
    """b, float32 (latent)."""
    decoder: Tensor
    """D, float32 (latent, width): a latent's row is what it adds to a state."""
    centre: Tensor
    """Float32 (width): taken from states before they are encoded, and given back to reconstructions."""
    k: int
    """How many codes of a row may be above 0; 0 where `threshold` decides."""
    threshold: Tensor | None = None
    """Float32 (latent), at least 0: pre-activations up to it give 0 (BatchTopK, JumpReLU)."""
    state: int
    """Number of the hidden state that it is of: 0 is the input of the first transformer layer."""
    rows: str = "clip"
    """"clip": rows are means over a clip's counted frames; "frame": single frames."""
    base: str = ""
    """Digest of the identity of the task whose states it was trained on; "" where that is not known."""
    name: str = ""
    """Of its folder."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else `sae.json` holds."""

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be one."""
        shapes = {name: tuple(getattr(self, name).shape) for name in ("encoder", "bias", "decoder", "centre")}
        n, width = shapes["encoder"] if len(shapes["encoder"]) == 2 else (0, 0)
        expected = {"encoder": (n, width), "bias": (n,), "decoder": (n, width), "centre": (width,)}
        if self.threshold is not None:
            shapes["threshold"], expected["threshold"] = tuple(self.threshold.shape), (n,)
        if shapes != expected or not n or not width:
            raise ValueError(
                f"{self.label} has weights {shapes}; expected encoder and decoder (latent, width), bias and threshold "
                "(latent), centre (width)"
            )
        if (self.threshold is None) != (0 < self.k < n) or (self.threshold is not None and self.k):
            raise ValueError(f"{self.label} has k {self.k} of {n} latents; expected 1 to {n - 1}, or 0 and a threshold")
        for name in shapes:
            values = getattr(self, name)
            if values.dtype != torch.float32:
                raise ValueError(f"{name} of {self.label} is {values.dtype}; expected float32")
            if not bool(torch.isfinite(values).all()):
                raise ValueError(f"{name} of {self.label} holds NaN or infinity; expected numbers: it was not trained")
        if self.threshold is not None and bool((self.threshold < 0).any()):
            raise ValueError(f"{self.label} has thresholds below 0, as one that never learnt them; expected 0 or above")
        if self.rows not in ROWS or self.state < 0:
            raise ValueError(
                f"{self.label} is of {self.rows!r} rows of state {self.state}; expected {' or '.join(ROWS)}, and a "
                "state from 0"
            )

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"SAE {self.name}" if self.name else "this SAE"

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.encoder.shape[0]

    @property
    def width(self) -> int:
        """Width of the states."""
        return self.encoder.shape[1]

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name, as its file has them."""
        tensors = {name: getattr(self, name) for name in ("encoder", "bias", "decoder", "centre", "threshold")}
        return {name: values.detach().cpu().contiguous() for name, values in tensors.items() if values is not None}

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all that its codes and their effects depend on: weights, k, state and kind of rows."""
        digest = hashlib.sha256(f"{self.k} {self.state} {self.rows}\n".encode())
        for name, values in sorted(self.weights.items()):
            digest.update(f"{name} {tuple(values.shape)}\n".encode())
            digest.update(values.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "Dictionary":
        """Itself on a device."""
        moved = {name: values.to(device) for name, values in self.weights.items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def pre_activations(self, states: Tensor) -> Tensor:
        """(x - centre) W^T + b, float32 (..., latent), of raw states (..., width)."""
        with torch.autocast(states.device.type, enabled=False):
            return torch.nn.functional.linear(states.float() - self.centre, self.encoder, self.bias)

    def encode(self, states: Tensor) -> Tensor:
        """Codes, float32 (..., latent), of raw states (..., width)."""
        return self.sparse(self.pre_activations(states))

    def sparse(self, pre: Tensor) -> Tensor:
        """Codes (..., latent) of pre-activations."""
        if self.threshold is not None:
            return pre.clamp(min=0) * (pre > self.threshold)
        values, at = pre.clamp(min=0).topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter_(-1, at, values)

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructed raw states, float32 (..., width), of codes (..., latent)."""
        with torch.autocast(codes.device.type, enabled=False):
            return codes @ self.decoder + self.centre


def check_nameable(path: str | Path) -> None:
    """Raise ValueError for a path by which latents cannot be named, since `latents:SAE,SAE@ENCODER` splits there."""
    if found := [sign for sign in ",@" if sign in str(path)]:
        raise ValueError(
            f"{path} has {' and '.join(map(repr, found))} in its name; expected neither, since latents:SAE,SAE@ENCODER "
            "ends names there: give another with -o"
        )


def write_dictionary(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary as a folder: its weights, then `sae.json`, without which it is not there.

    Writing the same dictionary again gives the same bytes. Raises OSError where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        **dictionary.about, "format": FORMAT, "digest": dictionary.digest, "latents": dictionary.n_latents,
        "width": dictionary.width, "k": dictionary.k, "state": dictionary.state, "rows": dictionary.rows,
        "base": dictionary.base,
    }  # fmt: skip
    with whole_file(folder / WEIGHTS) as partial:
        partial.write_bytes(safetensors.torch.save(dictionary.weights))
    with whole_file(folder / ABOUT) as partial:
        partial.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_dictionary(folder: str | Path) -> Dictionary:
    """The dictionary in a folder.

    Raises FileNotFoundError where there is none, ValueError for one that is damaged, or not ours.
    """
    path = Path(folder)
    if not (path / ABOUT).is_file():
        raise FileNotFoundError(
            f"no {ABOUT} in {path}; expected the folder of a trained SAE, as `otoscope sae train` or `sae import` "
            "makes it"
        )
    try:
        about = parse_json(read_document(path / ABOUT))
        if not isinstance(about, dict) or not set(KEYS) <= set(about):
            raise ValueError(f"it lacks one of {', '.join(KEYS)}")
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}; expected {FORMAT!r}")
        if not all(isinstance(about[name], int) and not isinstance(about[name], bool) for name in ("k", "state")):
            raise ValueError("its k or state is not a whole number")
        if not all(isinstance(about[name], str) for name in ("rows", "base", "digest")):
            raise ValueError("its rows, base or digest is not text")
    except ValueError as error:
        raise ValueError(f"{path / ABOUT} cannot be read ({error}); expected what `otoscope sae` wrote") from error
    try:
        tensors, _ = read_checkpoint(path / WEIGHTS)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no {WEIGHTS} in {path}; expected it beside {ABOUT}: fetch or train it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"weights in {path} cannot be read: {error}") from error
    names = {"encoder", "bias", "decoder", "centre"}
    if not names <= set(tensors) <= {*names, "threshold"}:
        raise ValueError(f"{path / WEIGHTS} holds {', '.join(sorted(tensors))}; expected {', '.join(sorted(names))}")
    more = {name: value for name, value in about.items() if name not in KEYS}
    dictionary = Dictionary(
        **tensors, k=about["k"], state=about["state"], rows=about["rows"], base=about["base"], name=path.name,
        about=more,
    )  # fmt: skip
    if dictionary.digest != about["digest"] or (dictionary.n_latents, dictionary.width) != (
        about["latents"], about["width"],
    ):  # fmt: skip
        raise ValueError(
            f"the weights of {dictionary.label} are not those that its {ABOUT} was written with; expected files of "
            "one training: fetch or train it again"
        )
    return dictionary


def check_together(dictionaries: Sequence[Dictionary]) -> None:
    """Raise ValueError for dictionaries whose latents cannot be the layers of one task."""
    if not dictionaries:
        raise ValueError("no SAE was given; expected one at least")
    for name, what in (("rows", "kind of rows"), ("base", "task's states"), ("width", "width of states")):
        found = {getattr(dictionary, name): dictionary.label for dictionary in dictionaries}
        if name == "base":
            found.pop("", None)
        if len(found) > 1:
            listed = "; ".join(f"{label}: {str(value)[:16]}" for value, label in found.items())
            raise ValueError(f"SAEs of more than one {what} ({listed}); expected those of one: use them apart")
