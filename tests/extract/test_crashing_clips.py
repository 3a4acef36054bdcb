"""Clips that kill their worker: found among the others, recorded with the reason, and the rest is saved.

The executor here only says that pieces with certain clips killed their workers; everything else runs for real.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from otoscope.cluster.executor import Killed, SerialExecutor
from otoscope.extract.audio.changed import changed_audio
from otoscope.extract.capture import capture
from otoscope.extract.failures import Bisection, Remainder, Trial
from otoscope.extract.report import Report
from otoscope.store.blocks import Block, blocks
from otoscope.store.status import failed_clips, task_status
from otoscope.store.verify import verify

from ..support.amounts import quick_sample
from ..support.closed_form import closed_form
from ..support.stored_files import tree_of
from ..support.wav_corpora import LENGTHS, write_corpus

HOW = "killed its worker 3 times (its process died)"


def clips_of(piece: Block | Trial | Remainder) -> set[int]:
    """The clips that a piece touches."""
    if isinstance(piece, Trial):
        return set(piece.clips)
    block = piece if isinstance(piece, Block) else piece.block
    return set(range(block.start, block.stop)) - {clip for clip, _ in getattr(piece, "crashing", ())}


class Deadly(SerialExecutor):
    """Pieces kill their worker if `kills` says so of their clips; what ran at the same time is lost with them."""

    def __init__(self, kills: Callable[[set[int]], bool], *, neighbours: bool = False) -> None:
        self.kills, self.neighbours = kills, neighbours
        self.runs: list[list[Any]] = []

    def run(self, make_worker: Any, pieces: Any) -> Any:
        pieces = list(pieces)
        self.runs.append(pieces)
        deadly = [self.kills(clips_of(piece)) for piece in pieces]
        for i, piece in enumerate(pieces):
            beside = self.neighbours and any(deadly[max(0, i - 1) : i + 2])
            if deadly[i] or beside:
                yield Killed(piece=piece, how=HOW)
            else:
                yield from super().run(make_worker, [piece])


def run(manifest: Path, url: Path, executor: SerialExecutor, **options: Any) -> Report:
    given_ = {"block": 4, "batch": 3, "threads": 1, "max_failures": 1.0, **options}
    return capture(closed_form(), manifest, str(url), task="t", executor=executor, **given_)


def values(url: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(array[...]) for name, array in zarr.open_group(url, path="t", mode="r").arrays()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 clips: 9 blocks of 4 and one of 1."""
    return write_corpus(tmp_path_factory.mktemp("deadly"), LENGTHS)[0]


@pytest.fixture(scope="module")
def whole(corpus: Path) -> Path:
    run(corpus, corpus.parent / "whole", SerialExecutor())
    return corpus.parent / "whole"


@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("deadly", quick_sample([{0}, {7}, {36}, {13, 14}, {4, 5, 6, 7}, {0, 3, 17, 35, 36}], 2))
def test_the_clips_that_kill_are_recorded_and_the_others_saved(
    corpus: Path, whole: Path, tmp_path: Path, deadly: set[int], neighbours: bool
) -> None:
    url = tmp_path / "s"
    report = run(corpus, url, Deadly(lambda clips: bool(clips & deadly), neighbours=neighbours))
    names = [f"audio/{i:03d}.wav" for i in sorted(deadly)]
    assert (report.n_ok, report.n_failed, report.n_extracted) == (37 - len(deadly), len(deadly), 37)
    assert sorted(report.failures) == [(name, HOW) for name in names]
    assert failed_clips(str(url), "t") == [(name, HOW) for name in names]
    assert list(verify(str(url))) == []
    good = [i for i in range(37) if i not in deadly]
    found, expected = values(url), values(whole)
    for name in ("active_bits", "mean", "positive_frames", "frame_count", "embedding", "audio_digest", "status"):
        dim = expected[name].shape.index(37)
        np.testing.assert_array_equal(found[name].take(good, dim), expected[name].take(good, dim), name)
    assert (found["status"][sorted(deadly)] == 2).all()


def test_clips_that_kill_are_not_read_again(tmp_path: Path) -> None:
    """Their files, had anything looked at them, would have given another reason and a digest."""
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    (tmp_path / "audio/009.wav").write_bytes(b"words")
    run(manifest, tmp_path / "s", Deadly(lambda clips: 9 in clips))
    assert failed_clips(str(tmp_path / "s"), "t") == [("audio/009.wav", HOW)]
    assert values(tmp_path / "s")["audio_digest"][9] == 0
    assert list(changed_audio(str(tmp_path / "s"), tmp_path)) == []  # nor is it said to have been absent


def test_at_a_fixed_length_the_neighbours_keep_their_places(tmp_path: Path) -> None:
    """Real arithmetic, whose last bits depend on a clip's place and the shape of its batch."""
    manifest, _ = write_corpus(tmp_path, [9_000 + 100 * i for i in range(33)], rate=16_000)
    options: dict[str, Any] = {"unit_sec": 0.6, "mean_dtype": "float32", "task": "t", "block": 4, "batch": 3}
    capture("tiny-ssl", manifest, str(tmp_path / "whole"), threads=1, **options)
    deadly = Deadly(lambda clips: bool(clips & {5, 30}))
    capture("tiny-ssl", manifest, str(tmp_path / "s"), threads=1, executor=deadly, **options)
    good = [i for i in range(33) if i not in (5, 30)]
    found, expected = values(tmp_path / "s"), values(tmp_path / "whole")
    for name in ("mean", "embedding"):
        dim = expected[name].shape.index(33)
        np.testing.assert_array_equal(found[name].take(good, dim), expected[name].take(good, dim), name)


def test_a_block_that_was_lost_by_chance_is_extracted_after_all(corpus: Path, whole: Path, tmp_path: Path) -> None:
    lost: list[int] = []

    def kills(clips: set[int]) -> bool:
        lost.append(len(clips))
        return clips == {8, 9, 10, 11} and lost.count(4) == 3  # the third block, and not when it comes again

    executor = Deadly(kills)
    assert run(corpus, tmp_path / "s", executor).n_ok == 37
    assert tree_of(tmp_path / "s") == tree_of(whole)
    assert [len(pieces) for pieces in executor.runs] == [10, 2, 1]  # all blocks, two halves, the block again


def test_a_block_that_kills_only_as_a_whole_stays_pending_and_is_named(
    corpus: Path, whole: Path, tmp_path: Path
) -> None:
    url = tmp_path / "s"
    executor = Deadly(lambda clips: clips >= {8, 9, 10, 11})
    with pytest.raises(
        OSError, match=r"block 2 \(clips 8 to 11\) killed its worker 3 .*no clip of it does so alone; .*more memory"
    ) as caught:
        run(corpus, url, executor, report=tmp_path / "report.json")
    assert "\n" not in str(caught.value)
    assert [block.index for block in task_status(str(url), "t").blocks()] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["state"] == "stopped"
    assert written["killed"] == [{"clips": [8, 12], "how": HOW}] * 3  # first, again, and with nothing beside it
    assert run(corpus, url, SerialExecutor()).n_ok == 37
    assert tree_of(url) == tree_of(whole)


def test_they_count_against_the_limit_of_failures(corpus: Path, tmp_path: Path) -> None:
    executor = Deadly(lambda clips: bool(clips & {1, 2, 20}))
    with pytest.raises(ValueError, match=r"3 of 37 clips failed, the last audio/020.wav \(killed its worker 3 times"):
        run(corpus, tmp_path / "s", executor, max_failures=0.06)


@pytest.mark.parametrize("block", [4, 37])
def test_where_everything_kills_the_run_ends_soon(corpus: Path, tmp_path: Path, block: int) -> None:
    url, report = tmp_path / "s", tmp_path / "report.json"
    with pytest.raises(OSError, match=r"6 parts of the work were tried and each killed its .*--max-failures 1"):
        run(corpus, url, Deadly(lambda clips: True), max_failures=0.1, block=block, report=report)
    written = json.loads(report.read_text())
    assert (written["state"], len(written["killed"])) == ("stopped", 6)
    assert task_status(str(url), "t").blocks() == []


def test_one_part_that_comes_through_is_reason_to_go_on(corpus: Path, tmp_path: Path) -> None:
    """Seven blocks of ten are lost, but not the first; all of theirs but one clip each is saved."""
    deadly = set(range(4, 32, 4))
    report = run(corpus, tmp_path / "s", Deadly(lambda clips: bool(clips & deadly)), max_failures=0.2)
    assert (report.n_ok, report.n_failed) == (30, 7)


def test_with_every_failure_allowed_every_clip_is_tried(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path / "s", Deadly(lambda clips: bool(clips)), max_failures=1.0).n_failed == 37


def test_unreadable_audio_among_those_in_question_leaves_the_block_pending(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    lost = tmp_path / "audio/010.wav"
    data = lost.read_bytes()

    def kills(clips: set[int]) -> bool:
        if clips == {8, 9, 10, 11}:
            lost.unlink()
        return bool(clips & {9})

    with pytest.raises(OSError, match=r"1 of 10 blocks are still pending because audio.*010.wav has gone"):
        run(manifest, tmp_path / "s", Deadly(kills))
    assert [block.index for block in task_status(str(tmp_path / "s"), "t").blocks()] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    lost.write_bytes(data)
    run(manifest, tmp_path / "s", Deadly(lambda clips: 9 in clips))
    assert failed_clips(str(tmp_path / "s"), "t") == [("audio/009.wav", HOW)]


@given(st.integers(1, 70), st.integers(1, 40), st.data())
def test_exactly_the_clips_that_kill_are_found_after_few_trials(n_clips: int, size: int, data: st.DataObject) -> None:
    deadly = data.draw(st.sets(st.integers(0, n_clips - 1), max_size=5))
    bisection, n_trials = Bisection(), 0
    for block in blocks("t", n_clips, size):
        if clips_of(block) & deadly:
            bisection.killed(block)
    while trials := bisection.trials():
        n_trials += len(trials)
        for trial in trials:
            if clips_of(trial) & deadly:
                bisection.killed(trial)
    for trial in bisection.single():
        assert len(trial.clips) == 1
        if clips_of(trial) & deadly:
            bisection.found(trial, HOW)
    again = bisection.remainders()
    assert {clip for piece in again for clip, _ in piece.crashing} == deadly
    assert not any(clips_of(piece) & deadly for piece in again)
    assert n_trials <= 2 * len(deadly) * math.ceil(math.log2(max(2, size)))
    assert bisection.trials() == bisection.single() == []
