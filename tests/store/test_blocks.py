"""Laws of blocks: together they cover every clip once, line up with stored objects, and are enough to share out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.store.blocks import MAX_OBJECT_CLIPS, Block, blocks, default_block_size
from otoscope.store.provenance import Plan, kept


@given(st.integers(0, 5000), st.integers(1, 700))
def test_blocks_cover_every_clip_exactly_once_and_in_order(n_clips: int, size: int) -> None:
    found = list(blocks("t", n_clips, size))
    assert [clip for block in found for clip in range(n_clips)[block.clips]] == list(range(n_clips))
    assert [block.index for block in found] == list(range(len(found)))
    assert all(len(block) == size for block in found[:-1])
    assert all(block.start == block.index * size for block in found)
    assert all(0 < len(block) <= size for block in found)


@pytest.mark.parametrize(
    ("n_clips", "size"), [(1, 32), (256, 32), (257, 33), (2000, 250), (16_384, 2048), (16_385, 2048), (10**7, 2048)]
)
def test_the_default_is_an_eighth_within_limits(n_clips: int, size: int) -> None:
    assert default_block_size(n_clips) == size


@given(st.integers(1, 10**7))
def test_the_default_makes_a_possible_plan(n_clips: int) -> None:
    size = default_block_size(n_clips)
    Plan(n_clips=n_clips, names="", sources="", block=size, batch=1, threads=1, unit_sec=None, variables=kept(None))
    assert size == 32 or -(-n_clips // size) >= 8 or n_clips < 8 * 32
    assert size <= MAX_OBJECT_CLIPS


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (4, 2), (-1, 2)])
def test_an_empty_block_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="is empty; expected start < stop"):
        Block(task="t", index=0, start=start, stop=stop)
