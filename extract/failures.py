"""Clips that kill the process that works on them: how they are found among a block's clips.

Goal: of a block that takes its worker with it, whatever can be saved is saved, and each clip that cannot be is named.
Conventions: clips are numbers of the task's clips, as a block's are. A part of a block is tried without writing
anything; parts that kill are halved, and a clip is condemned only if it kills while nothing else is at work beside it.
Contents: `Trial`, `Sparing`, `Suspects`.
"""

from dataclasses import dataclass, field

from ..store.blocks import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A part of a block, to be decoded and run through the encoder, and nothing written."""

    block: Block
    clips: range
    """Of the task's clips."""

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparing:
    """A block to be extracted without touching the clips that kill."""

    block: Block
    poison: tuple[tuple[int, str], ...] = ()
    """(clip, reason), of the task's clips."""

    def __len__(self) -> int:
        return len(self.block)


Piece = Block | Trial | Sparing


@dataclass
class Suspects:
    """The blocks that killed their workers, and what is known about their clips.

    Whoever runs the pieces says what became of them: `killed` for each that killed, `condemned` for a single clip that
    did so again on its own. What is to be run next is given by, in this order, `trials` until there are none, each of
    `alone` by itself, then `again`.
    """

    blocks: dict[Block, str] = field(default_factory=dict)
    """How each block killed its workers."""
    poison: dict[Block, dict[int, str]] = field(default_factory=dict)
    """The clips condemned, with the reason, by block."""
    _trials: list[Trial] = field(default_factory=list)
    _alone: list[Trial] = field(default_factory=list)

    def killed(self, piece: Block | Trial, how: str) -> None:
        """A block, or a part of one, killed its workers: next its halves are tried, or its one clip on its own."""
        if isinstance(piece, Block):
            self.blocks[piece] = how
            piece = Trial(block=piece, clips=range(piece.start, piece.stop))
        half = len(piece) // 2
        if half:
            self._trials += [Trial(block=piece.block, clips=part) for part in (piece.clips[:half], piece.clips[half:])]
        else:
            self._alone.append(piece)

    def condemned(self, trial: Trial, how: str) -> None:
        """A clip killed its workers on its own."""
        self.poison.setdefault(trial.block, {})[trial.clips.start] = how

    def dismissed(self, block: Block) -> None:
        """A block cannot be tried now (its audio cannot be read): it stays pending."""
        self.blocks.pop(block, None)
        self._trials = [trial for trial in self._trials if trial.block != block]
        self._alone = [trial for trial in self._alone if trial.block != block]

    def trials(self) -> list[Trial]:
        """The parts to be tried next, of all blocks; they are given once."""
        given, self._trials = self._trials, []
        return given

    def alone(self) -> list[Trial]:
        """The single clips to be tried one by one; they are given once."""
        given, self._alone = self._alone, []
        return given

    def again(self) -> list[Sparing]:
        """The blocks, in order, to be extracted without the clips condemned (there may be none)."""
        return [
            Sparing(block=block, poison=tuple(sorted(self.poison.get(block, {}).items())))
            for block in sorted(self.blocks, key=lambda block: block.index)
        ]
