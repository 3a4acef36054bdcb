"""Stores of others that were made to do harm: no command takes much memory or time, ends in a traceback, or shows
other numbers than those that were stored.
"""

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from otoscope.store.group import record_in
from otoscope.store.writer import write_block

from ..support.amounts import some
from ..support.bounded_process import Bounded
from ..support.commands import extraction
from ..support.hostile_stores import (
    ARRAY_CHANGES,
    LOCKS,
    NAMES,
    Spoil,
    cases,
    change_array,
    put_lock,
    put_task,
    resign,
    with_controls,
)
from ..support.known_store import Known, make_known

CASES = list(cases())
UNSEEN = "\x1b\x07\x9b\r\u202e\u2028"


def asked(url: Path, labels: Path, corpus: Path) -> dict[str, tuple[object, ...]]:
    """Commands, those first that read most."""
    neurons = ("neurons", url, "--task", "t:digit", "--percentile", 40)
    return {
        "verify": ("verify", url), "everything": ("python", "everything", url), "info": ("info", url),
        "neurons": neurons, "status": ("status", "--failures", url), "probability": ("python", "probability", url),
        "table": ("table", "stats", url, "--task", "t:digit"),
        "exemplars": ("exemplars", url, "--task", "t", "--neuron", "0,3"),
        "extract": extraction(url, corpus),
        "label": ("label", url, "--task", "t", labels),
        "reset": ("verify", "--reset", url),
    }  # fmt: skip


READING = ("everything", "neurons", "probability", "table", "exemplars")
"""Whose output is all of what a store holds: it is right, or there is none."""


@pytest.fixture(scope="module")
def bounded() -> Iterator[Bounded]:
    with Bounded() as process:
        yield process


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Known, Path, Path]:
    """A finished store of three blocks, and labels for it."""
    folder = tmp_path_factory.mktemp("small")
    known = make_known(70)
    known.begin(str(folder / "s"))
    known.write(str(folder / "s"))
    table = ["clip,new", *(f"{name},x" for name in known.clips.name)]
    (folder / "labels.csv").write_text("\n".join(table), "utf-8")
    return known, folder / "s", folder / "labels.csv"


def copied(store: Path, folder: Path, spoil: Spoil) -> Path:
    copy = folder / "s"
    folder.mkdir(exist_ok=True)
    shutil.copytree(store, copy, copy_function=os.link)
    spoil(copy)
    return copy


def check(
    bounded: Bounded,
    small: tuple[Known, Path, Path],
    corpus: Path,
    folder: Path,
    chosen: list[tuple[str, Spoil]],
    whole: bool,
) -> None:
    """Run commands on spoilt stores. whole: two that read all and another, else `verify` and one, by turns."""
    _, store, labels = small
    truth = {
        name: bounded.run(*command).out for name, command in asked(store, labels, corpus).items() if name in READING
    }
    assert all(truth.values())
    harm = []
    for i, (name, spoil) in enumerate(chosen):
        inside = folder / str(i)
        inside.mkdir()
        url = copied(store, inside, spoil)
        commands = asked(url, labels, corpus)
        first, others = [*commands][:2], [*commands][2:]
        if not whole or name.startswith(("plan.", "identity.")):  # all commands read these records in one way
            first = ["verify"]
        for command in (*first, others[i % len(others)]):  # what mends comes last
            outcome = bounded.run(*commands[command])
            wrong = outcome.harm
            if not wrong and command in READING and outcome.status == 0 and outcome.out not in (truth[command], "[]\n"):
                wrong = "other numbers"
            if wrong:
                harm.append(f"{name}: {command}: {wrong}")
        shutil.rmtree(inside, ignore_errors=True)
    assert not harm, f"{len(harm)} of {len(chosen)}:\n" + "\n".join(harm)


def test_there_are_enough_hostile_stores() -> None:
    assert len({name for name, _ in CASES}) == len(CASES) >= 500


def test_arrays_that_are_not_those_of_the_plan_are_named(small: tuple[Known, Path, Path], tmp_path: Path) -> None:
    """Before anything of them is read, though all digests agree."""
    for i, (array, change) in enumerate(ARRAY_CHANGES.values()):
        url = copied(small[1], tmp_path / str(i), partial(resign, partial(change_array, array, change)))
        document = json.loads((url / "t/zarr.json").read_bytes())
        with pytest.raises(ValueError, match=rf"its arrays are not those of its plan: {array}\."):
            record_in("t", document)


def test_some_hostile_stores(bounded: Bounded, small: tuple[Known, Path, Path], corpus: Path, tmp_path: Path) -> None:
    check(bounded, small, corpus, tmp_path, CASES[::29], whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(some(1, of=7)))  # a seventh has each value, and a value of each field
def test_every_hostile_store(
    bounded: Bounded, small: tuple[Known, Path, Path], corpus: Path, tmp_path: Path, part: int
) -> None:
    check(bounded, small, corpus, tmp_path, CASES[part::7], whole=True)


def test_no_control_character_of_a_store_reaches_the_terminal(
    bounded: Bounded, small: tuple[Known, Path, Path], corpus: Path, tmp_path: Path
) -> None:
    """Whatever is asked, of a store whose every name, label, path, reason and version has some."""
    odd, url = with_controls(small[0]), tmp_path / "s"
    odd.begin(str(url))
    for block in odd.blocks():
        values = odd.values(block)
        values["reason"][:] = f"{NAMES}\n"
        write_block(str(url), block, values, odd.status[block.clips], NAMES)
    commands = asked(url, small[2], corpus) | {
        "overlap": ("table", "overlap", url, "--task", "t:digit", "--percentile", 40),
        "null": ("null", url, "--task", "t:digit", "--percentile", 40, "--permutations", 20),
        "category": ("ablate", "set", url, "--task", "t:digit", "--set", "all(none)"),
        "task": ("neurons", url, "--task", "none:digit"),
        "export": ("export", url, "--task", "t:digit", tmp_path / "p"),
    }  # fmt: skip
    for name in ("status", "info", "neurons", "table", "exemplars", "overlap", "null"):
        assert bounded.run(*commands[name]).status == 0, name
    (url / "t/mean/c/0/1/0").unlink()
    everything = [*commands]
    for spoil, names in ((lambda _: None, everything), (spoilt_around, ("verify", "status", "label", "reset"))):
        copy = tmp_path / "copy"
        shutil.copytree(url, copy)
        spoil(copy)
        for name in names:
            outcome = bounded.run(*(copy if part == url else part for part in commands[name]))
            assert not outcome.harm, (name, outcome.harm)
            assert not set(UNSEEN) & set(outcome.out + outcome.err), (name, outcome.out, outcome.err)
        shutil.rmtree(copy)


def spoilt_around(store: Path) -> None:
    """A lock and a task whose names have control characters, too."""
    put_lock({**LOCKS["names"], "machine": f"{NAMES}"}, store)
    put_task(NAMES, store)
