"""A service on a small store, made once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from ..support.running_service import ServedStore
    from ..support.tones import Tones


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> "ServedStore":
    """A store and its sounds; read only."""
    from ..support.running_service import made  # imported here, so that other tests need not wait for it

    return made(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(stored: "ServedStore", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[TestClient]":
    """A service that has done one job, ASKED."""
    from ..support.running_service import ASKED, done, serving

    with serving(stored, tmp_path_factory.mktemp("state") / "s") as client:
        done(client, **ASKED)
        yield client


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> "Tones":
    """A store of tones and their sounds; read only."""
    from ..support.tones import made

    return made(tmp_path_factory.mktemp("tones"))
