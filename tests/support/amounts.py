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
    """Parameters of a test: some, evenly spread, are for the quick suite, the others for the slow one.

    Each is one value, or a `pytest.param` of several.
    """
    kind = type(pytest.param())
    every = [value if isinstance(value, kind) else pytest.param(value) for value in values]
    return [
        param if i * quick % len(every) < quick else pytest.param(*param.values, id=param.id, marks=pytest.mark.slow)
        for i, param in enumerate(every)
    ]
