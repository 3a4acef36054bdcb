"""Stored values: the hidden states and neurons of a task, of some of its clips.

Conventions: clips are positions in the task's plan, in any order; values are float32 and finite.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..store.schema import PENDING
from ..store.stored_task import StoredTask

Floats = NDArray[np.float32]
Positions = NDArray[np.intp]


def finished_task(task: StoredTask) -> StoredTask:
    """The task. Raises ValueError where clips of it are pending."""
    if n_pending := int((task.status == PENDING).sum()):
        raise ValueError(
            f"{task} is not finished, {n_pending} of {len(task.status)} clips are pending; expected none: run what "
            "makes it again"
        )
    return task


def n_states(task: StoredTask) -> int:
    """Hidden states that a task keeps. Raises LookupError where it keeps none."""
    if "hidden" not in task.plan.variables:
        raise LookupError(f"{task} keeps no hidden states; expected them: extract it anew with --keep hidden")
    return int(task.record.identity.hidden[0])


def state_of(task: StoredTask, state: int, clips: Positions) -> Floats:
    """A hidden state (clip, width). Raises LookupError for one that is not there, ValueError for NaN and infinities."""
    if not 0 <= state < (n := n_states(task)):
        raise LookupError(f"{task} has no hidden state {state}; expected 0 to {n - 1}")
    return _checked(task.hidden([state], clips)[0], f"state {state} of {task}")


def means_of(task: StoredTask, layers: Sequence[int], clips: Positions) -> Floats:
    """Means (clip, neuron) of the neurons of layers, by number, one after the other. Raises as `state_of`."""
    if "mean" not in task.plan.variables:
        raise LookupError(f"{task} keeps no means of its neurons; expected them: extract it anew with --keep mean")
    read = [_checked(task.means(layer, clips), f"layer {layer} of {task}") for layer in layers]
    values: Floats = read[0] if len(read) == 1 else np.concatenate(read, axis=1)
    return values


def _checked(values: Floats, what: str) -> Floats:
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds NaN or infinity; expected numbers for every clip that is ok: extract it again")
    return values
