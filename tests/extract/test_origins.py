"""What may be extracted into one task: equal identities, whatever the source's comments and the model of the device."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otoscope
from otoscope.extract import plan, preflight, worker
from otoscope.extract.capture import capture
from otoscope.extract.models.registry import load_encoder
from otoscope.store.changes.staged import Origin
from otoscope.store.status import block_versions, task_status
from otoscope.store.verify import verify

from ..support import closed_form
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_corpus

LOADED = "from pathlib import Path\nPath(__file__).with_name('loaded').touch()\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's file of a model, which leaves a mark where it is run."""
    file = tmp_path / "mine.py"
    file.write_text(Path(str(closed_form.__file__)).read_text() + LOADED)
    return file


def run(tmp_path: Path, file: Path, **options: Any) -> int:
    load_encoder.cache_clear()
    given = {"task": "t", "threads": 1, "block": 4, "batch": 3, **options}
    return capture(f"module:{file}:closed_form", str(tmp_path / "corpus.csv"), str(tmp_path / "s"), **given).n_ok


def test_an_equal_source_passes_without_being_run_and_another_is_compared(tmp_path: Path, own: Path) -> None:
    write_corpus(tmp_path, [50] * 9)
    assert run(tmp_path, own) == 9
    before, mark = tree_of(tmp_path / "s"), own.with_name("loaded")
    mark.unlink()
    assert run(tmp_path, own) == 9
    assert not mark.exists()
    text = own.read_text()
    own.write_text(text + "# a thought\n")
    assert run(tmp_path, own) == 9
    assert mark.exists()
    assert tree_of(tmp_path / "s") == before
    own.write_text(text.replace("return tokens.amax", "return 1.01 * tokens.amax"))
    assert own.read_text() != text
    with pytest.raises(ValueError, match="the embedding of a fixed sound differs by"):
        run(tmp_path, own)


def test_a_changed_comment_does_not_hinder_resuming_and_a_changed_model_does(tmp_path: Path, own: Path) -> None:
    write_corpus(tmp_path, [50] * 9)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, own, executor=After(1, interrupt))
    own.write_text(own.read_text() + "# a thought\n")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, own, executor=After(1, interrupt))
    own.write_text(own.read_text().replace("default_rng(seed)", "default_rng(seed + 1)"))
    with pytest.raises(ValueError, match=r"another identity \(weights: "):
        run(tmp_path, own)
    assert len(task_status(str(tmp_path / "s"), "t").blocks()) == 2


def test_a_model_that_changed_within_is_refused_though_its_embedding_did_not(tmp_path: Path, own: Path) -> None:
    write_corpus(tmp_path, [50] * 9)
    run(tmp_path, own)
    own.write_text(own.read_text().replace("return 2 * tokens", "return 3 * tokens"))
    with pytest.raises(ValueError, match=r"site layers.1.neurons of a fixed sound differs by"):
        run(tmp_path, own)


def on(monkeypatch: pytest.MonkeyPatch, gpu: str) -> None:
    """Let the device be a GPU of this name."""

    def origin(*given: Any) -> Origin:
        found = plan.origin_of(*given)
        return replace(found, identity=replace(found.identity, device="cuda"))

    for module in (worker, preflight):
        monkeypatch.setattr(module, "origin_of", origin)
        monkeypatch.setattr(module, "hardware_of", lambda _: f"{gpu}, frames by torch")


def test_blocks_of_two_models_of_gpu_meet_in_one_task(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path, [50] * 9)
    url = str(tmp_path / "s")
    with monkeypatch.context() as patch:
        on(patch, "NVIDIA on A100")
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, own, executor=After(1, interrupt))
    with monkeypatch.context() as patch:
        on(patch, "NVIDIA H100")
        with pytest.raises(ValueError, match=r"a worker has NVIDIA H100, .* come from NVIDIA on A100, .*--same-device"):
            run(tmp_path, own, same_device=True)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, own, executor=After(1, interrupt))
        with pytest.raises(ValueError, match="has blocks from NVIDIA H100, frames by torch and NVIDIA on A100"):
            run(tmp_path, own, same_device=True)
        assert run(tmp_path, own) == 9
    assert {version.partition(" on ")[2]: n for version, n in block_versions(url, "t").items()} == {
        "NVIDIA on A100, frames by torch": 1, "NVIDIA H100, frames by torch": 2
    }  # fmt: skip
    assert list(verify(url)) == []
    write_corpus(tmp_path, [50] * 12)
    with pytest.raises(ValueError, match=r'device: "cpu", not "cuda"'):
        run(tmp_path, own)


def test_prompts_are_part_of_the_plan(tmp_path: Path, own: Path) -> None:
    labels = {"kind": list("abcabcabc")}
    asked = [f"What is this, {i}?" if i else "" for i in range(9)]
    write_corpus(tmp_path, [50] * 9, columns=labels)
    run(tmp_path, own, task="silent")
    write_corpus(tmp_path, [50] * 9, columns={**labels, "prompt": asked})
    run(tmp_path, own)
    tasks = otoscope.open(str(tmp_path / "s"))
    assert tasks["t"]["prompt"].values.tolist() == asked
    assert "prompt" not in tasks["silent"].ds
    assert "prompt" not in tasks["t"].ds.otoscope.labels
    with pytest.raises(ValueError, match="with the same prompts"):
        run(tmp_path, own, task="silent")
    write_corpus(tmp_path, [50] * 9, columns={**labels, "prompt": asked[::-1]})
    with pytest.raises(ValueError, match="with the same prompts"):
        run(tmp_path, own)
    write_corpus(tmp_path, [50] * 12, columns={"kind": list("abc" * 4), "prompt": [*asked, "", "x", "y"]})
    assert run(tmp_path, own) == 12
    assert otoscope.open(str(tmp_path / "s"))["t"]["prompt"].values.tolist() == [*asked, "", "x", "y"]
    assert list(verify(str(tmp_path / "s"))) == []


def test_the_last_frame_alone_may_count(tmp_path: Path, own: Path) -> None:
    """Of 30, 57 and 20 samples in frames of 10: one frame of each."""
    write_corpus(tmp_path, [30, 57, 20])
    run(tmp_path, own, frames="last", mean_dtype="float32")
    ds = otoscope.open(str(tmp_path / "s"))["t"].ds
    assert ds["frame_count"].values.tolist() == [1, 1, 1]
    assert set(np.unique(ds["positive_frames"].values)) == {0, 1}
    np.testing.assert_array_equal(ds["positive_frames"].values == 1, ds["mean"].values > 0)
    with pytest.raises(ValueError, match='frames: "audio", not "last"'):
        run(tmp_path, own, frames="audio")


def test_tasks_of_two_encoders_lie_in_one_store(tmp_path: Path, own: Path) -> None:
    write_corpus(tmp_path, [50] * 9)
    run(tmp_path, own)
    first = tree_of(tmp_path / "s" / "t")
    shutil.copy(own, tmp_path / "other.py")
    other = tmp_path / "other.py"
    other.write_text(other.read_text().replace("default_rng(seed)", "default_rng(seed + 1)"))
    run(tmp_path, other, task="u")
    assert tree_of(tmp_path / "s" / "t") == first
    assert list(verify(str(tmp_path / "s"))) == []
