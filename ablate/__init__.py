"""What breaks when neurons are silenced: interventions, their controls, fast reruns, and what they do to a probe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controls import matched_controls, published_control
    from .intervention import Intervention
    from .lookup import find_neurons, look_up
    from .request import Request
    from .rerun import Batch, Rerunner
    from .results import clips_table, read_result, result_table, write_result
    from .statistics import clip_scores, compare
    from .study import run_study

# Looked up on first use, as in `analysis`.
HOMES = {
    "Batch": "rerun",
    "Intervention": "intervention",
    "Request": "request",
    "Rerunner": "rerun",
    "clip_scores": "statistics",
    "clips_table": "results",
    "compare": "statistics",
    "find_neurons": "lookup",
    "look_up": "lookup",
    "matched_controls": "controls",
    "published_control": "controls",
    "read_result": "results",
    "result_table": "results",
    "run_study": "study",
    "write_result": "results",
}

__all__ = [
    "Batch",
    "Intervention",
    "Request",
    "Rerunner",
    "clip_scores",
    "clips_table",
    "compare",
    "find_neurons",
    "look_up",
    "matched_controls",
    "published_control",
    "read_result",
    "result_table",
    "run_study",
    "write_result",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
