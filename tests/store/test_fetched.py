"""What is not local is asked for by many requests at a time, in order, bounded in number and bytes; few in all."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import otoscope
from otoscope.analysis import exemplar_clips
from otoscope.store import fetched
from otoscope.store.fetched import in_order
from otoscope.store.location import Unreachable

from ..support.amounts import quick_sample
from ..support.known_store import make_known
from ..support.s3_server import BUCKET, ObjectServer

BLOCKS, AT_ONCE = 24, 6  # totals are counted in four chains of as many
URL = f"s3://{BUCKET}/many-blocks/known.zarr"


class Gate:
    """Answers no request for values until so many wait at once; what waits alone for long is let in all the same."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.waiting, self.missed = at_once, 0, False
        self.open, self.lock = threading.Event(), threading.Lock()

    def __call__(self, method: str, key: str) -> None:
        if "/c/" in key:
            with self.lock:
                self.waiting += 1
                if self.waiting == self.at_once:
                    self.open.set()
            if not self.open.wait(20):
                self.missed = True
                self.open.set()


@pytest.fixture(scope="module")
def here(s3_server: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A task on the disk; the same is in the bucket."""
    known, url = make_known(32 * BLOCKS), str(tmp_path_factory.mktemp("fetched") / "known.zarr")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        s3_server.fault = None
        for each in (url, URL):
            known.begin(each)
            known.write(each)
    return otoscope.open(url)["t"].to_dataset()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Of Dask, so that what is under way at once is so within one task."""
    with dask.config.set(scheduler="synchronous"):
        yield


ASKED: dict[str, tuple[Callable[[xr.Dataset], Any], int]] = {  # and how often each object is needed
    "counts": (lambda ds: ds.otoscope.probability("digit"), 1),
    "means per category": (lambda ds: ds.otoscope.category_mean("digit"), 1),
    "frames": (lambda ds: ds.otoscope.probability("digit", reading="frame"), 2),  # positive ones, and of how many
    "any": (lambda ds: ds.otoscope.probability("digit", reading="any"), 1),
    "above a number": (lambda ds: ds.otoscope.probability("digit", threshold=0.1), 1),
    "above its own quantile": (lambda ds: ds.otoscope.probability("digit", threshold="q80"), 2),
    "quantiles": (lambda ds: ds.otoscope.neuron_thresholds("digit", threshold="q80"), 1),
    "deviations": (lambda ds: ds.otoscope.neuron_thresholds("digit", threshold="z1"), 1),
    "exemplars of all": (lambda ds: ds.otoscope.exemplars([0, 1], list(range(300)), k=3)["value"], 1),
    "exemplars of one": (lambda ds: ds.otoscope.exemplars(1, 7)["value"], 1),
    "exemplars, lowest": (lambda ds: exemplar_clips(ds["mean"].isel(clip=slice(None, None, -3)), lowest=True), 1),
    "one neuron's means": (lambda ds: ds["mean"].sel(layer=1, neuron=7).variable, 1),
    "one neuron's bits": (lambda ds: ds["active"].sel(layer=1, neuron=7).variable, 1),
}


@pytest.mark.parametrize("asked", quick_sample(ASKED, 4))
def test_many_requests_are_under_way_and_none_is_needless(here: xr.Dataset, s3: ObjectServer, asked: str) -> None:
    ask, times = ASKED[asked]
    there = otoscope.open(URL)["t"].to_dataset()
    there.otoscope.codes("digit")  # the label column is read
    s3.log.clear()
    s3.fault = gate = Gate(AT_ONCE)
    found = ask(there).compute()
    assert not gate.missed
    assert s3.count() == {"GET": times * BLOCKS}
    expected = ask(here).compute()
    np.testing.assert_array_equal(found.to_array(), expected.to_array()) if isinstance(
        found, xr.Dataset
    ) else np.testing.assert_array_equal(found, expected)


def test_of_large_objects_the_parts_that_are_wanted_are(
    here: xr.Dataset, s3: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "SMALL_BYTES", 0)
    there = otoscope.open(URL)["t"].to_dataset()
    one = there["mean"].sel(layer=1, neuron=7).variable
    for times in (2, 1):  # the indexes, which are kept, and the chunks
        s3.log.clear()
        s3.fault = gate = Gate(AT_ONCE)
        np.testing.assert_array_equal(one.compute(), here["mean"].sel(layer=1, neuron=7))
        assert not gate.missed
        assert s3.count() == {"GET": times * BLOCKS}
    s3.fault = None
    few = [3, 200, 299]
    xr.testing.assert_identical(
        there.otoscope.exemplars([1], few).compute(), here.otoscope.exemplars([1], few).compute()
    )


@pytest.mark.parametrize("asked", ["counts", "exemplars of all", "quantiles"])
def test_what_fails_is_said(here: xr.Dataset, s3: ObjectServer, short_timeouts: None, asked: str) -> None:
    ask, _ = ASKED[asked]
    there = otoscope.open(URL)["t"].to_dataset()
    failing: dict[str, int] = {}

    def twice(method: str, key: str) -> int | None:
        failing[key] = failing.get(key, 0) + 1
        return 503 if "/c/0/5/0" in key and failing[key] <= 2 else None

    s3.fault = twice
    np.testing.assert_array_equal(ask(there).compute(), ask(here).compute())  # what passes is not noticed
    s3.fault = lambda method, key: 503 if "/c/0/5/0" in key else None
    with pytest.raises(Unreachable, match="503"):
        ask(there).compute()
    s3.fault = lambda method, key: 404 if "/c/0/5/0" in key else None
    with pytest.raises(FileNotFoundError, match=r"/c/0/5/0 is missing from s3://"):
        ask(there).compute()


def test_order_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of requests that end in another order, each of a few bytes or too many."""
    monkeypatch.setattr(fetched, "MAX_UNDER_WAY", 4)
    monkeypatch.setattr(fetched, "MAX_BYTES", 100)
    sizes = [30, 1, 1, 1, 60, 60, 60, 101, 101, 1, 50, 50, 50] * 3
    lock, held, largest = threading.Lock(), list[int](), list[list[int]]()

    def ask(i: int) -> int:
        with lock:
            held.append(sizes[i])
            largest.append(list(held))
        return i

    found = []
    for i in in_order((size, partial(ask, i)) for i, size in enumerate(sizes)):
        found.append(i)
        with lock:
            held.remove(sizes[i])
    assert found == list(range(len(sizes)))
    assert max(map(len, largest)) <= 4 + 1  # and one that is being used
    assert all(sum(each) <= 100 or len(each) <= 3 for each in largest)


def test_after_an_error_or_an_end_nothing_is_under_way() -> None:
    done, begun, before = threading.Event(), list[int](), {*threading.enumerate()}

    def ask(i: int) -> int:
        begun.append(i)
        if i == 1:
            raise OSError("lost")
        return i

    found = in_order((1, partial(ask, i)) for i in range(10**9))
    assert next(found) == 0
    with pytest.raises(OSError, match="lost"):
        next(found)
    n = len(begun)
    done.wait(0.05)
    assert len(begun) == n
    few = in_order((1, partial(os.urandom, 1)) for _ in range(10**9))
    next(few)
    few.close()
    assert {*threading.enumerate()} <= before
