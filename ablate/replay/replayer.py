"""Replay: a forward pass that starts in the middle of a torch module, for modules whose code nobody has to know.

Goal: passes with edited neurons that cost only what comes after the first edit.
Conventions: a layer's map is the linear module that takes its site's output. To start at layer l, every module that
had completed before the map of l was reached returns what was recorded from it, the map returns its recorded output
plus the edited neurons' contribution, (new - old) @ weight[:, edited].T, and everything after it runs: residual, norms,
later layers. A module that runs several times in one pass (chunks of long audio) is recorded run by run.
What no later step uses is not kept: NaN stands for it, so that a mistake in that would show.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...extract.models.encoder import Encoder
from ..intervention import Edit, edited, wider
from .calls import over_leaves, reached, replayable, trace
from .donors import union

Donated = Callable[[int, int, Edit], Tensor]
"""(layer, run, edit) -> the donors' values of the edited neurons."""
Used = frozenset[int] | None
"""Which leaves of a module's output are used later; None for all."""


@dataclass(kw_only=True)
class Record:
    """What starting at one layer takes: outputs of modules, and what went in and out of the layer's map, run by run."""

    layer: int
    outputs: dict[str, list[Any]]
    """Of each module that had completed; the lists are shared with other records of the same pass."""
    columns: Tensor | None
    """The neurons whose activations are kept, sorted; None for all."""
    activation: list[Tensor] = field(default_factory=list)
    """Unedited (..., kept neuron)."""
    mapped: list[Tensor] = field(default_factory=list)
    """Output of the map, unedited."""

    def old(self, run: int, neurons: Tensor) -> Tensor:
        """Unedited activations of some of the kept neurons."""
        at = neurons if self.columns is None else torch.searchsorted(self.columns, neurons)
        return self.activation[run].index_select(-1, at)


@dataclass(frozen=True, kw_only=True)
class Blank:
    """Instead of a tensor that is not used."""

    shape: torch.Size
    like: Tensor
    """A scalar NaN of the same kind."""


def is_wide(n: int, width: int) -> bool:
    """Whether so many edited neurons are better mapped together with the others than on their own."""
    return 2 * n > width


def kept_columns(edits: Sequence[Edit | None], width: int) -> Tensor | None:
    """The neurons whose activations a record needs for these edits, sorted; None for all."""
    columns = union([edit for edit in edits if edit is not None])
    return None if is_wide(len(columns), width) else columns


class Replayer:
    """An encoder that can start at some of its layers.

        replayer = Replayer(encoder, maps)
        replayer.study(inputs, layers=[3])
        embedding, records = replayer.run(inputs, no_edits, keep={3: None})
        embedding, _ = replayer.run(inputs, edits, start=records[3])

    maps: the linear maps by name, layer by layer, as `Encoder.ffn_maps` gives them.
    """

    def __init__(self, encoder: Encoder, maps: Sequence[str]) -> None:
        self.encoder = encoder
        self.names = tuple(maps)
        self.maps = [cast(nn.Linear, encoder.module.get_submodule(name)) for name in maps]
        self.before: dict[int, dict[str, Used]] = {}
        """By layer: the modules that are replayed when starting there."""

    def study(self, inputs: Tensor, layers: Sequence[int]) -> None:
        """Find out from a few passes over a few clips what starting at these layers takes."""
        no_edits = (None,) * len(self.maps)
        # Autograd's graph tells which outputs reach the embedding; what it saves to compute gradients is thrown away.
        nothing_saved = torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda saved: saved)
        with torch.inference_mode(False), torch.no_grad():
            inputs = inputs.clone()
            calls = trace(self.encoder.module, lambda: self.encoder.run(inputs))
            began = {name: call.began for call in reversed(calls) if (name := call.module) in self.names}
            in_order = [name for name in self.names if name in began]
            if in_order != sorted(in_order, key=lambda name: began[name]):
                raise LookupError(f"its layers run in another order than they have: {', '.join(in_order)}")
            self.before = {layer: dict.fromkeys(replayable(calls, self.names[layer])) for layer in layers}
            for layer in layers:
                (record,) = self.run(inputs, no_edits, keep={layer: None})[1].values()
                with torch.enable_grad(), nothing_saved:
                    for runs in record.outputs.values():
                        runs[:] = (over_leaves(run, lambda _, leaf: _tracked(leaf))[0] for run in runs)
                    used = reached(self.run(inputs, no_edits, start=record)[0])
                for name, runs in record.outputs.items():
                    self.before[layer][name] = frozenset().union(*(_used_leaves(run, used) for run in runs))

    def keep_everything(self) -> bool:
        """Record all outputs from now on, whether they seem to be used or not; False if that is so already."""
        changed = any(used is not None for names in self.before.values() for used in names.values())
        self.before = {layer: dict.fromkeys(names) for layer, names in self.before.items()}
        return changed

    def run(
        self, inputs: Tensor, edits: Sequence[Edit | None], *, start: Record | None = None,
        keep: Mapping[int, Tensor | None] | None = None, donated: Donated | None = None,
    ) -> tuple[Tensor, dict[int, Record]]:  # fmt: skip
        """Embedding (clip, embedding) with the edits, and records for starting later at the layers in `keep`.

        start: where to start; before that layer the edits are those with which the record was made.
        keep: by layer, after that of `start`, the neurons whose activations are kept, None for all.
        donated: for edits that patch.
        """
        found = dict(start.outputs) if start else {}
        new: dict[str, Used] = {}
        for layer in keep or {}:
            for name, used in self.before[layer].items():
                if start is None or name not in start.outputs:
                    before = new.get(name, frozenset())
                    new[name] = None if used is None or before is None else used | before
        found.update((name, []) for name in new)
        records = {
            layer: Record(layer=layer, outputs={name: found[name] for name in self.before[layer]}, columns=columns)
            for layer, columns in (keep or {}).items()
        }
        part = self.encoder.module.get_submodule
        with ExitStack() as stack:
            for name, runs in (start.outputs if start else {}).items():
                stack.enter_context(_replaced(part(name), _replay(runs)))
            for name, used in new.items():
                stack.callback(part(name).register_forward_hook(_recorder(found[name], used)).remove)
            for layer in range(start.layer if start else 0, len(edits)):
                begun = start if start and start.layer == layer else None
                if edits[layer] or begun or layer in records:
                    forward = self._mapping(layer, edits[layer], begun, records.get(layer), donated)
                    stack.enter_context(_replaced(self.maps[layer], forward))
            embedding = self.encoder.run(inputs)
        return embedding, records

    def _mapping(
        self, layer: int, edit: Edit | None, start: Record | None, record: Record | None, donated: Donated | None
    ) -> Callable[[Tensor], Tensor]:
        """The forward of a layer's map for one pass. Its input is the site's output, or means nothing after `start`."""
        part = self.maps[layer]
        plain, runs = part.forward, itertools.count()

        def forward(input: Tensor) -> Tensor:  # as a linear map calls it, which may be passed by name
            run = next(runs)
            wide = edit is not None and is_wide(len(edit.neurons), part.in_features)
            if start is not None:
                mapped = start.mapped[run].clone()
            elif record is not None or not wide:
                mapped = plain(input)
            if record is not None:
                columns = record.columns
                record.activation.append(input.clone() if columns is None else input.index_select(-1, columns))
                record.mapped.append(mapped.clone())
            if edit is None:
                return mapped
            theirs = donated(layer, run, edit) if donated is not None and edit.mode == "patch" else None
            if wide:
                whole = input if start is None else start.activation[run]
                return plain(edited(whole, edit, theirs))
            old = input.index_select(-1, edit.neurons) if start is None else start.old(run, edit.neurons)
            weight = part.weight.index_select(1, edit.neurons)
            # In 16 bits as a whole pass: factors are rounded, products and their sum are not.
            new, old, weight = (
                values.to(mapped.dtype).to(wider(mapped.dtype)) for values in (edit.new(old, theirs), old, weight)
            )
            with torch.autocast(mapped.device.type, enabled=False):
                return (mapped + F.linear(new - old, weight)).to(mapped.dtype)

        return forward


@contextmanager
def _replaced(part: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The module with another `forward` for the length of the block; its hooks stay."""
    own = vars(part)  # where a forward of this one instance is, if it has one
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del own["forward"]
        else:
            own["forward"] = before


def _recorder(runs: list[Any], used: Used) -> Callable[..., None]:
    """A hook that keeps a module's outputs: copies, because what follows may change them in place."""

    def keep(position: int, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if used is None or position in used:
            return leaf.clone()
        return Blank(shape=leaf.shape, like=leaf.new_full((), torch.nan))

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        runs.append(over_leaves(output, keep)[0])

    return hook


def _replay(runs: list[Any]) -> Callable[..., Any]:
    """A forward that returns the recorded outputs one after the other."""
    ahead = iter(runs)

    def give(_position: int, leaf: Any) -> Any:
        if isinstance(leaf, Blank):
            return leaf.like.expand(leaf.shape)
        return leaf.clone() if isinstance(leaf, Tensor) else leaf

    def forward(*_args: Any, **_kwargs: Any) -> Any:
        run = next(ahead, None)
        if run is None:
            raise LookupError("a module runs more often than it was recorded; expected a pass like the first one")
        return over_leaves(run, give)[0]

    return forward


def _tracked(leaf: Any) -> Any:
    return leaf.detach().requires_grad_() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _used_leaves(run: Any, used: set[int]) -> frozenset[int]:
    """Positions of the leaves that reach the embedding, and of those of which that cannot be known: whole numbers."""
    positions = set()

    def look(position: int, leaf: Any) -> None:
        if isinstance(leaf, Tensor) and (not leaf.requires_grad or id(leaf) in used):
            positions.add(position)

    over_leaves(run, look)
    return frozenset(positions)
