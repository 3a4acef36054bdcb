"""Laws of stores in a bucket: the same objects as files on a disk, few requests, failures that pass or are reported."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import obstore
import pytest
import xarray as xr
from obstore.store import S3Store
from zarr.storage import ObjectStore

import otoscope
from otoscope.store import location
from otoscope.store.changes.tasks import add_labels, create
from otoscope.store.group import nothing_at, open_root
from otoscope.store.location import Unreachable, connect
from otoscope.store.status import task_status
from otoscope.store.verify import verify
from otoscope.store.writer import pending_blocks, reset_block, write_block

from ..support.amounts import some
from ..support.commands import call
from ..support.known_store import Known
from ..support.s3_server import BUCKET, SECRET, ObjectServer
from ..support.stored_files import damage, files, stored

PER_BLOCK = {"GET": 2, "PUT": 8 + 3}  # the task's document twice; eight arrays, then digest, version and status


@pytest.fixture
def bucket_url(s3: ObjectServer, tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}/store.zarr"


def write(url: str, known: Known, index: int) -> None:
    block = known.blocks()[index]
    write_block(url, block, known.values(block), known.status[block.clips], "code 1", plan=known.plan)


def test_a_bucket_holds_what_a_disk_does_and_a_block_costs_few_requests(
    known: Known, url: str, bucket_url: str, s3: ObjectServer
) -> None:
    known.begin(bucket_url)
    for index in range(9):
        s3.log.clear()
        write(bucket_url, known, index)
        assert s3.count() == PER_BLOCK
        read = {key.split("/", 2)[2] for method, key in s3.log if method == "GET"}
        assert read == {"t/zarr.json"}  # never an object that is about to be replaced
    assert stored(bucket_url, s3) == files(url)
    s3.log.clear()
    assert pending_blocks(bucket_url, "t") == []
    assert s3.count()["LIST"] == 0
    reset_block(bucket_url, known.blocks()[2])
    assert [block.index for block in pending_blocks(bucket_url, "t")] == [2]


def test_reading_verifying_and_labelling_a_bucket(known: Known, url: str, bucket_url: str, s3: ObjectServer) -> None:
    known.begin(bucket_url)
    known.write(bucket_url)
    add_labels(bucket_url, "t", {"x": ["y"] * len(known.clips)})
    assert list(verify(bucket_url)) == []
    s3.log.clear()
    there, here = otoscope.open(bucket_url)["t"].to_dataset(), otoscope.open(url)["t"].to_dataset()
    assert s3.count() == {"GET": 4 + 9 + 1, "LIST": 1}  # root and task twice, the status of each block, the names
    s3.log.clear()
    assert there.otoscope.categories("x") == ["y"]
    assert s3.count() == {"GET": 1}  # and no other label
    xr.testing.assert_identical(there.drop_vars("x").compute(), here.compute())
    one = xr.open_dataset(bucket_url, engine="otoscope", group="t", chunks={})
    assert SECRET.encode() not in pickle.dumps(one)
    s3.log.clear()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one))["mean"][1, 5], here["mean"][1, 5])
    assert set(s3.count()) == {"GET"}  # no request more than for the values: an absent object shows by itself
    s3.log.clear()
    np.testing.assert_array_equal(one["mean"][0].values, here["mean"][0].values)
    assert s3.count() == {"GET": 9}  # half of each object is worth all of it
    plain = xr.open_zarr(ObjectStore(connect(bucket_url), read_only=True), group="t")
    np.testing.assert_array_equal(plain["mean"].values, known.mean.astype("f2"))


def test_other_urls_go_through_fsspec(known: Known, url: str) -> None:
    other = "memory://otoscope-test/store.zarr"
    known.begin(other)
    known.write(other)
    known.begin(other)
    assert list(verify(other)) == []
    xr.testing.assert_identical(
        otoscope.open(other)["t"].to_dataset().compute(), otoscope.open(url)["t"].to_dataset().compute()
    )
    with pytest.raises(ValueError, match=r"cannot be opened.*expected a local path, s3://"):
        otoscope.open("nowhere://a/b")


def test_file_urls_are_local_paths(known: Known, url: str) -> None:
    assert task_status(f"file://{url}", "t").n_pending == 0
    assert list(verify(f"file://{url}")) == []


def test_a_failure_that_passes_is_not_noticed(known: Known, url: str, bucket_url: str, s3: ObjectServer) -> None:
    seen: dict[tuple[str, str], int] = {}

    def twice(method: str, key: str) -> int | None:
        seen[method, key] = seen.get((method, key), 0) + 1
        return 503 if seen[method, key] <= 2 and ("mean" in key or "status" in key) else None

    s3.fault = twice
    known.begin(bucket_url)
    write(bucket_url, known, 0)
    s3.fault = None
    known.write(bucket_url, known.blocks()[1:])
    assert stored(bucket_url, s3) == files(url)


@pytest.mark.slow
def test_a_slow_answer_is_given_up_and_asked_for_again(
    known: Known, url: str, bucket_url: str, s3: ObjectServer, short_timeouts: None
) -> None:
    known.begin(bucket_url)
    slow = iter([("PUT", "t/mean/c/0/8/0"), ("GET", "t/zarr.json")])
    waiting = [next(slow), next(slow)]

    def hang(method: str, key: str) -> float | None:
        for what in waiting:
            if method == what[0] and key.endswith(what[1]):
                waiting.remove(what)
                return 2.5
        return None

    s3.fault = hang
    for index in range(9):
        write(bucket_url, known, index)
    assert waiting == []
    s3.fault = None
    assert stored(bucket_url, s3) == files(url)


@pytest.mark.slow
@pytest.mark.parametrize(
    "failing", ["t/mean/c/0/4/0", *(pytest.param(f"t/{n}/c/4", marks=pytest.mark.slow) for n in ("digest", "status"))]
)
def test_a_failure_that_lasts_leaves_the_block_pending(
    known: Known, url: str, bucket_url: str, s3: ObjectServer, short_timeouts: None, failing: str
) -> None:
    known.begin(bucket_url)
    s3.fault = lambda method, key: 503 if method == "PUT" and failing in key else None
    for index in range(9):
        if index == 4:
            with pytest.raises(OSError, match=r"t/.*503 Service Unavailable.*\(SlowDown\)") as raised:
                write(bucket_url, known, index)
            assert len(str(raised.value).splitlines()) == 1
        else:
            write(bucket_url, known, index)
    assert [block.index for block in pending_blocks(bucket_url, "t")] == [4]
    assert damage(bucket_url) == []
    s3.fault = None
    write(bucket_url, known, 4)
    assert stored(bucket_url, s3) == files(url)


@pytest.mark.slow
def test_what_cannot_be_reached_is_not_called_damaged(
    known: Known, bucket_url: str, s3: ObjectServer, short_timeouts: None
) -> None:
    known.begin(bucket_url)
    known.write(bucket_url)
    tree = otoscope.open(bucket_url)
    s3.fault = lambda method, key: 503 if "mean/c" in key else None
    with pytest.raises(Unreachable, match="503"):
        list(verify(bucket_url))
    with pytest.raises(Unreachable, match="503"):
        tree["t"]["mean"].compute()
    s3.fault = lambda method, key: 404 if "mean/c/0/3" in key else None
    with pytest.raises(FileNotFoundError, match="t/mean/c/0/3/0 is missing from s3://"):
        tree["t"]["mean"].compute()
    (found,) = verify(bucket_url)
    assert (found.block, found.array) == (known.blocks()[3], "mean")


def test_where_nothing_is_and_where_something_else_is(known: Known, s3: ObjectServer) -> None:
    assert nothing_at(f"s3://{BUCKET}/never/store")
    with pytest.raises(FileNotFoundError, match="no store at s3://"):
        open_root(f"s3://{BUCKET}/never/store")
    obstore.put(connect(f"s3://{BUCKET}/taken"), "x.wav", b"")
    with pytest.raises(ValueError, match="is not an otoscope store"):
        create(f"s3://{BUCKET}/taken")
    with pytest.raises(OSError, match=r"NoSuchBucket"):
        otoscope.open("s3://no-such-bucket/store")


def test_no_secret_in_store_messages_or_pickles(
    known: Known, bucket_url: str, s3: ObjectServer, short_timeouts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.begin(bucket_url)
    known.write(bucket_url)
    assert not any(SECRET.encode() in data for data in stored(bucket_url, s3).values())
    for wrong in (f"s3://me:{SECRET}@{BUCKET}/x", f"s3://{BUCKET}/x?sig={SECRET}", f"https://127.0.0.1/x#{SECRET}"):
        result = call("status", wrong)
        assert result.exit_code == 2
        assert "expected a URL without" in result.stderr
        assert SECRET not in result.output + result.stderr
    s3.fault = lambda method, key: 403
    result = call("verify", bucket_url)
    assert result.exit_code == 2
    assert "see that the credentials in the environment permit it" in result.stderr
    assert SECRET not in result.output + result.stderr
    # A proxy's password in the endpoint, and a server that repeats the secret: neither is passed on.
    s3.fault = None
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{SECRET}@127.0.0.1:1/{SECRET}")
    result = call("verify", bucket_url)
    assert result.exit_code == 2
    assert SECRET not in result.output + result.stderr


def test_plain_http_is_used_only_when_allowed(s3: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ValueError, match="set AWS_ALLOW_HTTP=true to allow it"):
        otoscope.open(f"s3://{BUCKET}/x")


def test_without_the_extra_the_error_names_it(s3: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    location._connect.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[s3\]'"):
        otoscope.open(f"s3://{BUCKET}/x")


@pytest.mark.slow
def test_large_objects_go_in_parts_and_appear_whole(
    known: Known, bucket_url: str, s3: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    big = known.head(1)
    big = replace(big, identity=replace(big.identity, embedding=2**20 + 5))
    big.begin(bucket_url)
    block = big.blocks()[0]
    values = {**big.values(block), "embedding": np.arange(2**20 + 5, dtype="f4")[None] + 1}
    write_block(bucket_url, block, values, big.status[:1], "v", plan=big.plan)
    assert s3.count()["POST"] == 2
    assert list(verify(bucket_url)) == []
    np.testing.assert_array_equal(otoscope.open(bucket_url)["t"]["embedding"], values["embedding"])


KILLED = """
import sys
from tests.support.known_store import make_known
from otoscope.store.writer import pending_blocks
known = make_known()
known.begin(sys.argv[1])
print("begun", flush=True)
known.write(sys.argv[1], pending_blocks(sys.argv[1], "t"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(some(2, of=6)))
def test_killed_at_any_instant_a_rerun_finishes_the_rest(
    known: Known, url: str, bucket_url: str, s3: ObjectServer, seed: int
) -> None:
    root, chance = Path(__file__).parents[2], np.random.default_rng(seed)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", KILLED, bucket_url], stdout=subprocess.PIPE, cwd=root)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=float(chance.uniform(0.05, 0.8)))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert damage(bucket_url) == []
    known.begin(bucket_url)
    s3.log.clear()
    rest = pending_blocks(bucket_url, "t")
    known.write(bucket_url, rest)
    again = {key for method, key in s3.log if method == "PUT" and "/status/" in key}
    assert len(again) == len(rest)
    assert stored(bucket_url, s3) == files(url)


def test_a_store_that_is_not_ours_is_left_to_zarr(s3: ObjectServer) -> None:
    store = S3Store(
        BUCKET, prefix="plain", endpoint=s3.environment["AWS_ENDPOINT_URL"], client_options={"allow_http": True}
    )
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(ObjectStore(store), consolidated=False)
    with pytest.raises(ValueError, match="without otoscope's attributes"):
        otoscope.open(f"s3://{BUCKET}/plain")
