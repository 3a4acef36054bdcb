"""The token of Ray's clusters: one, however many runs start at once, and never another in its place."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from otoscope.cluster.ray_token import make_token


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray" / "auth_token"


def test_those_who_start_at_once_find_one_token(token: Path) -> None:
    def found(_: int) -> str:
        make_token()
        return token.read_text()

    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(found, range(64)))
    assert len(tokens) == 1
    assert len(tokens.pop()) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    assert list(token.parent.iterdir()) == [token]


@pytest.mark.parametrize(
    "named", [{"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "x"}, {"RAY_AUTH_MODE": "disabled"}]
)
def test_what_the_environment_names_counts(token: Path, named: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    make_token()
    assert not token.exists()
