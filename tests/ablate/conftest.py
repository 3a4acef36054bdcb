"""A service on a small store, made once; one thread of arithmetic."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from .served import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> "Place":
    """A store and its sounds; read only."""
    from .served import made  # imported here, so that other tests need not wait for it

    return made(tmp_path_factory.mktemp("served"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small models are slower with more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def client(place: "Place", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[TestClient]":
    """A service that has done one job, ASKED."""
    from .served import ASKED, done, serving

    with serving(place, tmp_path_factory.mktemp("state") / "s") as client:
        done(client, **ASKED)
        yield client
