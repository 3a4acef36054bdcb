"""Laws of writing: any order, any number of times, grown or at once, killed or not, the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import otoscope
from otoscope.store import direct
from otoscope.store import verify as store_verify
from otoscope.store.changes import staged, tasks
from otoscope.store.changes.staged import ClipTable
from otoscope.store.changes.tasks import add_labels, add_task, create, restore_documents
from otoscope.store.group import open_root, open_task, values_of
from otoscope.store.provenance import Identity, Plan
from otoscope.store.reader import open_store
from otoscope.store.status import task_status
from otoscope.store.verify import verify
from otoscope.store.writer import digest_values, pending_blocks, reset_block, write_block

from ..support.amounts import quick_sample
from ..support.known_store import BLOCK, N_CLIPS, Known
from ..support.shown import rows_of, shown
from ..support.stored_files import damage, files, stop_after


def test_any_order_and_twice_gives_the_same_bytes(known: Known, url: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.zarr")
    known.begin(other)
    shuffled = [known.blocks()[i] for i in np.random.default_rng(1).permutation(9)]
    known.write(other, shuffled)
    known.write(other, shuffled[:4])
    known.begin(other)
    assert files(other) == files(url)


@pytest.mark.parametrize("first", quick_sample([3 * BLOCK + 7, 1, BLOCK, N_CLIPS - 1], 1))
def test_a_grown_store_equals_one_built_at_once(known: Known, url: str, tmp_path: Path, first: int) -> None:
    grown = str(tmp_path / "grown.zarr")
    part = known.head(first)
    part.begin(grown)
    part.write(grown)
    assert pending_blocks(grown, "t") == []
    known.begin(grown)
    assert [b.index for b in pending_blocks(grown, "t")] == list(range(first // BLOCK, 9))
    known.write(grown, pending_blocks(grown, "t"))
    assert files(grown) == files(url)
    assert list(verify(grown)) == []


def test_a_block_is_committed_by_its_status_alone(known: Known, tmp_path: Path) -> None:
    url = str(tmp_path / "s.zarr")
    known.begin(url)
    known.write(url, known.blocks()[2:4])
    status = task_status(url, "t")
    assert [b.index for b in status.blocks()] == [2, 3]
    assert (status.n_ok, status.n_failed, status.n_pending) == (64, 0, N_CLIPS - 64)
    reset_block(url, known.blocks()[2])
    assert [b.index for b in pending_blocks(url, "t")] == [0, 1, 2, 4, 5, 6, 7, 8]


def test_values_are_stored_as_plain_numpy_has_them(known: Known, url: str) -> None:
    group = zarr.open_group(url, path="t", mode="r")
    np.testing.assert_array_equal(group["mean"][:], known.mean.astype("f2"))
    np.testing.assert_array_equal(
        np.unpackbits(group["active_bits"][:], axis=-1, count=300, bitorder="little"), known.mean > 0
    )
    np.testing.assert_array_equal(group["positive_frames"][:], known.positive)
    assert group["reason"][3] == "schlecht, très mauvais"
    assert group["label_digit"][:].tolist() == list(known.clips.labels["digit"])
    np.testing.assert_array_equal(group["neuron_valid"][:].sum(axis=1), [300, 20])


def test_digest_is_that_of_plain_little_endian_bytes() -> None:
    def crc32c(data: bytes) -> int:  # bit by bit, Castagnoli polynomial reflected
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
        return crc ^ 0xFFFFFFFF

    assert digest_values(np.frombuffer(b"123456789", "u1")) == 0xE3069283 == crc32c(b"123456789")
    cube = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    assert digest_values(cube) == crc32c(cube.astype("<f4").tobytes())
    assert digest_values(np.array(["é", "", "x"], dtype=object)) == crc32c("é\0\0x".encode())


KILLED = """
import sys
from tests.support.known_store import make_known
known = make_known()
known.begin(sys.argv[1])
print("begun", flush=True)
while True:
    known.write(sys.argv[1])
"""


@pytest.mark.parametrize("seed", quick_sample(range(3), 1))
def test_killed_at_any_instant_a_rerun_finishes_the_rest(known: Known, url: str, tmp_path: Path, seed: int) -> None:
    killed = str(tmp_path / "killed.zarr")
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", KILLED, killed], stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        process.wait(timeout=float(np.random.default_rng(seed).uniform(0.01, 0.4)))
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert damage(killed) == []
    known.begin(killed)
    known.write(killed, pending_blocks(killed, "t"))
    left = {name: data for name, data in files(killed).items() if not name.endswith(".partial")}
    assert left == files(url)


def test_a_damaged_block_is_reset_and_written_again(known: Known, url: str) -> None:
    intact = files(url)
    shard = Path(url) / "t/mean/c/0/3/0"
    for broken in (b"", intact["t/mean/c/0/3/0"][:-3], bytes(len(intact["t/mean/c/0/3/0"]))):
        shard.write_bytes(broken)
        (found,) = verify(url)
        assert found.block == known.blocks()[3]
        reset_block(url, found.block)
        known.write(url, pending_blocks(url, "t"))
        assert files(url) == intact


def test_a_task_that_was_begun_otherwise_and_never_finished_is_begun_anew_on_request(
    known: Known, url: str, tmp_path: Path
) -> None:
    begun = str(tmp_path / "begun.zarr")
    create(begun)
    zarr.open_group(begun, mode="r+").create_group("t").create_array("mean", shape=(3,), dtype="i4")
    with pytest.raises(
        ValueError, match=r"t/mean/zarr.json in .* was begun otherwise; expected the same command.*--replan"
    ):
        known.begin(begun)
    assert not list(Path(begun).rglob("lock.*"))
    add_task(begun, "t", known.origin, known.plan, known.clips, replan=True)
    known.write(begun)
    assert files(begun) == files(url)


def test_another_identity_is_refused_naming_the_fields(known: Known, url: str) -> None:
    other = replace(known, identity=replace(known.identity, frames="all", front_end={"sample_rate": 32_000}))
    before = files(url)
    with pytest.raises(ValueError, match=r'frames: "all", not "audio"; front_end.sample_rate: 32000, not 16000'):
        other.begin(url)
    assert files(url) == before
    add_task(url, "other", other.origin, other.plan, other.clips)  # beside it
    assert list(verify(url)) == []


@pytest.mark.parametrize(("moved", "refused"), [(5e-4, False), (2e-3, True), (np.nan, True)])
def test_an_origin_is_compared_by_its_check(known: Known, url: str, moved: float, refused: bool) -> None:
    """Whatever its source: rounding passes, another embedding does not, and the first source stays."""
    before = files(url)
    check = known.origin.check.copy()
    check[2] += moved
    other = replace(known.origin, source="another file", check=check)
    if refused:
        with pytest.raises(ValueError, match="the embedding of a fixed sound differs by"):
            add_task(url, "t", other, known.plan, known.clips)
    else:
        add_task(url, "t", other, known.plan, known.clips)
    assert files(url) == before


def test_another_plan_or_corpus_is_refused(known: Known, url: str) -> None:
    before = files(url)
    with pytest.raises(ValueError, match="batch: 8, not 4"):
        add_task(url, "t", known.origin, replace(known.plan, batch=8), known.clips)
    with pytest.raises(ValueError, match="list the stored clips first"):
        known.head(40).begin(url)
    moved = replace(known.clips, path=["x", *known.clips.path[1:]])
    with pytest.raises(ValueError, match="same audio root"):
        add_task(url, "t", known.origin, replace(known.plan, **moved.digests), moved)
    relabelled = replace(known.clips, labels={"digit": ["9"] * N_CLIPS})
    with pytest.raises(ValueError, match=r"other values for the manifest's label column 'digit'.*otoscope label"):
        add_task(url, "t", known.origin, known.plan, relabelled)
    assert files(url) == before


@pytest.mark.parametrize("name", ["a/b", "", "__x", ".hidden", "t:label"])
def test_a_task_name_is_one_plain_word(known: Known, tmp_path: Path, name: str) -> None:
    create(str(tmp_path / "s"))
    with pytest.raises(ValueError, match="cannot name a task"):
        add_task(str(tmp_path / "s"), name, known.origin, known.plan, known.clips)


def test_labels_are_added_later_and_replaced_only_on_request(known: Known, url: str, tmp_path: Path) -> None:
    colours = ["rot", "grün, hell", ""] * (N_CLIPS // 3)
    add_labels(url, "t", {"colour": colours})
    add_labels(url, "t", {"colour": colours})
    with pytest.raises(ValueError, match=r"'colour' with other values.*--replace"):
        add_labels(url, "t", {"colour": ["x"] * N_CLIPS})
    with pytest.raises(ValueError, match=r"has 261 clips, label column 'colour' 3; expected one label per clip"):
        add_labels(url, "t", {"colour": ["x"] * 3})
    for generation, colour in ((2, "x"), (3, "y"), (4, "x")):  # the former one stays for those who read, no other
        reader = open_store(url)
        add_labels(url, "t", {"colour": [colour] * N_CLIPS}, overwrite=True)
        assert list(verify(url)) == []
        assert sorted(path.name for path in Path(url).glob("t/label_colour*")) == [
            "label_colour" if n == 1 else f"label_colour.{n}" for n in (generation - 1, generation)
        ]
        if generation == 3:
            assert set(reader["t"]["colour"].values.tolist()) == {"x"}
    add_labels(url, "t", {"colour": colours}, overwrite=True)
    with pytest.raises(
        ValueError, match=r"label_colour\.3 is gone: its label column was replaced .* open the store again"
    ):
        reader["t"]["colour"].load()


def test_incomplete_values_never_reach_the_store(known: Known, url: str) -> None:
    block, before = known.blocks()[0], files(url)
    values = known.values(block)
    with pytest.raises(ValueError, match="the plan keeps"):
        write_block(url, block, {"mean": values["mean"]}, known.status[block.clips], "v")
    with pytest.raises(ValueError, match="no final status"):
        write_block(url, block, values, np.zeros(len(block), "u1"), "v")
    assert files(url) == before


def test_identity_and_plan_survive_json(known: Known) -> None:
    assert Identity.from_json(known.identity.to_json()) == known.identity
    assert Plan.from_json(known.plan.to_json()) == known.plan
    with pytest.raises(ValueError, match="it is damaged, or was written by another version"):
        Plan.from_json({**known.plan.to_json(), "extra": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 0}, "at least 1"),
        ({"block": 3000}, "multiple of 2048"),
        ({"unit_sec": -1.0}, "seconds above 0"),
        ({"variables": ("mean", "meen")}, "no variable meen"),
        ({"mean_dtype": "int8"}, "float16 or float32"),
    ],
)
def test_impossible_plans_are_refused(known: Known, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(known.plan, **change)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["plan", "grow", "label"])
def test_stopped_before_any_write_of_metadata_a_rerun_gives_the_same_bytes(
    known: Known, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before, whole = str(tmp_path / "before"), str(tmp_path / "whole")
    if what == "plan":
        create(before)
    elif what == "grow":
        known.head(N_CLIPS - 3).begin(before)
        known.head(N_CLIPS - 3).write(before)
    else:
        shutil.copytree(url, before)

    def change(url: str) -> None:
        if what == "label":
            add_labels(url, "t", {"digit": ["x", "a", "b"] * (N_CLIPS // 3)}, overwrite=True)
        else:
            known.begin(url)

    shutil.copytree(before, whole)
    former = shown(before)
    change(whole)
    states = (former, shown(whole))
    n_writes, finished = 0, False
    while not finished:
        other = str(tmp_path / f"{n_writes}.zarr")
        shutil.copytree(before, other)
        reader = open_store(other, failed="keep")
        stop_after(n_writes, monkeypatch)
        try:
            change(other)
            finished = True
        except OSError:
            n_writes += 1
        monkeypatch.undo()
        assert damage(other) == []
        assert shown(other) in states
        stop_after(1, monkeypatch)  # and once more, by whoever would end it
        with suppress(OSError):
            change(other)
        monkeypatch.undo()
        assert damage(other) == []
        assert rows_of(reader) == former
        if what != "plan" and not finished:
            undone = str(tmp_path / "undone.zarr")
            shutil.rmtree(undone, ignore_errors=True)
            shutil.copytree(other, undone)
            restore_documents(undone, "t")
            assert damage(undone) == [d.what for d in verify(undone) if not d.pending] == []
            assert shown(undone) in states
        change(other)
        assert files(other) == files(whole), n_writes
    assert n_writes > 5


def with_prompt(known: Known, prompts: list[str]) -> Known:
    n = len(prompts)
    start = np.full(n, np.nan)
    clips = ClipTable(
        name=list(map(str, range(n))), path=["a.wav"] * n, start=start, stop=start, prompt=prompts, labels={}
    )
    return replace(known, clips=clips, plan=replace(known.plan, n_clips=n, **clips.digests))


@pytest.mark.slow
def test_one_long_prompt_of_many_clips_is_kept_once(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, n = str(tmp_path / "s.zarr"), 3 * 65_536 + 1
    monkeypatch.setattr(direct, "FREE_BYTES", 2**26)
    asked = with_prompt(known, ["What is heard here? " * 20] * n)  # 79 MB, beyond 64 for each clip and 64 MiB
    asked.begin(url)
    column = values_of(open_task(open_root(url), "t")[0], "prompt")
    assert column.tolist() == asked.clips.prompt
    assert len({id(text) for text in column}) < n
    assert list(verify(url)) == []
    with pytest.raises(ValueError, match=r"prompt holds \d+ bytes in \d+ clips; expected at most"):
        with_prompt(known, [f"{i:7} what is heard here? " * 40 for i in range(n)]).begin(str(tmp_path / "t.zarr"))


def test_names_that_cannot_all_differ_are_refused_before_they_are_read(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, n = str(tmp_path / "s.zarr"), 3 * 65_536
    monkeypatch.setattr(direct, "FREE_NAMES", 2**16)
    monkeypatch.setattr(store_verify, "FREE_NAMES", 2**16)
    start = np.full(n, np.nan)
    clips = ClipTable(name=["a"] * n, path=["a.wav"] * n, start=start, stop=start, labels={})
    replace(known, clips=clips, plan=replace(known.plan, n_clips=n, **clips.digests)).begin(url)
    with pytest.raises(ValueError, match="names, which cannot all differ"):
        otoscope.open(url)
    assert [damage.array for damage in verify(url)] == ["clip"]


def test_documents_that_no_reader_takes_are_not_written(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, n = str(tmp_path / "s.zarr"), N_CLIPS
    known.begin(url)
    before, size = files(url), (tmp_path / "s.zarr/t/zarr.json").stat().st_size
    columns = {f"label{i}": ["a"] * n for i in range(20)}
    with monkeypatch.context() as bounded:
        bounded.setattr(staged, "MAX_TASK_BYTES", size + 10_000)
        with pytest.raises(ValueError, match="take fewer label columns, or shorter"):
            add_labels(url, "t", columns)
    with monkeypatch.context() as bounded:
        bounded.setattr(tasks, "MAX_BYTES", size + 10_000)
        with pytest.raises(ValueError, match="take fewer label columns, or another"):
            add_labels(url, "t", columns)
    assert files(url) == before


def test_a_large_encoder_begun_by_a_run_that_was_killed_is_ended(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80 layers of 28,672 neurons the lock alone holds 12 MB, since it tells what a fixed sound gave."""
    url = str(tmp_path / "s.zarr")
    sites = tuple((str(i), 28_672) for i in range(80))
    wide = replace(known, identity=replace(known.identity, sites=sites))
    with monkeypatch.context() as killed:
        stop_after(2, killed)  # the root and the lock
        with pytest.raises(OSError, match="killed"):
            wide.begin(url)
    assert not (tmp_path / "s.zarr/t/zarr.json").exists()
    wide.begin(url)
    assert otoscope.open(url)["t"].sizes["layer"] == 80
