"""The pool on real actors of Ray: the same answers as from the serial executor, and death of real processes."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from otoscope.cluster import ray as ray_pool
from otoscope.cluster.executor import Done, Failed, Killed, SerialExecutor
from otoscope.cluster.ray import RayExecutor, _fit

from ..support.local_ray import local_ray
from ..support.marking_workers import Marking, alive, marks, pieces_until, wait_for


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A cluster of one node with room for four actors, and two GPUs by word of mouth."""
    with local_ray(num_cpus=4, num_gpus=2):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_the_same_pieces_and_results_as_from_the_serial_executor(folder: Path) -> None:
    make = Marking(folder=folder, raises=frozenset([5]), seconds=0.01)
    executor = RayExecutor(actors=2)
    both_had_their_part = lambda: sum(worker.done > 5 for worker in executor.workers()) == 2  # noqa: E731
    events = list(executor.run(make, pieces_until(both_had_their_part, 40)))
    serial = list(SerialExecutor().run(make, range(len(events))))
    key = lambda event: event.piece  # noqa: E731
    assert [(e.piece, e.result[0]) for e in sorted(events, key=key) if isinstance(e, Done)] == [
        (e.piece, e.result[0]) for e in serial if isinstance(e, Done)
    ]
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert (failed.piece, type(failed.error), str(failed.error)) == (5, OSError, "piece 5 cannot be read")
    assert "marking_workers.py" in failed.error.__notes__[0]  # where it was raised
    workers = executor.workers()
    assert [worker.phase for worker in workers] == ["ended", "ended"]
    assert sum(worker.done for worker in workers) == len(events) - 1
    assert sum(worker.failed for worker in workers) == 1
    assert both_had_their_part()
    by_name = {worker.name: worker for worker in workers}
    assert all(by_name[event.worker].pid == event.result[1] for event in events if isinstance(event, Done))
    assert set(marks(folder, "closed")) == {worker.pid for worker in workers} | {os.getpid()}


@pytest.mark.slow
def test_two_pieces_are_with_an_actor_at_a_time(folder: Path) -> None:
    events = list(RayExecutor(actors=1).run(Marking(folder=folder, seconds=1.0), range(4)))
    assert len(events) == 4
    begun = sorted(int(path.name.split(".")[3]) for path in folder.glob("begun.*"))
    ended = sorted(int(path.name.split(".")[3]) for path in folder.glob("ended.*"))
    assert all(begun[i + 2] > ended[i] for i in range(2))  # never three
    assert begun[1] < ended[0]  # but two


def test_an_actor_that_is_killed_is_replaced_and_its_pieces_done_by_others(folder: Path) -> None:
    executor, killed = RayExecutor(actors=2), []

    def kill() -> None:
        wait_for(lambda: sum(worker.done > 1 for worker in executor.workers()) == 2)
        victim = executor.workers()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    events = list(executor.run(Marking(folder=folder, seconds=0.05), pieces_until(lambda: killed, 60)))
    thread.join()
    assert sorted(event.piece for event in events if isinstance(event, Done)) == list(range(len(events)))
    lost = [worker for worker in executor.workers() if worker.phase == "lost"]
    assert [worker.pid for worker in lost] == killed
    repeated = sum(marks(folder, "begun").values()) - len(events)
    assert repeated <= lost[0].in_flight <= 2
    assert sum(worker.done for worker in executor.workers()) == len(events)


@pytest.mark.slow
def test_a_process_that_hangs_is_replaced(folder: Path) -> None:
    executor, stopped = RayExecutor(actors=2, stuck_after=10.0), []

    def stop() -> None:
        wait_for(lambda: sum(worker.done > 1 for worker in executor.workers()) == 2)
        stopped.append(executor.workers()[0].pid)
        os.kill(stopped[0], signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    events = list(executor.run(Marking(folder=folder, seconds=0.05), pieces_until(lambda: stopped, 200)))
    thread.join()
    assert sorted(event.piece for event in events if isinstance(event, Done)) == list(range(len(events)))
    assert stopped[0] in [worker.pid for worker in executor.workers() if worker.phase == "lost"]
    wait_for(lambda: not alive(stopped[0]))


def test_a_piece_that_crashes_its_process_is_given_up_and_the_others_go_on(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events = list(RayExecutor(actors=2).run(Marking(folder=folder, crashes=frozenset([4])), range(12)))
    (killed,) = (event for event in events if isinstance(event, Killed))
    assert killed == Killed(piece=4, how="killed its worker 3 times (its process died)")
    assert sorted(event.piece for event in events if isinstance(event, Done)) == [p for p in range(12) if p != 4]
    begun = marks(folder, "begun")
    assert begun.pop(4) == 3
    assert max(begun.values()) <= 2


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, ["0", "1"]), pytest.param(0.5, ["0", "0", "1", "1"], marks=pytest.mark.slow)]
)
def test_actors_are_bound_to_gpus_as_many_as_fit(share: float, expected: list[str]) -> None:
    """Neither more nor fewer actors than that, and each sees the one that is its own."""
    together = 0.4 * len(expected) + 2

    def make() -> Any:
        def work(_: int) -> str:
            time.sleep(0.2)
            return os.environ["CUDA_VISIBLE_DEVICES"]

        return work

    executor = RayExecutor(gpus_per_actor=share)
    seen: dict[str, str] = {}
    began = time.monotonic()
    for event in executor.run(make, iter(range(10**6))):
        assert isinstance(event, Done)
        seen[event.worker] = event.result
        if len(seen) == len(expected) and time.monotonic() - began > together:
            break
    assert sorted(seen.values()) == expected
    assert len([worker for worker in executor.workers() if worker.pid]) == len(expected)


def test_stopping_early_ends_the_actors_in_the_middle_of_their_pieces(folder: Path) -> None:
    executor = RayExecutor(actors=2)
    events = executor.run(Marking(folder=folder, seconds=300.0), range(8))

    def interrupt() -> None:
        wait_for(lambda: len(marks(folder, "begun")) == 4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        next(events)
    thread.join()
    assert all(worker.pid for worker in executor.workers())
    wait_for(lambda: not any(alive(worker.pid) for worker in executor.workers()))
    assert not marks(folder, "ended")


def cannot_start() -> Any:
    raise ValueError("weights of 3 layers; expected 12: choose another file")


@pytest.mark.slow
def test_a_worker_that_cannot_be_made_ends_the_run() -> None:
    with pytest.raises(ValueError, match="weights of 3 layers; expected 12"):
        list(RayExecutor(actors=1).run(cannot_start, range(100)))


def test_what_cannot_be_sent_is_refused() -> None:
    lock: Any = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be sent to where it runs .*expected plain values"):
        list(RayExecutor().run(lambda: lock.acquire, [1]))


def test_room_that_no_node_has_is_an_error_that_says_what_there_is() -> None:
    executor = RayExecutor(actors=2, gpus_per_actor=4, node_timeout=0.5)
    message = r"no node has room for an actor of 1 CPU and 4 GPUs: all of them together have 4 CPUs and 2 GPUs"
    with pytest.raises(OSError, match=message):
        list(executor.run(cannot_start, [1]))


def test_an_address_where_nothing_answers_is_an_error_before_ray_tries() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"nothing answers at 127\.0\.0\.1:.*leave --address out"):
            ray_pool._check_listening(f"127.0.0.1:{free.getsockname()[1]}")


def test_nothing_to_do_asks_for_nothing() -> None:
    executor = RayExecutor()
    assert list(executor.run(cannot_start, [])) == []
    assert executor.workers() == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 0}, "0 actors were asked for; expected at least 1"),
        ({"cpus_per_actor": 0.0}, "expected something of one of them"),
        ({"gpus_per_actor": 1.5}, "expected a fraction of one, or whole ones"),
        ({"stuck_after": 0.0}, "stuck after 0 s; expected more than 0"),
        ({"address": "ray://head:10001"}, "expected HOST:PORT, or auto"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RayExecutor(**options)


@pytest.mark.parametrize(
    ("cpu", "gpu", "expected"),
    [(1, 0, 8), (3, 0, 2), (0.1, 0, 80), (1, 1, 3), (1, 0.5, 6), (1, 0.4, 6), (1, 0.3, 8), (0, 0.3, 9), (1, 2, 1)],
)
def test_how_many_actors_fit_on_a_node_of_8_cpus_and_3_gpus(cpu: float, gpu: float, expected: int) -> None:
    assert _fit({"CPU": cpu, "GPU": gpu}, {"CPU": 8.0, "GPU": 3.0, "memory": 1e9}) == expected


def test_ray_that_was_there_before_is_left_running() -> None:
    with RayExecutor() as executor:
        list(executor.run(lambda: abs, [1]))
    assert ray.is_initialized()
