"""What stands before the service: hosts, tokens, sizes, and forms of other pages."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

from otoscope.serve.metrics import Metrics
from otoscope.serve.security import Guard, token_digest
from otoscope.serve.settings import Settings

from ..support.running_service import ASKED, NOBODY, ServedStore, serving


def bare(state: Path, **more: Any) -> Settings:
    """Of a server without anything."""
    return Settings(**{"stores": (), "state": state, "workers": nullcontext, **more})


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


def test_a_host_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """Whatever the server was started for."""
    guard = Guard(lambda *_: None, bare(tmp_path, hosts=("", "localhost")), Metrics())
    scope = {"type": "http", "path": "/api/health/live", "method": "GET"}
    for host, status in (("localhost", None), ("[::1]evil.com", 400), ("", 400)):
        refused = guard._refusal(scope, Headers({"host": host}))
        assert (refused and refused.status_code) == status


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/my store/s.zarr/c/0 is damaged", "the store/c/0 is damaged"),
        ("s3://bucket/s.zarr: no answer", "the store: no answer"),
        ("/data/the audio/a b.wav: cannot be decoded", "the audio/a b.wav: cannot be decoded"),
        ("/mnt/clips/a b.wav: cannot be decoded", "the audio/a b.wav: cannot be decoded"),
        ("/mnt/clips2/x", "{}"),
        ("No such file: '/home/me/a b.wav'", "No such file: {}"),
        (repr('/home/it\'s/a "b".wav') + " is gone", "{} is gone"),
        ("file:///home/me/x, s3://other/x, gs://x", "{}, {}, {}"),
        (r"C:\Users\me or d:/me, \\server\me", "{} or {}, {}"),
        (repr(r"C:\Users\my self\x.wav"), "{}"),
        ("~/x in PATH=/usr/x:/y", "{} in PATH={}"),
        ("'/home/no end", "{}"),
        ("and/or 1/2 (0,1)/(2,3) t:letter s", "and/or 1/2 (0,1)/(2,3) t:letter s"),
    ],
)
def test_no_location_is_shown(tmp_path: Path, text: str, shown: str) -> None:
    corpora = {"t": ("/data/the audio/m.csv", None), "u": ("s3://bucket/m.csv", "/mnt/clips")}
    settings = bare(tmp_path, stores=("/data/my store/s.zarr", "s3://bucket/s.zarr"), corpora=corpora)
    assert settings.redact(text) == shown.replace("{}", "(a path of the server)")


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
