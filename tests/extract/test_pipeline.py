"""Stages that run ahead of each other: nothing dropped, nothing without bound, errors end their own block alone."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

import otoscope.extract.worker
from otoscope.extract.loader import UnreadableAudio
from otoscope.extract.pipeline import STAGES, InOrder, Queue, Stopped, ahead
from otoscope.store.block_values import BlockValues
from otoscope.store.verify import verify
from otoscope.store.writer import write_block

from ..support.closed_form import RATE, closed_form, of_clips, spans
from ..support.wav_corpora import write_wav_file
from ..support.worker_bench import bench

LENGTHS = [40, 30, 50] * 12 + [40]  # 10 blocks of 4, the last of 1


def encoder(module: nn.Module):
    return closed_form(module=module, sites=["site"], transformer_layers=(), frame_spans=lambda n: spans(n)[1:])


class Busy(nn.Module):
    """Does something for each batch of real clips, and notices if two threads are in it."""

    def __init__(self, happening: Callable[[Tensor], object] = lambda tokens: None) -> None:
        super().__init__()
        self.site, self.happening = nn.Identity(), happening
        self.inside = self.max_inside = 0

    def forward(self, tokens: Tensor) -> Tensor:
        if of_clips(tokens):
            self.inside += 1
            self.max_inside = max(self.max_inside, self.inside)
            self.happening(tokens)
            self.inside -= 1
        return self.site(tokens)


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("decode", "device", "piece"))]


def settled(condition: Callable[[], bool]) -> bool:
    """Whether something comes true within a minute."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


# Queues


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_goes_in_comes_out_in_order_and_the_writer_is_never_further_ahead(depth: int) -> None:
    written = read = farthest = 0

    def produce() -> Iterator[int]:
        nonlocal written
        for i in range(40):
            yield i
            written = i + 1

    with ThreadPoolExecutor(1) as pool, ahead(pool, produce, depth) as queue:
        found = []
        for item in queue:
            time.sleep(0.001 * (item % 3))
            farthest = max(farthest, written - read)
            found.append(item)
            read += 1
    assert found == list(range(40))
    assert farthest <= depth + 1  # those that wait, and the one that is read


def test_the_writers_error_comes_after_the_items_before_it() -> None:
    def produce() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("no more")

    found: list[int] = []
    with ThreadPoolExecutor(1) as pool, ahead(pool, produce, 8) as queue, pytest.raises(OSError, match="no more"):
        found.extend(queue)
    assert found == [1, 2]


def test_a_reader_that_leaves_ends_the_writer_and_its_iterator_is_closed_in_its_thread() -> None:
    closed_by = []

    def produce() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed_by.append(threading.current_thread().name)

    with ThreadPoolExecutor(1, thread_name_prefix="writer") as pool:
        with ahead(pool, produce, 2) as queue:
            assert next(iter(queue)) == 0
        assert closed_by == ["writer_0"]


def test_closing_a_queue_wakes_whoever_waits() -> None:
    full, empty = Queue[int](1), Queue[int](1)
    assert full.put(1)
    with ThreadPoolExecutor(2) as pool:
        writer, reader = pool.submit(full.put, 2), pool.submit(list, empty)
        time.sleep(0.02)
        assert not writer.done()
        assert not reader.done()
        full.close()
        empty.close()
        assert writer.result(60) is False
        with pytest.raises(Stopped, match="stays pending"):
            reader.result(60)


@pytest.mark.parametrize("depth", [1, 3, 16])
def test_results_come_in_the_items_order_and_begin_at_once(depth: int) -> None:
    begun: list[int] = []
    given = 0
    farthest = 0

    def work(i: int) -> int:
        begun.append(i)
        time.sleep(0.002 * (i % 4))
        return i * i

    with ThreadPoolExecutor(3) as pool:
        results = InOrder(pool, work, range(30), lambda: depth)
        assert settled(lambda: len(begun) == depth)
        found = []
        for result in results:
            given += 1
            farthest = max(farthest, len(begun) - given)
            found.append(result)
    assert found == [i * i for i in range(30)]
    assert farthest <= depth


def test_items_that_no_thread_has_begun_are_forgotten_when_closed() -> None:
    begun: list[int] = []
    go = threading.Event()

    def work(i: int) -> None:
        begun.append(i)
        go.wait(60)

    with ThreadPoolExecutor(2) as pool:
        results = InOrder(pool, work, range(30), lambda: 10)
        assert settled(lambda: len(begun) == 2)
        results.close()
        go.set()
    assert begun == [0, 1]


# The worker


def test_a_block_is_written_while_the_next_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing the first block waits until the encoder has seen the second."""
    calls, second = [], threading.Event()

    def happening(tokens: Tensor) -> None:
        calls.append(len(tokens))
        if sum(calls) > 4:
            second.set()

    write, met = write_block, []

    def slowly(url, block, *rest, **more):
        if block.index == 0:
            met.append(second.wait(60))
        write(url, block, *rest, **more)

    monkeypatch.setattr(otoscope.extract.worker, "write_block", slowly)
    module = Busy(happening)
    with bench(tmp_path, encoder(module), LENGTHS) as b:
        assert [future.result().n_ok for future in b.all_at_once(b.blocks)] == [4] * 9 + [1]
        assert met == [True]
        assert module.max_inside == 1
        assert b.committed() == list(range(10))
        assert list(verify(b.url)) == []


@pytest.mark.parametrize("stage", ["decode", "forward", "pack", "write"])
def test_an_error_in_a_stage_ends_its_block_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Block 4 fails; the other nine are committed, before it and beside it, and a second call mends it."""
    broken = [True]
    expected = {"decode": UnreadableAudio, "forward": ValueError, "pack": ValueError, "write": OSError}[stage]
    marked = np.where(np.arange(40) == 7, 1 << 14, 0)  # 0.5

    def happening(tokens: Tensor) -> None:
        if broken[0] and stage == "forward" and (tokens == 0.5).any():
            raise RuntimeError("no such kernel")
        if broken[0] and stage == "pack" and (tokens == 0.5).any():
            tokens[tokens == 0.5] = 1e4

    write, put = write_block, BlockValues.put

    def putting(values, at, digests, reasons, summary):
        if max(mean.max() for mean in summary.means) > 1e3:
            raise ValueError("out of place")
        put(values, at, digests, reasons, summary)

    def failing(url, block, *rest, **more):
        if broken[0] and stage == "write" and block.index == 4:
            raise OSError("disk full")
        write(url, block, *rest, **more)

    monkeypatch.setattr(otoscope.extract.worker, "write_block", failing)
    monkeypatch.setattr(BlockValues, "put", putting)
    before = ours()
    with bench(tmp_path, encoder(Busy(happening)), LENGTHS) as b:
        audio = tmp_path / "audio/018.wav"
        write_wav_file(audio, marked, RATE)
        data = audio.read_bytes()
        if stage == "decode":
            audio.unlink()
        futures = b.all_at_once(b.blocks)
        assert isinstance(futures[4].exception(), expected)
        assert [i for i, future in enumerate(futures) if future.exception()] == [4]
        assert b.committed() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        broken[0] = False
        audio.write_bytes(data)
        assert b.worker(b.blocks[4]).n_ok == 4
        assert list(verify(b.url)) == []
    assert settled(lambda: ours() == before)


def test_closing_a_worker_ends_the_calls_under_way_and_its_threads(tmp_path: Path) -> None:
    inside, go = threading.Event(), threading.Event()

    def happening(_: Tensor) -> None:
        inside.set()
        go.wait(60)

    before = ours()
    with bench(tmp_path, encoder(Busy(happening)), LENGTHS) as b, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(b.worker, block) for block in b.blocks[:2]]
        assert inside.wait(60)
        b.worker.close()
        go.set()
        for call in calls:
            assert isinstance(call.exception(60), Stopped)
        with pytest.raises(Stopped):
            b.worker(b.blocks[3])
        assert b.committed() == []
    assert settled(lambda: ours() == before)


def test_a_worker_that_nobody_closes_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = ours()

    def use() -> None:
        with bench(tmp_path, encoder(Busy()), LENGTHS[:8]) as b:
            b.worker.close = lambda: None  # type: ignore[method-assign]
            assert b.worker(b.blocks[0]).n_ok == 4

    use()
    assert settled(lambda: ours() == before)


def test_the_seconds_of_each_stage_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 ms for each of two batches; what the device's thread does and what it waits for lie within the whole."""
    write = write_block

    def slowly(*what, **more):
        time.sleep(0.05)
        write(*what, **more)

    monkeypatch.setattr(otoscope.extract.worker, "write_block", slowly)
    with bench(tmp_path, encoder(Busy(lambda _: time.sleep(0.02))), [40] * 40) as b:
        began = time.perf_counter()
        reports = [b.worker(block) for block in b.blocks]
        took = time.perf_counter() - began
    for report in reports:
        assert set(report.seconds) == {*STAGES, "waiting"}
        assert report.seconds["write"] >= 0.05
        assert report.seconds["forward"] >= 0.04
        assert report.seconds["decode"] > 0
        assert report.seconds["copy"] == 0  # nothing is copied where the device is the processor
    device = sum(report.seconds["forward"] + report.seconds["waiting"] for report in reports)
    assert sum(report.seconds["forward"] for report in reports) + 9 * 0.05 <= device <= took
    assert sum(report.seconds["waiting"] for report in reports[1:]) >= 9 * 0.05  # while the block before was written
