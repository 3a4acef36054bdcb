"""Writing into what a site gives: where the encoder's neurons are a view of the site's output, and where they are not.

Goal: interventions change exactly the neurons that were stored, and whoever extracts learns then that they cannot.
Conventions: `neurons` is the encoder's function, site output -> (clip, frame, neuron). It may turn, reshape and slice
one tensor, but not compute.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...messages import one_line

Neurons = Callable[[Any], Tensor]


def writable(output: Any, neurons: Neurons) -> tuple[Tensor, Tensor]:
    """A copy of a site's output, and its neurons (clip, frame, neuron): a view of that copy.

    Raises ValueError where they are none: then there is no way back from neurons to the site's output.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the site gives a {type(output).__name__}; expected one tensor: name a site behind it that gives the "
            "neurons alone, such as a torch.nn.Identity()"
        )
    copy = output.clone()
    view = neurons(copy)
    if view.untyped_storage().data_ptr() != copy.untyped_storage().data_ptr():
        raise ValueError(
            "the encoder's `neurons` makes new values out of a site's output, which cannot be turned back; expected "
            "a view of one tensor (permute, reshape, slices): name sites whose outputs are the neurons"
        )
    return copy, view


def why_fixed(output: Any, neurons: Neurons) -> str:
    """Why a site's output cannot be edited, in a sentence; "" where it can: what is written is what is read back."""
    try:
        copy, view = writable(output, neurons)
        written = -1 - torch.arange(view.numel(), device=view.device).reshape(view.shape).to(view.dtype)
        view.copy_(written)
        if torch.equal(neurons(copy), written):
            return ""
    except (ValueError, RuntimeError) as error:  # torch's: one value that several positions show
        return one_line(error)
    return "the encoder's `neurons` computes in place; expected it to turn, reshape and slice one tensor alone"
