"""Corpus: which clips there are, where their audio lies and what they are called.

Goal: clips and their labels are two nouns, so that what needs clips alone is given clips alone.
Conventions: times in seconds; labels are text, "" meaning no label. `manifest` makes corpora.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .audio_root import AudioRoot
from .clip import Clip


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """The clips of a corpus in its order, and where their audio lies."""

    root: AudioRoot
    """The folder or URL that clip paths start from."""
    table: pd.DataFrame
    """One row per clip: name, path (text), start, stop (float64 seconds, NaN where open), and prompt (text), if any."""

    def __len__(self) -> int:
        return len(self.table)

    def clip(self, i: int) -> Clip:
        """Clip number `i` of the manifest, counted from 0."""
        # By numbers: to look up columns by name takes as long as a fifth of what it takes to decode a file.
        row: dict[str, Any] = {str(name): self.table.iat[i, k] for k, name in enumerate(self.table.columns)}
        start, stop = (None if np.isnan(row[edge]) else float(row[edge]) for edge in ("start", "stop"))
        prompt = str(row["prompt"]) if "prompt" in row else None
        return Clip(name=str(row["name"]), path=str(row["path"]), start=start, stop=stop, prompt=prompt)

    def absent(self, clips: Sequence[int] | None = None) -> list[str]:
        """Names of the clips (all, or those numbered) whose file does not exist; looks each file up once."""
        table = self.table if clips is None else self.table.iloc[list(clips)]
        missing = self.root.absent(table["path"].unique().tolist())
        names: list[str] = table["name"][table["path"].isin(missing)].tolist()
        return names


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Clips with their labels."""

    clips: Clips
    labels: pd.DataFrame
    """One text column per label column, rows as in the table of clips; "" is no label."""
    unit_sec: float | None = None
    """Length in seconds that the corpus is published with, if its manifest records one."""

    def __len__(self) -> int:
        return len(self.clips)
