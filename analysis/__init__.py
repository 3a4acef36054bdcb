"""From the store to statistics, tables and figures: pure functions on DataArrays, lazy in, lazy out."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .across_tasks import across
    from .compare import count_agreement, serving
    from .conditions import clips_where
    from .contrast.hold_up import hold_up
    from .contrast.rank_tests import contrast_specific, contrast_tests
    from .crossed.coefficient import grounding
    from .crossed.layout import crossed_layout
    from .exemplars import exemplar_clips
    from .overlap import common_neuron_ratio
    from .own_thresholds import neuron_thresholds
    from .rates import above, activation_counts, activation_probability, category_mean, frame_probability
    from .selection.rules import class_specific, coverage_ratio, depth_histogram, mean_class_specific, thresholds
    from .selection.selection import Selection
    from .selection.selectivity import aape

# Looked up on first use: xarray alone takes longer to import than `import otoscope` may.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "across_tasks": ["across"],
        "compare": ["count_agreement", "serving"],
        "conditions": ["clips_where"],
        "contrast.hold_up": ["hold_up"],
        "contrast.rank_tests": ["contrast_specific", "contrast_tests"],
        "crossed.coefficient": ["grounding"],
        "crossed.layout": ["crossed_layout"],
        "exemplars": ["exemplar_clips"],
        "overlap": ["common_neuron_ratio"],
        "own_thresholds": ["neuron_thresholds"],
        "rates": ["above", "activation_counts", "activation_probability", "category_mean", "frame_probability"],
        "selection.rules": ["class_specific", "coverage_ratio", "depth_histogram", "mean_class_specific", "thresholds"],
        "selection.selection": ["Selection"],
        "selection.selectivity": ["aape"],
    },
)
