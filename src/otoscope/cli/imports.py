"""Imports of large libraries, without the garbage collector.

Goal: torch and pandas make a million objects that stay; looking through them while they are made takes a quarter of the
time of their import.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect no garbage in the `with` block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
