"""Laws of `tap` and `match_sites`: the model is always restored, and silence is reported."""

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


class InPlace(nn.Module):
    """Changes its input, and what an inner module gave, after they were passed on."""

    def __init__(self, by_name: str = "") -> None:
        super().__init__()
        self.inner, self.act, self.by_name = nn.Linear(3, 3), nn.ReLU(inplace=True), by_name

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        changed = self.inner(input=frames) if self.by_name == "inner" else self.inner(frames)
        changed = self.act(input=changed)
        frames += changed
        return frames


class Outer(nn.Module):
    def __init__(self, by_name: str = "") -> None:
        super().__init__()
        self.block, self.by_name = InPlace(by_name), by_name

    def forward(self, x: Tensor) -> Tensor:
        frames, mask = 2 * x, torch.ones(3)
        return self.block(mask=mask, frames=frames) if self.by_name == "block" else self.block(frames, mask)


@pytest.mark.parametrize("by_name", ["", "block", "inner"])
@torch.no_grad()
def test_inputs_are_read_before_the_module_and_outputs_before_what_follows(by_name: str) -> None:
    outer, inputs = Outer(by_name), list[Tensor]()
    with tap(
        outer, ["block.inner", "block.act", "block"], read_inputs={"block": lambda x: inputs.append(x.clone())}
    ) as seen:
        outer(X)
    linear = 2 * X @ outer.block.inner.weight.T + outer.block.inner.bias
    torch.testing.assert_close(inputs[0], 2 * X)
    torch.testing.assert_close(seen["block.inner"][0], linear)
    torch.testing.assert_close(seen["block.act"][0], linear.clamp(min=0))
    assert (linear < 0).any()
    torch.testing.assert_close(seen["block"][0], 2 * X + linear.clamp(min=0))


class Passed(nn.Module):
    """Takes what it is given, whatever its name."""

    def forward(self, *args: Any, **kwargs: Tensor) -> Tensor:
        return next(iter(kwargs.values()))


def test_an_input_of_no_known_name_is_the_only_tensor_or_refused() -> None:
    read: list[Tensor] = []
    passed = nn.Sequential(Passed())
    with tap(passed, ["0"], read_inputs={"0": read.append}):
        passed[0](states=X, flag=True)
    assert torch.equal(read[0], X)
    with (
        pytest.raises(ValueError, match="module 0 is given states, mask by name; expected its input by position"),
        tap(passed, ["0"], read_inputs={"0": read.append}),
    ):
        passed[0](states=X, mask=X)
    assert hooks_of(passed) == 0


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_why_a_module_is_not_reached_is_said(chain: Chain) -> None:
    scripted = nn.ModuleDict({"traced": torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), X)})
    with (
        pytest.raises(LookupError, match=r"at traced\.1: .*TorchScript runs them without Python"),
        tap(scripted, ["traced.1"]),
    ):
        scripted["traced"](X)
    with tap(scripted, ["traced"]) as seen:  # as a whole it is a module like any other
        output = scripted["traced"](X)
    assert torch.equal(seen["traced"][0], output)
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Tanh())), nn.Identity())
    for name in ("0", "0.1"):
        with pytest.raises(LookupError, match=rf"module {name} is TorchScript.* cannot be read"), tap(model, [name]):
            model(X)
    with tap(model, ["1"]) as seen:
        output = model(X)
    assert torch.equal(seen["1"][0], output)
    chain.stages[0].compile(backend="eager")
    with pytest.raises(LookupError, match=r"torch\.compile runs them without their hooks"), tap(chain, ["stages.0.1"]):
        chain.stages[1](X)
    with pytest.raises(LookupError, match=r"a function such as F\.relu is no module"), tap(chain, ["unused"]):
        chain.stages[1](X)


def fail(*_: Any) -> None:
    raise RuntimeError("inner")


@pytest.mark.parametrize("where", ["body", "read", "edit", "read_inputs"])
def test_the_model_is_restored_whatever_happens(chain: Chain, where: str) -> None:
    before = chain(X)
    functions: dict[str, Any] = {where: fail} if where != "body" else {}
    if where == "read_inputs":
        functions = {where: {"stages.0": fail}}

    def run() -> None:
        with tap(chain, ["stages.0", "unused"], **functions):
            assert hooks_of(chain) == 2 + (where == "read_inputs")
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
