"""Verify finds every flipped byte, every missing object, and two writes mixed in one block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from otoscope.store.changes.tasks import add_labels, add_task
from otoscope.store.verify import remedies, verify
from otoscope.store.writer import write_block

from ..support.known_store import Known
from ..support.stored_files import files


def damage(url: str) -> list[str]:
    try:
        return [str(d) for d in verify(url)]
    except (ValueError, OSError) as e:
        return [str(e)]


def test_an_intact_store_has_no_damage(url: str) -> None:
    assert list(verify(url)) == []


def data_files(url: str) -> list[str]:
    return [name for name in files(url) if not name.endswith("zarr.json")]


@pytest.mark.slow
def test_every_flipped_byte_is_found(url: str) -> None:
    rng = np.random.default_rng(0)
    names = data_files(url)
    kinds = {name.partition("/c/")[0]: name for name in names}
    assert len(kinds) == 22  # one file of every array
    for name in [*kinds.values(), *rng.choice(names, 20)]:
        path = Path(url) / name
        intact = path.read_bytes()
        broken = bytearray(intact)
        broken[rng.integers(len(intact))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(broken))
        assert damage(url), name
        path.write_bytes(intact)
    assert damage(url) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Object at")
def test_a_flipped_byte_in_metadata_is_found_or_harmless(known: Known, url: str) -> None:
    """A change in white space changes nothing that is read; the root's copy is what plain xarray reads."""
    rng = np.random.default_rng(1)
    for name in ("t/mean/zarr.json", "t/label_digit/zarr.json", "t/zarr.json", "zarr.json"):
        path = Path(url) / name
        intact = path.read_bytes()
        solid = [i for i, byte in enumerate(intact) if byte not in b" \n"]
        for at in rng.choice(solid, 12):
            broken = bytearray(intact)
            broken[at] ^= 1
            path.write_bytes(bytes(broken))
            try:
                assert damage(url), (name, at, intact[max(0, at - 20) : at + 20])
            except ValueError:  # of the root alone: without it there is no store
                assert name == "zarr.json"
            path.write_bytes(intact)


def test_a_task_whose_document_is_gone_is_found_and_begun_again_as_it_was(known: Known, url: str) -> None:
    """Another plan, and --replan, leave what is committed alone, and do not stand in the way of the right one."""
    own = Path(url) / "t/zarr.json"
    intact, whole = own.read_bytes(), files(url)
    own.unlink()
    (found,) = verify(url)
    assert str(found).startswith("t/zarr.json: the task's own document is gone")
    assert remedies([found]) == [
        "run the same `otoscope extract` again, with the options that each task was begun with"
    ]
    for replan in (False, True):
        with pytest.raises(ValueError, match=r"was begun otherwise; expected the same command"):
            add_task(url, "t", known.origin, replace(known.plan, block=64), known.clips, replan=replan)
        assert files(url) == {name: data for name, data in whole.items() if name != "t/zarr.json"}
    known.begin(url)
    assert own.read_bytes() == intact
    assert files(url) == whole


def test_a_root_that_is_behind_its_tasks_is_found_unless_a_change_is_under_way(known: Known, url: str) -> None:
    root = Path(url) / "zarr.json"
    before = root.read_bytes()
    add_labels(url, "t", {"x": ["y"] * len(known.clips)})
    after = root.read_bytes()
    root.write_bytes(before)
    assert [str(found).partition(":")[0] for found in verify(url)] == ["zarr.json"]
    lock = Path(url) / "t/lock.0123456789abcdef"
    lock.write_text("{}")
    (found,) = verify(url)
    assert "a change was begun and not completed" in found.what
    lock.unlink()
    known.begin(url)
    assert root.read_bytes() == after


@pytest.mark.parametrize("key", ["t/label_digit/zarr.json", "t/label_digit/c/0"])
def test_a_damaged_label_is_mended_as_the_remedy_says(known: Known, url: str, key: str) -> None:
    for broken in (b"{}", b"", None):
        add_labels(url, "t", {"digit": known.clips.labels["digit"]}, overwrite=True)
        label = max(Path(url).glob("t/label_digit*"), key=lambda path: path.stat().st_mtime_ns)
        object_ = Path(url) / key.replace("label_digit", label.name)
        object_.unlink() if broken is None else object_.write_bytes(broken)
        found = list(verify(url))
        assert "otoscope label STORE --task t MANIFEST --replace" in " ".join(remedies(found))
        add_labels(url, "t", {"digit": known.clips.labels["digit"]}, overwrite=True)
        assert list(verify(url)) == []


def test_a_missing_check_is_an_error_that_names_it(known: Known, url: str) -> None:
    (Path(url) / "t/check/c/0").unlink()
    with pytest.raises(FileNotFoundError, match="t/check/c/0 is missing"):
        known.begin(url)


@pytest.mark.slow
def test_every_missing_or_empty_object_is_found(url: str) -> None:
    kinds = {name.partition("/c/")[0]: name for name in data_files(url)}
    for kind, name in kinds.items():
        if kind == "t/status":
            continue  # a block without status is pending
        path = Path(url) / name
        intact = path.read_bytes()
        path.unlink()
        assert any(kind in line or "block" in line for line in damage(url)), name
        path.write_bytes(b"")
        assert damage(url), name
        path.write_bytes(intact)


@pytest.mark.parametrize("name", ["active_bits", "mean", "embedding", "reason"])
def test_a_block_mixed_of_two_writes_is_found(known: Known, url: str, tmp_path: Path, name: str) -> None:
    block = known.blocks()[4]
    values = known.values(block)
    values[name] = np.roll(values[name], 1, axis=-1) if name != "reason" else np.full_like(values[name], "late")
    other = str(tmp_path / "late.zarr")
    known.begin(other)
    write_block(other, block, values, known.status[block.clips], "code 1")
    for late in Path(other, "t", name, "c").rglob("*"):
        if late.is_file():
            Path(url, late.relative_to(other)).write_bytes(late.read_bytes())
    if name == "embedding":  # equal in every column: rolling it changes nothing
        assert damage(url) == []
    else:
        assert any("mixture" in line and f"t/{name} block 4" in line for line in damage(url))
