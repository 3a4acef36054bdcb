"""Which sites can be edited: those whose neurons are a view of one tensor, that is written into and read back."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from otoscope.extract.models.edit import why_fixed, writable
from otoscope.extract.models.encoder import as_frames

OUTPUT = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "neurons",
    [
        as_frames,
        lambda y: y.transpose(1, 2),
        lambda y: y[..., 1:4],
        lambda y: y.unflatten(2, (3, 2))[..., 0],
        lambda y: y.permute(0, 2, 1)[:, ::2],
    ],
)
def test_views_are_written_through(neurons: Any) -> None:
    assert why_fixed(OUTPUT, neurons) == ""
    copy, view = writable(OUTPUT, neurons)
    view.mul_(3)
    assert torch.equal(neurons(copy), 3 * neurons(OUTPUT))
    assert not torch.equal(copy, OUTPUT)
    assert torch.equal(OUTPUT, torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("output", "neurons", "reason"),
    [
        (OUTPUT, torch.relu, "makes new values"),
        (OUTPUT, lambda y: y.transpose(1, 2).reshape(2, 3, 10), "makes new values"),
        (OUTPUT, lambda y: y.clone().relu_(), "makes new values"),
        (OUTPUT, torch.relu_, "computes in place"),
        (OUTPUT, lambda y: y.add_(1), "computes in place"),
        (OUTPUT, lambda y: y[:, :1].expand(2, 5, 6), "single memory location"),
        ((OUTPUT, None), lambda pair: pair[0], r"gives a tuple; expected one tensor: .*torch\.nn\.Identity"),
        ({"a": OUTPUT}, lambda found: found["a"], "gives a dict; expected one tensor"),
    ],
)
def test_what_computes_or_is_no_tensor_says_why_not(output: Any, neurons: Any, reason: str) -> None:
    found = why_fixed(output, neurons)
    assert re.search(reason, found)
    assert "\n" not in found


def test_an_odd_number_of_values_in_half_precision_is_no_obstacle() -> None:
    def turned(y: Tensor) -> Tensor:
        return y.transpose(1, 2)

    assert why_fixed(torch.randn(1, 300, 700).to(torch.bfloat16), turned) == ""
