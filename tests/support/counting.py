"""How often functions are called."""

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

ONCE = (
    "otoscope.ablate.study.open_root",
    "otoscope.ablate.study.open_store",
    "otoscope.analysis.selection.sets.parse_set",
    "otoscope.extract.plan.weights_digest",
)
"""What a request needs once: the store opened, its set's name understood, the encoder's weights hashed."""


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> Counter[str]:
    """Calls from now on of the functions named, by the last part of their names."""
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            calls[name] += 1
            return function(*given, **more)

        return call

    for path in names:
        module, _, name = path.rpartition(".")
        monkeypatch.setattr(path, counted(name, getattr(import_module(module), name)))
    return calls
