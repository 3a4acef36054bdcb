"""What may be extracted into one task: equal identities, whatever the source's comments and the model of the device."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import otoscope
from otoscope.extract import plan, preflight, worker
from otoscope.extract.capture import capture
from otoscope.extract.models import registry
from otoscope.store.changes.staged import Origin
from otoscope.store.status import block_versions, task_status
from otoscope.store.verify import verify

from ..support import closed_form
from ..support.interrupted_executor import After, interrupt
from ..support.m2d_in_numpy import encoder_state
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
    given = {"task": "t", "threads": 1, "block": 4, "batch": 3, **options}
    return capture(f"module:{file}:closed_form", str(tmp_path / "corpus.csv"), str(tmp_path / "s"), **given).n_ok


def test_an_equal_source_passes_without_being_run_and_another_is_compared(tmp_path: Path, own: Path) -> None:
    write_corpus(tmp_path, [50] * 9)
    assert run(tmp_path, own) == 9
    before, mark = tree_of(tmp_path / "s"), own.with_name("loaded")
    mark.unlink()
    registry._loaded.cache_clear()  # as in another process
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

    def origin(*given: Any, **more: Any) -> Origin:
        found = plan.origin_of(*given, **more)
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("np.arange(n_samples // HOP) * HOP / RATE", "np.arange(n_samples // HOP) * HOP / RATE + 0.004", "frame_times"),
        ('"transformer_layers": ["layers.*"]', '"transformer_layers": ["layers.1", "layers.*.neurons"][:1]', "hidden"),
        ('"min_samples": HOP', '"min_samples": 2 * HOP', r"front_end.min_samples: 20, not 10"),
        ('"sample_rate": RATE', '"sample_rate": 2 * RATE', "front_end.sample_rate: 2000, not 1000"),
        ('"embed": largest', '"embed": lambda tokens: tokens.mean(dim=1)', "the embedding of a fixed sound differs"),
    ],
)
def test_another_option_of_the_encoder_is_refused_though_all_clips_are_done(
    tmp_path: Path, own: Path, old: str, new: str, message: str
) -> None:
    write_corpus(tmp_path, [50] * 9)
    assert run(tmp_path, own, keep=("mean", "hidden")) == 9
    before, text = tree_of(tmp_path / "s"), own.read_text()
    assert old in text
    own.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        run(tmp_path, own)
    own.write_text(text + "# a thought\n")
    assert run(tmp_path, own) == 9
    assert tree_of(tmp_path / "s") == before


def test_other_layers_of_as_many_hidden_states_are_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [50] * 5)
    manifest, url = str(tmp_path / "corpus.csv"), str(tmp_path / "s")
    for layers, refused in ((["layers.0"], False), (["layers.1"], True), (["layers.0"], False)):
        encoder = closed_form.closed_form(transformer_layers=layers)
        if refused:
            with pytest.raises(ValueError, match=r"front_end\.hidden_states: "):
                capture(encoder, manifest, url, task="t", threads=1, keep=("mean", "hidden"))
        else:
            assert capture(encoder, manifest, url, task="t", threads=1, keep=("mean", "hidden")).n_ok == 5


def test_another_unit_sec_in_the_manifest_is_refused_though_all_clips_are_done(tmp_path: Path, own: Path) -> None:
    columns = {"kind": list("abcabcabc")}
    write_corpus(tmp_path, [50] * 9, columns=columns)
    run(tmp_path, own, task="native")
    write_corpus(tmp_path, [50] * 9, columns={**columns, "unit_sec": ["0.03"] * 9})
    run(tmp_path, own)
    with pytest.raises(
        ValueError, match=r"manifest's unit_sec is 0\.03, .* extracted with native; .*--unit-sec native"
    ):
        run(tmp_path, own, task="native")
    write_corpus(tmp_path, [50] * 9, columns={**columns, "unit_sec": ["0.04"] * 9})
    with pytest.raises(ValueError, match=r"manifest's unit_sec is 0\.04, .* extracted with 0\.03; .*--unit-sec 0\.03"):
        run(tmp_path, own)
    assert run(tmp_path, own, unit_sec=0.03) == run(tmp_path, own, task="native", unit_sec="native") == 9
    write_corpus(tmp_path, [50] * 9, columns=columns)  # states none: that of the store
    assert run(tmp_path, own) == 9


def test_other_weights_at_the_same_path_are_refused_though_all_clips_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path, [3000] * 4, rate=16_000)
    folder = tmp_path / "m2d_vit_tiny-80x112p16x16-230101"
    folder.mkdir()
    state = encoder_state(depth=1, width=48, hidden=64, n_patches=35, patch=(16, 16))

    def again() -> int:
        given = {"task": "t", "threads": 1}
        return capture(f"m2d:{folder}", str(tmp_path / "corpus.csv"), str(tmp_path / "s"), **given).n_ok

    torch.save(state, folder / "checkpoint-1.pth")
    assert again() == 4
    with monkeypatch.context() as patch:  # equal files: not loaded
        patch.setattr("otoscope.extract.plan.load_encoder", None)
        assert again() == 4
    (folder / "checkpoint-1.pth").unlink()
    save_file(state, folder / "model.safetensors")  # the same in another file
    assert again() == 4
    save_file({**state, "norm.bias": state["norm.bias"] + 1}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"another identity \(weights: "):
        again()


def test_a_package_s_other_files_are_part_of_a_factory_s_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ears"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "factory.py").write_text("from .net import build\n")
    (package / "net.py").write_text("build = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    sources = [registry.source_of("module:ears.factory:build")]
    (package / "net.py").write_text("build = 2\n")
    sources.append(registry.source_of("module:ears.factory:build"))
    (package / "inner").mkdir()
    (package / "inner/more.py").write_text("")
    sources.append(registry.source_of("module:ears.factory:build"))
    assert len(set(sources)) == 3
