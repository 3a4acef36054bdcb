"""Block: the unit of work, of retry and of commit.

Goal: cut a task's clips into ranges that line up with the stored objects, so that no two workers share one.
Conventions: ranges are half-open, in clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_OBJECT_CLIPS = 2048  # clips in one stored object: a worker's memory rises by about twice the largest object


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A chunk-aligned range of clips of one task."""

    task: str
    index: int
    """Position among the task's blocks, from 0."""
    start: int
    """First clip."""
    stop: int
    """Past the last clip."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a block of clips {self.start} to {self.stop} is empty; expected start < stop")

    @property
    def clips(self) -> slice:
        """The block's range along the clip axis."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def blocks(task: str, n_clips: int, size: int) -> Iterator[Block]:
    """The blocks of a task, in order; together they cover every clip exactly once, the last may be shorter."""
    for index, start in enumerate(range(0, n_clips, size)):
        yield Block(task=task, index=index, start=start, stop=min(start + size, n_clips))


def default_block_size(n_clips: int) -> int:
    """min(2048, ceil(clips / 8)), at least 32: enough blocks to share out, objects large enough to read fast."""
    return max(32, min(MAX_OBJECT_CLIPS, -(-n_clips // 8)))
