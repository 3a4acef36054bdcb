"""The same extraction by the serial executor and by actors of Ray: one store, byte for byte."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from otoscope.cluster.ray import RayExecutor
from otoscope.extract.capture import capture
from otoscope.store.verify import verify

from ..support.commands import CLOSED_FORM
from ..support.local_ray import local_ray
from ..support.stored_files import tree_of
from ..support.wav_corpora import LENGTHS, write_corpus

ALL = ("mean", "positive_frames", "embedding", "hidden")


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    with local_ray():
        yield


def test_closed_form_at_native_lengths(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    (tmp_path / "audio/007.wav").write_bytes(b"words")
    for name, executor in (("serial", None), ("ray", RayExecutor())):
        done = capture(
            CLOSED_FORM, str(manifest), str(tmp_path / name), task="t", block=4, batch=3,
            threads=1, keep=ALL, executor=executor, report=tmp_path / f"{name}.json",
        )  # fmt: skip
        assert (done.n_ok, done.n_failed) == (36, 1)
    assert tree_of(tmp_path / "ray") == tree_of(tmp_path / "serial")
    assert list(verify(str(tmp_path / "ray"))) == []
    workers = json.loads((tmp_path / "ray.json").read_text())["workers"]
    assert sum(worker["done"] for worker in workers) == 10 + 1  # the blocks, and a look at the encoder


@pytest.mark.slow
def test_bundled_encoder_with_two_threads_in_16_bits(tmp_path: Path) -> None:
    """Ray gives each actor one thread by its environment; the plan's number is what counts."""
    lengths = np.random.default_rng(0).integers(4000, 16000, 21).tolist()
    manifest, _ = write_corpus(tmp_path, lengths, rate=16000)
    for name, executor in (("serial", None), ("ray", RayExecutor(actors=1))):
        capture(
            "tiny-ssl", str(manifest), str(tmp_path / name), task="t", block=8, batch=4, threads=2, keep=ALL[:3],
            precision="bfloat16", executor=executor,
        )  # fmt: skip
    assert tree_of(tmp_path / "ray") == tree_of(tmp_path / "serial")


def test_a_finished_task_asks_for_no_actor(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:9])
    given = {"task": "t", "block": 4, "batch": 3, "threads": 1}
    encoder, url = CLOSED_FORM, str(tmp_path / "s")
    capture(encoder, str(manifest), url, **given)  # type: ignore[arg-type]
    executor = RayExecutor()
    assert capture(encoder, str(manifest), url, executor=executor, **given).n_ok == 9  # type: ignore[arg-type]
    assert executor.workers() == ()
