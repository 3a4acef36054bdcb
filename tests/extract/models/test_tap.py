"""Laws of `tap` and `match_sites`: the model is always restored, and silence is reported."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from otoscope.extract.models.tap import match_sites, tap


class Chain(nn.Module):
    """Two named stages, one run twice, and a part that is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(2))
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.stages[1](self.stages[0](self.stages[0](x)))


@pytest.fixture
def chain() -> Chain:
    torch.manual_seed(0)
    return Chain()


def hooks_of(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


X = torch.linspace(-1, 1, 6).reshape(2, 3)


def test_seen_holds_each_call_in_order(chain: Chain) -> None:
    with tap(chain, ["stages.0.1", "stages.1"]) as seen:
        output = chain(X)
    once = torch.tanh(chain.stages[0][0](X))
    twice = torch.tanh(chain.stages[0][0](once))
    assert list(seen) == ["stages.0.1", "stages.1"]
    assert [torch.equal(a, b) for a, b in zip(seen["stages.0.1"], [once, twice], strict=True)] == [True, True]
    assert torch.equal(seen["stages.1"][0], output)


def test_reading_changes_nothing(chain: Chain) -> None:
    before = chain(X)
    with tap(chain, ["stages.0", "stages.1.1"]):
        assert torch.equal(chain(X), before)


def test_the_identity_edit_changes_nothing(chain: Chain) -> None:
    before = chain(X)
    with tap(chain, ["stages.0", "stages.1.1"], edit=lambda _site, output: output):
        assert torch.equal(chain(X), before)


def test_an_edit_reaches_the_rest_of_the_model(chain: Chain) -> None:
    def silence(site: str, output: Tensor) -> Tensor:
        return torch.zeros_like(output) if site == "stages.0.1" else output

    with tap(chain, ["stages.0.1", "stages.1.1"], edit=silence) as seen:
        output = chain(X)
    assert torch.equal(output, torch.tanh(chain.stages[1][0].bias).expand(2, 3))
    assert not any(found.any() for found in seen["stages.0.1"])


def test_a_reader_sees_the_edited_output_and_nothing_is_kept(chain: Chain) -> None:
    read: list[tuple[str, Tensor]] = []
    with tap(chain, ["stages.1.1"], edit=lambda _s, y: y + 1, read=lambda site, y: read.append((site, y))) as seen:
        output = chain(X)
    assert seen == {"stages.1.1": []}
    assert [site for site, _ in read] == ["stages.1.1"]
    assert torch.equal(read[0][1], output)


def test_inputs_are_shown_as_the_module_received_them(chain: Chain) -> None:
    inputs: list[Tensor] = []
    with tap(chain, ["stages.0.1"], read_input=lambda _site, x: inputs.append(x)) as seen:
        chain(X)
    assert torch.equal(inputs[0], chain.stages[0][0](X))
    assert [torch.equal(torch.tanh(x), y) for x, y in zip(inputs, seen["stages.0.1"], strict=True)] == [True] * 2


def fail(*_: Any) -> None:
    raise RuntimeError("inner")


@pytest.mark.parametrize("where", ["body", "read", "edit"])
def test_the_model_is_restored_whatever_happens(chain: Chain, where: str) -> None:
    before = chain(X)
    functions: dict[str, Callable[..., Any]] = {where: fail} if where != "body" else {}

    def run() -> None:
        with tap(chain, ["stages.0", "unused"], **functions):
            assert hooks_of(chain) == 2
            chain(X)
            fail()

    with pytest.raises(RuntimeError, match="inner"):
        run()
    assert hooks_of(chain) == 0
    assert torch.equal(chain(X), before)


def test_a_site_that_never_fires_is_named(chain: Chain) -> None:
    with (
        pytest.raises(LookupError, match="no activation seen at unused: "),
        tap(chain, ["stages.0", "unused"]),
    ):
        chain(X)
    assert hooks_of(chain) == 0


def test_an_absent_module_is_named_before_anything_is_touched(chain: Chain) -> None:
    with (
        pytest.raises(LookupError, match=r"no module named stages\.7, head;"),
        tap(chain, ["stages.0", "stages.7", "head"]),
    ):
        fail()
    assert hooks_of(chain) == 0


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["stages.*"], ["stages.0", "stages.1"]),
        (["stages.*.1"], ["stages.0.1", "stages.1.1"]),
        (["stages.[1-9].?"], ["stages.1.0", "stages.1.1"]),
        (["*"], ["stages", "unused"]),
        (["unused", "stages.0", "stages.0"], ["stages.0", "unused"]),
    ],
)
def test_patterns_match_between_dots_in_the_models_order(
    chain: Chain, patterns: list[str], expected: list[str]
) -> None:
    assert list(match_sites(chain, patterns)) == expected


@pytest.mark.parametrize("pattern", ["stages", "stages.*.mlp.act", "*.1", "Stages.0", ""])
def test_a_pattern_is_anchored_at_both_ends(pattern: str) -> None:
    nested = nn.ModuleDict({"decoder": Chain()})
    with pytest.raises(LookupError, match=r"matches none of the model's 9 modules; its leaves are named like decoder"):
        match_sites(nested, ["decoder.stages.0", pattern])
