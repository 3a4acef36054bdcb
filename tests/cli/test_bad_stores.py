"""Stores that are not ours, damaged, incomplete or out of reach: what each command says, and how they are mended."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import otoscope
from otoscope.extract.capture import capture

from ..support import closed_form
from ..support.amounts import quick_sample
from ..support.commands import CLOSED_FORM, call, command, done, extraction, refused
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import stop_after, tree_of
from ..support.wav_corpora import LENGTHS, write_wav_file


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(bytes(data))


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


READERS = (("status",), ("info",), ("verify",), ("neurons", "--task", "t:kind"), ("table", "stats"))


@pytest.mark.parametrize("command_", quick_sample(READERS, 2))
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: replace_text(s / "zarr.json", '"format": "2.0"', '"format": "1.0"'), "has format 1.0; expected 2.x"),
        (
            lambda s: replace_text(s / "zarr.json", '"otoscope"', '"stethoscope"'),
            "without otoscope's attributes; expected",
        ),
        (lambda s: (s / "zarr.json").write_text("{"), "not an otoscope store, or its zarr.json is damaged .*expected"),
        (lambda s: (s / "zarr.json").unlink(), "not an otoscope store, or its zarr.json is damaged .*expected"),
        (lambda s: shutil.rmtree(s), "no store at .*; expected one made by"),
        (lambda s: (shutil.rmtree(s), s.write_text("words")), "is not an otoscope store"),
    ],
)
def test_what_is_not_a_store_of_ours(
    store: Path, command_: tuple[str, ...], spoil: Callable[[Path], object], message: str
) -> None:
    spoil(store)
    position = 2 if command_[0] == "table" else 1
    refused(message, *command_[:position], store, *command_[position:], watched=store.parent)


def test_an_identity_that_was_changed(corpus: Path, store: Path) -> None:
    replace_text(store / "t/zarr.json", '"precision": "float32"', '"precision": "float16"')
    damaged = "task t is damaged: it does not match its digest; its zarr.json is damaged"
    for given in (("info", store), ("table", "stats", store), extraction(store, corpus)):
        refused(damaged, *given, watched=store)
    refused("is not as it was written", "verify", store, watched=store)
    assert damaged in call("verify", store).stdout


@pytest.mark.parametrize("name", ["zarr.json", "t/zarr.json"])
def test_extract_refuses_a_store_that_is_not_ours_or_damaged(corpus: Path, store: Path, name: str) -> None:
    replace_text(store / name, '"otoscope"', '"stethoscope"') if name == "zarr.json" else replace_text(
        store / name, '"batch": 3', '"batch": 5'
    )
    refused("expected|digest", *extraction(store, corpus), watched=store)
    (store.parent / "mine").mkdir()
    (store.parent / "mine/thesis.txt").write_text("three years of work")
    refused("mine is not an otoscope store", *extraction(store.parent / "mine", corpus), watched=store.parent)


def test_documents_are_put_back_and_a_change_undone_that_nobody_will_complete(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree_of(store)
    (tmp_path / "more.csv").write_text("clip,kind\naudio/000.wav,other\n")
    stop_after(3, monkeypatch)
    assert call("label", store, "--task", "t", tmp_path / "more.csv", "--replace").exit_code == 2
    monkeypatch.undo()
    (store / "t/mean/zarr.json").write_text("{}")
    (store / "t/lock.0").write_text("{")  # damaged, too
    error = refused("is not as it was written", "verify", store, watched=store)
    assert "run it again: `otoscope label " in error
    assert "by `otoscope verify --reset`, if no other run is at work on it" in error
    assert "t: documents are those of the task again" in done("verify", store, "--reset")
    assert done("verify", store) == "intact\n"
    assert {name: data for name, data in tree_of(store).items() if "label_kind.2" not in name} == before


@pytest.mark.parametrize("array", ["active_bits", "status", "label_kind"])
def test_a_flipped_byte_is_refused_by_whoever_reads_it(store: Path, array: str) -> None:
    objects = sorted(p for p in (store / f"t/{array}/c").rglob("*") if p.is_file())
    flip(objects[len(objects) // 2], 1)
    refused(f"{array}.*(damaged|verify)", "neurons", store, "--task", "t:kind", "--percentile", 40, watched=store)
    if array == "status":
        refused("status.*(damaged|verify)", "status", store, watched=store)


def test_a_damaged_status_is_reset_and_its_block_extracted_again(corpus: Path, original: str, store: Path) -> None:
    for block, at in ((2, 0), (9, 3)):
        flip(store / f"t/status/c/{block}", at)
    refused(
        "t/status is damaged .*`otoscope verify` says what is damaged and what to do",
        *extraction(store, corpus),
        watched=store,
    )
    assert "t block 2 is pending again\nt block 9 is pending again\n" in call("verify", store, "--reset").stdout
    done(*extraction(store, corpus))
    assert tree_of(store) == tree_of(original)


def test_a_flipped_byte_is_found_reset_and_extracted_again(corpus: Path, original: str, store: Path) -> None:
    flip(store / "t/active_bits/c/0/3/0", 9)
    flip(store / "t/mean/c/0/7/0", 20)
    before = tree_of(store)
    result = call("verify", store)
    assert result.exit_code == 2
    assert re.findall(r"^t/(\w+) block (\d) \(clips", result.stdout, re.M) == [("active_bits", "3"), ("mean", "7")]
    assert re.fullmatch(r"Error: .* is not as it was written; put damaged blocks back by .*--reset.*\n", result.stderr)
    assert tree_of(store) == before
    assert "t block 3 is pending again\nt block 7 is pending again\n" in call("verify", store, "--reset").stdout
    refused("8 clips are pending; expected none: .*--incomplete", "neurons", store, "--task", "t:kind", watched=store)
    done("table", "aape", store, "--task", "t:kind", "--incomplete")
    done(*extraction(store, corpus))
    assert tree_of(store) == tree_of(original)
    assert done("verify", store) == "intact\n"


def test_a_missing_chunk(store: Path) -> None:
    (store / "t/active_bits/c/0/2/0").unlink()
    refused(
        r"t/active_bits/c/0/2/0 is missing.*expected.*verify",
        "table",
        "stats",
        "--rule",
        "lape",
        store,
        "--task",
        "t:kind",
        watched=store,
    )
    assert "t/active_bits block 2 (clips 8 to 11): 1 stored objects are missing" in call("verify", store).stdout


def test_audio_that_is_no_longer_what_was_extracted(corpus: Path, original: str, tmp_path: Path) -> None:
    shutil.copytree(corpus.parent / "audio", tmp_path / "audio")
    shutil.copy(corpus, tmp_path)
    manifest, url = tmp_path / corpus.name, tmp_path / "s"
    done(*extraction(url, manifest))
    assert done("verify", url, "--audio", tmp_path) == "intact\n"
    flip(tmp_path / "audio/013.wav", 60)
    (tmp_path / "audio/030.wav").rename(tmp_path / "kept")
    result = call("verify", url, "--audio", tmp_path, "--reset")
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        "t: audio/013.wav is not the file that was extracted", f"t: audio/030.wav is not under {tmp_path}",
        "t block 3 is pending again",
    ]  # fmt: skip
    assert "put absent files back" in result.stderr
    flip(tmp_path / "audio/013.wav", 60)
    (tmp_path / "kept").rename(tmp_path / "audio/030.wav")
    done(*extraction(url, manifest))
    assert tree_of(url) == tree_of(original)


def test_a_store_with_nothing_committed(corpus: Path, tmp_path: Path) -> None:
    for i, length in enumerate(LENGTHS):
        (tmp_path / "audio").mkdir(exist_ok=True)
        write_wav_file(tmp_path / f"audio/{i:03d}.wav", np.zeros(length), closed_form.RATE)
    shutil.copy(corpus, tmp_path)
    (tmp_path / "audio/001.wav").write_text("no audio")
    assert call(*extraction(tmp_path / "s", tmp_path / corpus.name, "--block", 37, "--max-failures", 0)).exit_code == 2
    (tmp_path / "s/t/status/c/0").unlink()
    assert done("status", tmp_path / "s") == "t: 37 clips, 0 ok, 0 failed, 37 pending; 0 of 1 blocks committed\n"
    refused("37 clips are pending", "table", "stats", tmp_path / "s", "--task", "t:kind", watched=tmp_path)
    refused(
        "no committed clip yet; expected some",
        "table",
        "stats",
        tmp_path / "s",
        "--task",
        "t:kind",
        "--incomplete",
        watched=tmp_path,
    )


def test_a_location_that_cannot_be_written(corpus: Path) -> None:
    refused(
        r"/proc/otoscope could not be written \(.*expected a writable location",
        *extraction("/proc/otoscope", corpus),
        watched=corpus.parent,
    )


def test_dry_run(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = tree_of(corpus.parent)
    with caplog.at_level("INFO"):
        output = done(*extraction(corpus.parent / "new", corpus, "--dry-run"))
    assert output.startswith("to do: 37 clips in 10 blocks\n")
    assert "37 clips of native length in 10 blocks of 4" in caplog.text
    assert tree_of(corpus.parent) == before


def test_what_is_asked_of_a_pipe_that_closes_is_no_error(original: str) -> None:
    with subprocess.Popen(
        command("info", original), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_damage_that_belongs_to_no_block_has_a_remedy_that_works(corpus: Path, original: str, store: Path) -> None:
    column = next((store / "t" / "label_kind" / "c").iterdir())
    column.write_bytes(bytes([*column.read_bytes()[:-1], column.read_bytes()[-1] ^ 1]))
    result = call("verify", store)
    assert result.exit_code == 2
    assert "`otoscope label STORE --task t MANIFEST --replace`" in result.stderr
    done("label", store, "--task", "t", corpus, "--replace")
    assert done("verify", store) == "intact\n"
    assert "label_kind.2" in (store / "t" / "zarr.json").read_text()
    xr.testing.assert_identical(otoscope.open(store)["t"].compute(), otoscope.open(original)["t"].compute())


def test_damaged_metadata_of_an_array_are_found_though_readers_have_a_copy(corpus: Path, store: Path) -> None:
    path = store / "t" / "mean" / "zarr.json"
    path.write_text(path.read_text().replace('"endian"', '"eodian"'))
    assert "37 ok" in done(*extraction(store, corpus))  # nothing is left to do, so it is not looked at
    refused("put the task's documents back by `otoscope verify --reset`", "verify", store, watched=store)
    done("verify", store, "--reset")
    assert done("verify", store) == "intact\n"


def test_a_lost_variable_is_damage_not_a_choice(store: Path) -> None:
    shutil.rmtree(store / "t" / "mean")
    refused("mean/.* is missing from", "exemplars", store, "--task", "t", "--neuron", "0,3", watched=store)
    refused("put the task's documents back by `otoscope verify --reset`", "verify", store, watched=store)
    done("verify", store, "--reset")
    refused("put damaged blocks back by `otoscope verify --reset`, then extract again", "verify", store, watched=store)


def test_with_nothing_committed_the_plan_may_change(corpus: Path, tmp_path: Path) -> None:
    url = tmp_path / "s"
    (tmp_path / "big.py").write_text(
        "from dataclasses import replace\nfrom tests.support.closed_form import closed_form\n"
        "def big():\n"
        "    encoder = closed_form()\n"
        "    return replace(encoder, prepare=lambda x: encoder.prepare(x) + 1e6)\n"
    )
    given = ("extract", url, "--encoder", f"module:{tmp_path / 'big.py'}:big", "--corpus", corpus, "--task", "t")
    refused("float16 holds up to 65504: keep them by --mean-dtype float32", *given, watched=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        capture(CLOSED_FORM, corpus, str(url), task="t", executor=After(0, interrupt))
    given = ("extract", url, "--encoder", CLOSED_FORM, "--corpus", corpus, "--task", "t")
    refused("--replan if no other run", *given, "--mean-dtype", "float32", watched=tmp_path)
    assert "37 ok" in done(*given, "--mean-dtype", "float32", "--replan")
