"""What breaks when neurons are silenced: interventions, their controls, fast reruns, and what they do to a probe."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .controls import matched_controls, published_control
    from .effects import clip_scores, compare
    from .intervention import Intervention
    from .replay.rerun import Batch, Rerunner
    from .request import Request
    from .result import clips_table, read_result, result_table, write_result
    from .study import find_neurons, look_up, run_study

# Looked up on first use, as in `analysis`.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "controls": ["matched_controls", "published_control"],
        "effects": ["clip_scores", "compare"],
        "intervention": ["Intervention"],
        "replay.rerun": ["Batch", "Rerunner"],
        "request": ["Request"],
        "result": ["clips_table", "read_result", "result_table", "write_result"],
        "study": ["find_neurons", "look_up", "run_study"],
    },
)
