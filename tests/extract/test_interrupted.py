"""Full disks, read errors, kill -9, control-C, SIGTERM: what is committed stays, and the same command finishes it."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otoscope.extract.audio import audio_root
from otoscope.extract.audio import decoding as audio
from otoscope.extract.capture import capture
from otoscope.store.status import task_status
from otoscope.store.verify import verify

from ..support import closed_form, faulty_encoder
from ..support.amounts import some
from ..support.commands import command, otoscope
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import damage, tree_of
from ..support.wav_corpora import write_corpus

EXTRACT = (
    "--encoder",
    f"module:{closed_form.__file__}:closed_form",
    "--task",
    "t",
    "--threads",
    1,
    "--block",
    2,
    "--batch",
    3,
)


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def corpus_of_blocks(folder: Path) -> Path:
    """20 blocks of 2 clips and one of 1."""
    return write_corpus(folder, [10 * (2 + i % 5) for i in range(41)])[0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = otoscope("extract", folder / "s", "--corpus", corpus_of_blocks(folder), *EXTRACT)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 's'} task t: 41 clips, 41 ok, 0 failed\n"
    return tree_of(folder / "s")


@pytest.mark.slow
def test_a_full_disk_leaves_what_is_committed(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    """No file may be larger than 100 bytes: the shards of the means are, the status is not."""
    manifest, url = corpus_of_blocks(tmp_path), tmp_path / "s"
    encoder = f"module:{closed_form.__file__}:closed_form"
    with pytest.raises(KeyboardInterrupt):
        capture(encoder, str(manifest), str(url), task="t", threads=1, block=2, batch=3, executor=After(6, interrupt))
    before = tree_of(url)
    full = otoscope("extract", url, "--corpus", manifest, *EXTRACT, preexec_fn=limited)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {url} task t: block 6 (clips 12 to 13) could not be written (")
    assert "expected a writable store with free space" in last
    assert "run the same command again" in last
    after = tree_of(url)
    changed = {name for name in after if before.get(name) != after[name]}
    assert not any(name.startswith("t/status") for name in changed)
    assert len(task_status(str(url), "t").blocks()) == 6
    assert damage(str(url)) == []
    assert otoscope("extract", url, "--corpus", manifest, *EXTRACT).returncode == 0
    assert tree_of(url) == uninterrupted


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    manifest, url = corpus_of_blocks(tmp_path), tmp_path / "s"
    full = otoscope("extract", url, "--corpus", manifest, *EXTRACT, preexec_fn=limited)
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].startswith(f"Error: {url} could not be written (")
    assert "Traceback" not in full.stderr
    again = otoscope("extract", url, "--corpus", manifest, *EXTRACT)
    assert again.returncode == 0, again.stderr
    assert tree_of(url) == uninterrupted


def started(url: Path, manifest: Path) -> "subprocess.Popen[str]":
    """The real command, from the moment when its store begins to exist."""
    process = subprocess.Popen(
        command("extract", url, "--corpus", manifest, *EXTRACT),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not (url / "zarr.json").exists() and process.poll() is None:
        time.sleep(0.002)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, some(3, of=9)))])
def test_killed_at_any_moment_the_same_command_finishes(
    tmp_path: Path, uninterrupted: dict[str, bytes], seed: int
) -> None:
    manifest, url = corpus_of_blocks(tmp_path), tmp_path / "s"
    process = started(url, manifest)
    time.sleep(float(np.random.default_rng(seed).uniform(0.0, 0.7)))
    process.kill()
    process.communicate()
    assert damage(str(url)) == []
    again = otoscope("extract", url, "--corpus", manifest, *EXTRACT)
    assert again.returncode == 0, again.stderr
    assert tree_of(url) == uninterrupted
    assert list(verify(str(url))) == []


def test_control_c_says_how_to_go_on(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    manifest, url = corpus_of_blocks(tmp_path), tmp_path / "s"
    process = started(url, manifest)
    while not (url / "t/status/c/2").exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(
        "Error: interrupted; whatever is committed is kept: run the same command again"
    )
    assert otoscope("extract", url, "--corpus", manifest, *EXTRACT).returncode == 0
    assert tree_of(url) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("after", ["begun", pytest.param("two blocks", marks=pytest.mark.slow)])
def test_told_to_stop_it_ends_after_the_batch_under_way_and_goes_on_from_there(tmp_path: Path, after: str) -> None:
    """SIGTERM, as a scheduler sends it that takes the machine away; batches take half a second, a block one."""
    shutil.copy(str(closed_form.__file__), tmp_path / "closed_form.py")
    shutil.copy(str(faulty_encoder.__file__), tmp_path / "faulty_encoder.py")
    seconds, batches = tmp_path / "seconds", tmp_path / "batches.log"
    seconds.write_text("0")
    manifest, _ = write_corpus(tmp_path, [10 * (2 + i % 5) for i in range(41)])
    encoder = f"module:{tmp_path / 'faulty_encoder.py'}:slow"
    options = ("--encoder", encoder, "--task", "t", "--threads", 1, "--block", 4, "--batch", 2, "--unit-sec", 0.05)
    given: dict[str, Any] = {"task": "t", "threads": 1, "block": 4, "batch": 2, "unit_sec": 0.05}
    capture(encoder, str(manifest), str(tmp_path / "whole"), **given)
    batches.unlink()
    seconds.write_text("0.5")
    url = tmp_path / "s"
    process = subprocess.Popen(
        command("extract", url, "--corpus", manifest, "--report", tmp_path / "report.json", *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    sign = batches if after == "begun" else url / "t/status/c/1"
    while not sign.exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("Error: interrupted; whatever is committed is kept: run the same command")
    assert damage(str(url)) == [] if url.exists() else True
    assert len(batches.read_text().splitlines()) < 21  # of all
    seconds.write_text("0")
    capture(encoder, str(manifest), str(url), **given)
    assert tree_of(url) == tree_of(tmp_path / "whole")
    assert list(verify(str(url))) == []


class Shaky(audio_root.Folder):
    """A folder of which one file cannot be read so many times."""

    failures: dict[str, int] = {}  # noqa: RUF012

    def read(self, path: str, max_bytes: int | None = None) -> bytes:
        if self.failures.get(path, 0) > 0:
            self.failures[path] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return super().read(path, max_bytes)


def extract_shakily(folder: Path, failures: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("otoscope.extract.audio.manifest.Folder", Shaky)
    monkeypatch.setattr(audio_root, "Folder", Shaky)
    monkeypatch.setattr(Shaky, "failures", failures)
    options: dict[str, Any] = {"task": "t", "threads": 1, "block": 2, "batch": 3}
    encoder = f"module:{closed_form.__file__}:closed_form"
    capture(encoder, str(folder / "corpus.csv"), str(folder / "s"), **options)


def test_a_read_error_that_passes_changes_nothing(
    tmp_path: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_of_blocks(tmp_path)
    failures = {"audio/009.wav": 2, "audio/010.wav": 1, "audio/040.wav": 2}
    extract_shakily(tmp_path, failures, monkeypatch)
    assert failures == dict.fromkeys(failures, 0)
    assert tree_of(tmp_path / "s") == uninterrupted


def test_a_read_error_that_lasts_leaves_its_blocks_pending_and_the_same_call_goes_on(
    tmp_path: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_of_blocks(tmp_path)
    url, failures = tmp_path / "s", {"audio/009.wav": 999, "audio/040.wav": 999}
    with pytest.raises(
        OSError,
        match=r"2 of 21 blocks are still pending because audio .*009.wav could not be read in 3 attempts",
    ) as caught:
        extract_shakily(tmp_path, failures, monkeypatch)
    assert "\n" not in str(caught.value)
    done = [block.index for block in task_status(str(url), "t").blocks()]
    assert done == [i for i in range(21) if i not in (4, 20)]
    assert list(verify(str(url))) == []
    extract_shakily(tmp_path, {}, monkeypatch)
    assert tree_of(url) == uninterrupted
