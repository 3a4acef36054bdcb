"""What fails in a run: when it stops and what it says then, and which clips of a block crash its workers.

Goal: an error names the block, what was expected and what to do, and what is committed stays in any case; of a block
that takes its worker's process with it, whatever can be saved is saved, and each clip that cannot be is named.
Conventions: OSError for what reading and writing met, ValueError for the rest that a user can mend. Clips are numbers
of the task's clips, as a block's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ..messages import one_line
from ..store.blocks import Block

MAX_LOST_PARTS = 6  # of a run that kill their workers before any has come through


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
        if n_lost >= MAX_LOST_PARTS and self.share < 1:
            raise OSError(
                f"{where}: {n_lost} parts of the work were tried and each {how}; expected one at least to come "
                "through: try the encoder with --executor serial, give each worker more memory, or have every clip "
                "tried with --max-failures 1; what is committed stays"
            )


def describe_block(block: Block) -> str:
    """A block for a person to read."""
    return f"block {block.index} (clips {block.start} to {block.stop - 1})"


def raise_for(block: Block, error: Exception, where: str) -> NoReturn:
    """The error of a block with where it happened and what to do."""
    if isinstance(error, OSError):
        raise OSError(
            f"{where}: {describe_block(block)} could not be written ({one_line(error)}); expected a writable store "
            "with free space: mend that and run the same command again, committed blocks are kept"
        ) from error
    if isinstance(error, ValueError | LookupError):
        raise ValueError(f"{where}: {describe_block(block)}: {error}") from error
    raise error


def check_pending(where: str, n_blocks: int, unread: Sequence[str], killing: Sequence[tuple[Block, str]]) -> None:
    """Raise OSError where blocks are left at the end: unread ones, and such as kill their worker as a whole only."""
    if killing:
        block, how = killing[0]
        more = f", and {len(killing) - 1} more like it" if len(killing) > 1 else ""
        raise OSError(
            f"{where}: {describe_block(block)} {how}{more}, and no clip of it does so alone; it is still pending; "
            "expected workers that survive it: give each more memory, or run fewer on a machine, and run the same "
            "command again"
        )
    if unread:
        raise OSError(
            f"{where}: {len(unread)} of {n_blocks} blocks are still pending because audio could not be read, "
            f"the first: {unread[0]}; expected readable files: run the same command again"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A part of a block, to be decoded and run through the encoder, and nothing written."""

    block: Block
    clips: range
    """Of the task's clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remainder:
    """A block to be extracted without touching its crashing clips."""

    block: Block
    crashing: tuple[tuple[int, str], ...] = ()
    """(clip, reason), of the task's clips."""


Piece = Block | Trial | Remainder


@dataclass
class Bisection:
    """The blocks that killed their workers, and which of their clips did it.

    A part of a block is tried without writing anything; parts that kill are halved, and a clip is found crashing only
    if it kills while nothing else is at work beside it. Whoever runs the pieces says what became of them: `killed` for
    each that killed, `found` for a single clip that did so again on its own. What is to be run next is given by, in
    this order, `trials` until there are none, each of `single` by itself, then `remainders`.
    """

    crashing: dict[Block, dict[int, str]] = field(default_factory=dict)
    """Of each block that killed its workers the clips that were found, with the reason."""
    _trials: list[Trial] = field(default_factory=list)
    _single: list[Trial] = field(default_factory=list)

    def killed(self, piece: Block | Trial) -> None:
        """A block, or a part of one, killed its workers: next its halves are tried, or its one clip on its own."""
        if isinstance(piece, Block):
            self.crashing[piece] = {}
            piece = Trial(block=piece, clips=range(piece.start, piece.stop))
        half = len(piece.clips) // 2
        if half:
            self._trials += [Trial(block=piece.block, clips=part) for part in (piece.clips[:half], piece.clips[half:])]
        else:
            self._single.append(piece)

    def found(self, trial: Trial, how: str) -> None:
        """A clip killed its workers on its own."""
        if trial.block in self.crashing:
            self.crashing[trial.block][trial.clips.start] = how

    def drop(self, block: Block) -> None:
        """A block cannot be tried now (its audio cannot be read): it stays pending."""
        self.crashing.pop(block, None)
        self._trials = [trial for trial in self._trials if trial.block != block]
        self._single = [trial for trial in self._single if trial.block != block]

    def trials(self) -> list[Trial]:
        """The parts to be tried next, of all blocks; they are given once."""
        given, self._trials = self._trials, []
        return given

    def single(self) -> list[Trial]:
        """The single clips to be tried one by one; they are given once."""
        given, self._single = self._single, []
        return given

    def remainders(self) -> list[Remainder]:
        """The blocks, in order, to be extracted without the clips that were found (there may be none)."""
        return [
            Remainder(block=block, crashing=tuple(sorted(self.crashing[block].items())))
            for block in sorted(self.crashing, key=lambda block: block.index)
        ]
