"""How much tests ask: slow ones a sample, or with OTOSCOPE_WHOLE=1 all that figures in documents and issues are of."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

WHOLE = os.environ.get("OTOSCOPE_WHOLE", "0") != "0"


def some(n: int, of: int) -> int:
    """n, or all of them where the whole is asked for."""
    return of if WHOLE else n


def quick_sample(values: Iterable[Any], quick: int) -> list[Any]:
    """Parameters of a test, tuples for several: some, evenly spread, are for the quick suite, the others for the slow.

    Marks and names of a `pytest.param` stay.
    """
    every = []
    for value in values:
        known = isinstance(value, type(pytest.param()))
        every.append(value if known else pytest.param(*(value if isinstance(value, tuple) else (value,))))
    return [
        param if i * quick % len(every) < quick else pytest.param(*param.values, id=param.id, marks=pytest.mark.slow)
        for i, param in enumerate(every)
    ]
