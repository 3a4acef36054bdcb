"""What of a forward pass comes before a module, and what of that is still used after it.

Goal: the facts that starting in the middle of a pass rests on, read off a model that nobody has to describe.
Conventions: modules by their dotted names; the tensors in a module's output (a tensor, or tuples and lists of them)
are its leaves, numbered in order.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(kw_only=True, slots=True)
class Call:
    """One run of a module. Times count beginnings and ends of calls."""

    module: str
    inside: "Call | None"
    """The call that it is part of."""
    began: int
    ended: float = float("inf")


def trace(module: nn.Module, forward: Callable[[], object]) -> list[Call]:
    """Every run of every module inside `module` while `forward` runs, in the order in which they begin."""
    calls: list[Call] = []
    running: list[Call] = []
    clock = iter(range(2**62))

    def begin(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            call = Call(module=name, inside=running[-1] if running else None, began=next(clock))
            calls.append(call)
            running.append(call)

        return hook

    def end(*_: object) -> None:
        running.pop().ended = next(clock)

    with ExitStack() as hooks:
        for name, part in module.named_modules():
            if name:
                hooks.callback(part.register_forward_pre_hook(begin(name)).remove)
                hooks.callback(part.register_forward_hook(end).remove)
        forward()
    return calls


def replayable(calls: Sequence[Call], name: str) -> tuple[str, ...]:
    """The modules that have completed each time that the module `name` begins, not counting those inside of others.

    A pass may consist of several equal runs (chunks of long audio), of which each runs `name` once. Modules that also
    run after `name`, as one shared by all layers does, are left out, and so run again.
    Raises LookupError where `name` does not run.
    """
    began = [call.began for call in calls if call.module == name]
    if not began:
        raise LookupError(f"module {name} does not run; expected it in every pass")
    done = [call for call in calls if call.ended < began[0]]
    outermost = Counter(call.module for call in done if call.inside is None or call.inside.ended > began[0])
    so_far, all_in_all = Counter(call.module for call in done), Counter(call.module for call in calls)
    return tuple(
        module for module, n in outermost.items() if n == so_far[module] and all_in_all[module] in (n, n * len(began))
    )


def reached(output: Tensor) -> set[int]:
    """The `id` of every tensor that requires a gradient and that the output was computed from."""
    found: set[int] = set()
    seen = {None}
    ahead = [output.grad_fn]
    while ahead:
        step = ahead.pop()
        if step not in seen:
            seen.add(step)  # type: ignore[arg-type]
            found.add(id(getattr(step, "variable", None)))
            ahead.extend(before for before, _ in step.next_functions)  # type: ignore[union-attr]
    return found


def over_leaves(output: Any, change: Callable[[int, Any], Any], first: int = 0) -> tuple[Any, int]:
    """A module's output with every leaf replaced by change(position, leaf), and the next position.

    Anything but tuples and lists is a leaf: tensors, None, and objects that are passed on as they are.
    """
    if type(output) not in (tuple, list):
        return change(first, output), first + 1
    parts = []
    for part in output:
        changed, first = over_leaves(part, change, first)
        parts.append(changed)
    return type(output)(parts), first
