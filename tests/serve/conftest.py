"""A service on a small store, made once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from ..support.running_service import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> "Place":
    """A store and its sounds; read only."""
    from ..support.running_service import made  # imported here, so that other tests need not wait for it

    return made(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(place: "Place", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[TestClient]":
    """A service that has done one job, ASKED."""
    from ..support.running_service import ASKED, done, serving

    with serving(place, tmp_path_factory.mktemp("state") / "s") as client:
        done(client, **ASKED)
        yield client
