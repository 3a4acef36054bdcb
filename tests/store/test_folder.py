"""Objects of a local store are regular files in it: nothing else is read, and nothing is written elsewhere."""

import os
from pathlib import Path

import pytest

from otoscope.store.changes.tasks import add_labels
from otoscope.store.folder import Folder
from otoscope.store.objects import delete, delete_folder, exist, get, names_in, put_all, put_new


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "s/inside").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for name in ("s/inside/object", "outside/object"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "s/away").symlink_to(tmp_path / "outside")
    (tmp_path / "s/back").symlink_to(tmp_path / "s/inside")
    (tmp_path / "s/file").symlink_to(tmp_path / "outside/object")
    (tmp_path / "s/loop").symlink_to(tmp_path / "s/loop")
    os.mkfifo(tmp_path / "s/pipe")
    (tmp_path / "s/zero").symlink_to("/dev/zero")
    return Folder(tmp_path / "s", read_only=False)


def test_objects_and_links_within_the_store_are_read(folder: Folder) -> None:
    assert get(folder, "inside/object") == get(folder, "back/object") == b"s/inside/object"
    assert get(folder, "inside/none") is None
    assert get(folder, "inside/object/none") is None
    assert exist(folder, ["inside/object", "inside/none"]) == [True, False]


@pytest.mark.parametrize("key", ["away/object", "file", "zero", "../outside/object"])
def test_nothing_outside_is_read(folder: Folder, key: str) -> None:
    with pytest.raises(ValueError, match="leads out of the store"):
        get(folder, key)
    assert exist(folder, [key]) == [True]  # so that it is not called absent


@pytest.mark.parametrize("key", ["pipe", "inside"])
def test_what_is_not_a_regular_file_is_not_read(folder: Folder, key: str) -> None:
    with pytest.raises(ValueError, match="is not a regular file"):
        get(folder, key)


def test_nothing_is_written_or_deleted_outside(folder: Folder, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    for change in (
        lambda: put_all(folder, {"away/object": b"x"}), lambda: put_new(folder, "away/new", b"x"),
        lambda: delete(folder, ["away/object"]), lambda: delete_folder(folder, "away"),
        lambda: names_in(folder, "away"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="leads out of the store"):
            change()
    put_all(folder, {"file": b"x"})  # takes the link's place
    assert get(folder, "file") == b"x"
    assert {path: path.read_bytes() for path in (tmp_path / "outside").iterdir()} == before


def test_a_larger_object_than_there_can_be_is_not_read(folder: Folder) -> None:
    assert get(folder, "inside/object", 15) == b"s/inside/object"
    with pytest.raises(ValueError, match="it has 15 bytes; expected at most 14"):
        get(folder, "inside/object", 14)


def test_labels_are_not_written_through_a_link(url: str, tmp_path: Path) -> None:
    outside = tmp_path / "away"
    (Path(url) / "t").rename(outside)
    (Path(url) / "t").symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(ValueError, match="leads out of the store"):
        add_labels(url, "t", {"x": ["y"]})
    assert sorted(outside.rglob("*")) == before
