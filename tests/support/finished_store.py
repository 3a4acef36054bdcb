"""A finished store, and what went into it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A store of 37 clips in 10 blocks, and what went into it."""

    url: str
    manifest: Path
    sounds: list[np.ndarray]
