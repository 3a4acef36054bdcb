"""Finished stores of small corpora, made once."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from .support.finished_store import Finished
    from .support.s3_server import ObjectServer

LONGEST = (
    "tests/extract/test_kills.py", "benchmarks/test_small.py", "tests/extract/test_storage_faults.py",
    "tests/store/test_races.py", "tests/extract/test_faults.py", "tests/cli/test_hostile_stores.py",
    "tests/sae/test_sweep.py", "tests/extract/test_triton_sums.py", "tests/ablate/swap/test_planted.py",
    "tests/analysis/test_abused_tables.py", "tests/cli/test_hostile_files.py", "tests/ablate/test_study_ray.py",
    "tests/serve/test_command.py", "tests/sae/test_document.py", "tests/sae/test_walk.py",
    "tests/ablate/swap/test_walk.py", "benchmarks/test_gpu.py", "tests/ablate/test_abused_effects.py",
)  # fmt: skip
"""Files of slow tests that take minutes: with these first, no worker begins one while the other has nothing left."""

signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, tests would have it ignored
settings.register_profile("steady", deadline=None)  # how busy the machine is says nothing about the code
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.nodeid.partition("::")[0], len(first)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Finished":
    """Task "t" with labels "kind" (3 categories) and "number" (0 to 10); read only."""
    # Imported here, so that tests of other rooms need not wait for torch.
    from otoscope.extract.capture import capture

    from .support.closed_form import closed_form
    from .support.finished_store import Finished
    from .support.wav_corpora import LENGTHS, write_corpus

    folder = tmp_path_factory.mktemp("finished")
    columns = {"kind": ["abc"[i % 3] for i in range(37)], "number": [str(i % 11) for i in range(37)]}
    manifest, sounds = write_corpus(folder, LENGTHS, columns=columns)
    url = str(folder / "finished.zarr")
    keep = ("mean", "positive_frames", "embedding", "hidden")
    capture(closed_form(), str(manifest), url, task="t", block=4, batch=3, threads=1, keep=keep)
    return Finished(url=url, manifest=manifest, sounds=sounds)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 37 clips with labels of every kind."""
    from .support.commands import LABELS
    from .support.wav_corpora import LENGTHS, write_corpus

    return write_corpus(tmp_path_factory.mktemp("corpus"), LENGTHS, columns=LABELS)[0]


@pytest.fixture(scope="session")
def original(corpus: Path) -> str:
    """The finished store of `corpus`, made by the command; not to be changed."""
    from .support.commands import done, extraction

    url = corpus.parent / "store"
    assert done(*extraction(url, corpus)) == f"{url} task t: 37 clips, 37 ok, 0 failed\n"
    return str(url)


@pytest.fixture
def store(original: str, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(original, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[ObjectServer]":
    """A local S3 server, for the whole session; `s3` is how a test uses it."""
    from .support.s3_server import serving

    with serving() as server:
        yield server


@pytest.fixture
def s3(s3_server: "ObjectServer", monkeypatch: pytest.MonkeyPatch) -> "ObjectServer":
    """The server, reachable by the environment, nothing logged and nothing failing yet."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.fault = None
    s3_server.log.clear()
    return s3_server


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries and time limits of a second instead of half a minute."""
    from otoscope.store import location

    monkeypatch.setitem(location.CLIENT_OPTIONS, "read_timeout", "1s")
    monkeypatch.setitem(location.RETRY_CONFIG, "max_retries", 3)
    location._connect.cache_clear()
    yield
    location._connect.cache_clear()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small models are slower with more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
