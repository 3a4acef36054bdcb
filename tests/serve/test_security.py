"""What stands before the service: hosts, tokens, sizes, and forms of other pages."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from otoscope.serve.security import token_digest

from ..support.running_service import ASKED, NOBODY, ServedStore, serving


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "[::2]",
        "localhost, evil.example",
        "[::1]evil.com",
        "[::1]:80:80",
    ],
)
def test_unknown_hosts_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/health/live", headers={"Host": host})
    assert answer.status_code == 400
    assert "unknown host" in answer.json()["error"]


def test_known_hosts_pass_with_any_port(client: TestClient) -> None:
    for host in ("localhost", "LOCALHOST:1234", "127.0.0.1:80"):
        assert client.get("/health/live", headers={"Host": host}).status_code == 200


TOKEN = "correct-horse-battery-staple"


def test_a_token_is_demanded_everywhere_but_for_health(
    stored: ServedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(stored, tmp_path / "s", token=token_digest(TOKEN)) as client:
        close = ("/health/live/", "//health/live", "/health/%2e%2e/tasks")
        for path in ("/tasks", "/metrics", "/openapi.json", "/nowhere", "/?token=x", f"/ablations/{NOBODY}", *close):
            for wrong in (None, "Bearer ", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"):
                answer = client.get(path, headers={"Authorization": wrong} if wrong else {})
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            answer = client.get(path, headers={"Authorization": f"bearer {TOKEN}"})
            assert answer.status_code != 401
        twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
        assert client.get("/tasks", headers=twice).status_code == 401
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
        assert client.post("/ablations", json=ASKED).status_code == 401
        scheme = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
        assert scheme["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert TOKEN not in caplog.text
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_bodies_are_bounded_however_they_come(client: TestClient) -> None:
    as_json = {"Content-Type": "application/json"}

    def parts() -> Iterator[bytes]:  # sent in chunks, without a length
        for _ in range(100):
            yield b" " * 1000

    for content in (b" " * 70_000, parts()):
        answer = client.post("/ablations", content=content, headers=as_json)
        assert answer.status_code == 413
        assert "too large" in answer.json()["error"].lower()
    for length in ("99999999999999999999999", "70000"):
        assert (
            client.post("/ablations", content=b"{}", headers={**as_json, "Content-Length": length}).status_code == 413
        )
    assert client.post("/ablations", content=b"{", headers=as_json).status_code in (400, 422)
    assert client.post("/ablations", content=b"[" * 60_000, headers=as_json).status_code in (400, 422)


def test_forms_of_other_pages_are_refused(client: TestClient) -> None:
    """A page in a browser can post such bodies here without asking; JSON it cannot."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = client.post("/ablations", content=json.dumps(ASKED), headers={"Content-Type": kind})
        assert answer.status_code == 415
