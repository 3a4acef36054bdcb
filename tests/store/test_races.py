"""Laws of several writers at one time, with real processes: one plan wins, no block is lost or mixed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from otoscope.store import writer
from otoscope.store.changes import lock, tasks
from otoscope.store.changes.lock import acquired, lock_key
from otoscope.store.changes.tasks import add_labels, add_task, create
from otoscope.store.group import document_at, open_root
from otoscope.store.verify import verify
from otoscope.store.writer import pending_blocks, put_values, write_block

from ..support.known_store import N_CLIPS, Known
from ..support.racing_writer import extract, planned
from ..support.s3_server import ObjectServer
from ..support.stored_files import stop_after, stored, tree_of

ROOT = Path(__file__).parents[2]
MAIN = "from tests.support.racing_writer import main; main()"
SLOW = pytest.mark.slow


@contextmanager
def processes(*given: dict[str, Any]) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that do what is given, at the same instant; killed at the end if they still run."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", MAIN, json.dumps(g)], cwd=ROOT, **pipes) for g in given]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        at = time.time() + 0.05
        for process in running:
            assert process.stdin is not None
            process.stdin.write(f"{at}\n")
            process.stdin.flush()
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def outcomes(*given: dict[str, Any]) -> list[list[str]]:
    """What each process printed, line by line."""
    with processes(*given) as running:
        return [process.communicate(timeout=300)[0].splitlines() for process in running]


def finished(known: Known, url: str, server: ObjectServer) -> dict[str, bytes]:
    known.begin(url)
    known.write(url)
    return stored(url, server)


def test_of_many_at_one_instant_one_creates_an_object(anywhere: str) -> None:
    take = {"url": anywhere, "role": "take", "n": 30, "apart": 0.15 if "://" in anywhere else 0.01}
    took = [json.loads(lines[0]) for lines in outcomes(take, take, take)]
    assert np.sum(took, axis=0).tolist() == [1] * 30
    assert np.count_nonzero(np.sum(took, axis=1)) > 1  # they were at it together


def test_creators_at_one_instant_make_one_task(
    known: Known, anywhere: str, tmp_path: Path, s3_server: ObjectServer
) -> None:
    rounds = 3
    same = {"url": anywhere, "role": "plan", "rounds": rounds}
    assert outcomes(same, same, same) == [["done"] * rounds] * 3
    whole = finished(known, str(tmp_path / "alone"), s3_server)
    for i in range(rounds):
        extract(f"{anywhere}-{i}", known)
        assert stored(f"{anywhere}-{i}", s3_server) == whole


@SLOW
def test_of_unequal_plans_at_one_instant_one_wins_whole(
    known: Known, anywhere: str, tmp_path: Path, s3_server: ObjectServer
) -> None:
    rounds = 3
    plans: list[dict[str, Any]] = [{"mean_dtype": "float16"}, {"mean_dtype": "float32", "batch": 5}]
    printed = outcomes(*({"url": anywhere, "role": "extract", "rounds": rounds, "plan": plan} for plan in plans))
    for i, lines in enumerate(zip(*printed, strict=True)):
        assert sorted(line.partition(":")[0] for line in lines) == ["ValueError", "done"]
        refusal = max(lines, key=len)
        assert "was planned otherwise (batch:" in refusal
        winner = planned(known, {"plan": plans[lines.index("done")]})
        alone = finished(winner, str(tmp_path / f"alone-{i}"), s3_server)
        assert stored(f"{anywhere}-{i}", s3_server) == alone


@SLOW
def test_two_runs_with_equal_plans_both_finish(
    known: Known, anywhere: str, tmp_path: Path, s3_server: ObjectServer
) -> None:
    run = {"url": anywhere, "role": "extract"}
    assert outcomes(run, run) == [["done"], ["done"]]
    assert stored(anywhere, s3_server) == finished(known, str(tmp_path / "alone"), s3_server)
    assert list(verify(anywhere)) == []


@SLOW
def test_of_unequal_identities_at_one_instant_one_wins(known: Known, anywhere: str) -> None:
    create(anywhere)
    printed = outcomes(*({"url": anywhere, "role": "plan", "identity": {"weights": w}} for w in ("00", "11")))
    assert sorted(line.partition(":")[0] for (line,) in printed) == ["ValueError", "done"]
    assert any("another identity (weights" in line for (line,) in printed)


@SLOW
def test_growing_and_labelling_beside_a_run(
    known: Known, anywhere: str, tmp_path: Path, s3_server: ObjectServer
) -> None:
    part = known.head(N_CLIPS - 40)
    extract(anywhere, part)
    grow = {"url": anywhere, "role": "plan"}
    label = [
        {"url": anywhere, "role": "label", "name": name, "n": N_CLIPS - 40, "clips": N_CLIPS - 40} for name in "ab"
    ]
    printed = outcomes(grow, grow, *label)
    assert printed[:2] == [["done"], ["done"]]
    extract(anywhere, known)
    assert list(verify(anywhere)) == []
    labelled = set(stored(anywhere, s3_server)) - set(finished(known, str(tmp_path / "alone"), s3_server))
    # Labelled before the growth, or refused: there are more clips by then.
    for name, lines in zip("ab", printed[2:], strict=True):
        assert (lines == ["done"]) == any(f"label_{name}/" in key for key in labelled)


@SLOW
def test_columns_added_at_one_instant_are_all_there(known: Known, anywhere: str) -> None:
    extract(anywhere, known)
    assert outcomes(*({"url": anywhere, "role": "label", "name": name} for name in "abc")) == [["done"]] * 3
    assert list(verify(anywhere)) == []
    root, own = (document_at(open_root(anywhere).store, key) for key in ("zarr.json", "t/zarr.json"))
    assert root is not None
    assert own is not None
    copies = root["consolidated_metadata"]["metadata"]
    assert {f"t/label_{name}" for name in "abc"} <= set(copies)
    assert copies["t"]["attributes"] == own["attributes"]


@SLOW
def test_tasks_added_at_one_instant_are_all_in_the_root(known: Known, anywhere: str) -> None:
    assert outcomes(*({"url": anywhere, "role": "plan", "task": task} for task in "abc")) == [["done"]] * 3
    root = document_at(open_root(anywhere).store, "zarr.json")
    assert root is not None
    assert {"a", "b", "c"} <= set(root["consolidated_metadata"]["metadata"])
    if "://" not in anywhere:
        assert set(xr.open_datatree(anywhere, engine="zarr").children) == {"a", "b", "c"}


@pytest.mark.parametrize("louder", [0, 1])
@pytest.mark.parametrize("writes", [2, *(pytest.param(n, marks=SLOW) for n in (0, 9))])
def test_a_writer_that_hung_cannot_mix_a_block_unnoticed(
    known: Known, anywhere: str, s3_server: ObjectServer, writes: int, louder: int
) -> None:
    extract(anywhere, known)
    intact, block = stored(anywhere, s3_server), known.blocks()[3]
    late = {"url": anywhere, "role": "block", "block": 3, "stop_after": writes, "louder": louder}
    with processes(late) as (process,):
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        write_block(anywhere, block, known.values(block), known.status[block.clips], "code 1", plan=known.plan)
        if writes == 0:
            assert stored(anywhere, s3_server) == intact  # presumed dead: another one commits
        os.kill(process.pid, signal.SIGCONT)
        assert process.communicate(timeout=300)[0] == "done\n"
    found = list(verify(anywhere))
    if not louder:
        assert found == []
        assert stored(anywhere, s3_server) == intact
        return
    assert {damage.block for damage in found} <= {block}
    assert all("a mixture of two writes" in damage.what for damage in found)
    group = zarr.open_group(open_root(anywhere).store, path="t", mode="r")
    mean, positive = (np.asarray(group[name][:, block.clips]) for name in ("mean", "positive_frames"))  # type: ignore[index]
    theirs = [bool(np.array_equal(mean, (known.mean[:, block.clips] + n).astype("f2"), equal_nan=True)) for n in (0, 1)]
    same = [bool(np.array_equal(positive, known.positive[:, block.clips] + n)) for n in (0, 1)]
    assert found or (theirs == same)  # noticed, or all of it is one writer's
    if "://" not in anywhere:  # there objects are written one after another, so that it is known which ones are late
        assert bool(found) == (writes in range(1, 9))


def test_a_run_whose_plan_is_the_stores_no_longer_commits_nothing(known: Known, anywhere: str) -> None:
    part = known.head(N_CLIPS - 40)
    part.begin(anywhere)
    block = part.blocks()[0]
    add_task(anywhere, "t", known.origin, known.plan, known.clips)
    with pytest.raises(
        ValueError, match=r"appended to while this run was at work \(n_clips: 261, not 221.*run the comm"
    ):
        write_block(anywhere, block, part.values(block), part.status[block.clips], "v", plan=part.plan)
    assert len(pending_blocks(anywhere, "t")) == 9


def test_a_run_that_is_overtaken_while_it_writes_commits_nothing(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, part = str(tmp_path / "store"), known.head(N_CLIPS - 40)
    part.begin(url)
    block, put = part.blocks()[0], put_values

    def overtaken(*given: Any) -> None:
        monkeypatch.undo()
        put(*given)
        add_task(url, "t", known.origin, known.plan, known.clips)

    monkeypatch.setattr(writer, "put_values", overtaken)
    with pytest.raises(ValueError, match="appended to while this run was at work"):
        write_block(url, block, part.values(block), part.status[block.clips], "v", plan=part.plan)
    assert len(pending_blocks(url, "t")) == 9


def test_a_plan_of_which_nothing_is_committed_is_changed_only_on_request(
    known: Known, anywhere: str, tmp_path: Path, s3_server: ObjectServer
) -> None:
    other = replace(known, plan=replace(known.plan, block=64, variables=("active_bits", "frame_count")))
    other.begin(anywhere)
    with pytest.raises(ValueError, match=r"planned otherwise.*nothing is committed yet, begin anew by --replan"):
        known.begin(anywhere)
    add_task(anywhere, "t", known.origin, known.plan, known.clips, replan=True)
    known.write(anywhere)
    assert stored(anywhere, s3_server) == finished(known, str(tmp_path / "alone"), s3_server)
    with pytest.raises(ValueError, match=r"planned otherwise.*choose another task name$"):
        add_task(anywhere, "t", known.origin, other.plan, other.clips, replan=True)


def test_a_change_left_by_a_killed_writer_is_finished_by_the_same_command(
    known: Known, anywhere: str, tmp_path: Path, s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "TIMEOUT_SECONDS", 0.3)
    create(anywhere)
    store = open_root(anywhere).store
    with acquired(store, anywhere, "t", "new", {"successor": "something else", "command": "that command"}) as locked:
        assert locked  # and is left
    expected = r"is being changed, .* by process \d+ on .* since 20.*the same command.*that command.*--replan"
    with pytest.raises(ValueError, match=expected):
        known.begin(anywhere)
    add_task(anywhere, "t", known.origin, known.plan, known.clips, replan=True)
    known.write(anywhere)
    assert stored(anywhere, s3_server) == finished(known, str(tmp_path / "alone"), s3_server)
    assert document_at(store, lock_key("t", "new")) is None


@pytest.mark.slow
def test_a_task_that_one_device_began_is_created_by_another(
    known: Known, tmp_path: Path, s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding and a changed comment are another check and source; those of the first are kept, whatever is killed."""
    finished(known, str(tmp_path / "alone"), s3_server)
    nudged = replace(known.origin, check=known.origin.check * np.float32(1.00001), source="with a comment")
    n, done = 0, False
    while not done:
        url = str(tmp_path / f"{n}.zarr")
        create(url)
        stop_after(n, monkeypatch)
        try:
            known.begin(url)
            done = True
        except OSError:
            n += 1
        monkeypatch.undo()
        begun = bool(list(Path(url).glob("t/*")))
        add_task(url, "t", nudged, known.plan, known.clips)
        known.write(url)
        if begun:
            assert stored(url, s3_server) == stored(str(tmp_path / "alone"), s3_server), n
    far = replace(known.origin, check=known.origin.check * np.float32(1.1))
    with pytest.raises(ValueError, match=r"the embedding of a fixed sound differs by 0\.1"):
        add_task(url, "t", far, known.plan, known.clips)


@pytest.mark.parametrize("what", ["grow", "label"])
def test_a_writer_that_slept_while_others_went_on_changes_nothing(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It wakes after it was taken for dead, its change was completed by another run, and a third made the next one."""
    url = str(tmp_path / "s.zarr")
    known.head(40).begin(url)
    known.head(40).write(url)
    add_labels(url, "t", {"digit": ["a"] * 40}, overwrite=True)
    own = tasks._delete_former

    def change(values: str, n: int) -> None:
        if what == "grow":
            grown = known.head(n)
            labels = {**grown.clips.labels, "digit": ["a"] * 40 + [""] * (n - 40)}
            add_task(url, "t", grown.origin, grown.plan, replace(grown.clips, labels=labels))
        else:
            add_labels(url, "t", {"digit": [values] * 40}, overwrite=True)

    def slept(*given: Any) -> None:
        monkeypatch.setattr(tasks, "_delete_former", own)
        monkeypatch.setattr(lock, "TIMEOUT_SECONDS", 0.0)
        change("b", 45)
        change("c", 60)
        states.append(tree_of(url))
        own(*given)
        raise Woken

    class Woken(Exception):
        pass

    states: list[dict[str, bytes]] = []
    monkeypatch.setattr(tasks, "_delete_former", slept)
    with pytest.raises(Woken):
        change("b", 45)
    assert tree_of(url) == states[0]
    assert list(verify(url)) == []


def test_columns_in_another_order_are_the_same_change(known: Known, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = len(known.clips)
    columns = {"y": ["1"] * n, "x": ["2"] * n, "digit": ["3"] * n, "digit.2": ["4"] * n}
    stop_after(6, monkeypatch)
    with pytest.raises(OSError, match="killed"):
        add_labels(url, "t", columns, overwrite=True)
    monkeypatch.undo()
    add_labels(url, "t", dict(reversed(columns.items())), overwrite=True)
    assert list(verify(url)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=SLOW) for n in (1, 2, 4))])
def test_killed_while_planning_growing_or_labelling(
    known: Known, tmp_path: Path, s3_server: ObjectServer, seed: int
) -> None:
    url, alone = str(tmp_path / "killed"), str(tmp_path / "alone")
    part = known.head(N_CLIPS - 40)
    first = {"url": url}
    create(url)
    steps: list[dict[str, Any]] = [
        {"role": "plan", "clips": N_CLIPS - 40},
        {"role": "plan"},
        {"role": "label", "name": "x"},
    ]
    before = seed % 3
    if before:
        extract(url, part if before == 1 else known)
    with processes({**first, **steps[before]}) as (process,):
        wait_for_changes(Path(url))
        time.sleep(float(np.random.default_rng(seed).uniform(0, 0.08)))
        process.kill()
    damaged = [damage.what for damage in verify(url)]
    assert all("begun and not completed" in what for what in damaged if "interrupted" not in what)
    if before < 2:
        assert len(pending_blocks(url, "t")) > 0 if before else True
        extract(url, part if not before else known)
    extract(url, known)
    add_labels(url, "t", {"x": ["x"] * N_CLIPS})
    extract(alone, known)
    add_labels(alone, "t", {"x": ["x"] * N_CLIPS})
    left = stored(url, s3_server)
    assert {name: left[name] for name in left if "/lock." not in name} == stored(alone, s3_server)
    assert list(verify(url)) == []


def wait_for_changes(folder: Path) -> None:
    """Until something changes below a folder."""

    def look() -> set[str]:
        return {str(path) for path in folder.rglob("*")}

    before, deadline = look(), time.monotonic() + 300
    while look() == before and time.monotonic() < deadline:
        time.sleep(0.002)
