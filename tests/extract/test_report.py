"""The report that a run writes: what is in it, after every way in which a run can end, and from its beginning on."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otoscope.cluster.executor import SerialExecutor, WorkerState
from otoscope.extract.capture import capture
from otoscope.extract.pipeline import STAGES
from otoscope.extract.report import THREADS, Report, RunRecorder
from otoscope.store.blocks import Block

from ..support.closed_form import closed_form
from ..support.interrupted_executor import After, interrupt
from ..support.wav_corpora import LENGTHS, write_corpus


def run(manifest: Path, **options: Any) -> Report:
    given: dict[str, Any] = {"task": "t", "block": 4, "batch": 3, "threads": 1, **options}
    given.setdefault("report", manifest.parent / "report.json")
    return capture(closed_form(), manifest, str(manifest.parent / "s"), **given)


def read_report(manifest: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((manifest.parent / "report.json").read_text("utf-8"))
    return document


def test_what_a_run_did_and_where_its_time_went(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    (tmp_path / "audio/003.wav").write_bytes(b"")
    report = run(manifest)
    found = read_report(manifest)
    assert (found["state"], found["error"], found["executor"], found["task"]) == ("finished", None, "serial", "t")
    assert found["store"] == str(tmp_path / "s")
    assert re.fullmatch(r"[0-9a-f]{32}", found["run"])
    assert found["clips"] == {"planned": 37, "committed": 37, "failed": 1, "silent": 0}
    assert (found["blocks"], found["plan"]["block"], found["plan"]["batch"]) == (10, 4, 3)
    assert found["failures"] == [{"clip": name, "reason": reason} for name, reason in report.failures]
    assert (found["losses"], found["retries"], found["halved"], found["killed"], found["unreadable"]) == (
        0,
        0,
        [],
        [],
        [],
    )
    (worker,) = found["workers"]
    assert (worker["name"], worker["phase"], worker["done"], worker["failed"]) == ("serial", "ended", 10, 0)
    stages = found["stages"]
    assert set(stages) == {*STAGES, "waiting"}
    device = stages["forward"]["seconds"] + stages["waiting"]["seconds"]
    assert 0 < device <= found["seconds"]
    for stage in STAGES:
        part = stages[stage]
        assert part["threads"] == THREADS[stage]
        assert part["share"] == pytest.approx(min(1, part["seconds"] / (device * part["threads"])), abs=2e-3)
    assert stages["forward"]["share"] + stages["waiting"]["share"] == pytest.approx(1, abs=1e-3)
    assert found["clips_per_second"] == pytest.approx(37 / found["seconds"], rel=0.01)
    assert not list(tmp_path.glob(".report*"))


def test_it_is_written_when_the_run_stops_too(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    seen: list[dict[str, Any]] = []

    def stop() -> None:
        seen.append(read_report(manifest))  # from the beginning on
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        run(manifest, executor=After(6, stop))
    assert (seen[0]["state"], seen[0]["clips"]["committed"]) == ("running", 0)
    found = read_report(manifest)
    assert (found["state"], found["error"], found["run"]) == ("stopped", "KeyboardInterrupt: ", seen[0]["run"])
    assert (found["clips"]["committed"], found["blocks"]) == (24, 6)
    run(manifest)
    again = read_report(manifest)
    assert again["clips"] == {"planned": 13, "committed": 13, "failed": 0, "silent": 0}
    assert again["run"] != found["run"]


def test_an_error_is_told_and_audio_that_could_not_be_read(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    lost = tmp_path / "audio/030.wav"
    with pytest.raises(OSError, match=r"030\.wav has gone"):
        run(manifest, executor=After(2, lost.unlink))
    found = read_report(manifest)
    assert found["state"] == "stopped"
    assert "1 of 10 blocks are still pending" in found["error"]
    assert found["unreadable"] == ["audio/030.wav has gone since the run began"]
    assert found["blocks"] == 9


def test_a_report_that_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:9])
    with pytest.raises(OSError, match=r"the report .* could not be written .*; expected .*: choose another --report"):
        run(manifest, report=tmp_path / "absent" / "report.json")
    assert not (tmp_path / "s").exists()


def test_a_report_that_cannot_be_written_any_more_hides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS)
    folder = tmp_path / "reports"
    folder.mkdir()

    def stop() -> None:
        (folder / "report.json").unlink()
        folder.rmdir()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        run(manifest, report=folder / "report.json", executor=After(2, stop))
    assert f"could not be written (no folder {folder}; " in caplog.text


def test_a_finished_task_and_a_dry_run(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:9])
    run(manifest, dry_run=True)
    assert not (tmp_path / "report.json").exists()
    run(manifest, report=None)
    run(manifest)
    assert (read_report(manifest)["state"], read_report(manifest)["clips"]["planned"]) == ("finished", 0)


def test_workers_that_were_lost_are_counted_with_what_they_had(tmp_path: Path) -> None:
    recorder = RunRecorder(path=tmp_path / "report.json", about={"task": "t"}, batch=3)
    lives = WorkerState(name="a", node="n", pid=1, phase="working", in_flight=2, done=5)
    states = [lives, replace(lives, name="b", phase="lost"), replace(lives, name="c", phase="lost", in_flight=1)]
    recorder.write("running", states)
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["losses"], found["retries"]) == (2, 3)
    assert [worker["name"] for worker in found["workers"]] == ["a", "b", "c"]


class Seen(SerialExecutor):
    """Keeps the pieces."""

    def run(self, make_worker: Any, pieces: Any) -> Any:
        self.pieces: list[Block] = list(pieces)
        return super().run(make_worker, self.pieces)


def test_nothing_of_the_report_enters_the_store(tmp_path: Path) -> None:
    """Runs with and without, into stores of one name, are equal."""
    from ..support.stored_files import tree_of

    trees = []
    for name, report in (("a", None), ("b", tmp_path / "report.json")):
        (tmp_path / name).mkdir()
        manifest, _ = write_corpus(tmp_path / name, LENGTHS)
        run(manifest, report=report, executor=Seen())
        trees.append(tree_of(tmp_path / name / "s"))
    assert trees[0] == trees[1]
