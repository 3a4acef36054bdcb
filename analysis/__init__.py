"""From the store to statistics, tables and figures: pure functions on DataArrays, lazy in, lazy out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .across_tasks import across
    from .compare import count_agreement, serving
    from .exemplars import exemplar_clips
    from .overlap import common_neuron_ratio
    from .rates import above, activation_counts, activation_probability, category_mean, frame_probability
    from .selection.rules import class_specific, coverage_ratio, depth_histogram, mean_class_specific, thresholds
    from .selection.selectivity import aape

# Looked up on first use: xarray alone takes longer to import than `import otoscope` may.
HOMES = {
    "aape": "selection.selectivity",
    "above": "rates",
    "across": "across_tasks",
    "activation_counts": "rates",
    "activation_probability": "rates",
    "category_mean": "rates",
    "class_specific": "selection.rules",
    "common_neuron_ratio": "overlap",
    "count_agreement": "compare",
    "coverage_ratio": "selection.rules",
    "depth_histogram": "selection.rules",
    "exemplar_clips": "exemplars",
    "frame_probability": "rates",
    "mean_class_specific": "selection.rules",
    "serving": "compare",
    "thresholds": "selection.rules",
}

__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
