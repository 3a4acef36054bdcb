"""Read or edit what passes named modules, for the length of a `with` block.

Goal: one mechanism for capture and for intervention, that always restores the model and always reports a module that
was not reached.
Conventions: a site is a module's dotted name inside the model, as in `model.named_modules()`.
"""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

Reader = Callable[[str, Any], None]
Editor = Callable[[str, Any], Any]


def match_sites(module: torch.nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the modules that match any of the glob patterns, in the model's own order.

    A pattern matches part by part between the dots: "layers.*" is every layer and nothing inside one, and
    "layers.*.mlp.act" leaves "decoder.layers.0.mlp.act" alone.
    Raises LookupError naming the first pattern that matches nothing.
    """
    names = [name for name, _ in module.named_modules() if name]

    def matches(name: str, pattern: str) -> bool:
        parts, globs = name.split("."), pattern.split(".")
        return len(parts) == len(globs) and all(map(fnmatch.fnmatchcase, parts, globs))

    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            leaves = [name for name, part in module.named_modules() if name and not any(part.children())]
            raise LookupError(
                f"site pattern {pattern!r} matches none of the model's {len(names)} modules; "
                f"its leaves are named like {', '.join(leaves[:3])} ... {leaves[-1] if leaves else 'none'} "
                "(a * stays between two dots)"
            )
    return tuple(name for name in names if any(matches(name, pattern) for pattern in patterns))


@contextmanager
def tap(
    module: torch.nn.Module,
    sites: Sequence[str],
    *,
    read: Reader | None = None,
    edit: Editor | None = None,
    read_input: Reader | None = None,
) -> Iterator[dict[str, list[Any]]]:
    """Read the outputs of the modules named `sites` inside the `with` statement; restore the model in the end.

        with tap(model, ["layers.0.mlp.act"]) as seen:
            model(inputs)
        seen["layers.0.mlp.act"]     # one output per call of the module, in order

    edit: called as edit(site, output) -> output, replaces what the rest of the model receives.
    read: called as read(site, output) after the edit; then nothing is collected, so that a reader which
          reduces lets each output go as soon as its module is done.
    read_input: called as read_input(site, input) with its first positional input, before the others.
    Raises LookupError for a name that is not a module, and, when the statement ends without an exception, for the
    sites that never fired.
    """
    seen: dict[str, list[Any]] = {site: [] for site in sites}
    fired: set[str] = set()

    def hook_for(site: str) -> Callable[[Any, Any, Any], Any]:
        def hook(_module: Any, inputs: Any, output: Any) -> Any:
            fired.add(site)
            if read_input is not None:
                read_input(site, inputs[0])
            if edit is not None:
                output = edit(site, output)
            if read is None:
                seen[site].append(output)
            else:
                read(site, output)
            return output if edit is not None else None

        return hook

    parts = dict(module.named_modules())
    absent = [site for site in sites if site not in parts]
    if absent:
        raise LookupError(f"the model has no module named {', '.join(absent)}; see model.named_modules()")
    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(parts[site].register_forward_hook(hook_for(site)).remove)
        yield seen
    unreached = [site for site in sites if site not in fired]
    if unreached:
        raise LookupError(
            f"no activation seen at {', '.join(unreached)}: the forward pass never reached these modules; "
            "name sites that it runs"
        )
