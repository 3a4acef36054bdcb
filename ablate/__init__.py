"""What breaks when neurons are silenced: interventions, their controls, fast reruns, and what they do to a probe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controls import matched_controls, published_control
    from .effects import clip_scores, compare
    from .intervention import Intervention
    from .replay.rerun import Batch, Rerunner
    from .request import Request
    from .result import clips_table, read_result, result_table, write_result
    from .study import find_neurons, look_up, run_study

# Looked up on first use, as in `analysis`.
HOMES = {
    "Batch": "replay.rerun",
    "Intervention": "intervention",
    "Request": "request",
    "Rerunner": "replay.rerun",
    "clip_scores": "effects",
    "clips_table": "result",
    "compare": "effects",
    "find_neurons": "study",
    "look_up": "study",
    "matched_controls": "controls",
    "published_control": "controls",
    "read_result": "result",
    "result_table": "result",
    "run_study": "study",
    "write_result": "result",
}

__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
