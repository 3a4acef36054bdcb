"""The known store, and where stores may be."""

from pathlib import Path

import pytest

from ..support.known_store import Known, make_known
from ..support.s3_server import BUCKET


@pytest.fixture(scope="session")
def known() -> Known:
    return make_known()


@pytest.fixture
def url(tmp_path: Path, known: Known) -> str:
    """A finished store."""
    path = str(tmp_path / "known.zarr")
    known.begin(path)
    known.write(path)
    return path


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made: a local path, or a URL."""
    if request.param == "local":
        return str(tmp_path / "store.zarr")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{tmp_path.name}/store.zarr"
