"""What a store says of itself takes little memory, however many clips its plan names."""

import gc
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from otoscope.store import group
from otoscope.store.changes.tasks import add_labels
from otoscope.store.group import categories_of, open_root, open_task
from otoscope.store.provenance import digest_of
from otoscope.store.schema import NAME_CHUNK
from otoscope.store.status import describe

from ..support.hostile_stores import replan, resign
from ..support.known_store import make_known


@pytest.fixture
def store(tmp_path: Path) -> Path:
    known = make_known(70)
    known.begin(str(tmp_path))
    known.write(str(tmp_path))
    return tmp_path


def test_categories_are_those_of_the_column(store: Path) -> None:
    add_labels(str(store), "t", {"odd": ["b", "", "a", "10", "9"] * 14, "number": ["10", "9"] * 35, "none": [""] * 70})
    labels = describe(str(store))["tasks"]["t"]["labels"]
    assert (labels["odd"], labels["number"], labels["none"]) == (["10", "9", "a", "b"], ["9", "10"], [])


class Text(str):
    """A string that can be waited for to be forgotten."""


def test_the_strings_of_one_object_are_forgotten_before_the_next(
    store: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    gc.freeze()  # what other tests left in this process is not looked through each time
    request.addfinalizer(gc.unfreeze)
    resign(partial(replan, {}, {"n_clips": 9 * NAME_CHUNK, "block": 2048}), store)
    made: list[weakref.ref[str]] = []

    def string_objects(_: object, numbers: range) -> Iterator[list[str]]:
        for _ in numbers:
            gc.collect()
            assert sum(ref() is not None for ref in made) <= 3 + 2 * 4  # one of each name, and those of two objects
            strings: list[str] = [Text(name) for name in ("b", "a", "b", "")]
            made.extend(map(weakref.ref, strings))
            yield strings

    monkeypatch.setattr(group, "string_objects", string_objects)
    task, record = open_task(open_root(str(store)), "t")
    array = record.labels["digit"].array
    assert categories_of(task, array, digest_of(["b", "a", "b", ""] * 9)) == ["a", "b"]
    with pytest.raises(ValueError, match="its values are others than those that were written"):
        categories_of(task, array, digest_of(["b", "a", "b", ""] * 8))


def test_names_that_cannot_be_are_asked_first(store: Path) -> None:
    resign(partial(replan, {}, {"n_clips": 10**7, "block": 2048}), store)
    for path in (store / "t/status/c").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"t/clip has \d+ bytes for 10000000 names, which cannot all differ"):
        describe(str(store))
