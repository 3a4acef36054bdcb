"""Caches: what was computed or read lately, bounded by bytes.

Goal: a server that is asked for anything grows to a known size and no further.
Conventions: sizes in bytes. A value is made once, however many threads ask for it at a time.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The values used last whose sizes add up to at most `max_bytes`; one that is larger alone is kept alone."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.n_bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock, self._makers = threading.Lock(), dict[Hashable, threading.Lock]()

    def get(self, key: Hashable) -> Value | None:
        """The value of a key if it is kept."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: Value) -> None:
        """Keep a value, and let those go that were not used for longest."""
        with self._lock:
            if key in self._kept:
                self.n_bytes -= self._kept.pop(key)[1]
            size = bytes_in(value)
            self._kept[key], self.n_bytes = (value, size), self.n_bytes + size
            while self.n_bytes > self.max_bytes and len(self._kept) > 1:
                self.n_bytes -= self._kept.popitem(last=False)[1][1]

    def made(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept; raises what `make` does, and keeps nothing then."""
        with self._lock:
            maker = self._makers.setdefault(key, threading.Lock())
        try:
            with maker:
                if (found := self.get(key)) is not None:
                    return found
                value = make()
                self.put(key, value)
                return value
        finally:
            with self._lock:
                self._makers.pop(key, None)

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()
            self.n_bytes = 0


def bytes_in(value: Any) -> int:
    """Size of the arrays, bytes and texts in a value, looked for in dataclasses, lists and mappings."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, bytes | str):
        return len(value)
    if is_dataclass(value):
        return 64 + sum(bytes_in(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, dict):
        return 64 + sum(map(bytes_in, value.values()))
    return 64 + (sum(map(bytes_in, value)) if isinstance(value, list | tuple) else 0)
