"""ClipTable: the clips of a task as the store records them.

Goal: names, sources and labels, without the audio root, which may differ from machine to machine.
Conventions: one row per clip, in the order of the clip axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .provenance import digest_of


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """The clips of a task: their names, where they come from, their label columns."""

    name: Sequence[str]
    path: Sequence[str]
    """Relative to the audio root, "/" between parts."""
    start: np.ndarray
    """Seconds into the file, NaN where the clip begins with it."""
    stop: np.ndarray
    """Seconds into the file, NaN where the clip ends with it."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """One string per clip and column, "" where it has no label."""

    def __len__(self) -> int:
        return len(self.name)

    @property
    def digest(self) -> str:
        """SHA-256 over names and sources, in order."""
        times = [np.nan_to_num(seconds, nan=-1).tolist() for seconds in (self.start, self.stop)]
        return digest_of([list(self.name), list(self.path), *times])

    def head(self, n: int) -> "ClipTable":
        """The first n clips."""
        sources = {name: getattr(self, name)[:n] for name in ("name", "path", "start", "stop")}
        return ClipTable(**sources, labels={name: column[:n] for name, column in self.labels.items()})
