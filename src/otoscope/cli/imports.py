"""Imports of large libraries, without the garbage collector.

Goal: torch and pandas make a million objects that stay; looking through them again and again takes a quarter of the
time that their import takes, and a part of every collection after it.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_for_good() -> Iterator[None]:
    """Collect no garbage in the `with` block, nor later what was made in it: it stays until the process ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
