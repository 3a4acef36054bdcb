"""The whole extraction: resumed, grown, refused, interrupted, killed; what is committed stays, the bytes agree."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from otoscope.cluster.executor import SerialExecutor
from otoscope.extract.audio.changed import changed_audio
from otoscope.extract.capture import capture
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.report import Report
from otoscope.store.reader import open_store
from otoscope.store.status import task_status
from otoscope.store.verify import verify
from otoscope.store.writer import reset_block

from ..support.closed_form import CLS, HOP, RATE, WEIGHTS, ClosedForm, Layer, closed_form
from ..support.commands import CLOSED_FORM
from ..support.finished_store import Finished
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import tree_of
from ..support.wav_corpora import LENGTHS, write_corpus, write_manifest, write_wav_file

ALL = ("mean", "positive_frames", "embedding", "hidden")


def run(manifest: Path, url: Path | str, encoder: Encoder | str | None = None, **options: Any) -> Report:
    given: dict[str, Any] = {"task": "t", "block": 4, "batch": 3, "threads": 1, "keep": ALL, **options}
    return capture(encoder or closed_form(), str(manifest), str(url), **given)


class Shuffled(SerialExecutor):
    """The serial executor in another order."""

    def run(self, make_worker: Any, pieces: Any) -> Any:
        return super().run(make_worker, [pieces[i] for i in np.random.default_rng(0).permutation(len(pieces))])


@pytest.mark.parametrize("done", [0, 1, 6, 9])
def test_an_interrupted_run_is_finished_by_the_same_call(finished: Finished, tmp_path: Path, done: int) -> None:
    url = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        run(finished.manifest, url, executor=After(done, interrupt))
    assert len(task_status(str(url), "t").blocks()) == done
    assert list(verify(str(url))) == []
    report = run(finished.manifest, url)
    assert (report.n_clips, report.n_ok, report.n_extracted) == (37, 37, 37 - 4 * done)
    assert tree_of(url) == tree_of(finished.url)


def test_blocks_in_any_order_and_twice_give_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    url = str(tmp_path / "s")
    run(finished.manifest, url, executor=Shuffled())
    assert tree_of(url) == tree_of(finished.url)
    for block in task_status(url, "t").blocks()[3:6]:
        reset_block(url, block)
    assert run(finished.manifest, url).n_extracted == 12
    assert tree_of(url) == tree_of(finished.url)


def test_a_finished_store_has_nothing_to_do_and_needs_no_audio(finished: Finished, tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:9])
    run(manifest, tmp_path / "s")
    before = tree_of(tmp_path / "s")
    for file in (tmp_path / "audio").iterdir():
        file.unlink()
    report = run(manifest, tmp_path / "s", block=None, batch=None, threads=None, keep=None)  # those of the store
    assert (report.n_extracted, report.n_ok) == (0, 9)
    assert tree_of(tmp_path / "s") == before


@pytest.mark.parametrize("encoder", ["closed form", "tiny-ssl"])
@pytest.mark.parametrize("first", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (12, 30))])
def test_a_grown_store_equals_one_built_at_once(tmp_path: Path, encoder: str, first: int) -> None:
    """Real audio, of which some does not decode; 9 blocks, the last of 1 clip."""
    real = encoder == "tiny-ssl"
    lengths = [16_000 + 800 * (i % 5) for i in range(33)] if real else LENGTHS[:33]
    rate = 16_000 if real else RATE
    labels = [str(11 - i % 12) for i in range(33)]
    manifest, sounds = write_corpus(tmp_path, lengths, rate=rate, columns={"number": labels})
    (tmp_path / "audio/003.wav").write_bytes(b"")
    (tmp_path / "audio/031.wav").write_bytes(b"words")
    paths = [f"audio/{i:03d}.wav" for i in range(len(sounds))]
    write_manifest(tmp_path / "part.csv", paths[:first], {"number": labels[:first]})
    model = closed_form() if not real else encoder
    options = {"max_failures": 1.0, "keep": ("mean",)}
    run(manifest, tmp_path / "whole", model, **options)
    run(tmp_path / "part.csv", tmp_path / "grown", model, **options)
    run(manifest, tmp_path / "grown", model, **options)
    assert tree_of(tmp_path / "grown") == tree_of(tmp_path / "whole")


class InPlace(Layer):
    """The same layer, which doubles its input in place."""

    def forward(self, tokens: Tensor) -> Tensor:
        self.neurons(input=tokens)
        tokens += tokens
        return tokens


class ByName(ClosedForm):
    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.cat([torch.full((len(tokens), 1, HOP), CLS), tokens], dim=1)
        for layer in self.layers:
            hidden = layer(tokens=hidden)
        return tokens


@pytest.mark.parametrize("model", [ClosedForm, ByName])
def test_a_layer_that_adds_to_its_input_in_place_gives_the_same_hidden_states(
    finished: Finished, tmp_path: Path, model: type[ClosedForm]
) -> None:
    module = model()
    module.layers = nn.ModuleList(map(InPlace, WEIGHTS))
    run(finished.manifest, tmp_path / "s", closed_form(module=module))
    found, expected = (open_store(str(url))["t"].to_dataset() for url in (tmp_path / "s", finished.url))
    for name in ("hidden", "mean", "positive_frames", "embedding"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_second_task_leaves_the_first_as_it_is(finished: Finished, tmp_path: Path) -> None:
    url = tmp_path / "s"
    run(finished.manifest, url)
    before = tree_of(url)
    manifest, _ = write_corpus(tmp_path, LENGTHS[:5], seed=1)
    run(manifest, url, task="second", keep=("mean",), unit_sec=0.03)
    after = tree_of(url)
    assert {name for name in before if before[name] != after[name]} == {"zarr.json"}
    assert all(name.startswith("second/") for name in after.keys() - before.keys())
    tree = open_store(str(url))
    assert {name: child.sizes["clip"] for name, child in tree.children.items()} == {"second": 5, "t": 37}
    alone = tmp_path / "alone"
    run(manifest, alone, task="second", keep=("mean",), unit_sec=0.03)
    whole = tree_of(alone)
    assert {k: v for k, v in after.items() if k.startswith("second/")} == {
        k: v for k, v in whole.items() if k.startswith("second/")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": "all"}, r'another identity \(frames: "all", not "audio"\).*choose another task name'),
        ({"block": 5}, r"planned otherwise \(block: 5, not 4\)"),
        ({"batch": 4, "threads": 2}, r"\(batch: 4, not 3; threads: 2, not 1\).*choose another task name"),
        ({"unit_sec": 0.05}, "unit_sec: 0.05, not null"),
        ({"mean_dtype": "float32"}, 'mean_dtype: "float32", not "float16"'),
        ({"keep": ("mean",)}, "variables"),
        ({"keep": ("meen",)}, "no variable meen to keep; expected some of active_bits"),
        ({"max_failures": 2.0}, "max_failures is 2.0; expected a share between 0 and 1"),
        ({"unit_sec": 0.001}, "unit_sec: 0.001, not null"),
        ({"encoder": closed_form(sites=["layers.0.neurons"])}, r"another identity \(sites: "),
        ({"encoder": closed_form(front_end={"gain": 2})}, r"front_end.gain: 2, not null"),
        (
            {"encoder": closed_form(transformer_layers=())},
            "names no transformer layers, so it has no hidden states to keep",
        ),
        ({"task": "a/b"}, "'a/b' cannot name a task"),
    ],
)
def test_other_options_than_those_of_the_store_are_refused(
    finished: Finished, change: dict[str, Any], message: str
) -> None:
    before = tree_of(finished.url)
    with pytest.raises(ValueError, match=message) as caught:
        run(finished.manifest, finished.url, **change)
    assert "\n" not in str(caught.value)
    assert tree_of(finished.url) == before


def test_another_model_of_the_same_shape_is_refused(finished: Finished) -> None:
    encoder = closed_form()
    encoder.module.layers[0].neurons.weight.data[0, 0] += 1  # type: ignore[union-attr, index]
    with pytest.raises(ValueError, match=r"another identity \(weights: "):
        run(finished.manifest, finished.url, encoder)


def test_a_model_that_fails_on_silence_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, [50])
    with pytest.raises(
        ValueError, match=r"closed-form failed on a second of sound \(.*\); expected a module that takes"
    ):
        run(manifest, tmp_path / "s", closed_form(prepare=lambda x: x[:, None, : HOP + 1]))
    assert not (tmp_path / "s").exists()


def test_hidden_states_of_unequal_width_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:5])
    uneven = closed_form(transformer_layers=["layers.*.neurons"])
    with pytest.raises(ValueError, match=r"are 10, 11, 3 wide .*; expected one width: .*leave hidden out of --keep"):
        run(manifest, tmp_path / "s", uneven)
    assert not (tmp_path / "s").exists()
    assert run(manifest, tmp_path / "s", uneven, keep=("mean", "embedding")).n_ok == 5


def test_absent_files_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:12])
    for i in (1, 5, 7, 8):
        (tmp_path / f"audio/{i:03d}.wav").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"4 of 12 audio files are not under .*001.wav.*007.wav, \.\.\.\).*--audio-root"
    ):
        run(manifest, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    report = run(manifest, tmp_path / "s", allow_missing=True, max_failures=0.5)
    assert report.failures == tuple((f"audio/{i:03d}.wav", "no such file") for i in (1, 5, 7, 8))


def test_dry_run_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    with caplog.at_level("INFO"):
        assert run(manifest, tmp_path / "s", dry_run=True).n_ok == 0
    assert not (tmp_path / "s").exists()
    assert "37 clips of native length in 10 blocks of 4; 2 layers, 14 neurons" in caplog.text


def test_a_table_in_memory_is_a_corpus(tmp_path: Path) -> None:
    """Its audio lies in the current folder, or where it is said to; the store is that of the file."""
    manifest, _ = write_corpus(tmp_path, [30] * 9, columns={"letter": list("abcabcabc")})
    run(manifest, tmp_path / "file")
    frame = pd.read_csv(manifest)
    given: dict[str, Any] = {"task": "t", "block": 4, "batch": 3, "threads": 1, "keep": ALL}
    with pytest.raises(FileNotFoundError, match="9 of 9 audio files are not under"):
        capture(closed_form(), frame, str(tmp_path / "lost"), **given)
    capture(closed_form(), frame, str(tmp_path / "table"), audio_root=tmp_path, **given)
    assert tree_of(tmp_path / "table") == tree_of(tmp_path / "file")


def test_too_many_failures_stop_the_run_and_do_not_undo_it(tmp_path: Path) -> None:
    """Also when the same command is run again; with a larger share, or the audio mended, it goes on."""
    manifest, sounds = write_corpus(tmp_path, LENGTHS)
    whole = tmp_path / "whole"
    run(manifest, whole)
    for i in (5, 6, 9, 30):
        (tmp_path / f"audio/{i:03d}.wav").write_bytes(b"words")
    url = str(tmp_path / "s")
    message = r"[23] of 37 clips failed.*expected at most a share of 0.05.*--audio DIR --reset.*what is committed stays"
    with pytest.raises(ValueError, match=r"the last audio/00[69].wav \(does not decode"):
        run(manifest, url, max_failures=0.05)
    assert len(task_status(url, "t").blocks()) in (2, 3)  # the third may have been at work
    with pytest.raises(ValueError, match=message):
        run(manifest, url, max_failures=0.05)
    report = run(manifest, url, max_failures=0.2)
    assert (report.n_ok, report.n_failed) == (33, 4)
    for i in (5, 6, 9, 30):
        write_wav_file(tmp_path / f"audio/{i:03d}.wav", sounds[i], RATE)
    changed = list(changed_audio(url, tmp_path))
    assert [what for _, what in changed] == [
        f"t: audio/{i:03d}.wav is not the file that was extracted" for i in (5, 6, 9, 30)
    ]
    for block, _ in changed:
        assert block is not None
        reset_block(url, block)
    assert run(manifest, url).n_failed == 0
    assert tree_of(url) == tree_of(whole)


def test_the_limit_of_failures_also_holds_where_nothing_is_left_to_do(tmp_path: Path) -> None:
    """The last block is the one that exceeds it, so that the first run commits everything."""
    manifest, _ = write_corpus(tmp_path, LENGTHS[:9])
    (tmp_path / "audio/008.wav").write_bytes(b"words")
    for _ in range(3):
        with pytest.raises(ValueError, match=r"1 of 9 clips failed.*expected at most a share of 0.1"):
            run(manifest, tmp_path / "s")
        assert task_status(str(tmp_path / "s"), "t").committed.all()
    assert run(manifest, tmp_path / "s", max_failures=0.2).n_failed == 1


def test_audio_that_was_absent_and_audio_that_is_gone(tmp_path: Path) -> None:
    manifest, sounds = write_corpus(tmp_path, LENGTHS[:9])
    (tmp_path / "audio/006.wav").unlink()
    run(manifest, tmp_path / "s", allow_missing=True, max_failures=1.0)
    assert list(changed_audio(str(tmp_path / "s"), tmp_path)) == []
    write_wav_file(tmp_path / "audio/006.wav", sounds[6], RATE)
    (tmp_path / "audio/001.wav").unlink()
    gone, new = changed_audio(str(tmp_path / "s"), tmp_path)
    assert gone == (None, f"t: audio/001.wav is not under {tmp_path}")
    assert new == (task_status(str(tmp_path / "s"), "t").blocks()[1], "t: audio/006.wav was absent and now is there")


def test_a_file_that_vanishes_leaves_its_block_pending_and_the_others_go_on(finished: Finished, tmp_path: Path) -> None:
    manifest, _ = write_corpus(
        tmp_path,
        LENGTHS,
        columns={"kind": ["abc"[i % 3] for i in range(37)], "number": [str(i % 11) for i in range(37)]},
    )
    lost, kept = tmp_path / "audio/022.wav", tmp_path / "kept.wav"
    url = str(tmp_path / "s")
    with pytest.raises(
        OSError, match=r"1 of 10 blocks are still pending because .*022.wav has gone.*run the same command again"
    ):
        run(manifest, url, executor=After(2, lambda: lost.rename(kept)))
    status = task_status(url, "t")
    assert [block.index for block in status.blocks()] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    with pytest.raises(FileNotFoundError, match="1 of 37 audio files"):
        run(manifest, url)
    kept.rename(lost)
    run(manifest, url)
    assert tree_of(url) == tree_of(finished.url)


@pytest.mark.parametrize("location", ["/proc/otoscope.zarr", "{manifest}/store"])
def test_locations_where_nothing_can_be_written(tmp_path: Path, location: str) -> None:
    manifest, _ = write_corpus(tmp_path, [50])
    before = tree_of(tmp_path)
    with pytest.raises(OSError, match=r"could not be written \(.*expected a writable location") as caught:
        run(manifest, location.format(manifest=manifest))
    assert "\n" not in str(caught.value)
    assert tree_of(tmp_path) == before


AGAIN = """
import json, sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from otoscope.extract import capture, plan
plan.load_encoder = None
assert capture.capture(sys.argv[4], sys.argv[1], sys.argv[2], task="t").n_ok == int(sys.argv[3])
print(json.dumps(opened))
"""


@pytest.mark.slow
def test_a_finished_store_is_done_with_by_its_status(tmp_path: Path) -> None:
    """In a fresh process, and without loading its encoder: no audio is opened, and what is opened of the store does not
    grow with its blocks, except for the status of each."""
    others = []
    for n_blocks in (3, 30):
        manifest, _ = write_corpus(tmp_path / str(n_blocks), [40] * (4 * n_blocks - 1))
        url = tmp_path / str(n_blocks) / "s"
        n = run(manifest, url, CLOSED_FORM, batch=4, keep=("mean",)).n_ok
        before = tree_of(url)
        again = [sys.executable, "-c", AGAIN, str(manifest), str(url), str(n), CLOSED_FORM]
        printed = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout
        opened = json.loads(printed)
        assert not [path for path in opened if path.endswith(".wav")]
        status = [path for path in opened if path.startswith(f"{url}/t/status/")]
        assert len(set(status)) == n_blocks
        assert len(status) <= 2 * n_blocks
        others.append(len([path for path in opened if path.startswith(str(url))]) - len(status))
        assert tree_of(url) == before
    assert others[0] == others[1]
