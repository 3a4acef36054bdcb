"""Files of others that were made to do harm: no command takes much memory or time, ends in a traceback, or takes them
for what they are not.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.amounts import some
from ..support.bounded_process import Bounded
from ..support.hostile_files import Case, asking_probe, cases, probes
from ..support.known_store import make_known

CASES = list(cases())
HARMLESS = ("parquet neurons metadata", "parquet neurons index", "published gradient")
"""Files that say something, after all."""


@pytest.fixture(scope="module")
def bounded() -> Iterator[Bounded]:
    with Bounded() as process:
        yield process


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    url = tmp_path_factory.mktemp("small") / "s"
    known = make_known(70)
    known.begin(str(url))
    known.write(str(url))
    return url


def check(bounded: Bounded, store: Path, folder: Path, chosen: list[tuple[str, Case]]) -> None:
    harm = []
    for i, (name, case) in enumerate(chosen):
        inside = folder / str(i)
        inside.mkdir()
        shutil.copytree(store, inside / "s", copy_function=os.link)
        outcome = bounded.run(*case(inside))
        wrong = outcome.harm or ("it was taken" if outcome.status == 0 and name not in HARMLESS else "")
        if wrong:
            harm.append(f"{name}: {wrong}")
        shutil.rmtree(inside)
    assert not harm, f"{len(harm)} of {len(chosen)}:\n" + "\n".join(harm)


def test_there_are_enough_hostile_files() -> None:
    assert len({name for name, _ in CASES}) == len(CASES) >= 200


def test_some_hostile_files(bounded: Bounded, store: Path, tmp_path: Path) -> None:
    check(bounded, store, tmp_path, CASES[::19])


@pytest.mark.slow
def test_every_hostile_file(bounded: Bounded, store: Path, tmp_path: Path) -> None:
    check(bounded, store, tmp_path, CASES[:: some(3, of=1)])


def test_a_probe_as_it_should_be_is_taken(bounded: Bounded, tmp_path: Path) -> None:
    """So that those that are refused are refused for what is wrong with them."""
    (whole,) = [asking_probe(about, tensors, tmp_path) for name, about, tensors in probes() if name == "whole"]
    assert bounded.run(*whole).status == 0
