"""Which passes share their beginning: interventions as a tree of passes. Pure.

Goal: nothing is computed twice that two interventions have in common from the first layer on.
Conventions: interventions are rows of edits, layer by layer. A pass carries one of them through to the end, and others
branch off it at the layer where they first differ, which is then recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..intervention import Edit
from .replayer import kept_columns


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Where passes leave another one."""

    layer: int
    columns: Tensor | None
    """The neurons whose activations they need there, sorted; None for all."""
    passes: tuple["Pass", ...]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass to the end with one row of edits."""

    members: tuple[int, ...]
    """The rows whose results it gives: they are equal."""
    branches: tuple[Branch, ...]
    """In the order of their layers."""


def plan_passes(rows: Sequence[Sequence[Edit | None]], widths: Sequence[int]) -> Pass:
    """The tree for some rows of edits.

    Every row is a member of exactly one pass, and a pass that leaves another at layer l has the edits of the other
    before l, and different ones at l: where a layer is edited in some rows and not in others, it is those that leave.
    """
    keys = [[None if edit is None else edit.key for edit in row] for row in rows]

    def carry(members: list[int], layer: int) -> Pass:
        branches = []
        for at in range(layer, len(widths)):
            groups: dict[bytes | None, list[int]] = {}
            for member in members:
                groups.setdefault(keys[member][at], []).append(member)
            members = groups.pop(None) if None in groups else groups.pop(next(iter(groups)))
            leaving = list(groups.values())
            if leaving:
                edits = [rows[group[0]][at] for group in leaving]
                passes = tuple(carry(group, at + 1) for group in leaving)
                branches.append(Branch(layer=at, columns=kept_columns(edits, widths[at]), passes=passes))
        return Pass(members=tuple(members), branches=tuple(branches))

    return carry(list(range(len(rows))), 0)


def branch_layers(root: Pass) -> tuple[int, ...]:
    """The layers at which any pass of the tree leaves another, in order."""
    found: set[int] = set()
    ahead = [root]
    while ahead:
        for branch in ahead.pop().branches:
            found.add(branch.layer)
            ahead.extend(branch.passes)
    return tuple(sorted(found))
