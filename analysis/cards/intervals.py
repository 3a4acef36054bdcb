"""How sure a neuron's bars are: the interval of each P, and what shuffled labels would give.

Conventions: P is (category). Units are what is exchangeable: clips, or whole groups of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """P of each category with its interval, and the band of shuffled labels: all (category), in [0, 1]."""

    p: Floats
    low: Floats
    high: Floats
    """95 % interval of each; NaN where a single unit says nothing of it."""
    band_low: Floats
    band_high: Floats
    """Where all bars lie together in 95 % of shuffles of the labels; NaN where nothing can be shuffled."""
    unit: str
    """What was drawn and shuffled: "clip", or the group's column, such as "speaker"."""
    no_band: str = ""
    """Why there is no band; "" where there is one."""
