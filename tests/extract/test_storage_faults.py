"""Whole runs of two workers in processes of their own, whose disk or object store fails them.

Law: what fails for a moment is not noticed; what lasts leaves its blocks pending and is reported in one line; the same
command then makes the store of an undisturbed serial run, byte for byte.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest

from otoscope.store.location import connect
from otoscope.store.status import task_status
from otoscope.store.verify import verify

from ..support.marking_workers import wait_for
from ..support.ray_cluster import Job, Machines, end_commands, job, machines, uninterrupted
from ..support.s3_server import BUCKET, ObjectServer
from ..support.stored_files import damage, tree_of

pytestmark = pytest.mark.slow
N_CLIPS = 47  # eleven blocks of four and one of three
PASSING, LASTING = {"009": 2, "020": 1}, {"030": 999, "046": 999}  # clips of blocks 2, 5, 7 and 11


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, s3_server: ObjectServer) -> Iterator[Machines]:
    """Two nodes of one CPU, which the object store's address and key have reached in their environment."""
    with machines(tmp_path_factory.mktemp("machines"), 2, cpus=1, variables=s3_server.environment) as built:
        yield built


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    yield
    end_commands()


def refused(work: Job, nodes: Machines, *more: object) -> str:
    """Run the command to an end that it explains in one line; its last words."""
    process = work.start(nodes, *more)
    process.communicate(timeout=600)
    assert process.returncode == 2, work.errors()
    assert "Traceback" not in work.errors()
    return work.errors().splitlines()[-1]


def in_bucket(work: Job) -> Job:
    """The same, its store in a bucket."""
    work.store = f"s3://{BUCKET}/{work.folder.parent.name}/s"
    return work


def blocks_of(url: object) -> list[int]:
    return [block.index for block in task_status(str(url), "t").blocks()]


def test_a_disk_that_is_full_in_the_middle_of_a_block(nodes: Machines, tmp_path: Path) -> None:
    """From some moment on no file may grow beyond 100 bytes: means are larger, the status of a block is not."""
    work = job(tmp_path / "job", 95, seconds=0.5)
    process = work.start(nodes)
    wait_for(lambda: len(work.busy()) == 2)
    (work.folder / "room").write_text("100")
    process.communicate(timeout=600)
    assert process.returncode == 2, work.errors()
    assert "Traceback" not in work.errors()
    last = work.errors().splitlines()[-1]
    assert "could not be written (" in last
    assert "File too large" in last
    assert "expected a writable store with free space" in last
    assert len(work.workers()) == 2
    done = blocks_of(work.url)
    assert 2 <= len(done) < 24
    assert len(list((work.url / "t/active_bits/c/0").iterdir())) > len(done)  # of blocks that are not there
    assert damage(str(work.url)) == []
    (work.folder / "room").unlink()
    work.take(0.0)
    work.run(nodes)
    assert tree_of(work.url) == uninterrupted(tmp_path / "twin", work)


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_audio_that_cannot_be_read(
    nodes: Machines, tmp_path: Path, s3: ObjectServer, short_timeouts: None, where: str
) -> None:
    """Two files for a moment, two for as long as the first run lasts."""
    work = job(tmp_path / "job", N_CLIPS, seconds=0.5)
    (work.folder / "short_timeouts").touch()
    more: tuple[object, ...] = ()
    failing = PASSING | LASTING
    if where == "disk":
        (work.folder / "unreadable").mkdir()
        for name, n in failing.items():
            (work.folder / f"unreadable/{name}.wav").write_text(str(n))
    else:
        root = f"s3://{BUCKET}/{tmp_path.name}/audio-root"
        for path in (work.folder / "audio").iterdir():
            obstore.put(connect(root), f"audio/{path.name}", path.read_bytes())
        more = ("--audio-root", root)
        s3.fault = failing_reads(failing)
    errors = refused(work, nodes, *more)
    assert "2 of 12 blocks are still pending because audio could not be read" in errors
    assert blocks_of(work.url) == [i for i in range(12) if i not in (7, 11)]
    assert len(work.workers()) == 2
    assert list(verify(str(work.url))) == []
    if where == "disk":
        left = {name: int((work.folder / f"unreadable/{name}.wav").read_text()) for name in failing}
        for name in LASTING:
            (work.folder / f"unreadable/{name}.wav").write_text("0")
    else:
        left, s3.fault = failing, None
    assert {name: left[name] for name in PASSING} == dict.fromkeys(PASSING, 0)
    assert all(left[name] < LASTING[name] for name in LASTING)
    work.run(nodes, *more)
    assert tree_of(work.url) == uninterrupted(tmp_path / "twin", work)


def failing_reads(times: dict[str, int]) -> Callable[[str, str], int | None]:
    """Answer the next so many requests for a file with an error; counts down."""

    def fault(method: str, key: str) -> int | None:
        name = Path(key).stem
        if method != "GET" or not key.endswith(".wav") or not times.get(name):
            return None
        times[name] -= 1
        return 503

    return fault


def test_an_object_store_that_answers_late_fails_for_a_moment_and_refuses_one_object(
    nodes: Machines, tmp_path: Path, s3: ObjectServer
) -> None:
    """The object that it refuses says that a block is done, whose other objects are there."""
    work = in_bucket(job(tmp_path / "job", 95, seconds=0.3))
    (work.folder / "short_timeouts").touch()
    slow = {("PUT", "t/mean/c/0/3/0"), ("PUT", "t/status/c/8"), ("GET", "t/zarr.json")}
    failing = {("PUT", f"t/{name}") for name in ("embedding/c/5/0", "digest/c/5/0", "status/c/5")}
    seen: list[tuple[str, str]] = []

    def fault(method: str, key: str) -> int | float | None:
        if method == "PUT" and key.endswith("t/status/c/20"):
            return 503
        for faults, what in ((slow, 2.5), (failing, 503)):
            for found in [f for f in faults if f[0] == method and key.endswith(f[1]) and work.batches()]:
                faults.discard(found)
                seen.append(found)
                return what
        return None

    s3.fault = fault
    errors = refused(work, nodes)
    assert len(seen) == 6, (slow, failing)
    assert f"block 20 (clips 80 to 83) could not be written (s3://{BUCKET}/" in errors
    assert "503 Service Unavailable" in errors
    assert len(work.workers()) == 2
    there = blocks_of(work.store)
    assert {3, 5, 8} <= {*there}
    assert 20 not in there
    assert damage(work.store) == []
    s3.fault = None
    work.run(nodes)
    assert list(verify(work.store)) == []
    assert s3.objects(work.store.removeprefix(f"s3://{BUCKET}/")) == uninterrupted(tmp_path / "twin", work)


def test_workers_and_nodes_that_die_while_they_write_to_an_object_store(
    nodes: Machines, tmp_path: Path, s3: ObjectServer
) -> None:
    work = in_bucket(job(tmp_path / "job", 95, seconds=0.5))
    process = work.start(nodes)
    wait_for(lambda: len(work.busy()) == 2)
    nodes.worker_hosts()[0].kill()
    wait_for(lambda: len(work.busy()) == 3 or process.poll() is not None)
    nodes.strike(nodes.nodes[0])
    nodes.add(cpus=1)
    work.take(0.1)
    process.communicate(timeout=600)
    assert process.returncode == 0, work.errors()
    assert len(work.workers()) >= 2
    assert list(verify(work.store)) == []
    assert s3.objects(work.store.removeprefix(f"s3://{BUCKET}/")) == uninterrupted(tmp_path / "twin", work)
