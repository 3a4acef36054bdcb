"""Read or edit what passes named modules, for the length of a `with` block.

Goal: one mechanism for capture and for intervention, that always restores the model and always reports a module that
was not reached.
Conventions: a site is a module's dotted name inside the model, as in `model.named_modules()`. Inputs are read before a
module runs and outputs as soon as it has run, because whatever comes later may change them in place.
"""

import fnmatch
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    read_inputs: Mapping[str, Callable[[Any], None]] | None = None,
) -> Iterator[dict[str, list[Any]]]:
    """Read the outputs of the modules named `sites` inside the `with` statement; restore the model in the end.

        with tap(model, ["layers.0.mlp.act"]) as seen:
            model(inputs)
        seen["layers.0.mlp.act"]     # one output per call of the module, in order; tensors are copies

    edit: called as edit(site, output) -> output, replaces what the rest of the model receives.
    read: called as read(site, output) after the edit; then nothing is collected, so that a reader which
          reduces lets each output go as soon as its module is done.
    read_inputs: by module name, called with the module's first input, passed by position or by name, before it runs.
    Raises LookupError for a name that is not a module, or is one that takes no hooks, and, when the statement ends
    without an exception, for the sites that never fired; ValueError where a module whose input is to be read is given
    none.
    """
    seen: dict[str, list[Any]] = {site: [] for site in sites}
    fired: set[str] = set()

    def hook_for(site: str) -> Callable[[Any, Any, Any], Any]:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            fired.add(site)
            if edit is not None:
                output = edit(site, output)
            if read is None:
                seen[site].append(output.clone() if isinstance(output, torch.Tensor) else output)
            else:
                read(site, output)
            return output if edit is not None else None

        return hook

    parts = dict(module.named_modules())
    inputs = read_inputs or {}
    absent = [site for site in (*sites, *inputs) if site not in parts]
    if absent:
        raise LookupError(f"the model has no module named {', '.join(absent)}; see model.named_modules()")
    for site in (*sites, *inputs):
        if isinstance(parts[site], torch.jit.RecursiveScriptModule):  # type: ignore[attr-defined]
            raise LookupError(
                f"module {site} is TorchScript of torch.jit.script or load, and cannot be read or edited: give "
                "the model as it was before, or name a torch.nn.Identity() behind it"
            )
    with ExitStack() as hooks:
        for site, reader in inputs.items():
            hook = _input_hook(site, reader)
            hooks.callback(parts[site].register_forward_pre_hook(hook, with_kwargs=True).remove)
        for site in sites:
            hooks.callback(parts[site].register_forward_hook(hook_for(site)).remove)
        yield seen
    unreached = [site for site in sites if site not in fired]
    if unreached:
        raise LookupError(
            f"no activation seen at {', '.join(unreached)}: the forward pass never reached these modules"
            f"{_why(parts, unreached[0])}; name sites that it runs"
        )


def _input_hook(site: str, reader: Callable[[Any], None]) -> Callable[[torch.nn.Module, Any, Any], None]:
    def hook(part: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not args:
            name = next(iter(inspect.signature(part.forward).parameters), "")
            named = [kwargs[name]] if name in kwargs else [v for v in kwargs.values() if isinstance(v, torch.Tensor)]
            if len(named) != 1:
                raise ValueError(
                    f"module {site} is given {', '.join(kwargs) or 'nothing'} by name; expected its input by position, "
                    "or by the name of its first argument: pass it so, or leave hidden out of --keep"
                )
            args = (named[0],)
        reader(args[0])

    return hook


def _why(parts: Mapping[str, torch.nn.Module], site: str) -> str:
    """What is known to keep hooks from a module, for a message."""
    names = site.split(".")
    around = [parts[".".join(names[:n])] for n in range(len(names))]
    if any(isinstance(part, torch.jit.ScriptModule) for part in around):
        return " (TorchScript runs them without Python: give the model as it was before torch.jit)"
    if any(is_compiled(part) for part in around):
        return " (torch.compile runs them without their hooks: give the model as it was before)"
    return " (a function such as F.relu is no module)"


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether a module was given to torch.compile, or compiled by its own method."""
    return "_orig_mod" in dict(module.named_children()) or getattr(module, "_compiled_call_impl", None) is not None
