"""When a run stops, and what it says then.

Goal: an error names the place, what was expected and what to do; what is committed stays in any case.
Conventions: OSError for what reading and writing met, ValueError for the rest that a user can mend.
Contents: `FailureLimit`, `raise_for`, `refuse_pending`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..messages import one_line
from ..store.blocks import Block

HOPELESS = 6  # parts of a run that kill their workers before any has come through


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureLimit:
    """The share of a task's clips that may fail before a run stops."""

    share: float
    n_clips: int
    n_failed: int
    """Clips that had failed before the run."""

    def check(self, where: str, failures: Sequence[tuple[str, str]]) -> None:
        """Raise ValueError once too many have failed, in this run and before."""
        n_failed = self.n_failed + len(failures)
        if n_failed > self.share * self.n_clips:
            example = f", the last {failures[-1][0]} ({failures[-1][1]})" if failures else ""
            raise ValueError(
                f"{where}: {n_failed} of {self.n_clips} clips failed{example}; expected at most a share of "
                f"{self.share:g}: see `otoscope status --failures`, then mend the audio and put its blocks back "
                "with `otoscope verify --audio DIR --reset`, or raise --max-failures; what is committed stays"
            )

    def check_lost(self, where: str, n_lost: int, how: str) -> None:
        """Raise OSError once so many parts of a run killed their workers while none came through.

        Each costs several workers: a model or a machine that kills them all would take days to be tried clip by clip.
        A share of 1 lets that happen.
        """
        if n_lost >= HOPELESS and self.share < 1:
            raise OSError(
                f"{where}: {n_lost} parts of the work were tried and each {how}; expected one at least to come "
                "through: try the encoder with --executor serial, give each worker more memory, or have every clip "
                "tried with --max-failures 1; what is committed stays"
            )


def place(block: Block) -> str:
    """A block for a person to read."""
    return f"block {block.index} (clips {block.start} to {block.stop - 1})"


def raise_for(block: Block, error: Exception, where: str) -> NoReturn:
    """The error of a block with where it happened and what to do."""
    if isinstance(error, OSError):
        raise OSError(
            f"{where}: {place(block)} could not be written ({one_line(error)}); expected a writable store with free "
            "space: mend that and run the same command again, committed blocks are kept"
        ) from error
    if isinstance(error, ValueError | LookupError):
        raise ValueError(f"{where}: {place(block)}: {error}") from error
    raise error


def refuse_pending(where: str, n_blocks: int, unread: Sequence[str], killing: Sequence[tuple[Block, str]]) -> None:
    """Raise OSError where blocks are left at the end: unread ones, and such as kill their worker as a whole only."""
    if killing:
        block, how = killing[0]
        more = f", and {len(killing) - 1} more like it" if len(killing) > 1 else ""
        raise OSError(
            f"{where}: {place(block)} {how}{more}, and no clip of it does so alone; it is still pending; expected "
            "workers that survive it: give each more memory, or run fewer on a machine, and run the same command again"
        )
    if unread:
        raise OSError(
            f"{where}: {len(unread)} of {n_blocks} blocks are still pending because audio could not be read, "
            f"the first: {unread[0]}; expected readable files: run the same command again"
        )
