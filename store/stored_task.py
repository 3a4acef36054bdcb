"""A task as its document was at one moment, for whoever makes something of what it holds.

Goal: clips, labels, origin and values of one state of a task, whatever is appended to it meanwhile.
Conventions: values are in disk order, those of all clips, whether they were extracted or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import zarr

from .changes.staged import ClipTable, Origin
from .group import array_of, column_of, open_root, open_task, status_of, values_of
from .provenance import Plan, TaskRecord
from .reader import StoredArray


@dataclass(frozen=True, kw_only=True)
class StoredTask:
    """A task of a store. Reading raises ValueError for what is damaged, FileNotFoundError for what is missing."""

    url: str
    task: str
    group: zarr.Group
    record: TaskRecord

    @classmethod
    def at(cls, url: str, task: str) -> Self:
        """The task as it is now. Raises as `open_root` and `open_task`."""
        group, record = open_task(open_root(url, mode="r"), task)
        return cls(url=url, task=task, group=group, record=record)

    def __str__(self) -> str:
        return f"{self.url} task {self.task}"

    @property
    def plan(self) -> Plan:
        """What was to be done."""
        return self.record.plan

    @property
    def origin(self) -> Origin:
        """What its numbers come from."""
        return Origin(identity=self.record.identity, source=self.record.source, check=values_of(self.group, "check"))

    @cached_property
    def status(self) -> np.ndarray:
        """uint8 (clip): 0 pending, 1 ok, 2 failed; as it was when first asked for."""
        return status_of(self.group, self.plan)

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """Label columns by name: a string per clip, "" where it has no label."""
        return {name: column_of(self.group, label.array, label.digest) for name, label in self.record.labels.items()}

    @cached_property
    def clips(self) -> ClipTable:
        """Its clips, with its labels."""
        path, start, stop = (values_of(self.group, name) for name in ("path", "start", "stop"))
        names = column_of(self.group, "clip", self.plan.names)
        prompt = None if self.plan.prompts is None else values_of(self.group, "prompt").tolist()
        clips = ClipTable(name=names, path=path.tolist(), start=start, stop=stop, prompt=prompt, labels=self.labels)
        if not clips.match(self.plan):
            raise ValueError(
                f"{self} has other paths, spans or prompts than those that were written; expected those of its plan's "
                "digests: `otoscope verify` says what is damaged"
            )
        return clips

    def values(self, name: str, where: Any = ...) -> np.ndarray:
        """Values of an array, or of a selection along its first axis."""
        return values_of(self.group, name, where)

    def hidden(self, states: Sequence[int], clips: np.ndarray) -> np.ndarray:
        """Hidden states, float32 (state, clip, width), of these states and clips by number; checksums are compared."""
        return StoredArray(array_of(self.group, "hidden")).as_stored([np.asarray(states), clips, slice(None)])

    def means(self, layer: int, clips: np.ndarray) -> np.ndarray:
        """Means, float32 (clip, neuron), of the neurons of a layer and clips by number; checksums are compared."""
        n_neurons = self.record.identity.sites[layer][1]
        stored = StoredArray(array_of(self.group, "mean")).as_stored([layer, clips, slice(0, n_neurons)])
        return stored.astype(np.float32, copy=False)
